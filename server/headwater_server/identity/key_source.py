"""A provider's keys, fetched when they are needed; whoever needs them at the same time waits for one fetch."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from headwater_server.identity.discovery import FetchError, fetch_keys
from headwater_server.identity.key_cache import KeyCache, Want
from headwater_server.identity.refusal import RefusedTokenError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headwater_protocol.manifest import ProviderManifest

    from headwater_server.identity.key_cache import CacheOptions
    from headwater_server.identity.key_sets import KeySet
    from headwater_server.identity.tokens import SignedToken

logger = logging.getLogger("headwater.identity")


class WaitingLine:
    """How many tokens wait for keys, over all providers.

    Args:
        length_max: So many may.
    """

    def __init__(self, length_max: int) -> None:
        self._length_max = length_max
        self._length = 0

    def __enter__(self) -> None:
        """Stand in the line.

        Raises:
            RefusedTokenError: It is full.
        """
        if self._length >= self._length_max:
            reason = f"{self._length} tokens wait for keys of providers already (provider_waiting_limit)"
            raise RefusedTokenError(reason, may_pass_later=True)
        self._length += 1

    def __exit__(self, *_: object) -> None:
        """Leave it."""
        self._length -= 1


class KeySource:
    """The keys of one provider.

    Args:
        provider: The provider.
        options: Times.
        get: Returns what stands at an address, or raises FetchError.
        line: Where tokens wait.
        mono_s: Monotonic time.
        count_fetch: Told of each fetch that ended, whether it brought keys.
    """

    def __init__(
        self,
        provider: ProviderManifest,
        options: CacheOptions,
        get: Callable[[str], Awaitable[bytes]],
        line: WaitingLine,
        mono_s: Callable[[], float],
        count_fetch: Callable[[bool], None],
    ) -> None:
        self._provider = provider
        self._cache = KeyCache(options)
        self._get = get
        self._line = line
        self._mono_s = mono_s
        self._count_fetch = count_fetch
        self._fetching: asyncio.Task[None] | None = None

    async def keys_for(self, token: SignedToken) -> KeySet:
        """Return the keys that a token is verified with.

        Raises:
            RefusedTokenError: There are none now.
        """
        want = self._cache.want(token, self._mono_s())
        if want is not Want.NOTHING:
            fetching = self._begin()
            if want is Want.KEYS:
                with self._line:
                    # Who gives up waiting does not end the fetch that others wait for.
                    await asyncio.wait([fetching])
        return self._cache.keys(self._mono_s())

    def close(self) -> None:
        """Fetch nothing any more; who waits is refused."""
        if self._fetching is not None:
            self._fetching.cancel()

    def _begin(self) -> asyncio.Task[None]:
        if self._fetching is None or self._fetching.done():
            self._cache.begin(self._mono_s())
            self._fetching = asyncio.create_task(self._fetch(), name=f"keys of {self._provider.issuer}")
        return self._fetching

    async def _fetch(self) -> None:
        try:
            keys = await fetch_keys(self._provider, self._get)
        except FetchError as error:
            self._failed(error.reason)
        except asyncio.CancelledError:
            self._cache.fail("the fetch was ended")
            raise
        except Exception as error:
            # A fault of ours must not leave the cache waiting for a fetch that is over.
            logger.exception("provider_keys_fault", extra={"fields": {"issuer": self._provider.issuer}})
            self._failed(type(error).__name__)
        else:
            self._cache.succeed(keys, self._mono_s())
            self._count_fetch(True)
            fields = {"issuer": self._provider.issuer, "keys": len(keys.keys), "unusable": keys.unusable[:4]}
            logger.info("provider_keys_fetched", extra={"fields": fields})

    def _failed(self, reason: str) -> None:
        self._cache.fail(reason)
        self._count_fetch(False)
        fields = {"issuer": self._provider.issuer, "reason": reason}
        logger.warning("provider_keys_not_fetched", extra={"fields": fields})
