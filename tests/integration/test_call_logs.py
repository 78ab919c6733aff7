"""The log of calls on a real daemon: what is in it, who may read it, live, and readers that do not keep up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import headwater
import pytest
from support.daemon import BUNDLES, RunningDaemon, daemon_environment, running, wait_until
from support.users import user_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("logs"), "--production", deploy="logs") as found:
        yield found


def events(daemon: RunningDaemon, key: str | None = None, /, **query: Any) -> list[dict[str, Any]]:
    """Return what the daemon has logged."""
    answer = daemon.get(f"/api/admin/logs?{urlencode(query)}", Authorization=f"Headwater {key or daemon.key}")
    assert answer.status == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def last(daemon: RunningDaemon, **query: Any) -> dict[str, Any]:
    return events(daemon, limit=1, **query)[0]


def refused(daemon: RunningDaemon, kind: str, name: str, **arguments: Any) -> str:
    answer = daemon.post(f"/api/{kind}", {"path": name, "args": arguments}).json
    assert answer["status"] == "error", answer
    message: str = answer["errorMessage"]
    return message


class Following:
    """Reads events as they come, in a thread of its own."""

    def __init__(self, daemon: RunningDaemon, **query: Any) -> None:
        self.found: list[dict[str, Any]] = []
        self.begun = threading.Event()
        self._socket = socket.create_connection(("127.0.0.1", daemon.port), timeout=60)
        path = f"/api/admin/logs?{urlencode({'follow': 'true', 'limit': 0, **query})}"
        head = f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Headwater {daemon.key}\r\n\r\n"
        self._socket.sendall(head.encode())
        self._stream = self._socket.makefile("rb")
        self._thread = threading.Thread(target=self._read, daemon=True)

    def read(self) -> Following:
        """Begin to read; return once the daemon has begun to send."""
        self._thread.start()
        assert self.begun.wait(20)
        return self

    def _read(self) -> None:
        try:
            for line in self._stream:
                if line == b"\n":  # of the stream, not of the chunks around it
                    self.begun.set()
                if line.startswith(b"{"):
                    self.found.append(json.loads(line))
        except (OSError, ValueError):
            return

    def close(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self.wait_end()
        self._stream.close()
        self._socket.close()

    def wait_end(self) -> None:
        """Return when the daemon has ended the stream, or we have."""
        self._thread.join(20)
        assert not self._thread.is_alive()


# --------------------------------------------------------------------------------------------- what is in it


def test_a_query_is_logged_with_what_it_printed_and_cost(daemon: RunningDaemon) -> None:
    daemon.call("query", "says:look", name="a")
    event = last(daemon, function="says:look")
    assert event["lines"] == [
        {"level": "info", "text": "looking for a"},
        {"level": "warning", "text": "that is slow"},
    ]
    assert (event["type"], event["kind"], event["outcome"], event["origin"]) == (
        "call",
        "query",
        "success",
        "http",
    )
    assert (event["level"], event["runs"], event["documents_written"]) == ("warning", 1, 0)
    assert 0 < event["run_ms"] < event["total_ms"]


def test_a_mutation_is_logged_with_what_it_wrote(daemon: RunningDaemon) -> None:
    daemon.call("mutation", "says:add", name="b")
    event = last(daemon, function="says:add")
    assert event["lines"] == [{"level": "info", "text": "adding b"}, {"level": "error", "text": "grave"}]
    assert (event["kind"], event["outcome"], event["level"]) == ("mutation", "success", "error")
    assert event["documents_written"] == 1
    assert event["bytes_written"] > 10


def test_an_action_shows_its_lines_while_it_goes_on_and_what_it_calls(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    following = Following(daemon).read()
    try:
        calling = threading.Thread(
            target=lambda: daemon.call("action", "says:wait_for", path=str(tmp_path / "go"))
        )
        calling.start()
        wait_until(lambda: following.found)
        printed = following.found[0]
        assert (printed["type"], printed["function"]) == ("printed", "says:wait_for")
        assert printed["lines"] == [{"level": "info", "text": "it waits"}]
        assert "outcome" not in printed
        (tmp_path / "go").touch()
        calling.join(20)
        wait_until(
            lambda: any(event.get("kind") == "action" and "outcome" in event for event in following.found)
        )
    finally:
        following.close()
    ended = next(event for event in following.found if "outcome" in event and event["kind"] == "action")
    assert ended["lines"] == [{"level": "info", "text": "it has waited"}], "each line once"
    assert ended["action"] == printed["action"]
    nested = {event["function"]: event for event in following.found if event["origin"] == "action"}
    assert nested.keys() == {"says:look", "says:add"}
    assert {event["action"] for event in nested.values()} == {printed["action"]}
    assert nested["says:add"]["lines"][0]["text"] == "adding inside"


async def test_a_subscription_is_logged_when_it_runs_and_costs_nothing_when_its_result_is_there(
    daemon: RunningDaemon,
) -> None:
    async with headwater.connect(daemon.url) as client, client.subscribe("says:look", name="live") as first:
        assert await anext(first) == 0
        before = events(daemon, function="says:look")
        assert before[-1]["origin"] == "subscription"
        assert before[-1]["lines"][0]["text"] == "looking for live"
        async with (
            headwater.connect(daemon.url) as other,
            other.subscribe("says:look", name="live") as second,
        ):
            assert await anext(second) == 0
        assert events(daemon, function="says:look") == before, "its result was shared: nothing ran"
        await client.mutation("says:add", name="live")
        assert await anext(first) == 1
    assert len(events(daemon, function="says:look")) == len(before) + 1
    added = last(daemon, function="says:add")
    assert added["origin"] == "session"
    assert len(added["session"]) == 16


@pytest.mark.parametrize(
    ("kind", "name", "arguments", "source"),
    [
        ("query", "says:break_query", {}, 'return {}["nothing"]  # the line of the query'),
        ("mutation", "says:break_mutation", {"secret": "s3cr3t-argument"}, "# the line of the mutation"),
        ("action", "says:break_action", {}, "# the line of the action"),
    ],
)
def test_the_id_that_a_client_was_told_leads_to_the_trace(
    daemon: RunningDaemon, kind: str, name: str, arguments: dict[str, str], source: str
) -> None:
    message = refused(daemon, kind, name, **arguments)
    request_id = message.removeprefix("Server error [request id ").removesuffix("]")
    assert len(request_id) == 12
    (event,) = events(daemon, request=request_id)
    assert (event["function"], event["outcome"], event["level"]) == (name, "internal_error", "error")
    assert source in event["trace"]
    assert "functions/says.py" in event["trace"]
    assert "s3cr3t-argument" not in json.dumps(event), "arguments are nobody's business"
    wait_until(lambda: request_id in daemon.log_text())
    failed = [json.loads(line) for line in daemon.log_text().splitlines() if request_id in line]
    assert [line["event"] for line in failed] == ["call_failed"]
    assert failed[0]["trace"] == event["trace"]


def test_what_an_author_refuses_is_no_fault(daemon: RunningDaemon) -> None:
    refused(daemon, "mutation", "says:refuse")
    event = last(daemon)
    assert (event["function"], event["outcome"], event["level"]) == (
        "says:refuse",
        "application_error",
        "warning",
    )
    assert event["lines"][0]["text"] == "before the refusal"
    assert "says:refuse" not in daemon.log_text()


def test_filters(daemon: RunningDaemon) -> None:
    daemon.call("query", "says:hush")
    assert last(daemon)["function"] == "says:hush"
    daemon.call("mutation", "says:add", name="f")
    daemon.call("query", "says:look", name="f")
    refused(daemon, "query", "nothing:here")
    assert {event["function"] for event in events(daemon, function="says:")} >= {"says:hush", "says:look"}
    assert all(event["function"].startswith("says:") for event in events(daemon, function="says:"))
    assert {event["level"] for event in events(daemon, level="error")} == {"error"}
    assert {event["level"] for event in events(daemon, level="warning")} == {"error", "warning"}
    assert not any(event["function"] == "says:hush" for event in events(daemon, quiet="true"))
    newest = events(daemon, limit=2)
    assert [event["function"] for event in newest] == ["says:look", "nothing:here"]
    assert events(daemon, after=newest[0]["id"]) == newest[1:]
    assert events(daemon, after=1)[0] == {"type": "dropped", "count": None}, "before this daemon's time"


@pytest.mark.parametrize(
    "query", ["levle=info", "level=loud", "follow=yes", "after=-1", "limit=x", "quiet=1", "limit=" + "9" * 40]
)
def test_what_is_asked_wrongly_is_refused(daemon: RunningDaemon, query: str) -> None:
    answer = daemon.get(f"/api/admin/logs?{query}", Authorization=f"Headwater {daemon.key}")
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert query.partition("=")[0] in answer.json["message"]


def test_a_key_to_read_suffices_and_no_other_does(daemon: RunningDaemon) -> None:
    def key(role: str) -> str:
        made = daemon.post(
            "/api/admin/keys",
            {"name": f"logs {role}", "role": role},
            Authorization=f"Headwater {daemon.key}",
        )
        text: str = made.json["key"]
        return text

    daemon.call("query", "says:hush")
    assert events(daemon, key("read"))
    for header, status in ({}, 401), ({"Authorization": f"Headwater {key('deploy')}"}, 403):
        assert daemon.get("/api/admin/logs", **header).status == status


def test_a_user_has_another_name_in_the_log(tmp_path: Path) -> None:
    for form in ("hashed", "plain", "off"):
        with running(tmp_path / form, "--call-log-identity", form, deploy="identity") as daemon:
            token = user_token("ann")
            answer = daemon.post(
                "/api/query", {"path": "notes:whoami", "args": {}}, Authorization=f"Bearer {token}"
            )
            assert answer.json["status"] == "success", answer.text
            user = events(daemon)[-1].get("user")
            if form == "off":
                assert user is None
            elif form == "plain":
                assert user.endswith("|ann")
            else:
                assert len(user) == 16
            assert token not in daemon.log_text()


# ------------------------------------------------------------------------------------- who does not keep up


def test_a_follower_that_does_not_read_is_told_what_it_missed_and_holds_up_nobody(tmp_path: Path) -> None:
    with running(tmp_path, "--call-log-waiting-events", "50", deploy="logs") as daemon:
        following = Following(daemon)
        wait_until(lambda: daemon.metric("headwater_call_log_followers") == 1)
        calls = 400
        for number in range(calls):  # 16 MB, more than what the system takes for a client that does not read
            daemon.call("mutation", "says:flood", lines=20, size=2_000)
            if number % 100 == 0:
                assert daemon.is_ready()
        daemon.call("mutation", "says:add", name="the last")
        following.read()
        missed = calls + 1 - 50
        wait_until(lambda: any(event["type"] == "dropped" for event in following.found))
        daemon.call("mutation", "says:add", name="behind it")
        wait_until(lambda: following.found[-1].get("lines", [{}])[0].get("text") == "adding behind it")
        following.close()
        dropped = sum(event["count"] for event in following.found if event["type"] == "dropped")
        assert 0 < dropped < missed
        assert dropped + sum(event["type"] == "call" for event in following.found) == calls + 2


def test_only_so_many_follow_and_all_are_let_go_at_a_stop(tmp_path: Path) -> None:
    with running(tmp_path, "--call-log-followers-limit", "2", deploy="logs") as daemon:
        both = [Following(daemon).read() for _ in range(2)]
        path = "/api/admin/logs?follow=true"
        third = daemon.get(path, Authorization=f"Headwater {daemon.key}")
        assert (third.status, third.json["code"]) == (503, "overloaded")
        both[0].close()
        wait_until(lambda: daemon.metric("headwater_call_log_followers") == 1)
        again = Following(daemon).read()
        assert daemon.terminate() == 0
        for one in (both[1], again):
            one.wait_end()
            one.close()


def test_what_is_kept_is_bounded(tmp_path: Path) -> None:
    options = ("--call-log-kept-events", "1000", "--call-log-kept-bytes", "100000")
    with running(tmp_path, *options, deploy="logs") as daemon:
        first = None
        for _ in range(40):
            daemon.call("mutation", "says:flood", lines=5, size=2_000)
            first = first or last(daemon)["id"]
        kept = events(daemon)
        assert 5 <= len(kept) <= 9
        assert events(daemon, after=first)[0] == {"type": "dropped", "count": 40 - 1 - len(kept)}


# ------------------------------------------------------------------------------------------- the command line


def test_the_command_shows_and_follows(daemon: RunningDaemon) -> None:
    base = [sys.executable, "-m", "headwater.cli", "logs", "--url", f"http://127.0.0.1:{daemon.port}"]
    environment = daemon_environment() | {"HEADWATER_KEY": daemon.key}
    daemon.call("query", "says:look", name="c\x1b[2J")
    shown = subprocess.run(
        [*base, "--function", "says:look", "--limit", "1"],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    head, *lines = shown.stdout.splitlines()
    assert " query says:look success · " in head
    assert lines == ["    looking for c\ufffd[2J", "    warning: that is slow"]
    with subprocess.Popen(
        [*base, "--follow", "--json", "--quiet", "--limit", "1"],
        env=environment, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            assert process.stdout is not None
            assert json.loads(process.stdout.readline())["id"]
            daemon.call("query", "says:hush")
            daemon.call("query", "says:look", name="live")
            assert json.loads(process.stdout.readline())["lines"][0]["text"] == "looking for live"
        finally:
            process.kill()
    wrong = subprocess.run(
        [*base, "--level", "loud"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert wrong.returncode == 2
    assert "'loud' is none of debug, info" in wrong.stderr


def test_dev_shows_what_calls_print_as_it_comes(tmp_path: Path) -> None:
    place = RunningDaemon(tmp_path)  # for its ports and requests; `dev` starts the daemon
    folder = BUNDLES / "logs" / "functions"
    words = ["dev", str(folder), "--port", str(place.port), "--tcp-port", "0"]
    with (tmp_path / "talk").open("wb") as talk, subprocess.Popen(
        [sys.executable, "-m", "headwater.cli", *words],
        cwd=tmp_path, env=daemon_environment(), stdin=subprocess.DEVNULL, stdout=talk, stderr=talk,
    ) as process:  # fmt: skip
        try:

            def said() -> str:
                return (tmp_path / "talk").read_text()

            wait_until(lambda: "watching" in said())
            wait_until(lambda: place.metric("headwater_call_log_followers") == 1)
            place.call("query", "says:hush")
            place.call("query", "says:look", name="dev")
            refused(place, "mutation", "says:break_mutation", secret="s")
            wait_until(lambda: "the pump is dry" in said())
            assert "    looking for dev\n    warning: that is slow\n" in said()
            assert "# the line of the mutation" in said()
            assert "says:hush" not in said()
            assert said().count("the pump is dry") == 2, "the line and the error, once"
        finally:
            process.terminate()
            assert process.wait(30) == 0
