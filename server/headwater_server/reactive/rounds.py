"""Rounds: a group of views, one worker, one read transaction; and which group comes next.

Pure. What a round has to run is chosen only when the ts of its snapshot is known. Views
are taken in the order in which they became stale; those that wait for slow queries have
rounds of their own, which leave a worker free for the others.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headwater_server.reactive.sessions import LiveQuery, QueryResult, Version
    from headwater_server.reactive.views import View


_FEW = 64  # places that may be out of date beside as many as there are views


class Need(NamedTuple):
    """A live query to be run under an identity."""

    query: LiveQuery
    identity: bytes | None


@dataclass(frozen=True, slots=True)
class RoundLimits:
    """How rounds are formed.

    Attributes:
        slow_ms: A query that takes longer than this is slow.
        fast_round_ms: Estimated cost at which a group of fast views is full.
        slow_round_ms: The same for slow ones.
        prefetch_calls: Calls sent ahead to the worker of a round, the running one included.
        prefetch_ms: Estimated cost at which no more is sent ahead.
    """

    slow_ms: float = 10.0
    fast_round_ms: float = 10.0
    slow_round_ms: float = 100.0
    prefetch_calls: int = 8
    prefetch_ms: float = 3.0


@dataclass(slots=True, eq=False)
class Round:
    """A round from the order to open it to its end.

    Attributes:
        opened_at: Published ts when it was ordered; its snapshot is not older.
        ts: Its snapshot; None until the worker has told it (and it is published).
        early: Calls and results that came before `ts` was published, in order.
        views: Its members, without those that are gone; one that has left has another `round` or none.
        retry: A killed query that is tried again without anybody waiting for it.
        calls: Sent to the worker and not registered, in order; the first ones with the order to open it.
        queue: Needs found when they were last looked for, cheapest first.
        pinned: Ended versions that are kept because they may be right at its ts.
    """

    number: int
    worker: int
    slow: bool
    opened_at: int
    views: dict[View, None]
    retry: Need | None = None
    ts: int | None = None
    calls: dict[int, Need] = field(default_factory=dict)
    queue: deque[Need] = field(default_factory=deque)
    early: list[tuple[int, QueryResult]] = field(default_factory=list)
    pinned: list[Version] = field(default_factory=list)

    @property
    def needed_at(self) -> int:
        """The ts that its members need results of: its snapshot, or what that is expected to be."""
        return self.opened_at if self.ts is None else self.ts

    @property
    def running(self) -> Need | None:
        """What its worker runs, or would run next."""
        finished = {call for call, _ in self.early}
        return next((need for call, need in self.calls.items() if call not in finished), None)

    def pins(self, version: Version) -> bool:
        """Tell whether an ended version may still be needed at this round's ts."""
        if self.ts is None:
            return version.until > self.opened_at
        return version.since <= self.ts < version.until

    def needs(self) -> list[Need]:
        """Return what its members need and is not running for it, cheapest first."""
        ts = self.needed_at
        seen = set(self.calls.values())
        found = []
        if self.retry is not None and self.retry not in seen:
            found.append(self.retry)
        for view in self.views:
            if view.round is not self:
                continue
            identity = view.identity
            for query in view.lacking_at(ts):
                need = Need(query, identity)
                if need not in seen:
                    seen.add(need)
                    found.append(need)
        found.sort(key=lambda need: need.query.cost_ms)
        return found

    def still_needs(self, need: Need) -> bool:
        """Tell whether a member still waits for this."""
        if need == self.retry:
            return True
        query, identity = need
        if query.version_at(identity, self.needed_at) is not None:
            return False
        return any(view.round is self and view.identity == identity for view in query.views)


class Group(NamedTuple):
    """Who takes part in the next round: views, or a retry that nobody waits for."""

    views: list[View]
    slow: bool
    retry: Need | None = None


_Entry = tuple[float, int, "View"]
"""Since when a view has been stale, a number that tells equal ones apart, and the view."""


class Waiting:
    """Who wants a round: stale views without one, and killed queries whose pause is over (with its end).

    What a view needs is looked up when it begins to wait or when that may have changed, not at each choice:
    after a restart thousands wait.

    Attributes:
        views: The views, each with its place among them; None while it has none yet.
        retries: The killed queries.
    """

    def __init__(self) -> None:
        self.views: dict[View, _Entry | None] = {}
        self.retries: dict[Need, float] = {}
        self._new: dict[View, None] = {}
        self._fast: list[_Entry] = []
        self._slow: list[_Entry] = []
        self._count = 0

    def add(self, view: View) -> None:
        """Have a view wait. One that waits already may have become stale earlier, or need something else."""
        self.views[view] = None
        self._new[view] = None

    def next_group(
        self, limits: RoundLimits, *, published_ts: int, now_ms: float, workers: int, slow_rounds: int
    ) -> Group | None:
        """Choose the next group; it stays in `self` until the caller takes it out.

        Args:
            limits: How rounds are formed.
            published_ts: Views are stale with regard to this ts.
            now_ms: Monotonic time.
            workers: Workers that take rounds, busy or idle.
            slow_rounds: Open rounds of slow groups.
        """
        self._place_new(published_ts, limits.slow_ms)
        fast = self._first_fast(published_ts, limits.slow_ms)
        slow = next(self._in_order(self._slow), None)
        if (slow is not None or self.retries) and slow_rounds < max(1, workers - 1):
            retry, due_ms = min(self.retries.items(), key=lambda item: item[1], default=(None, 0.0))
            oldest_ms = None if slow is None else slow.since_ms
            retry_first = retry is not None and (oldest_ms is None or due_ms < oldest_ms)
            waited_ms = now_ms - (due_ms if retry_first or oldest_ms is None else oldest_ms)
            needs = [retry] if retry_first and retry is not None else _needs(slow, published_ts)
            # A single worker gives slow groups at most half its time.
            longest_ms = max((need.query.cost_ms for need in needs), default=0.0)
            if workers > 1 or fast is None or waited_ms > longest_ms:
                if retry_first:
                    return Group([], True, retry)
                return Group(_fill(self._in_order(self._slow), published_ts, limits.slow_round_ms), True)
        if fast is not None:
            return Group(_fill(self._in_order(self._fast), published_ts, limits.fast_round_ms), False)
        return None

    def _place_new(self, ts: int, slow_ms: float) -> None:
        for view in self._new:
            if view in self.views:
                self._count += 1
                entry = (view.since_ms or 0.0, self._count, view)
                self.views[view] = entry
                insort(self._slow if _is_slow(view, ts, slow_ms) else self._fast, entry)
        self._new.clear()
        for entries in (self._slow, self._fast):
            if len(entries) > 2 * len(self.views) + _FEW:
                entries[:] = [entry for entry in entries if self.views.get(entry[2]) is entry]

    def _first_fast(self, ts: int, slow_ms: float) -> View | None:
        """Return the first fast view. Those that have been found slow since they began to wait are slow ones from now on.

        A slow one further back ends the group before it, as it costs more than a group of fast views may.
        """
        while (view := next(self._in_order(self._fast), None)) is not None:
            if not _is_slow(view, ts, slow_ms):
                return view
            insort(self._slow, self._fast.pop(0))
        return None

    def _in_order(self, entries: list[_Entry]) -> Iterator[View]:
        """Iterate the views that still wait where these entries say, and forget the first ones that do not."""
        gone = 0
        for entry in entries:
            if self.views.get(entry[2]) is entry:
                break
            gone += 1
        del entries[:gone]
        for entry in entries:
            if self.views.get(entry[2]) is entry:
                yield entry[2]


def _needs(view: View | None, ts: int) -> list[Need]:
    if view is None:
        return []
    identity = view.identity
    return [Need(query, identity) for query in view.lacking_at(ts)]


def _is_slow(view: View, ts: int, slow_ms: float) -> bool:
    return any(query.cost_ms > slow_ms for query in view.lacking_at(ts))


def _fill(views: Iterable[View], ts: int, limit_ms: float) -> list[View]:
    """Return views until what they need together costs the limit; at least one."""
    group: list[View] = []
    counted: set[Need] = set()
    cost_ms = 0.0
    for view in views:
        for need in _needs(view, ts):
            if need not in counted:
                counted.add(need)
                cost_ms += need.query.cost_ms
        if group and cost_ms > limit_ms:
            break
        group.append(view)
    return group
