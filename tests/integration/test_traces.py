"""Spans of calls, as a collector gets them from a real daemon; OpenTelemetry's own messages read each request."""

from __future__ import annotations

import asyncio
import http.client
import secrets
import threading
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import RequestError
from headwater_server.observe.trace_sender import collector_at
from support.collector import collecting
from support.daemon import RunningDaemon, free_port, run_server, running, wait_until
from support.spans import collecting_spans

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.spans import Span, Spans

CALLER = "b7ad6b7169203331"


@pytest.fixture(scope="module")
def spans() -> Iterator[Spans]:
    with collecting_spans() as spans:
        yield spans


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, spans: Spans) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("traces")
    ports = ("--routes-port", str(free_port()))
    with running(folder, *spans.options, *ports, "--workers", "2", deploy="explained") as daemon:
        yield daemon


def parent_of(trace: str, flags: str = "01") -> str:
    """Return the `traceparent` of a caller in a trace."""
    return f"00-{trace}-{CALLER}-{flags}"


def new_trace() -> str:
    return secrets.token_hex(16)


def called(daemon: RunningDaemon, kind: str, name: str, traceparent: str = "", **arguments: Any) -> Any:
    headers = {"traceparent": traceparent} if traceparent else {}
    return daemon.post(f"/api/{kind}", {"path": name, "args": arguments}, **headers).json


def tree(found: list[Span]) -> dict[str, list[str]]:
    """Return the names of what is in each span, in their order."""
    names = {span["span"]: span["name"] for span in found}
    inside: dict[str, list[str]] = {}
    for span in found:
        inside.setdefault(names.get(span["parent"], ""), []).append(span["name"])
    return inside


def within(inner: Span, outer: Span) -> bool:
    """Tell whether a span is in another; times are told apart, so that they may differ by a little."""
    slack_ns = 2_000_000
    return bool(outer["start"] - slack_ns <= inner["start"] <= inner["end"] <= outer["end"] + slack_ns)


def test_a_mutation_is_told_from_its_request_to_its_commit(daemon: RunningDaemon, spans: Spans) -> None:
    before_ns = time.time_ns()
    trace = new_trace()
    called(daemon, "mutation", "chat:open_channel", parent_of(trace), title="traced")
    found = spans.of_call("mutation chat:open_channel", trace)
    assert tree(found) == {
        "": ["mutation chat:open_channel"],
        "mutation chat:open_channel": ["queue", "run", "commit"],
        "commit": ["batch", "log write and sync", "apply and publish"],
    }
    root = next(span for span in found if span["parent"] == CALLER)
    assert root["kind"] == 2
    assert root["attributes"] == {
        "headwater.function": "chat:open_channel",
        "headwater.kind": "mutation",
        "headwater.origin": "http",
        "headwater.outcome": "success",
        "headwater.runs": 1,
    }
    by_name = {span["name"]: span for span in found}
    assert by_name["run"]["attributes"]["headwater.documents_written"] == 1
    assert by_name["commit"]["attributes"]["headwater.commit_ts"] > 1 << 50
    for span in found:
        assert span["sampled"]
        assert span["error"] == ""
        assert within(span, root), (span, root)
        assert before_ns - 1e9 < span["start"] < time.time_ns() + 1e9
    assert by_name["log write and sync"]["end"] > by_name["log write and sync"]["start"]
    assert root["resource"]["service.name"] == "headwater"
    assert root["resource"]["service.instance.id"]
    assert root["scope"][0] == "headwater"


def test_what_its_caller_does_not_follow_is_not_followed(daemon: RunningDaemon, spans: Spans) -> None:
    trace, later = new_trace(), new_trace()
    called(daemon, "query", "chat:today", parent_of(trace, "00"))
    called(daemon, "query", "chat:now", parent_of(later))
    found = spans.of_call("query chat:now", later)
    assert all(one["trace"] == later for one in found)
    assert not [one for one in spans.all() if one["trace"] == trace]


def test_a_traceparent_that_is_none_begins_a_trace(daemon: RunningDaemon, spans: Spans) -> None:
    called(daemon, "query", "chat:site", "nonsense")
    (root,) = [one for one in spans.of_call("query chat:site") if one["name"] == "query chat:site"]
    assert root["parent"] == ""


def test_a_query_is_told_with_what_it_read(daemon: RunningDaemon, spans: Spans) -> None:
    trace = new_trace()
    called(daemon, "query", "chat:everything", parent_of(trace), first=1)
    found = spans.of_call("query chat:everything", trace)
    assert tree(found)["query chat:everything"] == ["queue", "run"]
    assert "headwater.bytes_read" in next(one for one in found if one["name"] == "run")["attributes"]


def test_a_call_that_fails_is_told_as_an_error(daemon: RunningDaemon, spans: Spans) -> None:
    called(daemon, "query", "chat:stumble")
    found = spans.of_call("query chat:stumble")
    assert {one["name"]: one["error"] for one in found} == {
        "query chat:stumble": "internal_error",
        "queue": "",
        "run": "internal_error",
    }


def test_each_attempt_is_told_and_what_it_lost(daemon: RunningDaemon, spans: Spans) -> None:
    channel = daemon.call("mutation", "chat:open_channel", title="hot")
    before = daemon.metric("headwater_conflicts_total")
    slow = threading.Thread(
        target=called,
        args=(daemon, "mutation", "chat:count_slowly"),
        kwargs={"channel": channel, "seconds": 0.7},
    )
    slow.start()
    wait_until(lambda: daemon.metric("headwater_calls_running") == 1)
    while slow.is_alive() and daemon.metric("headwater_conflicts_total") == before:
        daemon.call("mutation", "chat:send", channel=channel, score=2)
    slow.join()
    found = spans.of_call("mutation chat:count_slowly")
    (root,) = [one for one in found if one["name"] == "mutation chat:count_slowly"]
    parts = [one for one in found if one["parent"] == root["span"]]
    runs = [one["attributes"]["headwater.run"] for one in parts if one["name"] == "run"]
    commits = [one["error"] for one in parts if one["name"] == "commit"]
    assert runs == list(range(1, root["attributes"]["headwater.runs"] + 1))
    assert len(runs) > 1
    assert commits == ["conflict"] * (len(runs) - 1) + [""]
    assert root["error"] == ""


async def test_the_way_of_a_commit_to_a_subscriber_is_told(daemon: RunningDaemon, spans: Spans) -> None:
    channel = await asyncio.to_thread(daemon.call, "mutation", "chat:open_channel", title="watched")
    async with headwater.connect(daemon.url) as reader, headwater.connect(daemon.url) as other:
        updates = reader.subscribe("chat:bodies", channel=channel)
        assert await anext(updates) == []
        elsewhere = other.subscribe("chat:everything", first=7)
        await anext(elsewhere)
        await other.mutation("chat:send", channel=channel, score=1)
        assert await anext(updates) == ["hi"]
        await anext(elsewhere)

        def pushed(found: list[Span]) -> list[Span]:
            return [one for one in found if one["name"] == "push" and one["parent"] in commits(found)]

        def commits(found: list[Span]) -> set[str]:
            roots = {one["span"] for one in found if one["name"] == "mutation chat:send"
                     and one["attributes"]["headwater.origin"] == "session"}  # fmt: skip
            return {one["span"] for one in found if one["name"] == "commit" and one["parent"] in roots}

        found = await asyncio.to_thread(spans.until, lambda told: len(pushed(told)) == 2)
        for push in pushed(found):
            assert push["kind"] == 4
            (commit,) = [one for one in found if one["span"] == push["parent"]]
            assert push["trace"] == commit["trace"]
            assert (
                push["attributes"]["headwater.transition_ts"] >= commit["attributes"]["headwater.commit_ts"]
            )
            assert push["end"] >= push["start"] >= commit["start"]
        (commit,) = {push["parent"] for push in pushed(found)}
        reruns = [one for one in found if one["parent"] == commit and one["name"].startswith("query ")]
        assert {one["name"] for one in reruns} == {"query chat:bodies", "query chat:everything"}
        assert len(reruns) == 2
        assert all(one["attributes"]["headwater.origin"] == "subscription" for one in reruns)
        assert min(push["end"] for push in pushed(found)) > min(one["end"] for one in reruns)
        # What no query has read concerns nobody: no push of it is told.
        await other.mutation("chat:open_channel", title="unseen")
        await other.mutation("chat:send", channel=channel, score=2)
        await anext(updates)
        found = await asyncio.to_thread(spans.until, lambda told: len(pushed(told)) == 4)
        unseen = {one["trace"] for one in found if one["name"] == "mutation chat:open_channel"}
        assert not [one for one in found if one["name"] == "push" and one["trace"] in unseen]


async def test_calls_of_a_client_belong_to_the_spans_that_it_names(
    daemon: RunningDaemon, spans: Spans
) -> None:
    current: ContextVar[str] = ContextVar("current", default="")
    traces = [new_trace() for _ in range(3)]
    async with headwater.connect(daemon.tcp_url, traceparent=current.get) as client:

        async def called_in(trace: str, kind: str, name: str, **arguments: Any) -> Any:
            current.set(parent_of(trace) if trace else "")
            return await getattr(client, kind)(name, **arguments)

        channel = await called_in(traces[0], "mutation", "chat:open_channel", title="mine")
        await asyncio.gather(
            called_in(traces[1], "mutation", "chat:send", channel=channel, score=1),
            called_in(traces[2], "action", "chat:announce", channel=channel),
            called_in("", "mutation", "chat:tidy", channel=channel),
            return_exceptions=True,
        )
    for trace, name in zip(
        traces, ("mutation chat:open_channel", "mutation chat:send", "action chat:announce"), strict=True
    ):
        found = await asyncio.to_thread(spans.of_call, name, trace)
        assert [one["parent"] for one in found if one["name"] == name and one["parent"] == CALLER] == [CALLER]
        assert (
            next(one for one in found if one["name"] == name)["attributes"]["headwater.origin"] == "session"
        )
    found = await asyncio.to_thread(spans.of_call, "mutation chat:tidy")
    assert next(one for one in found if one["name"] == "mutation chat:tidy")["parent"] == ""


def test_a_blocking_client_names_the_span_of_the_thread_that_calls(
    daemon: RunningDaemon, spans: Spans
) -> None:
    current: ContextVar[str] = ContextVar("current", default="")
    trace = new_trace()
    with headwater.connect_blocking(daemon.url, traceparent=current.get) as client:
        current.set(parent_of(trace))
        client.mutation("chat:open_channel", title="blocking")
    assert spans.of_call("mutation chat:open_channel", trace)


def test_what_an_action_calls_is_told_in_it(daemon: RunningDaemon, spans: Spans) -> None:
    channel = daemon.call("mutation", "chat:open_channel", title="announced")
    trace = new_trace()
    assert called(daemon, "action", "chat:announce", parent_of(trace), channel=channel)["value"] == 1
    inside = tree(spans.of_call("action chat:announce", trace))
    assert inside[""] == ["action chat:announce"]
    assert inside["action chat:announce"] == ["queue", "run", "mutation chat:send", "query chat:bodies"]
    assert "commit" in inside["mutation chat:send"]


@pytest.mark.parametrize("own_port", [False, True])
def test_a_route_belongs_to_the_span_of_its_request(
    daemon: RunningDaemon, spans: Spans, own_port: bool
) -> None:
    port = daemon.options[daemon.options.index("--routes-port") + 1] if own_port else daemon.port
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    before = len([one for one in spans.all() if one["name"] == "route chat:titles"])
    try:
        for parent in (trace := new_trace(), ""):  # the second request on the connection names no span
            headers = {"traceparent": parent_of(parent)} if parent else {}
            connection.request("GET", "/titles" if own_port else "/http/titles", headers=headers)
            answer = connection.getresponse()
            assert answer.status == 200
            answer.read()
    finally:
        connection.close()
    spans.until(lambda told: len([one for one in told if one["name"] == "route chat:titles"]) == before + 2)
    found = spans.of_call("route chat:titles", trace)
    assert [one["parent"] for one in found if one["name"] == "route chat:titles"] == [CALLER]
    assert "query chat:hidden" in tree(found)["route chat:titles"]


def test_as_many_are_followed_as_the_setting_says(tmp_path: Path, spans: Spans) -> None:
    options = ("--traces-sample-percent", "0", "--traces-service-name", "none")
    with running(tmp_path, *spans.options, *options, deploy="explained") as daemon:
        for _ in range(20):
            called(daemon, "query", "chat:now")
        trace = new_trace()
        called(daemon, "query", "chat:today", parent_of(trace))
        spans.of_call("query chat:today", trace)
    mine = [one for one in spans.all() if one["resource"]["service.name"] == "none"]
    assert {one["trace"] for one in mine} == {trace}


def test_a_collector_that_stands_still_costs_what_does_not_fit(tmp_path: Path) -> None:
    with collecting_spans() as spans:
        spans.collector.goes_on.clear()
        options = (
            "--traces-waiting-spans",
            "20",
            "--traces-batch-spans",
            "10",
            "--traces-time-limit-s",
            "0.5",
        )
        with running(tmp_path, *spans.options, *options, deploy="explained") as daemon:
            dropped = 'headwater_trace_spans_total{outcome="dropped"}'
            for _ in range(30):
                assert daemon.call("query", "chat:everything", first=0) == 0
            wait_until(lambda: daemon.metric(dropped) > 0)
            spans.collector.goes_on.set()
            sent = 'headwater_trace_spans_total{outcome="sent"}'
            wait_until(lambda: daemon.metric(sent) > 0)
            started = time.monotonic()
            daemon.terminate()
            assert time.monotonic() - started < 15


def test_a_collector_that_is_away_is_asked_again_and_one_that_refuses_is_not(tmp_path: Path) -> None:
    with collecting_spans() as spans:
        spans.collector.refusals = 1
        with running(tmp_path, *spans.options, deploy="explained") as daemon:
            daemon.call("query", "chat:now")
            wait_until(lambda: daemon.metric('headwater_trace_spans_total{outcome="sent"}') >= 3)
            (first, _), (second, _) = (batch for batch in spans.collector.batches[:2])
            assert spans.collector.batches[0][1] == spans.collector.batches[1][1]
            assert first["content-type"] == second["content-type"] == "application/json"
            assert set(spans.collector.paths) == {"/v1/traces"}
            spans.collector.refusals, spans.collector.refusal = 1, 400
            daemon.call("query", "chat:now")
            wait_until(lambda: daemon.metric('headwater_trace_spans_total{outcome="dropped"}') >= 3)
            spans.collector.answer = b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "no"}}'
            before = daemon.metric('headwater_trace_spans_total{outcome="dropped"}')
            daemon.call("query", "chat:now")
            wait_until(lambda: daemon.metric('headwater_trace_spans_total{outcome="dropped"}') == before + 2)


def test_headers_come_from_a_file_or_the_environment_and_are_told_to_nobody_else(tmp_path: Path) -> None:
    secret = "a-key-for-the-collector"
    with collecting() as collector:
        daemon = RunningDaemon(
            tmp_path, ("--traces-url", f"http://127.0.0.1:{collector.server_address[1]}/own/path")
        )
        daemon.environment["HEADWATER_TRACES_HEADERS"] = f"Authorization: Bearer {secret}\nX-Team: blue"
        try:
            daemon.start()
            daemon.must_deploy("explained")
            daemon.call("query", "chat:now")
            wait_until(lambda: collector.batches)
        finally:
            daemon.end()
        headers, _ = collector.batches[0]
        assert (headers["authorization"], headers["x-team"]) == (f"Bearer {secret}", "blue")
        assert collector.paths[0] == "/own/path"
        assert secret not in daemon.log_text()
        file = tmp_path / "headers"
        file.write_text(f"api-key: {secret}\n\n")
        shown = run_server("config", "--traces-headers-file", str(file), folder=tmp_path).stdout
        assert str(file) in shown
        assert secret not in shown
    found = collector_at("https://collector.example", file, {})
    assert found is not None
    assert (str(found.url), found.headers) == ("https://collector.example/v1/traces", {"api-key": secret})
    assert secret not in repr(found)


@pytest.mark.parametrize(
    ("url", "headers", "told"),
    [
        ("collector:4318", "", "is not an address"),
        ("ftp://collector", "", "is not an address"),
        ("http://collector.example", "a: b", "would cross the network in the clear"),
        ("https://collector.example", "a b", "line 1 of the environment variable"),
        ("https://collector.example", "a: b\n: c", "line 2 of"),
    ],
)
def test_where_spans_cannot_be_sent_is_told_at_the_start(url: str, headers: str, told: str) -> None:
    with pytest.raises(RequestError, match=told):
        collector_at(url, None, {"HEADWATER_TRACES_HEADERS": headers})
    assert collector_at("", None, {"HEADWATER_TRACES_HEADERS": headers}) is None


def test_a_collector_without_headers_may_be_anywhere() -> None:
    found = collector_at("http://collector.example:4318/", None, {})
    assert found is not None
    assert str(found.url) == "http://collector.example:4318/v1/traces"
