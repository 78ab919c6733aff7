"""Queries whose runs were ended by force: what stands in their place, and when they are tried again.

Pure. A killed run has no read set, so nothing could ever make its error stale; and were
the error not exempt from the common ts, it would hold its sessions where they are for ever.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

from headwater_protocol.messages import ErrorBody

from headwater_server.reactive.contents import Content
from headwater_server.reactive.rounds import Need, Waiting
from headwater_server.reactive.sessions import FOREVER, Killed, LiveQuery

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.reactive.versions import LiveQueries


class KilledQueries:
    """Every query, under an identity, that shows the error of a killed run.

    A retry runs while its sessions go on with the error. It succeeds: the error goes. It is
    killed: the pause doubles.
    """

    def __init__(
        self,
        live: LiveQueries,
        waiting: Waiting,
        now_ms: Callable[[], float],
        *,
        strikes: int,
        first_ms: float,
        longest_ms: float,
        cost_ms: float,
    ) -> None:
        self._live = live
        self._waiting = waiting
        self._now_ms = now_ms
        self._strikes = strikes
        self._first_ms = first_ms
        self._longest_ms = longest_ms
        self._cost_ms = cost_ms
        self._killed: dict[Need, Killed] = {}

    def __contains__(self, need: Need) -> bool:
        return need in self._killed

    def strike(self, need: Need) -> bool:
        """Count a worker's death against what it was running; tell whether that makes it a kill."""
        strikes = need.query.strikes
        strikes[need.identity] = strikes.get(need.identity, 0) + 1
        if strikes[need.identity] < self._strikes and need not in self._killed:
            return False
        name = need.query.key.name
        return self.kill(need, ErrorBody("worker_died", f"The worker process died while it ran {name}"))

    def kill(self, need: Need, error: ErrorBody) -> bool:
        """Put an error in place of a result and set the retry; False if nobody looks at the query any more."""
        query, identity = need
        query.cost_ms = max(query.cost_ms, self._cost_ms)
        if self._live.by_key.get(query.key) is not query:
            return False
        before = self._killed.get(need)
        self._waiting.retries.pop(need, None)
        pause_ms = self._first_ms if before is None else min(2 * before.pause_ms, self._longest_ms)
        content = Content.failed(error)
        version = self._live.new_version(0, FOREVER, True, identity, content, query.key.journal)
        self._killed[need] = killed = Killed(version, pause_ms, self._now_ms() + pause_ms)
        self._live.set_killed(query, identity, killed)
        return True

    def forgive(self, query: LiveQuery, identity: bytes | None, identity_read: bool) -> None:
        """Forget kills and strikes of a query that has run to its end, for all whom that result serves."""
        if not query.strikes and not query.killed:
            return
        for served in [identity] if identity_read else list(query.strikes | query.killed):
            query.strikes.pop(served, None)
            if served in query.killed:
                self._pardon(Need(query, served))

    def retry_due(self) -> float | None:
        """Queue the retries whose pause is over; return when the next one's is, monotonic ms, if any."""
        now_ms = self._now_ms()
        for need, killed in list(self._killed.items()):
            if killed.due_ms <= now_ms:
                self._retry(need, killed)
        due_ms = min((killed.due_ms for killed in self._killed.values()), default=inf)
        return None if due_ms == inf else due_ms

    def retry_all(self) -> None:
        """Queue a retry of every killed query at once, since its code may have changed."""
        for need, killed in list(self._killed.items()):
            if killed.due_ms != inf:
                self._retry(need, killed)

    def _retry(self, need: Need, killed: Killed) -> None:
        if need.identity not in need.query.identities:
            self._pardon(need)
            return
        killed.due_ms = inf
        self._waiting.retries[need] = self._now_ms()

    def _pardon(self, need: Need) -> None:
        del self._killed[need]
        self._waiting.retries.pop(need, None)
        self._live.set_killed(need.query, need.identity, None)

    def requeue(self, need: Need) -> None:
        """Put a retry back whose round ended without running it to an end."""
        killed = self._killed.get(need)
        if killed is not None and killed.due_ms == inf:
            self._waiting.retries[need] = self._now_ms()

    def check(self, retrying: set[Need | None]) -> None:
        """Verify that each killed query knows it and is still there."""
        for need, killed in self._killed.items():
            assert need.query.killed[need.identity] is killed
            assert self._live.by_key.get(need.query.key) is need.query, "a killed query was dropped"
            queued = need in self._waiting.retries
            assert killed.due_ms == inf or not queued, "a retry is queued before its time"
            assert killed.due_ms < inf or queued or need in retrying, "a retry is lost"
