"""Tokens for tests: keys of each kind, made once, and whatever can be signed with them."""

from __future__ import annotations

import base64
import json
from functools import cache
from typing import TYPE_CHECKING, Any

from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from headwater_server.identity.discovery import FetchError
from headwater_server.identity.key_cache import CacheOptions
from headwater_server.identity.verifier import Clocks, Verifier, VerifierOptions
from headwater_server.observe.metrics import Metrics
from jwt.algorithms import get_default_algorithms

if TYPE_CHECKING:
    from headwater_protocol.manifest import ProviderManifest

NOW_S = 1_750_000_000.0
ISSUER = "https://id.example"
AUDIENCE = "app"
_CURVES: dict[str, Any] = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1, "ES512": ec.SECP521R1}
_ALGORITHMS = get_default_algorithms()


ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
OPTIONS = VerifierOptions(
    token_bytes_max=16_384,
    leeway_s=3,
    waiting_max=100,
    reasons_per_minute=30,
    cache=CacheOptions(pause_s=60, age_s=3600, kept_s=86_400),
)


async def unreachable(address: str) -> bytes:
    """Stand for a network without anything in it."""
    raise FetchError(f"{address}: there is nobody")


def verifier(
    *providers: ProviderManifest,
    options: VerifierOptions = OPTIONS,
    now_s: float = NOW_S,
    get: Any = unreachable,
) -> Verifier:
    """Return a verifier whose clocks stand, unless the test's own run."""
    made = Verifier(options, Clocks(lambda: now_s, lambda: 0.0), get, Metrics())
    made.use(providers)
    return made


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def private_key(algorithm: str, number: int = 0) -> Any:
    """Return a key for an algorithm; each number has one of its own. `RS1024` and `Ed448` are kinds, too."""
    is_rsa = algorithm.startswith(("RS", "PS")) and algorithm != "RS1024"
    return _made_key("RS256" if is_rsa else algorithm, number)


@cache
def _made_key(algorithm: str, number: int) -> Any:
    if algorithm.startswith("RS"):
        return rsa.generate_private_key(65537, 1024 if algorithm == "RS1024" else 2048)
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    if algorithm == "Ed448":
        return ed448.Ed448PrivateKey.generate()
    return ec.generate_private_key(_CURVES[algorithm]())


def public_jwk(algorithm: str, number: int = 0, **more: Any) -> dict[str, Any]:
    """Return the public half as a JWK whose kid is the algorithm, then the number."""
    name = {"RS1024": "RS256", "Ed448": "EdDSA"}.get(algorithm, algorithm)
    jwk: dict[str, Any] = _ALGORITHMS[name].to_jwk(private_key(algorithm, number).public_key(), as_dict=True)
    jwk.pop("key_ops", None)
    return {
        key: value
        for key, value in {**jwk, "kid": f"{algorithm}-{number}", **more}.items()
        if value is not None
    }


def key_set(*jwks: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(jwks)}


def claims(**more: Any) -> dict[str, Any]:
    """Return good claims; None leaves one out."""
    found = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "exp": int(NOW_S) + 600, "iat": int(NOW_S), **more}
    return {name: value for name, value in found.items() if value is not None}


def header(algorithm: str, number: int = 0, **more: Any) -> dict[str, Any]:
    found = {"alg": algorithm, "kid": f"{algorithm}-{number}", "typ": "JWT", **more}
    return {name: value for name, value in found.items() if value is not None}


def signed(header_json: str | bytes, payload: str | bytes, algorithm: str, key: Any) -> str:
    """Return a token of any header and payload, signed with a key."""
    parts = [part if isinstance(part, bytes) else part.encode() for part in (header_json, payload)]
    message = ".".join(base64url(part) for part in parts)
    return f"{message}.{base64url(_ALGORITHMS[algorithm].sign(message.encode(), key))}"


def token(
    algorithm: str = "ES256", number: int = 0, *, head: dict[str, Any] | None = None, **more: Any
) -> str:
    """Return a good token, but for what is said otherwise."""
    heading = json.dumps(header(algorithm, number, **(head or {})))
    return signed(heading, json.dumps(claims(**more)), algorithm, private_key(algorithm, number))
