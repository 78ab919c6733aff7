"""Spans of what comes of a commit that is followed: its way to those who look at what it changed.

Pure. A commit waits here for the transitions of the sessions that it touched, within bounds of number and of time.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwater_server.observe.traces import SpanContext, SpanKind

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater_server.observe.traces import CallTrace, Tracer

_COMMITS_MAX = 64
_SESSIONS_MAX = 16
_AGE_MAX_S = 30.0


@dataclass(slots=True, eq=False)
class _Pushing:
    """A commit on its way to clients.

    Attributes:
        ts: Of its batch.
        commit: Its span.
        published_s: When it was published, monotonic.
        sessions: Which wait for a transition that has it.
    """

    ts: int
    commit: SpanContext
    published_s: float
    sessions: set[Any]


class PushTraces:
    """Tells a span for each transition that brings a commit to a client, of the first ones of each.

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

    def published(self, ts: int, commits: Sequence[CallTrace], sessions: Iterable[Any]) -> None:
        """Commits that are followed were published.

        Args:
            ts: Of their batch.
            commits: Their calls.
            sessions: Which were shown something that the batch has changed.
        """
        now_s = self._tracer.now_s()
        while self._pushing and now_s - self._pushing[0].published_s > _AGE_MAX_S:
            self._pushing.popleft()
        first: set[Any] = set()
        for session in sessions:
            if len(first) == _SESSIONS_MAX:
                break
            first.add(session)
        if not first:
            return
        for call in commits:
            if call.commit is not None:
                self._pushing.append(_Pushing(ts, call.commit, now_s, first.copy()))

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
