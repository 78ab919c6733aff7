"""Which calls are followed, what `traceparent` names, and which pushes belong to a commit."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from headwater_server.observe import push_traces
from headwater_server.observe.push_traces import PushTraces
from headwater_server.observe.traces import UNFOLLOWED, Span, SpanContext, Tracer, span_context
from headwater_server.worker.messages import Failure, QueryDone, Usage
from headwater_storage.committer import BatchTimes

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize(
    ("text", "sampled"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"00-{TRACE}-{SPAN}-00", False),
        (f"00-{TRACE}-{SPAN}-03", True),
        (f" 00-{TRACE}-{SPAN}-01 ", True),
        (f"01-{TRACE}-{SPAN}-01-more", True),
        ("", None),
        (f"00-{TRACE}-{SPAN}", None),
        (f"00-{TRACE}-{SPAN}-01-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{TRACE.upper()}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (f"00-{TRACE[:-1]}-{SPAN}-01", None),
        (f"00-{TRACE}-{SPAN}0-01", None),
        (f"00-{TRACE}-{SPAN}-1", None),
        (f"00-{TRACE}-{SPAN}-0g", None),
        (f"00-{TRACE[:-1]}ü-{SPAN}-01", None),
    ],
)
def test_a_traceparent_names_a_span_or_nothing(text: str, sampled: bool | None) -> None:
    found = span_context(text)
    if sampled is None:
        assert found is None
    else:
        assert found == SpanContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), sampled)


class Followed:
    """A tracer under a clock of the test, and what it tells."""

    def __init__(self, ratio: float = 1.0) -> None:
        self.mono_s = 50.0
        self.told: list[Span] = []
        self.tracer = Tracer(
            ratio, lambda: self.mono_s, self._wall_us, random.Random(7).randbytes, self.told.append
        )

    def _wall_us(self) -> int:
        return round(1_000_000_000 + self.mono_s * 1e6)

    def times(self) -> dict[str, tuple[float, float]]:
        """Return begin and end of each span on the monotonic clock."""
        return {
            span.name: (round(span.start_ns / 1e9 - 1000, 3), round(span.end_ns / 1e9 - 1000, 3))
            for span in self.told
        }


@pytest.mark.parametrize(("ratio", "least", "most"), [(0.0, 0, 0), (1.0, 2000, 2000), (0.25, 400, 600)])
def test_chance_decides_for_those_that_nobody_follows(ratio: float, least: int, most: int) -> None:
    tracer = Followed(ratio).tracer
    traces = [tracer.begin("query", "m:q", "http") for _ in range(2000)]
    assert least <= sum(trace is not None for trace in traces) <= most


def test_the_caller_decides_for_those_that_it_follows() -> None:
    parent = SpanContext(bytes(15) + b"1", bytes(7) + b"1")
    never, always = Followed(0.0).tracer, Followed(1.0).tracer
    trace = never.begin("query", "m:q", "http", parent)
    assert trace is not None
    assert trace.context.trace_id == parent.trace_id
    assert trace.context.span_id != parent.span_id
    for unfollowed in (parent._replace(sampled=False), UNFOLLOWED):
        assert always.begin("query", "m:q", "http", unfollowed) is None


def test_a_call_that_runs_twice_is_told_with_its_times() -> None:
    followed = Followed()
    trace = followed.tracer.begin("mutation", "m:f", "session")
    assert trace is not None
    followed.mono_s = 51.0
    trace.ran(Usage(200_000, 1, 2, 3, 4, started_us=50_500_000))
    followed.mono_s = 52.0
    trace.lost("conflict")
    assert [(span.name, span.error) for span in followed.told] == [
        ("queue", ""), ("run", ""), ("commit", "conflict"),
    ]  # fmt: skip
    assert followed.times() == {"queue": (50.0, 50.5), "run": (50.5, 50.7), "commit": (51.0, 52.0)}
    followed.told.clear()
    followed.mono_s = 52.5
    trace.waits()
    followed.mono_s = 53.0
    trace.ran(Usage(100_000, started_us=52_800_000))
    followed.mono_s = 54.0
    trace.committed(9, BatchTimes(53.2, 53.6))
    trace.end("success")
    assert followed.times() == {
        "queue": (52.5, 52.8),
        "run": (52.8, 52.9),
        "commit": (53.0, 54.0),
        "batch": (53.0, 53.2),
        "log write and sync": (53.2, 53.6),
        "apply and publish": (53.6, 54.0),
        "mutation m:f": (50.0, 54.0),
    }
    root = followed.told[-1]
    assert root.attributes["headwater.runs"] == 2
    assert root.parent == b""


def test_what_ends_a_run_by_force_is_told() -> None:
    followed = Followed()
    trace = followed.tracer.begin("mutation", "m:f", "session")
    assert trace is not None
    followed.mono_s = 60.0
    trace.ran(None, "time_limit")
    trace.end("time_limit")
    assert {span.name: span.error for span in followed.told} == {
        "run": "time_limit",
        "mutation m:f": "time_limit",
    }


def committed(followed: Followed, ts: int) -> Any:
    trace = followed.tracer.begin("mutation", "m:f", "session")
    assert trace is not None
    trace.committed(ts, None)
    return trace


def test_a_push_belongs_to_the_commits_that_it_brings() -> None:
    followed = Followed()
    pushes = PushTraces(followed.tracer)
    first, second = committed(followed, 5), committed(followed, 7)
    pushes.published(5, [first], ["a", "b"])
    pushes.published(7, [second], ["b"])
    followed.told.clear()
    pushes.delivered("c", 9)
    pushes.delivered("b", 4)
    assert followed.told == []
    pushes.delivered("a", 5)
    assert [(span.parent, span.links) for span in followed.told] == [(first.commit.span_id, [])]
    pushes.delivered("b", 7)
    assert [(span.parent, span.links) for span in followed.told[1:]] == [
        (first.commit.span_id, [second.commit]),
        (second.commit.span_id, [first.commit]),
    ]
    assert pushes.waiting == 0
    pushes.delivered("b", 8)
    assert len(followed.told) == 3


def ran(ts: int, failure: Failure | None = None) -> QueryDone:
    usage = Usage(100_000, 3, 40, started_us=50_200_000)
    return QueryDone(1, ts, b"", None, None, failure, [], [], False, None, usage)


def test_a_query_that_a_commit_made_stale_is_told_in_it_once() -> None:
    followed = Followed()
    pushes = PushTraces(followed.tracer)
    trace = committed(followed, 5)
    pushes.published(5, [trace], ["a"], [("m:q", b"1"), ("m:q", b"2")])
    followed.told.clear()
    pushes.ran(("m:q", b"3"), ran(6))
    pushes.ran(("m:q", b"1"), ran(4))
    assert followed.told == []
    followed.mono_s = 51.0
    pushes.ran(("m:q", b"1"), ran(5))
    pushes.ran(("m:q", b"1"), ran(6))
    pushes.ran(("m:q", b"2"), ran(6, Failure("internal_error", "no")))
    assert [(span.name, span.parent, span.error) for span in followed.told] == [
        ("query m:q", trace.commit.span_id, ""),
        ("query m:q", trace.commit.span_id, "internal_error"),
    ]
    assert followed.times()["query m:q"] == (50.2, 50.3)
    assert followed.told[0].attributes["headwater.documents_read"] == 3


def test_what_waits_for_pushes_is_bounded_in_number_and_time() -> None:
    followed = Followed()
    pushes = PushTraces(followed.tracer)
    for ts in range(3 * push_traces._COMMITS_MAX):
        pushes.published(ts, [committed(followed, ts)], [f"s{ts}"])
    assert pushes.waiting == push_traces._COMMITS_MAX
    followed.mono_s += push_traces._AGE_MAX_S + 1
    pushes.published(999, [committed(followed, 999)], itertools.count())
    assert pushes.waiting == 1
    followed.told.clear()
    for session in range(100):
        pushes.delivered(session, 999)
    assert len(followed.told) == push_traces._SESSIONS_MAX
    pushes.published(1000, [committed(followed, 1000)], [])
    assert pushes.waiting == 0
