"""Tokens of users that the bundles of `support/bundles` take: their `providers` modules have the public key."""

from __future__ import annotations

import json
import time
from itertools import count
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from support.tokens import signed

STAFF, GUESTS = "https://staff.example", "https://guests.example"
AUDIENCE = "tests"
_KEY = Ed25519PrivateKey.from_private_bytes(
    b"headwater tests, a key for them."
)  # opens nothing but these tests
_serial = count()


def user_token(
    user: str, *, lasts_s: float = 3600, now_s: float | None = None, issuer: str = STAFF, **claims: Any
) -> str:
    """Return a token of a user, another one at each call; those that claim the same give the same identity."""
    now_s = time.time() if now_s is None else now_s
    payload = {
        "iss": issuer,
        "aud": AUDIENCE,
        "sub": user,
        "exp": now_s + lasts_s,
        "iat": int(now_s) - 1,
        "jti": str(next(_serial)),
        **claims,
    }
    return signed(json.dumps({"alg": "EdDSA", "kid": "tests"}), json.dumps(payload), "EdDSA", _KEY)
