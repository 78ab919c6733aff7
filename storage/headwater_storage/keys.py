"""Keys whose byte order is the order of the values in them.

Pure. Every field is a type tag and a payload that ends itself, and no field's encoding is a
prefix of another's. So tuples compare field by field as bytes, and what begins with the
encoding of some fields has exactly these fields first.

Order: missing < null < false < true < numbers by value < datetimes < text < bytes < lists
< dicts. A list sorts before what it is a prefix of; a dict sorts as the list of its items
by key.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import Enum
from math import isnan
from struct import Struct
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_storage.proposal import Range


class _Missing(Enum):
    """The type of `MISSING`: an enum, so that type checkers know it and copies stay the same object."""

    MISSING = "missing"


MISSING: Final = _Missing.MISSING
"""A field that the document does not have; sorts before everything."""

FIELDS_BYTES_MAX = 476
"""Bytes of a field tuple in a key: LMDB's 511 less the index number and a document suffix."""

KEY_BYTES_MAX = 511
NUMBER_BYTES = 4
ENTRY_SUFFIX_BYTES = 31
INDEX_BIT = 1 << 31

_END = b"\x00"
_TAG_MISSING, _TAG_NULL, _TAG_FALSE, _TAG_TRUE = b"\x02", b"\x03", b"\x04", b"\x05"
_TAG_NUMBER, _TAG_DATETIME, _TAG_TEXT, _TAG_BYTES, _TAG_LIST, _TAG_DICT = (
    bytes([tag]) for tag in range(6, 12)
)

_EXACT_MAX = 1 << 53
"""From here on not every integer is a float: a remainder follows."""

_pack_number = Struct(">I").pack
_pack_double = Struct(">d").pack
_pack_u64 = Struct(">Q").pack
_pack_u16 = Struct(">H").pack
_unpack_double = Struct(">d").unpack
_ALL_BITS = (1 << 64) - 1
_SIGN_BIT = 1 << 63
_NAN = _TAG_NUMBER + b"\xff\xf8" + bytes(6)
_NO_REMAINDER = b"\x00\x00"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_DATETIME_BIAS = 1 << 63


def encode_fields(values: Sequence[Any]) -> bytes:
    """Return the whole, uncut encoding of a tuple of fields.

    Args:
        values: msgpack's own types, aware datetimes and `MISSING`.

    Raises:
        ValueError: A naive datetime, text that is not valid Unicode or an integer beyond 64 bits.
        TypeError: A value that has no place in the order.
    """
    return b"".join([encode_field(value) for value in values])


def encode_field(value: Any) -> bytes:
    """Return the encoding of one field; see `encode_fields`."""
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    for kind, encoder in _ENCODERS.items():
        if isinstance(value, kind):
            return encoder(value)
    raise TypeError(f"a value of type {type(value).__name__} has no place in the order of values")


def _escaped(raw: bytes) -> bytes:
    """Return bytes without 00, so that 00 can end them, in unchanged order."""
    if 0 in raw or 1 in raw:
        raw = raw.replace(b"\x01", b"\x01\x02").replace(b"\x00", b"\x01\x01")
    return raw + _END


def _encode_text(value: str) -> bytes:
    if "\x00" in value or "\x01" in value:
        return _TAG_TEXT + _escaped(value.encode())
    return b"".join((_TAG_TEXT, value.encode(), _END))


def _encode_bytes(value: bytes | bytearray | memoryview) -> bytes:
    return _TAG_BYTES + _escaped(bytes(value))


def _encode_int(value: int) -> bytes:
    if 0 < value < _EXACT_MAX:
        return _TAG_NUMBER + _pack_double(-value)  # as `_ordered` does
    if -_EXACT_MAX < value < _EXACT_MAX:
        return _TAG_NUMBER + _ordered(float(value))
    if not -(1 << 63) <= value < 1 << 64:
        raise ValueError("integers beyond 64 bits have no place in the order of values")
    below = float(value)
    if below > value:
        below = _next_below(below)
    return _TAG_NUMBER + _ordered(below) + _pack_u16(value - int(below))


def _encode_float(value: float) -> bytes:
    if -_EXACT_MAX < value < _EXACT_MAX:
        return _TAG_NUMBER + _ordered(value)
    if isnan(value):
        return _NAN
    return _TAG_NUMBER + _ordered(value) + _NO_REMAINDER


def _ordered(value: float) -> bytes:
    """Return 8 bytes that sort as the float: the sign bit flipped, and all others of negative ones too."""
    if value >= 0:
        return _pack_double(-value if value else -0.0)
    return _pack_u64(_ALL_BITS ^ int.from_bytes(_pack_double(value), "big"))


def _next_below(value: float) -> float:
    """Return the next smaller float, as `math.nextafter` does, of a large one."""
    bits = int.from_bytes(_pack_double(value), "big")
    bits += -1 if value > 0 else 1
    return float(_unpack_double(_pack_u64(bits))[0])


def _encode_datetime(value: datetime) -> bytes:
    if value.tzinfo is None:
        raise ValueError("a datetime without a timezone has no place in the order of values")
    return _TAG_DATETIME + _pack_u64((value - _EPOCH) // _MICROSECOND + _DATETIME_BIAS)


def _encode_list(value: Sequence[Any]) -> bytes:
    return _TAG_LIST + b"".join([encode_field(item) for item in value]) + _END


def _encode_dict(value: dict[str, Any]) -> bytes:
    parts = [_TAG_DICT]
    for name in sorted(value):
        parts += (_encode_text(name), encode_field(value[name]))
    parts.append(_END)
    return b"".join(parts)


def _encode_bool(value: bool) -> bytes:
    return _TAG_TRUE if value else _TAG_FALSE


_ENCODERS: dict[type, Callable[[Any], bytes]] = {
    str: _encode_text,
    bool: _encode_bool,
    int: _encode_int,
    float: _encode_float,
    type(None): lambda _: _TAG_NULL,
    _Missing: lambda _: _TAG_MISSING,
    datetime: _encode_datetime,
    bytes: _encode_bytes,
    bytearray: _encode_bytes,
    memoryview: _encode_bytes,
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_dict,
}
"""By type; `bool` stands before `int`, whose subclass it is."""


def decode_fields(fields: bytes) -> list[Any]:
    """Return the values of an uncut encoding, for display: integral numbers come back as integers.

    Raises:
        ValueError: The bytes are not the whole encoding of some fields.
    """
    values = []
    offset = 0
    try:
        while offset < len(fields):
            value, offset = _decode(fields, offset)
            values.append(value)
    except (IndexError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"not the encoding of a field tuple: {error}") from None
    return values


def decode_first_fields(fields: bytes, count: int) -> tuple[list[Any], list[int]]:
    """Return the values of the first fields of an encoding that may be cut or go on with something else, for display.

    Args:
        fields: Bytes.
        count: So many fields at most.

    Returns:
        The values that are whole, and where each of them ends.
    """
    values: list[Any] = []
    ends: list[int] = []
    offset = 0
    while len(values) < count and offset < len(fields):
        try:
            value, offset = _decode(fields, offset)
        except (IndexError, OverflowError, TypeError, ValueError):
            break
        values.append(value)
        ends.append(offset)
    return values, ends


def _decode(fields: bytes, offset: int) -> tuple[Any, int]:
    tag = fields[offset : offset + 1]
    offset += 1
    if tag in _CONSTANTS:
        return _CONSTANTS[tag], offset
    if tag == _TAG_NUMBER:
        return _decode_number(fields, offset)
    if tag == _TAG_DATETIME:
        microseconds = int.from_bytes(_exactly(fields, offset, 8), "big") - _DATETIME_BIAS
        return _EPOCH + microseconds * _MICROSECOND, offset + 8
    if tag in (_TAG_TEXT, _TAG_BYTES):
        end = fields.index(_END, offset)
        raw = fields[offset:end].replace(b"\x01\x01", b"\x00").replace(b"\x01\x02", b"\x01")
        return (raw.decode() if tag == _TAG_TEXT else raw), end + 1
    if tag in (_TAG_LIST, _TAG_DICT):
        items = []
        while fields[offset] != 0:
            item, offset = _decode(fields, offset)
            items.append(item)
        if tag == _TAG_LIST:
            return items, offset + 1
        return dict(zip(items[::2], items[1::2], strict=True)), offset + 1
    raise ValueError(f"unknown tag {tag!r} at byte {offset - 1}")


_CONSTANTS: dict[bytes, Any] = {_TAG_MISSING: MISSING, _TAG_NULL: None, _TAG_FALSE: False, _TAG_TRUE: True}


def _exactly(fields: bytes, offset: int, size: int) -> bytes:
    part = fields[offset : offset + size]
    if len(part) != size:
        raise ValueError("the encoding ends inside a field")
    return part


def _decode_number(fields: bytes, offset: int) -> tuple[int | float, int]:
    bits = int.from_bytes(_exactly(fields, offset, 8), "big")
    bits ^= _SIGN_BIT if bits & _SIGN_BIT else _ALL_BITS
    value: float = _unpack_double(_pack_u64(bits))[0]
    offset += 8
    if isnan(value):
        return value, offset
    remainder = 0
    if not -_EXACT_MAX < value < _EXACT_MAX:
        remainder = int.from_bytes(_exactly(fields, offset, 2), "big")
        offset += 2
    is_int64 = value.is_integer() and -(1 << 63) <= value < 1 << 63
    return (int(value) + remainder if is_int64 else value), offset


def document_key(table_number: int, suffix: bytes) -> bytes:
    """Return the key of a document."""
    return _pack_number(table_number) + suffix


def document_parts(key: bytes) -> tuple[int, bytes]:
    """Return table number and suffix of a document key."""
    return int.from_bytes(key[:NUMBER_BYTES], "big"), key[NUMBER_BYTES:]


def index_prefix(index_number: int) -> bytes:
    """Return what all entry keys of an index begin with."""
    return _pack_number(INDEX_BIT | index_number)


def entry_key(index_number: int, fields: bytes, suffix: bytes) -> tuple[bytes, bytes]:
    """Return an entry's key and its value: what of the encoded fields is too long for a key, or b""."""
    if len(fields) <= FIELDS_BYTES_MAX:
        return _pack_number(INDEX_BIT | index_number) + fields + suffix, b""
    return (
        _pack_number(INDEX_BIT | index_number) + fields[:FIELDS_BYTES_MAX] + suffix,
        fields[FIELDS_BYTES_MAX:],
    )


def entry_parts(key: bytes) -> tuple[int, bytes, bytes]:
    """Return index number, encoded fields (cut ones as cut) and document suffix of an entry key."""
    number = int.from_bytes(key[:NUMBER_BYTES], "big") ^ INDEX_BIT
    return number, key[NUMBER_BYTES:-ENTRY_SUFFIX_BYTES], key[-ENTRY_SUFFIX_BYTES:]


def table_range(table_number: int) -> Range:
    """Return the range of all document keys of a table."""
    return _pack_number(table_number), _pack_number(table_number + 1)


def index_range(index_number: int) -> Range:
    """Return the range of all entry keys of an index."""
    return _pack_number(INDEX_BIT | index_number), _pack_number((INDEX_BIT | index_number) + 1)


def prefix_range(prefix: bytes) -> Range:
    """Return the range of all keys that begin with a prefix."""
    return prefix, successor(prefix)


def successor(prefix: bytes) -> bytes:
    """Return the smallest bytes above everything that begins with a prefix.

    Raises:
        ValueError: There are none: the prefix is empty or all of it is ff. No key of ours is.
    """
    stripped = prefix.rstrip(b"\xff")
    if not stripped:
        raise ValueError("nothing sorts above this prefix")
    return stripped[:-1] + bytes([stripped[-1] + 1])
