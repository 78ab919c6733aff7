"""The form of a token: a signed JWT in compact serialization, taken apart strictly.

Pure. Nothing here is believed yet: what a token claims is only read, under limits that hold before
anything is built from it. Two readers must never understand one token differently, so whatever leaves
room for that is refused: repeated names, base64 in more than one form, numbers that do not fit.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Any

from headwater_server.identity.refusal import RefusedTokenError, shown

_DEPTH_MAX = 16
_DIGITS_MAX = 19  # of an integer; 64 bits have no more
_KEY_ID_CHARACTERS_MAX = 256
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
_BASE64URL = re.compile(r"[A-Za-z0-9_-]*\Z")
_EMBEDDED = ("jwk", "jku", "x5u", "x5c")


@dataclass(frozen=True, slots=True)
class SignedToken:
    """A token whose form is right.

    Attributes:
        algorithm: How it says that it is signed.
        key_id: Name of the key that it says it is signed with; None if it names none.
        claims: What it claims.
        signed: What is signed.
        signature: The signature.
    """

    algorithm: str
    key_id: str | None
    claims: dict[str, Any]
    signed: bytes
    signature: bytes


def take_apart(token: str, bytes_max: int) -> SignedToken:
    """Return the parts of a token.

    Args:
        token: As it came.
        bytes_max: A longer one is not looked at.

    Raises:
        RefusedTokenError: Its form is wrong, or asks for what is not understood here.
    """
    if len(token) > bytes_max:
        raise RefusedTokenError(f"it is longer than {bytes_max} bytes (token_limit_bytes)")
    if not token:
        raise RefusedTokenError("it is empty")
    parts = token.split(".", 5)
    if len(parts) == 5:
        raise RefusedTokenError("it is encrypted (five parts); only signed tokens are taken")
    if len(parts) != 3:
        raise RefusedTokenError(
            f"it is no signed JWT: expected three parts with dots between, got {len(parts)}"
        )
    header = _json_object(_decoded(parts[0], "header"), "header")
    algorithm, key_id = _check_header(header)
    claims = _json_object(_decoded(parts[1], "payload"), "payload")
    signature = _decoded(parts[2], "signature")
    if not signature:
        raise RefusedTokenError("it is not signed")
    return SignedToken(algorithm, key_id, claims, f"{parts[0]}.{parts[1]}".encode(), signature)


def _check_header(header: dict[str, Any]) -> tuple[str, str | None]:
    algorithm, key_id, kind = header.get("alg"), header.get("kid"), header.get("typ", "JWT")
    if not isinstance(algorithm, str):
        raise RefusedTokenError(f"header: alg: expected text, got {shown(algorithm)}")
    for name in _EMBEDDED:
        if name in header:
            raise RefusedTokenError(f"header: {name}: it brings its own key; keys are the provider's alone")
    if "crit" in header:
        raise RefusedTokenError(
            f"header: crit: it asks for extensions, {shown(header['crit'])}; none is understood"
        )
    if "b64" in header:
        raise RefusedTokenError("header: b64: a payload that is not in base64 is not taken")
    for name in ("zip", "enc"):
        if name in header:
            raise RefusedTokenError(f"header: {name}: a payload that is compressed or encrypted is not taken")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise RefusedTokenError(f"header: typ: expected JWT or at+jwt, got {shown(kind)}")
    if "kid" in header and (not isinstance(key_id, str) or not 0 < len(key_id) <= _KEY_ID_CHARACTERS_MAX):
        raise RefusedTokenError(f"header: kid: expected text of 1 to 256 characters, got {shown(key_id)}")
    return algorithm, key_id


def decode_base64url(text: str) -> bytes:
    """Return the bytes of base64url without padding, in the one form that they have.

    Raises:
        ValueError: It is none.
    """
    if not _BASE64URL.match(text):
        raise ValueError("it has other characters than those of base64url")
    try:
        found = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        raise ValueError("its length is none of base64url") from None
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != text:
        raise ValueError("its last character has bits that belong to nothing")
    return found


def parse_json(data: bytes) -> Any:
    """Return what JSON of unknown origin says, if all who read it must find the same.

    Raises:
        ValueError: It is not JSON, or repeats a name, is too deep, or has a number that does not fit.
    """
    try:
        found = _decode(data.decode("utf-8", "strict"))
        _check_depth(found, 0)
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8") from None
    except RecursionError:
        raise ValueError(f"it has more than {_DEPTH_MAX} lists and objects inside one another") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON: {error.msg} at {error.pos}") from None
    return found


def _decoded(part: str, name: str) -> bytes:
    try:
        return decode_base64url(part)
    except ValueError as error:
        raise RefusedTokenError(f"{name}: {error}") from None


def _json_object(data: bytes, name: str) -> dict[str, Any]:
    try:
        found = parse_json(data)
    except ValueError as error:
        raise RefusedTokenError(f"{name}: {error}") from None
    if not isinstance(found, dict):
        raise RefusedTokenError(f"{name}: expected a JSON object, got {shown(found)}")
    return found


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has {shown(twice)} twice")
    return found


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS_MAX + 1 or not -(2**63) <= (value := int(digits)) < 2**63:
        raise ValueError(f"the number {shown(digits)} does not fit into 64 bits")
    return value


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {shown(text)} is too large")
    return value


_decode = json.JSONDecoder(
    object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_number
).decode


def _check_depth(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth >= _DEPTH_MAX:
            raise RecursionError
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, depth + 1)
