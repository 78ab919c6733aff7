"""Spans of what comes of a commit that is followed: its way to those who look at what it changed.

Pure. A commit waits here for the queries that it made stale to run again, and for the transitions of the sessions that
look at them, within bounds of number and of time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from headwater_server.observe.traces import SpanContext, SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater_server.observe.traces import CallTrace, Tracer
    from headwater_server.worker.messages import QueryDone

_T = TypeVar("_T")

_COMMITS_MAX = 64
_SESSIONS_MAX = 16
_QUERIES_MAX = 16
_AGE_MAX_S = 30.0

Query = tuple[str, bytes]


@dataclass(slots=True, eq=False)
class _Pushing:
    """A commit on its way to clients.

    Attributes:
        ts: Of its batch.
        commit: Its span.
        published_s: When it was published, monotonic.
        sessions: Which wait for a transition that has it.
        queries: Live queries that it made stale and that have not run since, by function and arguments.
    """

    ts: int
    commit: SpanContext
    published_s: float
    sessions: set[Any]
    queries: set[Query]


class PushTraces:
    """Tells a span for each query that is run again for a commit and each transition that brings it to a client, of the first ones.

    Args:
        tracer: Tells them.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self._pushing: deque[_Pushing] = deque(maxlen=_COMMITS_MAX)

    @property
    def waiting(self) -> int:
        """How many commits wait for transitions."""
        return len(self._pushing)

    def published(
        self, ts: int, commits: Sequence[CallTrace], sessions: Iterable[Any], queries: Iterable[Query] = ()
    ) -> None:
        """Commits that are followed were published.

        Args:
            ts: Of their batch.
            commits: Their calls.
            sessions: Which were shown something that the batch has changed.
            queries: Live queries that it has made stale.
        """
        now_s = self._tracer.now_s()
        while self._pushing and now_s - self._pushing[0].published_s > _AGE_MAX_S:
            self._pushing.popleft()
        first, stale = _first(sessions, _SESSIONS_MAX), _first(queries, _QUERIES_MAX)
        if not first:
            return
        for call in commits:
            if call.commit is not None:
                self._pushing.append(_Pushing(ts, call.commit, now_s, first.copy(), stale.copy()))

    def ran(self, query: Query, done: QueryDone) -> None:
        """A live query has run in a worker."""
        for one in self._pushing:
            if one.ts <= done.ts and query in one.queries:
                one.queries.discard(query)
                usage, now_s = done.usage, self._tracer.now_s()
                begin_s = usage.started_us / 1e6 if usage.started_us else now_s - usage.duration_us / 1e6
                self._tracer.tell(
                    SpanContext(one.commit.trace_id, self._tracer.new_id()),
                    one.commit.span_id,
                    f"query {query[0]}",
                    begin_s,
                    begin_s + usage.duration_us / 1e6,
                    {
                        "headwater.function": query[0],
                        "headwater.kind": "query",
                        "headwater.origin": "subscription",
                        "headwater.documents_read": usage.documents_read,
                        "headwater.bytes_read": usage.bytes_read,
                    },
                    error="" if done.failure is None else done.failure.code,
                )

    def delivered(self, session: Any, ts: int) -> None:
        """A transition to `ts` was handed to the socket of a session."""
        reached = [one for one in self._pushing if one.ts <= ts and session in one.sessions]
        if not reached:
            return
        now_s = self._tracer.now_s()
        for one in reached:
            one.sessions.discard(session)
            if not one.sessions:
                self._pushing.remove(one)
            self._tracer.tell(
                SpanContext(one.commit.trace_id, self._tracer.new_id()),
                one.commit.span_id,
                "push",
                one.published_s,
                now_s,
                {"headwater.transition_ts": ts},
                kind=SpanKind.PRODUCER,
                links=[other.commit for other in reached if other is not one],
            )


def _first(items: Iterable[_T], most: int) -> set[_T]:
    """Return the first different ones."""
    found: set[_T] = set()
    for item in items:
        if len(found) == most:
            break
        found.add(item)
    return found
