"""Values in the JSON of Convex's clients, which loses neither numbers nor bytes.

Pure. All numbers of JSON are doubles there; what a double is not stands in an object of one field whose name begins
with `$`: `$integer`, `$float`, `$bytes`, each with base64 of little-endian bytes. Between that and our values:

    int from -2^53 to 2^53      a number               a whole number    int
    a larger int, an Int64      {"$integer": …}        {"$integer": …}   Int64
    float                       a number               another number    float
    NaN, ±infinity, -0.0        {"$float": …}          {"$float": …}     float
    bytes                       {"$bytes": …}          {"$bytes": …}     bytes
    datetime                    text, RFC 3339         text              str; a datetime where one is declared
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from datetime import UTC, datetime
from typing import Any

import msgspec
import orjson
from headwater_protocol.errors import RequestError
from headwater_protocol.limits import VALUE_DEPTH_MAX
from headwater_protocol.values import INT64_EXTENSION

EXACT_INTEGER_MAX = 2**53
_KEY_CHARACTERS_MAX = 1024

_decode = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode

_MAY_BE_SPECIAL = re.compile(rb"\xcb(?:[\x7f\xff][\xf0-\xff]|\x80\x00{7})").search
"""Finds NaN, infinities and -0.0 in encoded values, and now and then something else."""


def json_text(content: bytes) -> bytes:
    """Return the JSON of an encoded value.

    Raises:
        RequestError: `invalid_result`: a key in it is none that those clients take.
    """
    value = _decode(content)
    _check_keys(value, set())
    if _MAY_BE_SPECIAL(content) is None:  # else orjson would write null for NaN
        try:
            return orjson.dumps(value, _special_of, orjson.OPT_STRICT_INTEGER | orjson.OPT_UTC_Z)
        except orjson.JSONEncodeError:  # an integer beyond a double's
            pass
    return orjson.dumps(_out(value))


def to_jsonable(content: bytes) -> Any:
    """Return the JSON-able form of an encoded value; raises like `json_text`."""
    value = _decode(content)
    _check_keys(value, set())
    return _out(value)


def encoded_value(parsed: Any) -> bytes:
    """Return the encoded value of parsed JSON.

    Raises:
        RequestError: `invalid_arguments`: nested too deep, or a `$` form that is malformed.
    """
    return _encode(_in(parsed, 0))


# ------------------------------------------------------------------------------------------- going out


def _check_keys(value: Any, known: set[str]) -> None:
    """Look at all keys, at equal ones of many rows once; `known` are fine."""
    if type(value) is dict:
        if not known.issuperset(value):
            for key in value:
                _check_key(key)
            known.update(value)
        inside: Any = value.values()
    elif type(value) is list:
        inside = value
    else:
        return
    for item in inside:
        if type(item) is dict or type(item) is list:
            _check_keys(item, known)


def is_key(key: Any) -> bool:
    """Tell whether those clients take a key of an object."""
    return (
        isinstance(key, str)
        and len(key) <= _KEY_CHARACTERS_MAX
        and not key.startswith("$")
        and all(" " <= character <= "~" for character in key)
    )


def _check_key(key: Any) -> None:
    if not is_key(key):
        raise RequestError(
            f"the key {str(key)[:80]!r} cannot go to a Convex client: it takes printable ASCII, without $ at the"
            " beginning; make it a list of objects that have the key as a field",
            code="invalid_result",
        )


def _special_of(value: Any) -> Any:
    """Return what stands for a value that JSON has not."""
    if isinstance(value, bytes):
        return {"$bytes": _base64(value)}
    if isinstance(value, msgspec.msgpack.Ext):
        return {"$integer": _base64(bytes(value.data)[::-1])}
    raise TypeError(f"a {type(value).__name__} cannot be a value")


def _out(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            if abs(value) <= EXACT_INTEGER_MAX:
                return value
            return {"$integer": _base64(struct.pack("<q", value))}
        case float():
            is_negative_zero = value == 0 and math.copysign(1, value) < 0
            if math.isfinite(value) and not is_negative_zero:
                return value
            return {"$float": _base64(struct.pack("<d", value))}
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case list():
            return [_out(item) for item in value]
        case dict():
            return {key: _out(item) for key, item in value.items()}
    return _special_of(value)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# ------------------------------------------------------------------------------------------- coming in


def _in(value: Any, depth: int) -> Any:
    """Return a parsed value as what is encoded; `depth` lists and objects are around it."""
    kind = type(value)  # by far the most of what a message costs: `match` takes three times as long
    if kind is str or kind is bool or value is None:
        return value
    if kind is int:
        return value if -EXACT_INTEGER_MAX <= value <= EXACT_INTEGER_MAX else _double(value)
    if kind is float:
        is_whole = value.is_integer() and abs(value) <= EXACT_INTEGER_MAX
        return int(value) if is_whole and (value or math.copysign(1, value) > 0) else value
    if depth >= VALUE_DEPTH_MAX:
        raise RequestError(
            f"more than {VALUE_DEPTH_MAX} lists and objects are inside one another",
            code="invalid_arguments",
        )
    if kind is list:
        return [_in(item, depth + 1) for item in value]
    if kind is dict:
        if len(value) == 1:
            ((name, inner),) = value.items()
            if name in _SPECIAL:
                return _special_in(name, inner)
        return {key: _in(item, depth + 1) for key, item in value.items()}
    raise TypeError(f"{kind.__name__} is not parsed JSON")


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise RequestError(f"{str(value)[:40]}… is no double", code="invalid_arguments") from None


_SPECIAL = {"$integer": 8, "$float": 8, "$bytes": None}


def _special_in(name: str, inner: Any) -> Any:
    size = _SPECIAL[name]
    try:
        data = base64.b64decode(inner, validate=True)
        if size is not None and len(data) != size:
            raise ValueError(f"{len(data)} bytes instead of {size}")
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(
            f"{name} takes base64 text of its bytes: {error}", code="invalid_arguments"
        ) from None
    if name == "$bytes":
        return data
    if name == "$float":
        return struct.unpack("<d", data)[0]
    return msgspec.msgpack.Ext(INT64_EXTENSION, data[::-1])  # ours are big-endian
