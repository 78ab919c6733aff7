"""Values as JSON, for callers over HTTP: msgpack bytes on one side, JSON-able objects on the other.

Pure. Three formats: `json` for people and scripts (64-bit integers beyond 2^53 as decimal
text, bytes as base64, special floats as text; taken as that where a function declares them),
`convex_encoded_json`, which loses no number and no bytes (`headwater_server.convex.values`), and
`encoded`, which is the encoded value itself in base64, for clients that have the protocol's values.
"""

from __future__ import annotations

import base64
import binascii
import math
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
from headwater_protocol.errors import RequestError
from headwater_protocol.limits import VALUE_DEPTH_MAX

from headwater_server.convex.values import EXACT_INTEGER_MAX, encoded_value, to_jsonable
from headwater_server.net.json_arguments import fitted

Format = Literal["json", "convex_encoded_json", "encoded"]
FORMATS: tuple[Format, ...] = ("json", "convex_encoded_json", "encoded")
_decode = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


def to_json(content: bytes, form: Format) -> Any:
    """Return the JSON-able form of an encoded value.

    Raises:
        RequestError: `invalid_result`: Convex's clients cannot have it.
    """
    if form == "encoded":
        return base64.b64encode(content).decode()
    return to_jsonable(content) if form == "convex_encoded_json" else _out(_decode(content))


def from_json(value: Any, form: Format, schema: dict[str, Any] | None = None) -> bytes:
    """Return the encoded value of parsed JSON.

    Args:
        value: What was parsed.
        form: Its format.
        schema: JSON schema of arguments in the format `json`: says which text is no text.

    Raises:
        RequestError: `invalid_arguments` for a malformed `$` form, an integer beyond 64 bits
            or a value that is nested too deep. What `encoded` holds is looked at by who takes it apart.
    """
    if form == "encoded":
        return _bytes_in(value)
    if form == "convex_encoded_json":
        return encoded_value(value)
    checked = _in(value, 0)
    return _encode(fitted(checked, schema) if schema else checked)


def _out(value: Any) -> Any:
    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= EXACT_INTEGER_MAX else str(value)
        case float():
            if math.isfinite(value):
                return value
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        case bytes():
            return base64.b64encode(value).decode()
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case list():
            return [_out(item) for item in value]
        case dict():
            return {str(key): _out(item) for key, item in value.items()}
        case msgspec.msgpack.Ext(data=data):
            return str(int.from_bytes(bytes(data), "big", signed=True))
    raise TypeError(f"a {type(value).__name__} cannot be a value")


def _in(value: Any, depth: int) -> Any:
    """Return a parsed value as what is encoded; `depth` lists and objects are around it."""
    match value:
        case bool() | None | str() | float():
            return value
        case int():
            if not -(2**63) <= value < 2**63:
                raise RequestError(f"the integer {value} does not fit 64 bits", code="invalid_arguments")
            return value
        case list() | dict() if depth >= VALUE_DEPTH_MAX:
            raise RequestError(
                f"more than {VALUE_DEPTH_MAX} lists and objects are inside one another",
                code="invalid_arguments",
            )
        case list():
            return [_in(item, depth + 1) for item in value]
        case dict():
            return {key: _in(item, depth + 1) for key, item in value.items()}
    raise TypeError(f"{type(value).__name__} is not parsed JSON")


def _bytes_in(value: Any) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise RequestError(f"expected base64 text: {error}", code="invalid_arguments") from None
