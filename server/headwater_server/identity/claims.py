"""What a token claims: which provider it is for, whether it holds now, and the identity that it gives.

Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError
from headwater_protocol.values import canonical_bytes

from headwater_server.identity.refusal import RefusedTokenError, shown

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_protocol.manifest import ProviderManifest

_SUBJECT_CHARACTERS_MAX = 255
_SECONDS_MAX = 253_402_300_800  # the year 10000
_PASSING = frozenset(
    {
        # Of the token, not of the person: other ones with each refresh.
        *("exp", "iat", "nbf", "jti", "nonce", "auth_time", "at_hash", "c_hash", "s_hash"),
        *("aio", "rh", "uti", "xms_ftd"),  # Microsoft Entra's
        "fva",  # Clerk's: how long ago the person proved who they are
    }
)
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """Who a token is from.

    Attributes:
        identity: A value: `tokenIdentifier`, `issuer`, `subject`, `name` and `email` where the token has them as
            texts, and `claims`, all that the token claims of the person and the application. The same bytes for
            every token of one person that claims the same: times and numbers of the token itself are left out.
            Of a token of the deployment also `session`, which says that no other provider can have given it.
        token_identifier: `issuer|subject`: one person, whichever token, over all providers.
        expires_at_s: Wall clock, seconds since 1970: from then on the token is refused.
        provider: Whose it is.
    """

    identity: bytes
    token_identifier: str
    expires_at_s: float
    provider: ProviderManifest


def provider_of(claims: dict[str, Any], providers: Iterable[ProviderManifest]) -> ProviderManifest:
    """Return the provider that a token says it is from, and is meant for us.

    Raises:
        RefusedTokenError: None of them.
    """
    issuer = claims.get("iss")
    if not isinstance(issuer, str):
        raise RefusedTokenError(f"iss: expected text, got {shown(issuer)}")
    of_issuer = [provider for provider in providers if provider.issuer == issuer]
    if not of_issuer:
        raise RefusedTokenError(f"iss: {shown(issuer)} is the issuer of no provider of this deployment")
    audiences = _audiences(claims)
    for provider in of_issuer:
        if not provider.audience or provider.audience in audiences:
            return provider
    expected = " or ".join(shown(provider.audience) for provider in of_issuer)
    raise RefusedTokenError(f"aud: expected {expected}, got {shown(claims.get('aud'))}")


def _audiences(claims: dict[str, Any]) -> list[str]:
    found = claims.get("aud", [])
    listed = found if isinstance(found, list) else [found]
    if not all(isinstance(item, str) for item in listed):
        raise RefusedTokenError(f"aud: expected text or a list of texts, got {shown(found)}")
    return listed


def check_claims(
    claims: dict[str, Any], provider: ProviderManifest, now_s: float, leeway_s: float
) -> VerifiedToken:
    """Return who a token is from, if it holds now; its signature is still to be checked.

    Args:
        claims: What it claims.
        provider: Whose it is, from `provider_of`.
        now_s: Wall clock, seconds since 1970.
        leeway_s: How far the provider's clock may be from ours.

    Raises:
        RefusedTokenError: It does not.
    """
    expires_at_s = _check_times(claims, now_s, leeway_s)
    party = claims.get("azp")
    if "azp" in claims and not isinstance(party, str):
        raise RefusedTokenError(f"azp: expected text, got {shown(party)}")
    if provider.authorized_parties and party not in provider.authorized_parties:
        expected = " or ".join(shown(name) for name in provider.authorized_parties)
        raise RefusedTokenError(f"azp: expected {expected}, got {shown(party)}")
    if "cnf" in claims:
        raise RefusedTokenError("cnf: it is for the holder of a key alone, which cannot be asked for here")
    events = claims.get("events")
    if isinstance(events, dict) and _LOGOUT_EVENT in events:
        raise RefusedTokenError("events: it tells of a sign-out")
    token_identifier = _token_identifier(claims, provider.issuer)
    session = None
    if provider.kind == "deployment":
        session = claims.get("sid")
        if not isinstance(session, str) or not session:
            raise RefusedTokenError(f"sid: expected the name of a session, got {shown(session)}")
    identity = _identity(claims, token_identifier, session)
    return VerifiedToken(identity, token_identifier, expires_at_s, provider)


def identity_without_token(
    claims: dict[str, Any], providers: Iterable[ProviderManifest]
) -> tuple[bytes, str]:
    """Return the identity that a token with these claims would give, and its token identifier.

    For those who may act as somebody. `iss` may be left out where all providers have one issuer. Of an account of
    the deployment the session is "": there is none that could end.

    Raises:
        RefusedTokenError: No provider has that issuer, or no token could claim this.
    """
    kinds = {provider.issuer: provider.kind for provider in providers}
    issuers = sorted(kinds)
    issuer = claims.get("iss", issuers[0] if len(issuers) == 1 else None)
    if issuer not in issuers:
        known = ", ".join(map(shown, issuers)) or "none: the bundle declares no provider"
        raise RefusedTokenError(f"iss: expected an issuer of this deployment ({known}), got {shown(issuer)}")
    token_identifier = _token_identifier(claims, issuer)
    session = "" if kinds[issuer] == "deployment" else None
    return _identity({**claims, "iss": issuer}, token_identifier, session), token_identifier


def _token_identifier(claims: dict[str, Any], issuer: str) -> str:
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= _SUBJECT_CHARACTERS_MAX:
        raise RefusedTokenError(
            f"sub: expected text of 1 to {_SUBJECT_CHARACTERS_MAX} characters, got {shown(subject)}"
        )
    return f"{issuer}|{subject}"


def _check_times(claims: dict[str, Any], now_s: float, leeway_s: float) -> float:
    """Return when it ends."""
    if "exp" not in claims:
        raise RefusedTokenError("exp: it has no end, which every token must have")
    ends_s = _seconds(claims, "exp") + leeway_s
    if ends_s <= now_s:
        raise RefusedTokenError(f"exp: it has ended {now_s - ends_s + leeway_s:.0f} s ago")
    for name, told in (("nbf", "it holds only in"), ("iat", "it was made in the future, in")):
        if name in claims and (ahead_s := _seconds(claims, name) - now_s) > leeway_s:
            raise RefusedTokenError(f"{name}: {told} {ahead_s:.0f} s; are both clocks right?")
    return ends_s


def _seconds(claims: dict[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _SECONDS_MAX:
        raise RefusedTokenError(f"{name}: expected seconds since 1970, got {shown(value)}")
    return float(value)


def _identity(claims: dict[str, Any], token_identifier: str, session: str | None) -> bytes:
    told = {name: claims[name] for name in ("name", "email") if isinstance(claims.get(name), str)}
    if session is not None:
        told["session"] = session
    lasting = {name: value for name, value in claims.items() if name not in _PASSING}
    try:
        return canonical_bytes(
            {
                "tokenIdentifier": token_identifier,
                "issuer": claims["iss"],
                "subject": claims["sub"],
                **told,
                "claims": lasting,
            }
        )
    except RequestError as error:
        raise RefusedTokenError(f"payload: {error.message}") from None
