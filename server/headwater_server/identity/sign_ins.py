"""Tokens of clients that are being verified, and those that were accepted, until they end.

Runs on the event loop. Verifying costs the daemon more than asking costs a client, so it is bounded:
of one client one token at a time, and only so many a minute; of all clients so many at a time. What is
over a bound waits, and with it whatever that client has sent behind.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import RequestError, TransientError

from headwater_server.identity.refusal import RefusedTokenError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from headwater_server.identity.claims import VerifiedToken
    from headwater_server.observe.metrics import IdentityMetrics

logger = logging.getLogger("headwater.identity")

_ENDED_AT_ONCE = 500  # of one look: what ends makes queries run again, and others want their turn
_TIDY_FROM = 64
REFUSED = "the token was refused"
UNVERIFIABLE = "tokens cannot be verified now; try again in a moment"


@dataclass(frozen=True, slots=True)
class SignInLimits:
    """Bounds of verification.

    Attributes:
        checks_max: Tokens that are verified at a time.
        check_s: Time after which a token counts as one that cannot be verified now.
        per_minute: Tokens of one connection.
    """

    checks_max: int = 256
    check_s: float = 15.0
    per_minute: int = 30


class Verifier(Protocol):
    """Says who a token is from."""

    async def verify(self, token: str) -> VerifiedToken:
        """Return who a token is from; raises `RefusedTokenError`."""

    def trusts(self, verified: VerifiedToken) -> bool:
        """Tell whether tokens of its provider are still taken."""

    def without_token(self, claims: dict[str, Any]) -> tuple[bytes, str]:
        """Return the identity of a token that claimed this, and its identifier; raises `RefusedTokenError`."""


class Holder(Protocol):
    """Who has a token: a connection."""

    @property
    def verified(self) -> VerifiedToken | None:
        """The one that holds now, None if there is none."""

    def lose_identity(self) -> None:
        """The token does not hold any more."""


@dataclass(frozen=True, slots=True)
class ActedUser:
    """A user as whom the holder of a key acts.

    Attributes:
        identity: As in `VerifiedToken`.
        token_identifier: As in `VerifiedToken`.
    """

    identity: bytes
    token_identifier: str


class Pace:
    """How fast something may happen: so often at once as in a minute, and then at that rate.

    Args:
        per_minute: The rate.
        now_s: Monotonic time.
    """

    __slots__ = ("_at_s", "_left", "_per_minute")

    def __init__(self, per_minute: int, now_s: float) -> None:
        self._per_minute = per_minute
        self._left = float(per_minute)
        self._at_s = now_s

    def wait_s(self, now_s: float) -> float:
        """Count one more; return how long it has to wait."""
        refilled = self._left + (now_s - self._at_s) * self._per_minute / 60
        self._left = min(refilled, float(self._per_minute)) - 1
        self._at_s = now_s
        return max(0.0, -self._left * 60 / self._per_minute)


@dataclass(slots=True, eq=False)
class Check:
    """One token that is being verified, or waits for that.

    Attributes:
        token: What is verified.
        verdict: Told how it ended, once: who it is from, or None and whether another time may do better.
        task: What verifies it.
        is_over: Nobody waits for it any more.
    """

    token: str = field(repr=False)
    verdict: Callable[[VerifiedToken | None, bool], None]
    task: asyncio.Task[None] | None = None
    is_over: bool = False

    def cancel(self) -> None:
        """Forget it: its client is gone."""
        self.is_over = True
        self.token = ""
        if self.task is not None:
            self.task.cancel()


class PassingTime:
    """Seconds that pass as fast as the faster of two clocks, from 0.

    A token ends at a time of the wall clock. That may be set back, which must not lengthen a token's life, and the
    monotonic clock stands while the machine sleeps, which must not either.
    """

    def __init__(self, mono_s: Callable[[], float], wall_s: Callable[[], float]) -> None:
        self._clocks = (mono_s, wall_s)
        self._read = [clock() for clock in self._clocks]
        self._passed_s = 0.0

    def __call__(self) -> float:
        """Return how much has passed."""
        before, self._read = self._read, [clock() for clock in self._clocks]
        self._passed_s += max(0.0, *[now - then for now, then in zip(self._read, before, strict=True)])
        return self._passed_s


class SignIns:
    """All of them, of one daemon.

    Args:
        verifier: Says who a token is from; None: there is nobody to ask, and all are refused.
        limits: Bounds.
        metrics: Counted in.
        mono_s: Monotonic clock.
        wall_s: Wall clock, seconds since 1970.
        spawn: Runs a coroutine.
        later: Calls something after so many seconds.
    """

    def __init__(
        self,
        verifier: Verifier | None,
        limits: SignInLimits,
        metrics: IdentityMetrics,
        mono_s: Callable[[], float],
        wall_s: Callable[[], float],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.ensure_future,
        later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        self._verifier = verifier
        self._limits = limits
        self._metrics = metrics
        self._mono_s = mono_s
        self._wall_s = wall_s
        self._passed_s = PassingTime(mono_s, wall_s)
        self._spawn = spawn
        self._later = later or (lambda s, action: asyncio.get_running_loop().call_later(s, action))
        self._waiting: deque[Check] = deque()
        self._running: dict[Check, None] = {}
        self._ends: list[tuple[float, int, Holder, VerifiedToken]] = []  # a heap
        self._tidy_at = _TIDY_FROM
        self._serial = count()

    @property
    def pending(self) -> int:
        """How many tokens are being verified, or wait for it and not for their client's rate."""
        return len(self._running) + len(self._waiting)

    def pace(self) -> Pace:
        """Return the pace of a new client."""
        return Pace(self._limits.per_minute, self._mono_s())

    # ------------------------------------------------------------------ checks

    def begin(self, token: str, pace: Pace, verdict: Callable[[VerifiedToken | None, bool], None]) -> Check:
        """Have a token verified; `verdict` is told in a later turn, or at once if there is nobody to ask."""
        check = Check(token, verdict)
        if self._verifier is None:
            self._end(check, None)
            return check
        wait_s = pace.wait_s(self._mono_s())
        if wait_s:
            self._later(wait_s, lambda: self._enter(check))
        else:
            self._enter(check)
        return check

    async def user_of(self, token: str) -> VerifiedToken:
        """Return who a token is from, for a caller without a connection of its own.

        Raises:
            RequestError: `unauthenticated`: it is refused.
            TransientError: `unavailable`: it cannot be verified now.
        """
        ended: asyncio.Future[tuple[VerifiedToken | None, bool]] = asyncio.get_running_loop().create_future()

        def judge(verified: VerifiedToken | None, may_pass_later: bool) -> None:
            if not ended.done():
                ended.set_result((verified, may_pass_later))

        check = Check(token, judge)
        self._enter(check)
        try:
            verified, may_pass_later = await ended
        finally:
            if not check.is_over:
                check.cancel()
        if verified is not None:
            return verified
        if may_pass_later:
            raise TransientError(UNVERIFIABLE)
        raise RequestError(REFUSED, code="unauthenticated")

    def acting_as(self, claims: dict[str, Any], key_name: str) -> ActedUser:
        """Return the user that the holder of a key wants to act as; it is logged who acts as whom.

        Args:
            claims: What a token of that user would claim: `sub` at least, `iss` where there are several issuers.
            key_name: Whose key it is.

        Raises:
            RequestError: There is no such user.
        """
        if self._verifier is None:
            raise RequestError("actAs: there are no users here")
        try:
            identity, token_identifier = self._verifier.without_token(claims)
        except RefusedTokenError as refusal:
            raise RequestError(f"actAs: {refusal.reason}") from None
        logger.warning("acting_as", extra={"fields": {"key": key_name, "user": token_identifier}})
        return ActedUser(identity, token_identifier)

    def _enter(self, check: Check) -> None:
        if not check.is_over:
            self._waiting.append(check)
            self._start()

    def _start(self) -> None:
        while self._waiting and len(self._running) < self._limits.checks_max:
            check = self._waiting.popleft()
            if not check.is_over:
                self._running[check] = None
                check.task = self._spawn(self._run(check))
                # A task that is cancelled before its first step runs nothing, its `finally` neither.
                check.task.add_done_callback(partial(self._free, check))

    def _free(self, check: Check, _: object = None) -> None:
        """Let the next one take the place of a check that has ended."""
        check.task = None
        if check in self._running:
            del self._running[check]
            self._start()

    async def _run(self, check: Check) -> None:
        verified, may_pass_later = None, False
        try:
            verified = await self._verify(check.token)
        except RefusedTokenError as refusal:
            may_pass_later = refusal.may_pass_later
        except TimeoutError:
            may_pass_later = True
            logger.warning("token_check_timed_out", extra={"fields": {"limit_s": self._limits.check_s}})
        except Exception:
            logger.exception("token_check_failed")
        finally:
            self._free(check)
        self._end(check, verified, may_pass_later=may_pass_later)

    async def _verify(self, token: str) -> VerifiedToken:
        assert self._verifier is not None, "asked by `begin`"
        async with asyncio.timeout(self._limits.check_s):
            return await self._verifier.verify(token)

    def _end(self, check: Check, verified: VerifiedToken | None, *, may_pass_later: bool = False) -> None:
        if verified is not None and self._verifier is not None and not self._verifier.trusts(verified):
            verified = None  # a deploy has removed its provider meanwhile
        if not check.is_over:
            check.is_over = True
            check.token = ""
            check.verdict(verified, may_pass_later)

    # ------------------------------------------------------------------ ends

    def watch(self, holder: Holder, verified: VerifiedToken) -> None:
        """Have a holder lose its identity when its token ends, unless it has another by then."""
        end_s = self._passed_s() + verified.expires_at_s - self._wall_s()
        if len(self._ends) >= self._tidy_at:
            self._tidy()
        heapq.heappush(self._ends, (end_s, next(self._serial), holder, verified))

    def look(self) -> None:
        """Take the identities away whose tokens have ended, a part of them at a time; called several times a second."""
        now_s = self._passed_s()
        taken = 0
        while self._ends and self._ends[0][0] <= now_s and taken < _ENDED_AT_ONCE:
            _, _, holder, verified = heapq.heappop(self._ends)
            if holder.verified is verified:
                taken += 1
                self._metrics.lost.inc()
                holder.lose_identity()

    def providers_changed(self) -> None:
        """Have those lose their identity, soon, whose provider is not trusted any more."""
        verifier = self._verifier
        if verifier is not None:
            self._tidy(lambda verified, end_s: end_s if verifier.trusts(verified) else 0.0)

    def _tidy(self, end_of: Callable[[VerifiedToken, float], float] = lambda _, end_s: end_s) -> None:
        """Forget the tokens that their holders have replaced."""
        self._ends = [
            (end_of(verified, end_s), serial, holder, verified)
            for end_s, serial, holder, verified in self._ends
            if holder.verified is verified
        ]
        heapq.heapify(self._ends)
        self._tidy_at = max(_TIDY_FROM, 2 * len(self._ends))
