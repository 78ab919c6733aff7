"""Says who a token is from, by the providers of the active bundle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater_server.identity.claims import VerifiedToken, check_claims, provider_of
from headwater_server.identity.key_sets import parse_key_set
from headwater_server.identity.refusal import RefusedTokenError, shown
from headwater_server.identity.tokens import take_apart

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.manifest import ProviderManifest

    from headwater_server.identity.key_sets import KeySet


@dataclass(frozen=True, slots=True)
class VerifierOptions:
    """Limits of verification.

    Attributes:
        token_bytes_max: Longer tokens are not looked at.
        leeway_s: How far a provider's clock may be from ours.
    """

    token_bytes_max: int
    leeway_s: float


class Verifier:
    """Verifies tokens.

    Args:
        options: Limits.
        now_s: Wall clock, seconds since 1970.
    """

    def __init__(self, options: VerifierOptions, now_s: Callable[[], float]) -> None:
        self._options = options
        self._now_s = now_s
        self._providers: tuple[ProviderManifest, ...] = ()

    def use(self, providers: Sequence[ProviderManifest]) -> None:
        """Take the tokens of these providers from now on, and of no others."""
        self._providers = tuple(providers)

    async def verify(self, token: str) -> VerifiedToken:
        """Return who a token is from.

        Raises:
            RefusedTokenError: It is refused.
        """
        signed = take_apart(token, self._options.token_bytes_max)
        if not self._providers:
            raise RefusedTokenError(
                "this deployment declares no provider; see oidc_provider and jwt_provider"
            )
        provider = provider_of(signed.claims, self._providers)
        if signed.algorithm not in provider.algorithms:
            raise RefusedTokenError(
                f"header: alg: {shown(signed.algorithm)} is none of those of the provider: {', '.join(provider.algorithms)}"
            )
        verified = check_claims(signed.claims, provider, self._now_s(), self._options.leeway_s)
        # Last, because it is what costs; and only for tokens that could pass.
        (await self._keys_of(provider)).check_signature(signed)
        return verified

    async def _keys_of(self, provider: ProviderManifest) -> KeySet:
        if not provider.keys.startswith("{"):
            raise RefusedTokenError("keys at an address are not fetched yet", may_pass_later=True)
        return parse_key_set(provider.keys.encode())
