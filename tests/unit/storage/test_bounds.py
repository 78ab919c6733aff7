import random
from typing import Any, NamedTuple

import pytest
from headwater_protocol.errors import RequestError
from headwater_protocol.ids import TIME_US_MAX
from headwater_storage.bounds import first_us, index_bounds, key_bounds, narrowed


class Bound(NamedTuple):
    value: Any
    inclusive: bool


PREFIX = b"\x80\x00\x00\x05"


def fits(us: int, value: float, *, above: bool) -> bool:
    return us / 1000 > value or (not above and us / 1000 == value)


def test_first_us_is_the_first_that_fits() -> None:
    rng = random.Random(1)
    for _ in range(3000):
        us = rng.choice([rng.randrange(10**4), rng.randrange(2 * 10**15), rng.randrange(TIME_US_MAX)])
        value = rng.choice([us / 1000, us / 1000 + rng.random() / 1000, float(us // 1000), us // 1000])
        for above in (False, True):
            found = first_us(value, above=above)
            assert found > TIME_US_MAX or fits(found, value, above=above)
            assert found == 0 or not fits(found - 1, value, above=above)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (-1, 0), (float("-inf"), 0), (None, 0), (False, 0),
        (float("inf"), TIME_US_MAX + 1), (float("nan"), TIME_US_MAX + 1), ("text", TIME_US_MAX + 1),
        (1e300, TIME_US_MAX + 1), (2**63 - 1, TIME_US_MAX + 1),
    ],
)  # fmt: skip
def test_first_us_of_what_is_no_time(value: Any, expected: int) -> None:
    assert first_us(value, above=False) == expected
    assert first_us(value, above=True) == expected


def test_bounds_lie_inside_the_equality_prefix() -> None:
    outer = index_bounds(PREFIX, 2, ["a"], None, None)
    for lower, upper in (
        (Bound(1, True), None),
        (None, Bound("x", False)),
        (Bound(None, False), Bound({}, True)),
        (Bound("y" * 600, True), Bound("z" * 600, False)),
    ):
        bounds = index_bounds(PREFIX, 2, ["a"], lower, upper)
        assert outer[0] <= bounds[0] < bounds[1] <= outer[1]


def test_bounds_that_exclude_everything_are_empty() -> None:
    bounds = index_bounds(PREFIX, 1, [], Bound(2, False), Bound(1, False))
    assert bounds[0] >= bounds[1]


def test_too_many_values_are_refused() -> None:
    with pytest.raises(RequestError):
        index_bounds(PREFIX, 1, ["a", "b"], None, None)


def test_positions_never_widen_a_range() -> None:
    rng = random.Random(2)
    for _ in range(500):
        lo, hi = sorted(PREFIX + rng.randbytes(rng.randint(1, 3)) for _ in range(2))
        positions = [rng.choice([None, rng.randbytes(rng.randint(0, 600))]) for _ in range(2)]
        narrow = narrowed((lo, hi), PREFIX, *positions, descending=rng.random() < 0.5)
        assert lo <= narrow[0]
        assert narrow[1] <= hi


def test_long_bounds_are_cut_and_kept_for_comparison() -> None:
    lo, hi = PREFIX + b"a" * 600, PREFIX + b"b" * 600
    bounds = key_bounds((lo, hi))
    assert bounds.exact == (lo, hi)
    assert bounds.lo == lo[:480]
    assert hi[:480] < bounds.hi < hi[:479] + b"d"
    assert key_bounds((lo[:100], hi[:100])) == (lo[:100], hi[:100], None)
