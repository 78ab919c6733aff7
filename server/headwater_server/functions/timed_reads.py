"""Queries over HTTP at one commit ts: of several requests, or of several queries in one.

Only the newest versions are kept, so a query is run over those; its result holds at an earlier ts as well
if nobody has written since what it read, which the window of recent commits tells. Where somebody has, it is refused.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import RequestError, TransientError
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Sequence

    from headwater_protocol.messages import ErrorBody
    from headwater_storage.proposal import Range

HELD_S = 30.0
_STEP_S = 1.0
_ATTEMPTS_MAX = 5


@dataclass(frozen=True, slots=True)
class Ran:
    """A query that has run.

    Attributes:
        ts: Snapshot that it saw.
        points: Document keys read.
        ranges: Key ranges read.
        content: Its encoded result, None if it failed.
        error: How it failed, None if it did not.
    """

    ts: int
    points: Collection[bytes]
    ranges: Sequence[Range]
    content: bytes | None
    error: ErrorBody | None


class Touches(Protocol):
    """The window of recent commits."""

    def first_touch(
        self, after_ts: CommitTs, points: Collection[bytes], ranges: Sequence[Range]
    ) -> CommitTs | None:
        """Return the first commit after `after_ts` that wrote any of this, or that may have; None if none did."""


class TimedReads:
    """Hands out ts, and tells whether results hold at them.

    Args:
        window: Of recent commits.
        published_ts: The newest.
        mono_s: Monotonic clock.
    """

    def __init__(
        self, window: Touches, published_ts: Callable[[], CommitTs], mono_s: Callable[[], float]
    ) -> None:
        self._window = window
        self._published_ts = published_ts
        self._mono_s = mono_s
        self._handed_out: deque[tuple[float, CommitTs]] = deque()  # one a second, the oldest first

    def hand_out(self) -> int:
        """Return the newest ts; the window reaches back to it for a while, as far as its bound allows."""
        now_s, ts = self._mono_s(), self._published_ts()
        if not self._handed_out or now_s - self._handed_out[-1][0] >= _STEP_S:
            self._handed_out.append((now_s, ts))
        return ts

    def oldest_ts(self) -> CommitTs | None:
        """Return the oldest ts that was handed out within the last half minute, None if none was."""
        until_s = self._mono_s() - HELD_S - _STEP_S
        while self._handed_out and self._handed_out[0][0] < until_s:
            self._handed_out.popleft()
        return self._handed_out[0][1] if self._handed_out else None

    def require(self, done: Ran, ts: int) -> None:
        """Refuse a result that may not have been the same at `ts`.

        Raises:
            RequestError: `invalid_request`: that ts is not reached.
            TransientError: `conflict`: what the query reads was written since, or nobody knows.
        """
        if ts > self._published_ts():
            raise RequestError(f"ts {ts} is ahead of the database, which is at {self._published_ts()}")
        if not self._holds(done, ts):
            raise TransientError(
                "what this query reads was written since the ts that is asked for, or it is more than"
                f" {HELD_S:g} s ago; take another ts and begin anew",
                code="conflict",
            )

    def _holds(self, done: Ran, ts: int) -> bool:
        return self._window.first_touch(CommitTs(ts), done.points, done.ranges) is None

    async def together(self, run: Sequence[Callable[[], Awaitable[Ran]]]) -> list[Ran]:
        """Return the results of queries, all of which hold at one ts; those that others write to are run again.

        Raises:
            TransientError: `conflict`: others write to what they read all the time.
        """
        self.hand_out()
        done: list[Ran] = list(await asyncio.gather(*(one() for one in run)))
        for _ in range(_ATTEMPTS_MAX):
            ts = max(each.ts for each in done)
            stale = [place for place, each in enumerate(done) if each.ts < ts and not self._same(each, ts)]
            if not stale:
                return done
            for place, again in zip(
                stale, await asyncio.gather(*(run[place]() for place in stale)), strict=True
            ):
                done[place] = again
        raise TransientError("others write to what these queries read all the time", code="conflict")

    def _same(self, done: Ran, ts: int) -> bool:
        touched = self._window.first_touch(CommitTs(done.ts), done.points, done.ranges)
        return touched is None or touched > ts
