"""Spans of calls, for OpenTelemetry: which calls are followed, and what is told of each.

Pure. A call that is not followed has no trace, and costs one look at that. Times are monotonic until a span is
told; then they become what the wall clock shows now, less what has passed since.
"""

from __future__ import annotations

from contextvars import ContextVar
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headwater_storage.committer import BatchTimes

    from headwater_server.observe.call_log import CallKind, Origin
    from headwater_server.worker.messages import Usage

TRACE_ID_BYTES = 16
SPAN_ID_BYTES = 8
_CHANCES = 1 << 64
_TRACEPARENT_LENGTH_MAX = 256
_HEX = frozenset("0123456789abcdef")
_SUCCESS = "success"

Attribute = str | int | float | bool


class SpanContext(NamedTuple):
    """Names a span, as `traceparent` does.

    Attributes:
        trace_id: 16 bytes, not all 0.
        span_id: 8 bytes, not all 0.
        sampled: Whether whoever made it follows it.
    """

    trace_id: bytes
    span_id: bytes
    sampled: bool = True


UNFOLLOWED = SpanContext(b"", b"", sampled=False)
"""Stands for a caller that is not followed: what it calls is not either."""

calling_span: ContextVar[SpanContext | None] = ContextVar("headwater_caller_span", default=None)
"""The span that the HTTP request at hand belongs to, as it says; set in the task that answers it."""


class SpanKind(IntEnum):
    """As in OTLP."""

    INTERNAL = 1
    SERVER = 2
    PRODUCER = 4


class Span(NamedTuple):
    """One that has ended.

    Attributes:
        context: Names it.
        parent: Span id of the one that it is a part of; b"" for none.
        name: What it is.
        kind: How it relates to others.
        start_ns: Wall time, ns since 1970.
        end_ns: Likewise, not before.
        attributes: What is told of it.
        error: Code of what went wrong; "" if nothing did.
        links: Spans of other traces that it is about, too.
    """

    context: SpanContext
    parent: bytes
    name: str
    kind: SpanKind
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Attribute]
    error: str
    links: Sequence[SpanContext]


class Tracer:
    """Decides which calls are followed, and tells their spans.

    Args:
        ratio: Share of calls that are followed, from 0 to 1, where their callers do not say.
        mono_s: Monotonic clock.
        wall_us: Wall clock.
        random_bytes: Names spans, and decides.
        tell: Takes each span that has ended.
    """

    def __init__(
        self,
        ratio: float,
        mono_s: Callable[[], float],
        wall_us: Callable[[], int],
        random_bytes: Callable[[int], bytes],
        tell: Callable[[Span], None],
    ) -> None:
        self._chances = round(ratio * _CHANCES)
        self._mono_s = mono_s
        self._wall_us = wall_us
        self._random_bytes = random_bytes
        self._tell = tell

    def begin(
        self,
        kind: CallKind,
        function: str,
        origin: Origin,
        parent: SpanContext | None = None,
    ) -> CallTrace | None:
        """Begin to follow a call; None if it is not followed.

        Args:
            kind: What is called.
            function: Its name.
            origin: Who calls.
            parent: The span that the caller calls it in. Whether it is followed is then theirs to say; without
                one, chance decides.
        """
        if parent is None:
            if int.from_bytes(self._random_bytes(8)) >= self._chances:
                return None
            parent_id, trace_id = b"", self._random_bytes(TRACE_ID_BYTES)
        elif parent.sampled:
            parent_id, trace_id = parent.span_id, parent.trace_id
        else:
            return None
        context = SpanContext(trace_id, self.new_id())
        return CallTrace(self, context, parent_id, kind, function, origin, self._mono_s())

    def new_id(self) -> bytes:
        """Return the id of a new span."""
        return self._random_bytes(SPAN_ID_BYTES)

    def now_s(self) -> float:
        """Return the monotonic time."""
        return self._mono_s()

    def tell(
        self,
        context: SpanContext,
        parent: bytes,
        name: str,
        begin_s: float,
        end_s: float,
        attributes: Mapping[str, Attribute],
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        error: str = "",
        links: Sequence[SpanContext] = (),
    ) -> None:
        """Tell a span that has ended, at monotonic times of a moment ago."""
        now_ns, now_s = self._wall_us() * 1000, self._mono_s()
        start_ns = now_ns - round((now_s - begin_s) * 1e9)
        end_ns = max(start_ns, now_ns - round((now_s - end_s) * 1e9))
        self._tell(Span(context, parent, name, kind, start_ns, end_ns, attributes, error, links))


class CallTrace:
    """A call that is followed, from its request to its answer.

    Attributes:
        context: Of the span of the whole call.
        commit: Of the span of its commit, once it is committed; pushes belong to it.
    """

    __slots__ = (
        "_attributes", "_begun_s", "_kind", "_name", "_parent", "_proposed_s", "_runs", "_tracer", "_waits_s", "commit",
        "context",
    )  # fmt: skip

    def __init__(
        self,
        tracer: Tracer,
        context: SpanContext,
        parent: bytes,
        kind: CallKind,
        function: str,
        origin: Origin,
        begun_s: float,
    ) -> None:
        self._tracer = tracer
        self.context = context
        self.commit: SpanContext | None = None
        self._parent = parent
        self._name = f"{kind} {function}"
        self._attributes: dict[str, Attribute] = {
            "headwater.function": function,
            "headwater.kind": kind,
            "headwater.origin": origin,
        }
        self._begun_s = self._waits_s = self._proposed_s = begun_s
        self._runs = 0

    def waits(self) -> None:
        """It waits for a worker, from now on; before its first run it has done so since its request."""
        if self._runs:
            self._waits_s = self._tracer.now_s()

    def ran(self, usage: Usage | None, failure: str = "") -> None:
        """It has run in a worker.

        Args:
            usage: What that cost; None if it was ended by force.
            failure: Code of how it failed.
        """
        now_s = self._tracer.now_s()
        self._runs += 1
        attributes: dict[str, Attribute] = {"headwater.run": self._runs}
        begin_s = self._waits_s if usage is None else max(self._waits_s, now_s - usage.duration_us / 1e6)
        if usage is not None:
            if usage.started_us:
                begin_s = max(self._waits_s, usage.started_us / 1e6)
            attributes |= {
                "headwater.documents_read": usage.documents_read,
                "headwater.bytes_read": usage.bytes_read,
                "headwater.documents_written": usage.documents_written,
                "headwater.bytes_written": usage.bytes_written,
            }
            self._part("queue", self._waits_s, begin_s, {})
        end_s = now_s if usage is None else min(now_s, begin_s + usage.duration_us / 1e6)
        self._part("run", begin_s, end_s, attributes, error=failure)
        self._proposed_s = now_s

    def lost(self, code: str) -> None:
        """What it proposed was not committed: it conflicts and runs again, or that is its end."""
        self._part("commit", self._proposed_s, self._tracer.now_s(), {}, error=code)

    def committed(self, ts: int, times: BatchTimes | None) -> None:
        """What it proposed is committed, at `ts`, and published."""
        now_s = self._tracer.now_s()
        self.commit = context = SpanContext(self.context.trace_id, self._tracer.new_id())
        attributes: dict[str, Attribute] = {"headwater.commit_ts": ts}
        self._tracer.tell(context, self.context.span_id, "commit", self._proposed_s, now_s, attributes)
        if times is not None:
            sealed_s = max(times.sealed_s, self._proposed_s)
            durable_s = max(times.durable_s, sealed_s)
            self._part("batch", self._proposed_s, sealed_s, {}, context)
            self._part("log write and sync", sealed_s, durable_s, {}, context)
            self._part("apply and publish", durable_s, now_s, {}, context)

    def end(self, outcome: str) -> None:
        """It is answered; `outcome` is `success` or the code of an error."""
        self._attributes["headwater.outcome"] = outcome
        self._attributes["headwater.runs"] = self._runs
        self._tracer.tell(
            self.context,
            self._parent,
            self._name,
            self._begun_s,
            self._tracer.now_s(),
            self._attributes,
            kind=SpanKind.SERVER,
            error="" if outcome == _SUCCESS else outcome,
        )

    def _part(
        self,
        name: str,
        begin_s: float,
        end_s: float,
        attributes: Mapping[str, Attribute],
        within: SpanContext | None = None,
        *,
        error: str = "",
    ) -> None:
        context = SpanContext(self.context.trace_id, self._tracer.new_id())
        parent = (within or self.context).span_id
        self._tracer.tell(context, parent, name, begin_s, end_s, attributes, error=error)


def span_context(traceparent: str) -> SpanContext | None:
    """Return the span that a `traceparent` header names (W3C Trace Context), None if it is none."""
    if not traceparent or len(traceparent) > _TRACEPARENT_LENGTH_MAX:
        return None
    version, *parts = traceparent.strip().split("-")
    if len(version) != 2 or version == "ff" or not _HEX.issuperset(version) or len(parts) < 3:
        return None
    if version == "00" and len(parts) != 3:
        return None
    trace, span, flags = parts[:3]
    if (len(trace), len(span), len(flags)) != (2 * TRACE_ID_BYTES, 2 * SPAN_ID_BYTES, 2):
        return None
    if not _HEX.issuperset(trace + span + flags) or not trace.strip("0") or not span.strip("0"):
        return None
    return SpanContext(bytes.fromhex(trace), bytes.fromhex(span), bool(int(flags, 16) & 1))
