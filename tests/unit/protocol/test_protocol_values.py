from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from headwater_protocol.errors import ProtocolError, RequestError
from headwater_protocol.limits import VALUE_DEPTH_MAX
from headwater_protocol.values import (
    Int64,
    canonical_bytes,
    check_value,
    pack_value,
    scan_value,
    unpack_value,
)


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth - 1):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**63, "an integer from -2^63 to 2^63-1"),
        (-(2**63) - 1, "an integer from -2^63 to 2^63-1"),
        ("\ud800", "valid Unicode text"),
        ({"\udfff": 1}, "valid Unicode text"),
        ({1: 2}, "text keys"),
        ({b"a": 2}, "text keys"),
        (datetime(2026, 1, 1), "time zone"),
        ({1, 2}, "got set"),
        (object(), "got object"),
        (1j, "got complex"),
    ],
)
def test_what_is_no_value_is_refused_with_its_place(value: Any, expected: str) -> None:
    with pytest.raises(RequestError) as caught:
        pack_value({"a": [0, value]})
    assert caught.value.code == "invalid_arguments"
    assert expected in caught.value.message
    assert "$.a[1]" in caught.value.message


def test_depth_is_limited() -> None:
    check_value(nested(VALUE_DEPTH_MAX))
    scan_value(pack_value(nested(VALUE_DEPTH_MAX)))
    with pytest.raises(RequestError):
        check_value(nested(VALUE_DEPTH_MAX + 1))
    with pytest.raises(ProtocolError):
        scan_value(b"\x91" * VALUE_DEPTH_MAX + b"\x90")


def test_a_value_that_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value.append(value)
    with pytest.raises(RequestError):
        pack_value(value)


def test_datetimes_come_back_as_the_same_moment() -> None:
    moment = datetime(2026, 7, 1, 12, 30, 1, 7, tzinfo=timezone(timedelta(hours=-3)))
    back = unpack_value(pack_value(moment))
    assert back == moment
    assert back.tzinfo is UTC


def test_marked_integers_stay_marked() -> None:
    back = unpack_value(pack_value({"n": Int64(3)}))["n"]
    assert type(back) is Int64
    assert back == 3
    with pytest.raises(RequestError):
        pack_value(Int64(2**63))


@pytest.mark.parametrize("data", [b"\xa3ab", b"\x91\xcd\x01", b"\xc5\x00\x05abcd", b"\xd6\x01\x00", b"\xd9"])
def test_the_scan_sees_that_bytes_end_inside(data: bytes) -> None:
    with pytest.raises(ProtocolError, match="end inside"):
        scan_value(data)


@pytest.mark.parametrize(
    "data", [b"", b"\xc1", b"\x92\x01", b"\x01\x01", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff"]
)
def test_the_scan_refuses_what_is_not_one_value(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        scan_value(data)


def test_the_scan_refuses_a_memory_bomb_without_building_it() -> None:
    bomb = b"\xdd\x00\x10\x00\x00" + b"\x80" * (1 << 20)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="memory"):
        scan_value(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


@pytest.mark.parametrize(
    "value",
    [list(range(20_000)), ["ab"] * 20_000, [{}] * 10_000, {str(n): n for n in range(20_000)}, "x" * 10**6],
)
def test_the_scan_takes_ordinary_values(value: Any) -> None:
    scan_value(pack_value(value))


def test_canonical_bytes_are_equal_exactly_for_equal_values() -> None:
    one = {"b": [{"d": 1, "c": 2}], "a": (1, 2)}
    same = {"a": [1, 2], "b": [{"c": 2, "d": 1}]}
    assert canonical_bytes(one) == canonical_bytes(same)
    assert unpack_value(canonical_bytes(one)) == same
    for other in ({"a": [1, 2]}, same | {"a": [2, 1]}, same | {"a": [1.0, 2]}, same | {"a": [True, 2]}):
        assert canonical_bytes(other) != canonical_bytes(one)
    with pytest.raises(RequestError):
        canonical_bytes({1: 2})
