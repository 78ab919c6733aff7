"""Signatures of webhooks: that a request comes from who shares a secret, and is no old one sent again.

    event = webhooks.verify(secret, await request.body(), request.headers, scheme="stripe", now_s=ctx.now_ms / 1000)

Pure: the time is an argument. Signatures are compared in constant time, over the bytes as they came: what was read
as JSON and written again is other bytes.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from typing import TYPE_CHECKING, Literal

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

Scheme = Literal["stripe", "github", "standard"]
TOLERANCE_S = 300.0

_SIGNATURES_MAX = 32
_HEADER_CHARACTERS_MAX = 8192
_STANDARD_PREFIX = "whsec_"


def verify(
    secret: str | Sequence[str],
    body: bytes,
    headers: Mapping[str, str],
    *,
    scheme: Scheme,
    now_s: float,
    tolerance_s: float = TOLERANCE_S,
) -> None:
    """Return if a webhook is signed with a secret.

    Args:
        secret: As the sender shows it; several while one takes the place of another.
        body: Of the request, as it came.
        headers: Of the request.
        scheme: `stripe`: `Stripe-Signature: t=…,v1=…`. `github`: `X-Hub-Signature-256: sha256=…`, which has no time.
            `standard`: Standard Webhooks and Svix: `webhook-id`, `webhook-timestamp`, `webhook-signature`, or the same
            names beginning with `svix`.
        now_s: The time, in seconds since 1970: `ctx.now_ms / 1000`.
        tolerance_s: How far the time of the signature may be from it, both ways.

    Raises:
        RequestError: `unauthenticated`: it is not, or too old. A route that does not catch it answers 401.
        ValueError: The secret is none for this scheme.
    """
    secrets = [secret] if isinstance(secret, str) else list(secret)
    if not secrets or not all(secrets):
        raise ValueError("the secret of a webhook is empty: anybody could sign with it")
    match scheme:
        case "stripe":
            expected, offered = _stripe(secrets, body, headers, now_s, tolerance_s)
        case "github":
            expected, offered = _github(secrets, body, headers)
        case "standard":
            expected, offered = _standard(secrets, body, headers, now_s, tolerance_s)
        case _:
            raise ValueError(f"the scheme is stripe, github or standard, got {scheme!r}")
    if not _any_equal(expected, offered):
        raise _refused("its signature is not made with the secret")


def sign(
    secret: str, body: bytes, *, scheme: Scheme, now_s: float = 0, message_id: str = ""
) -> dict[str, str]:
    """Return the headers of a signed webhook: for tests, and for those that one sends.

    Args:
        secret: As above.
        body: Of the request.
        scheme: As above.
        now_s: The time; of no account to `github`.
        message_id: For `standard`.
    """
    time = str(int(now_s))
    match scheme:
        case "stripe":
            signature = _hmac(secret.encode(), time.encode() + b"." + body).hex()
            return {"Stripe-Signature": f"t={time},v1={signature}"}
        case "github":
            return {"X-Hub-Signature-256": f"sha256={_hmac(secret.encode(), body).hex()}"}
    signature = base64.b64encode(
        _hmac(_standard_key(secret), f"{message_id}.{time}.".encode() + body)
    ).decode()
    return {
        "webhook-id": message_id,
        "webhook-timestamp": time,
        "webhook-signature": f"v1,{signature}",
    }


def _stripe(
    secrets: list[str], body: bytes, headers: Mapping[str, str], now_s: float, tolerance_s: float
) -> tuple[list[bytes], list[bytes]]:
    time, offered = "", []
    for name, value in _items(_header(headers, "stripe-signature"), ",", "="):
        if name == "t":
            time = value
        elif name == "v1":
            offered.append(_hex(value))
    _require_now(time, now_s, tolerance_s)
    signed = time.encode() + b"." + body
    return [_hmac(secret.encode(), signed) for secret in secrets], offered


def _github(secrets: list[str], body: bytes, headers: Mapping[str, str]) -> tuple[list[bytes], list[bytes]]:
    name, _, value = _header(headers, "x-hub-signature-256").partition("=")
    offered = [_hex(value)] if name == "sha256" else []
    return [_hmac(secret.encode(), body) for secret in secrets], offered


def _standard(
    secrets: list[str], body: bytes, headers: Mapping[str, str], now_s: float, tolerance_s: float
) -> tuple[list[bytes], list[bytes]]:
    keys = [_standard_key(secret) for secret in secrets]
    lower = {name.lower() for name in headers}
    prefix = "webhook" if "webhook-signature" in lower else "svix"
    message_id, time = (_header(headers, f"{prefix}-{name}") for name in ("id", "timestamp"))
    _require_now(time, now_s, tolerance_s)
    offered = [
        _base64(value)
        for version, value in _items(_header(headers, f"{prefix}-signature"), " ", ",")
        if version == "v1"
    ]
    signed = f"{message_id}.{time}.".encode(errors="surrogateescape") + body
    return [_hmac(key, signed) for key in keys], offered


def _header(headers: Mapping[str, str], name: str) -> str:
    found = [value for other, value in headers.items() if other.lower() == name]
    if not found or len(found[0]) > _HEADER_CHARACTERS_MAX:
        raise _refused(f"it has no header {name}" if not found else f"its header {name} is too long")
    return found[0]


def _items(text: str, between: str, within: str) -> Iterator[tuple[str, str]]:
    for item in text.split(between)[:_SIGNATURES_MAX]:
        name, _, value = item.strip().partition(within)
        yield name, value


def _require_now(time: str, now_s: float, tolerance_s: float) -> None:
    if not time.isascii() or not time.isdecimal() or len(time) > 15:
        raise _refused("it does not say when it was signed")
    if abs(now_s - int(time)) > tolerance_s:
        raise _refused(
            f"it was signed at {time}, more than {tolerance_s:g} s from now: sent again, or a clock is wrong"
        )


def _standard_key(secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(_STANDARD_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("a secret of the scheme standard is whsec_ and base64") from None
    if not key:
        raise ValueError("the secret of a webhook is empty: anybody could sign with it")
    return key


def _hmac(key: bytes, content: bytes) -> bytes:
    return hmac.new(key, content, hashlib.sha256).digest()


def _hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


def _any_equal(expected: list[bytes], offered: list[bytes]) -> bool:
    """Compare all with all, whatever is found first."""
    equal = False
    for one in expected:
        for other in offered:
            equal |= hmac.compare_digest(one, other)
    return equal


def _refused(why: str) -> RequestError:
    return RequestError(f"the webhook is refused: {why}", code="unauthenticated")
