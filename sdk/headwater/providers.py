"""Whose tokens a bundle takes: `oidc_provider` and `jwt_provider`, called at the top of its modules.

They record what they are told in the module that calls them, where the bundle finds it when it is
loaded. Everything that can be seen without the network is checked here.
"""

from __future__ import annotations

import itertools
import json
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headwater_protocol.manifest import ProviderManifest, canonical_json

from headwater.refusals import invalid_bundle

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import ModuleType

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
DEFAULT_ALGORITHMS = ("RS256", "ES256", "EdDSA")

_RECORD = "__headwater_providers__"
_TEXT_CHARACTERS_MAX = 512
_KEYS_CHARACTERS_MAX = 65_536
_PROVIDERS_MAX = 32
_LOOPBACK = ("localhost", "127.0.0.1", "::1")


def oidc_provider(
    *,
    issuer: str,
    audience: str,
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
    authorized_parties: Sequence[str] = (),
) -> None:
    """Take tokens of an OpenID Connect provider, whose keys are found by discovery.

        oidc_provider(issuer="https://example.auth.example", audience="my-app")

    Args:
        issuer: Its address, to the letter what its tokens have as `iss`.
        audience: What its tokens for this application have as `aud`, or among it.
        algorithms: How they may be signed.
        authorized_parties: If given, one of these must be their `azp`.

    Raises:
        RequestError: `invalid_bundle`.
    """
    record = _record_of_caller("oidc_provider")
    where = f"oidc_provider(issuer={_shown(issuer)})"
    checked_address(f"{where}: issuer", _text(f"{where}: issuer", issuer))
    if "?" in issuer:
        raise invalid_bundle(f"{where}: issuer: there is no `?` in an issuer")
    _add(
        record,
        where,
        "oidc",
        issuer,
        _text(f"{where}: audience", audience),
        "",
        algorithms,
        authorized_parties,
    )


def jwt_provider(
    *,
    issuer: str,
    jwks: str | Mapping[str, Any],
    audience: str | None = None,
    algorithms: Sequence[str] = DEFAULT_ALGORITHMS,
    authorized_parties: Sequence[str] = (),
) -> None:
    """Take tokens of an issuer whose public keys are declared.

        jwt_provider(issuer="https://id.example", audience="my-app", jwks="https://id.example/jwks.json")

    Args:
        issuer: To the letter what its tokens have as `iss`.
        jwks: Its JSON Web Key Set: where it is, an https address, or the set itself, as JSON or as a dict.
        audience: What its tokens must have as `aud`, or among it. Without it this application takes the
            tokens that the issuer made for any other.
        algorithms: How they may be signed.
        authorized_parties: If given, one of these must be their `azp`.

    Raises:
        RequestError: `invalid_bundle`.
    """
    record = _record_of_caller("jwt_provider")
    where = f"jwt_provider(issuer={_shown(issuer)})"
    _text(f"{where}: issuer", issuer)
    checked = "" if audience is None else _text(f"{where}: audience", audience)
    _add(record, where, "jwt", issuer, checked, _keys(f"{where}: jwks", jwks), algorithms, authorized_parties)


OWN = ProviderManifest("deployment", "", "", "", ("ES256",))
"""The deployment, whose tokens a bundle with accounts takes."""


def providers_of(modules: Iterable[ModuleType]) -> tuple[ProviderManifest, ...]:
    """Return what the modules of a bundle declared, sorted.

    Raises:
        RequestError: `invalid_bundle`: they do not go together.
    """
    found = sorted(
        (provider for module in modules for provider in vars(module).get(_RECORD, ())),
        key=lambda provider: (provider.issuer, provider.audience),
    )
    if len(found) > _PROVIDERS_MAX:
        raise invalid_bundle(f"{len(found)} providers are declared; at most {_PROVIDERS_MAX} may be")
    for one, other in itertools.pairwise(found):
        if one.issuer == other.issuer:
            _check_pair(one, other)
    return tuple(found)


def _check_pair(one: ProviderManifest, other: ProviderManifest) -> None:
    if one.audience == other.audience:
        raise invalid_bundle(f"the provider {one.name} is declared twice")
    if not one.audience:
        raise invalid_bundle(
            f"the provider {one.issuer} is declared with an audience and without one, which takes any"
        )
    if (one.kind, one.keys) != (other.kind, other.keys):
        # Whoever has a key of an issuer may speak for all its users.
        raise invalid_bundle(
            f"the provider {one.issuer} is declared with different keys: an issuer has one set"
        )


def _record_of_caller(name: str) -> list[ProviderManifest]:
    """Return the list of the module whose top level called; two frames up."""
    caller = sys._getframe(2)
    if caller.f_code.co_name != "<module>":
        raise invalid_bundle(f"{name}(...) is called at the top level of a module, not in a function")
    record: list[ProviderManifest] = caller.f_globals.setdefault(_RECORD, [])
    return record


def _add(
    record: list[ProviderManifest],
    where: str,
    kind: Any,
    issuer: str,
    audience: str,
    keys: str,
    algorithms: Sequence[str],
    parties: Sequence[str],
) -> None:
    if "|" in issuer:
        # `issuer|subject` names a user; subjects have such bars.
        raise invalid_bundle(f"{where}: issuer: there may be no `|` in it")
    if isinstance(parties, str):
        raise invalid_bundle(f"{where}: authorized_parties: expected a list of texts, got one text")
    checked = tuple(sorted(_text(f"{where}: authorized_parties", party) for party in parties))
    record.append(ProviderManifest(kind, issuer, audience, keys, _algorithms(where, algorithms), checked))


def _algorithms(where: str, algorithms: Sequence[str]) -> tuple[str, ...]:
    if isinstance(algorithms, str) or not algorithms:
        raise invalid_bundle(f'{where}: algorithms: expected a list such as ["RS256"], got {algorithms!r}')
    for name in algorithms:
        if name not in ALGORITHMS:
            reason = ""
            if isinstance(name, str) and name.upper().startswith("HS"):
                reason = "; with a shared secret, whoever can check a token can make one"
            raise invalid_bundle(
                f"{where}: algorithms: {_shown(name)} is none of {', '.join(ALGORITHMS)}{reason}"
            )
    return tuple(name for name in ALGORITHMS if name in algorithms)


def _keys(where: str, jwks: str | Mapping[str, Any]) -> str:
    """Return the address, or the set as canonical JSON."""
    if isinstance(jwks, str) and not jwks.lstrip().startswith("{"):
        return checked_address(where, _text(where, jwks))
    try:
        parsed = json.loads(jwks) if isinstance(jwks, str) else jwks
        keys = canonical_json(parsed)
    except (TypeError, ValueError, RecursionError) as error:
        raise invalid_bundle(f"{where}: it is no JSON: {error}") from None
    listed = parsed.get("keys") if hasattr(parsed, "get") else None
    if not isinstance(listed, list) or not listed or not all(isinstance(key, dict) for key in listed):
        raise invalid_bundle(f'{where}: expected an https address or a key set, {{"keys": [{{...}}]}}')
    if any("d" in key or "k" in key for key in listed):
        raise invalid_bundle(f"{where}: it has a private or secret key; declare public keys alone")
    if len(keys) > _KEYS_CHARACTERS_MAX:
        raise invalid_bundle(f"{where}: it has {len(keys)} characters; at most {_KEYS_CHARACTERS_MAX} may be")
    return keys


def checked_address(where: str, address: str) -> str:
    """Return an address that keys may come from: https, or http on this machine for development."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise invalid_bundle(f"{where}: {_shown(address)} is no address: {error}") from None
    if parts.scheme not in ("https", "http") or not host:
        raise invalid_bundle(f"{where}: expected an https address, got {_shown(address)}")
    if parts.scheme == "http" and host not in _LOOPBACK:
        raise invalid_bundle(
            f"{where}: {_shown(address)} is not https; http is for localhost alone, in development"
        )
    if parts.username is not None or parts.fragment or address != address.strip() or "\\" in address:
        raise invalid_bundle(
            f"{where}: {_shown(address)}: expected an address without user name and fragment"
        )
    return address


def _text(where: str, value: object) -> str:
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise invalid_bundle(f"{where}: expected text, got {_shown(value)}")
    if len(value) > _TEXT_CHARACTERS_MAX:
        raise invalid_bundle(
            f"{where}: it has {len(value)} characters; at most {_TEXT_CHARACTERS_MAX} may be"
        )
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"
