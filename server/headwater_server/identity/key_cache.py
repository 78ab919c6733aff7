"""When a provider's keys are fetched, and how long they count.

Pure: told the time and what came of fetches, it says what to do.

Keys are fetched when they are first needed, again once they are old, and when a token names one that is
not there, as after a rotation. Anybody can send such a token, so that happens once in a while at most.
While the provider cannot be reached, what was fetched last counts on, for so long and no longer: a key
that was taken back must end some time.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from headwater_server.identity.refusal import RefusedTokenError

if TYPE_CHECKING:
    from headwater_server.identity.key_sets import KeySet
    from headwater_server.identity.tokens import SignedToken

_FIRST_PAUSE_S = 5.0  # between attempts while there are no keys at all: nobody can sign in


@dataclass(frozen=True, slots=True)
class CacheOptions:
    """Times.

    Attributes:
        pause_s: Least time between two fetches.
        age_s: Keys older than this are fetched again.
        kept_s: Keys older than this count no more.
    """

    pause_s: float
    age_s: float
    kept_s: float


class Want(Enum):
    """What a token needs before it can be verified."""

    NOTHING = "nothing"
    REFRESH = "refresh"  # a fetch, which nobody waits for
    KEYS = "keys"  # a fetch, whose end is waited for


class KeyCache:
    """The keys of one provider.

    Args:
        options: Times.
    """

    def __init__(self, options: CacheOptions) -> None:
        self._options = options
        self._keys: KeySet | None = None
        self._fetched_s = 0.0
        self._began_s: float | None = None
        self._is_fetching = False
        self._failure = ""

    def want(self, token: SignedToken, now_s: float) -> Want:
        """Return what a token needs first.

        Args:
            token: The token.
            now_s: Monotonic time.
        """
        keys = self._counting(now_s)
        fits = keys is not None and bool(keys.fitting(token))
        if self._is_fetching:
            return Want.NOTHING if fits else Want.KEYS
        if self._pauses(now_s, has_keys=keys is not None):
            return Want.NOTHING
        if not fits:
            return Want.KEYS
        age_s = now_s - self._fetched_s
        if age_s < self._options.age_s:
            return Want.NOTHING
        # After a quiet time even the first token shall meet keys that are not too old.
        return Want.REFRESH if age_s < 2 * self._options.age_s else Want.KEYS

    def begin(self, now_s: float) -> None:
        """A fetch begins."""
        self._is_fetching, self._began_s = True, now_s

    def succeed(self, keys: KeySet, now_s: float) -> None:
        """It brought keys."""
        self._is_fetching, self._keys, self._fetched_s, self._failure = False, keys, now_s, ""

    def fail(self, reason: str) -> None:
        """It brought none, for a reason; those of before go on."""
        self._is_fetching, self._failure = False, reason

    def keys(self, now_s: float) -> KeySet:
        """Return the keys that count now.

        Raises:
            RefusedTokenError: There are none.
        """
        found = self._counting(now_s)
        if found is None:
            reason = self._failure or "nothing has been fetched yet"
            raise RefusedTokenError(f"the provider's keys cannot be had: {reason}", may_pass_later=True)
        return found

    def _counting(self, now_s: float) -> KeySet | None:
        return self._keys if now_s - self._fetched_s < self._options.kept_s else None

    def _pauses(self, now_s: float, *, has_keys: bool) -> bool:
        pause_s = self._options.pause_s if has_keys else min(_FIRST_PAUSE_S, self._options.pause_s)
        return self._began_s is not None and now_s - self._began_s < pause_s
