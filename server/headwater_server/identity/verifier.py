"""Says who a token is from, by the providers of the active bundle."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater_server.identity.claims import VerifiedToken, check_claims, identity_without_token, provider_of
from headwater_server.identity.key_sets import parse_key_set
from headwater_server.identity.key_source import KeySource, WaitingLine
from headwater_server.identity.refusal import RefusedTokenError, shown
from headwater_server.identity.tokens import take_apart

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from typing import Any

    from headwater_protocol.manifest import ProviderManifest

    from headwater_server.identity.key_cache import CacheOptions
    from headwater_server.identity.key_sets import KeySet
    from headwater_server.identity.own_issuer import OwnIssuer
    from headwater_server.identity.tokens import SignedToken
    from headwater_server.observe.metrics import Metrics

logger = logging.getLogger("headwater.identity")


@dataclass(frozen=True, slots=True)
class VerifierOptions:
    """Limits of verification.

    Attributes:
        token_bytes_max: Longer tokens are not looked at.
        leeway_s: How far a provider's clock may be from ours.
        waiting_max: So many tokens may wait for keys.
        reasons_per_minute: So many refusals are logged in a minute, the others only counted.
        cache: How long keys count.
    """

    token_bytes_max: int
    leeway_s: float
    waiting_max: int
    reasons_per_minute: int
    cache: CacheOptions


@dataclass(frozen=True, slots=True)
class Clocks:
    """Time.

    Attributes:
        wall_s: Wall clock, seconds since 1970: what tokens speak of.
        mono_s: Monotonic time.
    """

    wall_s: Callable[[], float]
    mono_s: Callable[[], float]


class Verifier:
    """Verifies tokens.

    Args:
        options: Limits.
        clocks: Time.
        get: Returns what stands at an address of a provider, or raises FetchError.
        metrics: Counted in.
        own: Signs tokens for the bundle's accounts; None: nobody does.
    """

    def __init__(
        self,
        options: VerifierOptions,
        clocks: Clocks,
        get: Callable[[str], Awaitable[bytes]],
        metrics: Metrics,
        own: OwnIssuer | None = None,
    ) -> None:
        self._options = options
        self._clocks = clocks
        self._get = get
        self._metrics = metrics.identity
        self._own = own
        self._line = WaitingLine(options.waiting_max)
        self._reasons = Allowance(options.reasons_per_minute, clocks.mono_s)
        self._providers: tuple[ProviderManifest, ...] = ()
        self._logins: tuple[ProviderManifest, ...] = ()
        self._declared: dict[str, KeySet] = {}
        self._sources: dict[tuple[str, str], KeySource] = {}

    def use(self, providers: Sequence[ProviderManifest]) -> None:
        """Take the tokens of these providers from now on, and of no others."""
        self._logins = tuple(provider for provider in providers if provider.kind == "login")
        self._providers = tuple(self._resolved(providers))
        callers = [provider for provider in self._providers if provider.kind != "deployment"]
        foreign = [*callers, *self._logins]
        inline = {provider.keys for provider in foreign if provider.keys.startswith("{")}
        self._declared = {keys: parse_key_set(keys.encode()) for keys in inline}
        published = {_place(provider): provider for provider in foreign if provider.keys not in inline}
        for place in self._sources.keys() - published.keys():
            self._sources.pop(place).close()
        for place, provider in published.items():
            if place not in self._sources:
                self._sources[place] = self._source(provider)

    def _resolved(self, providers: Sequence[ProviderManifest]) -> Iterator[ProviderManifest]:
        """Yield the providers, the deployment itself with its name and keys.

        Nobody else may go by that name: whoever has a key of an issuer may speak for all its users.
        """
        own = self._own if any(provider.kind == "deployment" for provider in providers) else None
        for provider in providers:
            if provider.kind == "login":
                continue
            if provider.kind == "deployment":
                if own is not None:
                    yield own.provider
            elif own is not None and provider.issuer == own.issuer:
                reason = "this deployment signs its own tokens under that name (public_url)"
                fields = {"issuer": provider.issuer, "reason": reason}
                logger.error("provider_not_trusted", extra={"fields": fields})
            else:
                yield provider

    def close(self) -> None:
        """Fetch nothing any more."""
        self.use(())

    def trusts(self, verified: VerifiedToken) -> bool:
        """Tell whether a token that was accepted would still be, by those whose tokens are taken."""
        return verified.provider in self._providers

    def concerns(self, token: str) -> bool:
        """Tell whether a token claims to be of one of them; whether it is, is not looked at."""
        try:
            provider_of(take_apart(token, self._options.token_bytes_max).claims, self._providers)
        except RefusedTokenError:
            return False
        return True

    async def verify(self, token: str) -> VerifiedToken:
        """Return who a token is from.

        Raises:
            RefusedTokenError: It is refused.
        """
        try:
            verified, _ = await self._verify(token, self._providers)
        except RefusedTokenError as refusal:
            self._metrics.tokens.labels("undecided" if refusal.may_pass_later else "refused").inc()
            if self._reasons.take():
                fields = {"reason": refusal.reason, "not_logged_before": self._reasons.left_out()}
                logger.info("token_refused", extra={"fields": fields})
            raise
        self._metrics.tokens.labels("accepted").inc()
        return verified

    async def explain(self, token: str) -> VerifiedToken:
        """Do as `verify`, for somebody who asks why a token is refused: uncounted and not logged."""
        verified, _ = await self._verify(token, self._providers)
        return verified

    async def verify_login(self, token: str, issuer: str, audience: str) -> dict[str, Any]:
        """Return what the ID token of a provider claims with which people sign in at the bundle's accounts.

        Args:
            token: As the provider gave it.
            issuer: Whose it has to be.
            audience: Whom it has to be for.

        Raises:
            RefusedTokenError: It is not, or does not count.
        """
        logins = [one for one in self._logins if (one.issuer, one.audience) == (issuer, audience)]
        _, signed = await self._verify(token, logins)
        return signed.claims

    def without_token(self, claims: dict[str, Any]) -> tuple[bytes, str]:
        """Return the identity that a token with these claims would give, and its token identifier.

        Raises:
            RefusedTokenError: There could be no such token.
        """
        return identity_without_token(claims, self._providers)

    async def _verify(
        self, token: str, providers: Sequence[ProviderManifest]
    ) -> tuple[VerifiedToken, SignedToken]:
        signed = take_apart(token, self._options.token_bytes_max)
        if not providers:
            raise RefusedTokenError(
                "this deployment declares no provider; see oidc_provider and jwt_provider"
            )
        provider = provider_of(signed.claims, providers)
        if signed.algorithm not in provider.algorithms:
            raise RefusedTokenError(
                f"header: alg: {shown(signed.algorithm)} is none of those of the provider: {', '.join(provider.algorithms)}"
            )
        verified = check_claims(signed.claims, provider, self._clocks.wall_s(), self._options.leeway_s)
        # Last, because it is what costs; and only for tokens that could pass.
        (await self._keys_of(provider, signed)).check_signature(signed)
        if provider not in (*self._providers, *self._logins):
            raise RefusedTokenError(
                "another bundle was deployed meanwhile, which declares its provider otherwise",
                may_pass_later=True,
            )
        return verified, signed

    async def _keys_of(self, provider: ProviderManifest, token: SignedToken) -> KeySet:
        if provider.kind == "deployment":
            assert self._own is not None, "else it is not among the providers"
            return self._own.key_set()
        declared = self._declared.get(provider.keys)
        if declared is not None:
            return declared
        return await self._sources[_place(provider)].keys_for(token)

    def _source(self, provider: ProviderManifest) -> KeySource:
        fetches = self._metrics.key_fetches
        return KeySource(
            provider,
            self._options.cache,
            self._get,
            self._line,
            self._clocks.mono_s,
            lambda done: fetches.labels("done" if done else "failed").inc(),
        )


class Allowance:
    """How much may still be logged: so many lines a minute, however many there are to log.

    Args:
        per_minute: So many.
        mono_s: Monotonic time.
    """

    def __init__(self, per_minute: int, mono_s: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._mono_s = mono_s
        self._minute_began_s = mono_s()
        self._taken = 0
        self._left_out = 0

    def take(self) -> bool:
        """Return whether one more may be logged."""
        now_s = self._mono_s()
        if now_s - self._minute_began_s >= 60:
            self._minute_began_s, self._taken = now_s, 0
        if self._taken < self._per_minute:
            self._taken += 1
            return True
        self._left_out += 1
        return False

    def left_out(self) -> int:
        """Return how many were not, since this was asked last."""
        count, self._left_out = self._left_out, 0
        return count


def _place(provider: ProviderManifest) -> tuple[str, str]:
    """Return where a provider's keys come from; those of one issuer come from one place."""
    return provider.issuer, provider.keys
