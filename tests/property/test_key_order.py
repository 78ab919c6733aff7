from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone
from functools import cmp_to_key
from typing import Any

from headwater_storage.keys import MISSING, decode_fields, encode_fields, prefix_range, successor
from hypothesis import example, given, settings
from hypothesis import strategies as st

BIG = 1 << 53
integers = st.one_of(
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-3, 3),
    st.integers(BIG - 3, BIG + 3),
    st.integers(-BIG - 3, -BIG + 3),
    st.integers((1 << 63) - 3000, (1 << 63) - 1),
    st.integers(-(1 << 63), -(1 << 63) + 3000),
)
numbers = st.one_of(integers, st.floats(), st.floats(-10, 10), integers.map(float))
datetimes = st.datetimes(
    min_value=datetime(1, 1, 3),
    max_value=datetime(9999, 12, 29),
    timezones=st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours))),
)
texts = st.one_of(st.text(), st.text("\0\1\2ab\U0001f600\uffff", max_size=6))
raws = st.one_of(st.binary(), st.binary(max_size=3), st.lists(st.sampled_from([0, 1, 2, 255])).map(bytes))
scalars = st.one_of(st.none(), st.booleans(), numbers, datetimes, texts, raws)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=8,
)
fields = st.one_of(st.just(MISSING), values)


def rank(value: Any) -> int:
    kinds: list[Any] = [type(MISSING), type(None), bool, (int, float), datetime, str, bytes, list, dict]
    return next(i for i, kind in enumerate(kinds) if isinstance(value, kind))


def compare(a: Any, b: Any) -> int:
    """The order of values as the documentation words it, independent of any encoding."""
    if rank(a) != rank(b):
        return -1 if rank(a) < rank(b) else 1
    if isinstance(a, list):
        for x, y in zip(a, b, strict=False):
            if order := compare(x, y):
                return order
        return (len(a) > len(b)) - (len(a) < len(b))
    if isinstance(a, dict):
        return compare(*([part for name in sorted(d) for part in (name, d[name])] for d in (a, b)))
    if isinstance(a, int | float) and not isinstance(a, bool):
        nan_a, nan_b = (isinstance(x, float) and math.isnan(x) for x in (a, b))
        if nan_a or nan_b:
            return nan_a - nan_b
    if isinstance(a, str):
        a, b = a.encode(), b.encode()
    if a is None or a is MISSING:
        return 0
    return (a > b) - (a < b)


def sign(x: bytes, y: bytes) -> int:
    return (x > y) - (x < y)


@settings(max_examples=600)
@given(st.lists(fields, min_size=1, max_size=3), st.lists(fields, min_size=1, max_size=3))
@example([2**53 + 1], [float(2**53)])
@example([-(2**53) - 1], [float(-(2**53))])
@example([2**63 - 1], [float(2**63)])
@example([0.0], [-0.0])
@example([math.inf], [math.nan])
@example(["a"], ["a\0"])
@example([["a"], 1], [["a", 1]])
def test_byte_order_of_tuples_is_the_order_of_their_values(a: list[Any], b: list[Any]) -> None:
    # As elements of a tuple: a shorter tuple is a prefix and sorts first.
    assert sign(encode_fields(a), encode_fields(b)) == compare(a, b)


@settings(max_examples=300)
@given(numbers, numbers)
def test_numbers_compare_by_exact_value_whatever_their_type(a: float, b: float) -> None:
    assert sign(encode_fields([a]), encode_fields([b])) == compare(a, b)


@settings(max_examples=300)
@given(st.lists(fields, max_size=3), st.lists(fields, max_size=2), fields)
def test_a_prefix_range_has_exactly_the_tuples_that_begin_with_the_prefix(
    head: list[Any], rest: list[Any], other: Any
) -> None:
    prefix = encode_fields(head)
    whole = encode_fields([*head, *rest])
    assert whole.startswith(prefix)
    assert whole == prefix + encode_fields(rest)
    if head:
        lo, hi = prefix_range(prefix)
        assert lo <= whole < hi
        different = encode_fields([*head[:-1], other, *rest])
        assert (lo <= different < hi) == (compare(other, head[-1]) == 0)


@given(st.lists(fields, max_size=4))
def test_fields_can_be_decoded_for_display(row: list[Any]) -> None:
    encoded = encode_fields(row)
    assert compare(decode_fields(encoded), row) == 0
    assert encode_fields(decode_fields(encoded)) == encoded


@given(st.binary(min_size=1).filter(lambda raw: raw.strip(b"\xff") != b""), st.binary(max_size=4))
def test_the_successor_lies_above_all_that_begin_with_the_prefix_and_nothing_in_between(
    prefix: bytes, rest: bytes
) -> None:
    above = successor(prefix)
    assert prefix + rest < above
    assert above[:-1] + bytes([above[-1] - 1]) == prefix[: len(above)]


def test_sorting_by_key_sorts_as_documented() -> None:
    row = [
        MISSING, None, False, True, -math.inf, -(1 << 63), -1.5, 0, 0.5, 2**53, 2**53 + 1, math.inf, math.nan,
        datetime(1969, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, tzinfo=UTC), "", "a", "ab", "b", "\U0001f600",
        b"", b"\0", b"\0\0", b"\1", [], [None], [1], [1, 2], {}, {"a": 1}, {"a": 1, "b": 0}, {"b": 0},
    ]  # fmt: skip
    assert sorted(row, key=cmp_to_key(compare)) == row
    assert sorted(row, key=lambda value: encode_fields([value])) == row
