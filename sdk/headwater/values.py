"""What may cross the wire or be stored, between Python objects and msgpack bytes.

Pure. msgspec does the work. What it lets through and the value model does not have is
refused here: integers beyond 64 bits, naive datetimes, sets, text keys that are no text.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
from headwater_protocol.errors import ProtocolError
from headwater_protocol.limits import VALUE_DEPTH_MAX
from headwater_protocol.values import INT64_EXTENSION, INT_MAX, INT_MIN, Int64, scan_value

if TYPE_CHECKING:
    from msgspec import inspect as kinds

TOO_DEEP = f"more than {VALUE_DEPTH_MAX} lists and dicts inside one another"
_HEADS = bytes((*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF))
_INT64_BYTES = 8
_NUMBERS_AND_TEXT = frozenset({str, float, bool, bytes, type(None)})
_AS_TEXT = frozenset({date, UUID, Decimal})


class MisfitError(Exception):
    """A value does not fit; whoever descends adds where on the way out.

    Attributes:
        problem: What was expected and what stood there.
        path: Place inside the value, `.field` and `[3]` parts.
    """

    def __init__(self, problem: str, path: str = "") -> None:
        super().__init__(problem, path)
        self.problem = problem
        self.path = path

    def within(self, step: str) -> MisfitError:
        """Return the same misfit, one level further out."""
        return MisfitError(self.problem, step + self.path)

    def __str__(self) -> str:
        return f"{self.problem} - at `${self.path}`" if self.path else self.problem


def _encode_marked(value: Any) -> Any:
    if isinstance(value, Int64):
        return msgspec.msgpack.Ext(INT64_EXTENSION, int(value).to_bytes(_INT64_BYTES, "big", signed=True))
    raise TypeError(f"{_article(type(value))} cannot be a value")


def _decode_marked(code: int, data: memoryview) -> Int64:
    if code != INT64_EXTENSION or len(data) != _INT64_BYTES:
        raise msgspec.ValidationError(f"Expected a value, got extension {code} of {len(data)} bytes")
    return Int64(int.from_bytes(data, "big", signed=True))


def _decode_custom(kind: type, value: Any) -> Any:
    if kind is Int64 and type(value) in (int, Int64):
        return Int64(value)
    raise ValueError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")  # msgspec adds where


def decoder(kind: Any) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder of values of this type."""
    return msgspec.msgpack.Decoder(kind, dec_hook=_decode_custom, ext_hook=_decode_marked)


encode = msgspec.msgpack.Encoder(enc_hook=_encode_marked).encode
decode_any = decoder(Any).decode

_FITS_NO_INT64 = re.compile(rb"\xcf[\x80-\xff]").search


def check_integers(content: bytes, value: Any) -> None:
    """Refuse integers from 2^63, which msgpack has and the value model has not.

    Args:
        content: An encoded value; only if bytes in it look like such an integer, which text
            may do as well, is the value walked through.
        value: The value itself, decoded to anything.

    Raises:
        MisfitError: Says where.
    """
    if 0xCF in content and _FITS_NO_INT64(content) is not None:
        _check_integers(value)


def _check_integers(value: Any) -> None:
    if isinstance(value, int):
        if value > INT_MAX:
            raise MisfitError("Expected an integer from -2^63 to 2^63-1, got a larger one")
    elif isinstance(value, dict):
        for key, item in value.items():
            _step(_check_integers, item, f".{key}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _step(_check_integers, item, f"[{place}]")
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            _step(_check_integers, getattr(value, name), f".{name}")


def _step(check: Any, value: Any, step: str, *more: Any) -> None:
    try:
        check(value, *more)
    except MisfitError as wrong:
        raise wrong.within(step) from None


def check_depth(content: bytes) -> None:
    """Refuse encoded bytes of unknown origin that are too deep, or need far more memory than they have bytes.

    Only if there are enough bytes in it that look like the head of a list or dict; counting
    these costs next to nothing.

    Raises:
        MisfitError: Says what is wrong.
    """
    if len(content) - len(content.translate(None, _HEADS)) > VALUE_DEPTH_MAX:
        try:
            scan_value(content)
        except ProtocolError as wrong:
            raise MisfitError(wrong.message.removeprefix("value: ")) from None


def check_any(value: Any, room: int = VALUE_DEPTH_MAX) -> None:
    """Check a value that stands where anything may stand.

    Args:
        value: Any object.
        room: How many lists and dicts may be inside one another.

    Raises:
        MisfitError: It cannot be a value; says where.
    """
    kind = type(value)
    if kind in _NUMBERS_AND_TEXT:
        return
    if isinstance(value, Enum):
        check_any(value.value)
    elif isinstance(value, int):
        if not INT_MIN <= value <= INT_MAX:
            raise MisfitError("Expected an integer from -2^63 to 2^63-1, got a larger one")
    elif isinstance(value, datetime):
        if value.utcoffset() is None:
            raise MisfitError("Expected a datetime with a time zone, got one without")
    elif isinstance(value, dict | list | tuple | msgspec.Struct):
        if not room:
            raise MisfitError(TOO_DEEP)
        _check_inside(value, room - 1)
    elif kind not in _AS_TEXT:
        raise MisfitError(_not_a_value(value))


def _check_inside(value: Any, room: int) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise MisfitError(f"Expected text keys, got a key of type `{type(key).__name__}`")
            _step(check_any, item, f".{key}", room)
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            _step(check_any, item, f"[{place}]", room)
    else:
        for name in value.__struct_fields__:
            if (item := getattr(value, name)) is not msgspec.UNSET:
                _step(check_any, item, f".{name}", room)


def _not_a_value(value: Any) -> str:
    if value is msgspec.UNSET:
        return "Expected a value, got the id of a document that was never stored"
    return f"{_article(type(value))} cannot be a value"


def _article(kind: type) -> str:
    name = kind.__name__
    return f"{'an' if name[:1] in 'aeiouAEIOU' else 'a'} `{name}`"


def is_plain(value: Any, room: int = VALUE_DEPTH_MAX) -> bool:
    """Tell quickly whether an untyped value is surely fit to be encoded; False may be a false alarm."""
    kind = type(value)
    if kind in _NUMBERS_AND_TEXT:
        return True
    if kind is int:
        return bool(INT_MIN <= value <= INT_MAX)
    if not room:
        return False
    if kind is dict:
        return all(type(key) is str and is_plain(item, room - 1) for key, item in value.items())
    return kind is list and all(is_plain(item, room - 1) for item in value)


def encoded_default(field: kinds.Field) -> bytes | None:
    """Return what a field is when it is missing, encoded; None if it has to be there, or is made anew each time."""
    if field.default is not msgspec.NODEFAULT:
        default = field.default
    elif field.default_factory in (list, dict):
        default = field.default_factory()
    else:
        return None
    try:
        return encode(default)
    except (TypeError, ValueError, OverflowError):
        return None


def array_header(count: int) -> bytes:
    """Return what the encoding of a list of so many elements begins with."""
    if count < 16:
        return bytes((0x90 | count,))
    return b"\xdc" + count.to_bytes(2, "big") if count < 65_536 else b"\xdd" + count.to_bytes(4, "big")
