"""What a provider publishes, taken apart: the document that says where its keys are, and the keys.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_server.identity.key_sets import KeySet, parse_key_set
from headwater_server.identity.refusal import shown
from headwater_server.identity.tokens import parse_json

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headwater_protocol.manifest import ProviderManifest

_PATH = "/.well-known/openid-configuration"


class FetchError(Exception):
    """Keys could not be fetched.

    Attributes:
        reason: Why, for the developer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def fetch_keys(provider: ProviderManifest, get: Callable[[str], Awaitable[bytes]]) -> KeySet:
    """Return a provider's keys as it publishes them now.

    Args:
        provider: The provider.
        get: Returns what stands at an address, or raises FetchError.

    Raises:
        FetchError: They cannot be had, or there is none that can be used.
    """
    address = provider.keys
    if provider.kind in ("oidc", "login"):
        discovery = provider.issuer.rstrip("/") + _PATH
        address = _address_of_keys(provider, discovery, await get(discovery))
    try:
        found = parse_key_set(await get(address))
    except ValueError as error:
        raise FetchError(f"{address}: {error}") from None
    if not found.keys:
        raise FetchError(
            f"{address}: no key of it can be used: {'; '.join(found.unusable[:4]) or 'it has none'}"
        )
    return found


def _address_of_keys(provider: ProviderManifest, discovery: str, document: bytes) -> str:
    try:
        parsed = parse_json(document)
    except ValueError as error:
        raise FetchError(f"{discovery}: {error}") from None
    if not isinstance(parsed, dict):
        raise FetchError(f"{discovery}: expected a JSON object, got {shown(parsed)}")
    if parsed.get("issuer") != provider.issuer:
        # Else one provider could answer for another.
        raise FetchError(
            f"{discovery}: it is that of the issuer {shown(parsed.get('issuer'))}; declare that one"
        )
    address = parsed.get("jwks_uri")
    if not isinstance(address, str) or not address:
        raise FetchError(f"{discovery}: jwks_uri: expected an address, got {shown(address)}")
    return address
