"""What a value may be, and its bytes.

Pure. Arguments, results and the data of application errors are values: null, booleans,
integers from -2^63 to 2^63-1, floats, valid Unicode text, bytes, lists, dicts with text
keys, and aware datetimes. `Int64` marks an integer that a client whose numbers are doubles
must take as a 64-bit one, however small it is.

The bytes are msgpack in its shortest form; a datetime is the timestamp extension (-1) of
whole microseconds, an `Int64` extension 1 of 8 bytes, big-endian, two's complement.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast

import msgpack

from headwater_protocol.elements import UnexpectedElement, step
from headwater_protocol.errors import ProtocolError, RequestError
from headwater_protocol.limits import VALUE_DEPTH_MAX

INT_MIN, INT_MAX = -(2**63), 2**63 - 1
INT64_EXTENSION = 1
_INT64_BYTES = 8
_MEMORY_FLOOR_BYTES = 1 << 20
_MEMORY_FACTOR = 24
_CONTAINER_BYTES = 72  # what CPython needs for an empty dict and its place in a list
_ELEMENT_BYTES = 48
_SHARED_BYTES = 8  # null, booleans, small integers and the empty text exist once


class Int64(int):
    """An integer that is marked on the wire as a 64-bit one: a BigInt in TypeScript."""

    __slots__ = ()


# ------------------------------------------------------------------------------------------- checking


def check_value(value: Any, path: str = "$") -> None:
    """Check that `value` can cross the wire and come back equal.

    Args:
        value: What a caller wants to send.
        path: What to call it in the error.

    Raises:
        RequestError: `invalid_arguments`, naming the place, what was expected and what stood there.
    """
    _check(value, path, 0)


def _check(value: Any, path: str, depth: int) -> None:
    kind = type(value)
    if value is None or kind in _FREE:
        return
    if kind is str:
        _check_text(value, path)
    elif kind is int or kind is Int64:
        if not INT_MIN <= value <= INT_MAX:
            raise _refused(path, "an integer from -2^63 to 2^63-1", "a larger one")
    elif kind is datetime:
        if value.utcoffset() is None:
            raise _refused(path, "a datetime with a time zone", "one without")
    elif kind is dict or kind is list or kind is tuple:
        if depth >= VALUE_DEPTH_MAX:
            raise _refused(path[:80], f"at most {VALUE_DEPTH_MAX} lists and dicts inside one another", "more")
        _check_items(value, path, depth + 1)
    else:
        raise _refused(
            path, "a value (null, bool, int, float, str, bytes, list, dict, datetime)", kind.__name__
        )


_FREE = frozenset({bool, float, bytes})


def _check_items(value: Any, path: str, depth: int) -> None:
    if type(value) is not dict:
        for place, item in enumerate(value):
            _check(item, f"{path}[{place}]", depth)
        return
    for key, item in value.items():
        if type(key) is not str:
            raise _refused(path, "text keys", f"a key of type {type(key).__name__}")
        _check_text(key, f"{path} key")
        _check(item, f"{path}.{key}", depth)


def _check_text(value: str, path: str) -> None:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise _refused(path, "valid Unicode text", "an unpaired surrogate") from None


def _refused(path: str, expected: str, got: str) -> RequestError:
    return RequestError(f"expected {expected}, got {got} - at `{path}`", code="invalid_arguments")


# ------------------------------------------------------------------------------------------- packing


def pack_value(value: Any, path: str = "$") -> bytes:
    """Return the bytes of a value. Tuples are packed as lists.

    Raises:
        RequestError: It is no value; see `check_value`.
    """
    check_value(value, path)
    return cast("bytes", msgpack.packb(value, default=_pack_marked, datetime=True, strict_types=True))


def canonical_bytes(value: Any) -> bytes:
    """Return bytes that are equal exactly if the values are: of maps with their keys in order.

    Raises:
        RequestError: It is no value; see `check_value`.
    """
    check_value(value)
    return pack_value(_ordered(value))


def _ordered(value: Any) -> Any:
    if type(value) is dict:
        return {key: _ordered(value[key]) for key in sorted(value)}
    if type(value) in (list, tuple):
        return [_ordered(item) for item in value]
    return value


def _pack_marked(value: Any) -> Any:
    if isinstance(value, Int64):
        return msgpack.ExtType(INT64_EXTENSION, int(value).to_bytes(_INT64_BYTES, "big", signed=True))
    if isinstance(value, datetime):
        return value.astimezone(UTC)
    return list(value)


def unpack_value(data: bytes) -> Any:
    """Return the value whose bytes these are.

    Costs memory in proportion to `data`, but up to 70 times its size; see `scan_value` for
    bytes of unknown origin.

    Raises:
        ProtocolError: They are not the bytes of one value.
    """
    try:
        return msgpack.unpackb(data, timestamp=3, ext_hook=_unpack_marked)
    except ProtocolError:
        raise
    except (ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"value: expected one encoded value: {error or type(error).__name__}") from None


def _unpack_marked(code: int, data: bytes) -> Int64:
    if code != INT64_EXTENSION or len(data) != _INT64_BYTES:
        raise ProtocolError(f"value: expected extension 1 of 8 bytes, got {code} of {len(data)}")
    return Int64(int.from_bytes(data, "big", signed=True))


# ------------------------------------------------------------------------------------------- scanning


def scan_value(data: bytes) -> None:
    """Check encoded bytes of unknown origin before anything is built from them.

    Refuses what is malformed, deeper than the limit, or would need far more memory than it
    has bytes (1 MiB of empty dicts makes 70 MiB). Costs about 0.2 µs an element and stops
    where a limit is passed; does not look into text.

    Raises:
        ProtocolError: Depth, memory or form.
    """
    try:
        end = _scan(data, max(_MEMORY_FLOOR_BYTES, _MEMORY_FACTOR * len(data)))
    except UnexpectedElement as wrong:
        raise ProtocolError(f"value: {wrong}") from None
    if end != len(data):
        raise ProtocolError(f"value: {len(data) - end} bytes follow the value")


def _scan(data: bytes, memory_bytes: int) -> int:
    """Return where the value ends; `memory_bytes` is what it may need, roughly."""
    pos, left, outer = 0, 1, list[int]()
    while True:
        while not left:
            if not outer:
                return pos
            left = outer.pop()
        left -= 1
        end, inside, is_container = step(data, pos)
        memory_bytes -= (
            _CONTAINER_BYTES if is_container else _SHARED_BYTES if end == pos + 1 else _ELEMENT_BYTES
        )
        if memory_bytes < 0:
            raise UnexpectedElement(f"{len(data)} bytes would need too much memory")
        if is_container:
            outer.append(left)
            left = inside
            if len(outer) > VALUE_DEPTH_MAX:
                raise UnexpectedElement(f"more than {VALUE_DEPTH_MAX} lists and dicts inside one another")
        pos = end
