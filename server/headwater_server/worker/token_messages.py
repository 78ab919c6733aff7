"""What actions of a bundle's accounts want of the daemon: tokens signed, and those of providers verified."""

from __future__ import annotations

import msgspec


class _Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    pass


class SignToken(_Message, frozen=True, tag=46):
    """Sign a token for an action of the bundle's accounts; answered by `NestedDone` with the token.

    Attributes:
        claims: What it is to say beside issuer, audience and times; an encoded map.
        lifetime_s: Until it ends.
    """

    call: int
    number: int
    claims: bytes
    lifetime_s: int


class VerifyLogin(_Message, frozen=True, tag=47):
    """Verify the token that a provider gave to an action of the bundle's accounts; answered by `NestedDone` with its claims.

    Attributes:
        token: An ID token.
        issuer: Whose it has to be: one that the bundle declares for signing in.
        audience: Whom it has to be for.
    """

    call: int
    number: int
    token: str
    issuer: str
    audience: str
