"""What calls read and cost, what makes live queries stale, and who loses to whom, as a real daemon tells it."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from support.daemon import daemon_environment, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import RunningDaemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    options = ("--workers", "2", "--call-time-limit-s", "30")
    with running(tmp_path_factory.mktemp("explain"), *options, deploy="explained") as daemon:
        yield daemon


def channel_of(daemon: RunningDaemon, *scores: int) -> str:
    """Return a new channel with a message for each score."""
    channel: str = daemon.call("mutation", "chat:open_channel", title="a")
    for score in scores:
        daemon.call("mutation", "chat:send", channel=channel, score=score)
    return channel


def asked(daemon: RunningDaemon, path: str, body: dict[str, Any], key: str = "") -> Any:
    return daemon.post(f"/api/admin/{path}", body, Authorization=f"Headwater {key or daemon.key}")


def explained(daemon: RunningDaemon, name: str, /, **arguments: Any) -> dict[str, Any]:
    answer = asked(daemon, "explain", {"path": name, "args": arguments})
    assert answer.status == 200, answer.text
    told: dict[str, Any] = answer.json
    return told


def test_what_a_query_read_is_told_by_index_and_values(daemon: RunningDaemon) -> None:
    channel = channel_of(daemon, 1, 5, 7, 9)
    told = explained(daemon, "chat:best", channel=channel, least=5, count=2)
    assert (told["kind"], told["outcome"], told["documents_read"]) == ("query", "success", 3)
    (scan, get) = told["reads"]
    assert (scan["table"], scan["index"], scan["documents"], scan["times"]) == (
        "messages",
        "by_channel",
        2,
        1,
    )
    best = daemon.call("query", "chat:best", channel=channel, least=5, count=2)
    assert scan["text"] == f'channel = "{channel}", from score = 7, document {best[1]["_id"]}'
    assert get == {
        "table": "channels",
        "index": None,
        "text": f"document {channel}",
        "times": 1,
        "documents": 1,
        "bytes": get["bytes"],
    }
    assert scan["bytes"] + get["bytes"] == told["bytes_read"] > 0
    assert told["result_bytes"] > 0


def test_what_was_read_to_its_end_is_told_with_its_bounds(daemon: RunningDaemon) -> None:
    channel = channel_of(daemon, 1, 5, 7)
    (scan, _) = explained(daemon, "chat:best", channel=channel, least=5, count=10)["reads"]
    assert (scan["text"], scan["documents"]) == (f'channel = "{channel}", score >= 5', 2)
    (scan,) = explained(daemon, "chat:bodies", channel=channel)["reads"]
    assert (scan["text"], scan["documents"]) == (f'channel = "{channel}"', 3)
    (scan,) = explained(daemon, "chat:everything")["reads"]
    assert (scan["table"], scan["index"], scan["text"]) == ("messages", None, "all")


@pytest.mark.parametrize(
    ("name", "identity", "clock", "variables"),
    [
        ("chat:everything", False, False, []),
        ("chat:whoami", True, False, []),
        ("chat:now", False, True, []),
        ("chat:today", False, True, []),
        ("chat:site", False, False, ["SITE"]),
    ],
)
def test_what_else_it_looked_at_is_told(
    daemon: RunningDaemon, name: str, identity: bool, clock: bool, variables: list[str]
) -> None:
    told = explained(daemon, name)
    assert told["outcome"] == "success", told
    assert (told["identity_read"], told["clock_read"], told["variables"]) == (identity, clock, variables)


def test_a_query_that_fails_tells_what_it_read_until_then(daemon: RunningDaemon) -> None:
    told = explained(daemon, "chat:stumble")
    assert told["outcome"] == "internal_error"
    assert "ZeroDivisionError" in told["error"]
    assert [row["table"] for row in told["reads"]] == ["channels"]


async def test_what_made_a_live_query_stale_is_told(daemon: RunningDaemon) -> None:
    channel = await asyncio.to_thread(channel_of, daemon, 3)
    before = await asyncio.to_thread(explained, daemon, "chat:bodies", channel=channel)
    assert before["live"] == {
        "queries": 0,
        "subscribers": 0,
        "held": False,
        "reruns": 0,
        "unchanged": 0,
        "causes": [],
    }
    async with headwater.connect(daemon.url) as client:
        updates = client.subscribe("chat:bodies", channel=channel)
        assert await anext(updates) == ["hi"]
        message = await client.mutation("chat:send", channel=channel, score=8, body="new")
        assert await anext(updates) == ["hi", "new"]
        await client.mutation("chat:annotate", message=message, note="read by nobody")
        await asyncio.to_thread(
            wait_until, lambda: explained(daemon, "chat:bodies", channel=channel)["live"]["reruns"] == 2
        )
        live = explained(daemon, "chat:bodies", channel=channel)["live"]
        assert (live["queries"], live["subscribers"], live["held"]) == (1, 1, True)
        assert (live["reruns"], live["unchanged"]) == (2, 1)
        sent, annotated = live["causes"]
        where = {"table": "messages", "index": "by_channel"}
        assert sent == where | {
            "number": sent["number"],
            "ts": sent["ts"],
            "function": "chat:send",
            "text": f'channel = "{channel}", score = 8, document {message}',
        }
        assert annotated["function"] == "chat:annotate"
        assert annotated["text"] == sent["text"]
        assert annotated["ts"] > sent["ts"]
        body = {"path": "chat:bodies", "args": {"channel": channel}, "after": sent["number"]}
        assert asked(daemon, "reruns", body).json["live"]["causes"] == [annotated]


async def test_arguments_are_equal_in_whichever_order_they_are_written(daemon: RunningDaemon) -> None:
    channel = await asyncio.to_thread(channel_of, daemon, 3)
    async with headwater.connect(daemon.url) as client:
        updates = client.subscribe("chat:best", count=2, least=1, channel=channel)
        await anext(updates)
        told = explained(daemon, "chat:best", channel=channel, least=1, count=2)
    assert told["live"]["subscribers"] == 1


async def test_a_deploy_is_told_as_what_made_everything_stale(tmp_path: Path) -> None:
    with running(tmp_path, "--rerun-causes-kept", "1", deploy="explained") as daemon:
        async with headwater.connect(daemon.url) as client:
            updates = client.subscribe("chat:site")
            await anext(updates)
            functions = tmp_path / "functions"
            await asyncio.to_thread(daemon.must_deploy, copied(functions))
            await asyncio.to_thread(wait_until, lambda: explained(daemon, "chat:site")["live"]["reruns"] == 1)
            (cause,) = explained(daemon, "chat:site")["live"]["causes"]
            assert (cause["function"], cause["table"], cause["text"]) == (
                "",
                "_deployment",
                "the active bundle",
            )
            await asyncio.to_thread(daemon.must_deploy, "explained")
            await asyncio.to_thread(wait_until, lambda: explained(daemon, "chat:site")["live"]["reruns"] == 2)
            (newest,) = explained(daemon, "chat:site")["live"]["causes"]
            assert newest["number"] > cause["number"], "as many are kept as the setting says"


def copied(folder: Path) -> Path:
    """Return another bundle with the same functions."""
    from shutil import copytree

    from support.daemon import BUNDLES

    copytree(BUNDLES / "explained" / "functions", folder)
    (folder / "more.py").write_text("")
    return folder


def test_a_mutation_is_explained_without_being_committed(daemon: RunningDaemon) -> None:
    channel = channel_of(daemon, 1, 5, 7)
    before = daemon.get("/health").json["ts"]
    told = explained(daemon, "chat:tidy", channel=channel)
    assert daemon.get("/health").json["ts"] == before
    assert len(daemon.call("query", "chat:bodies", channel=channel)) == 3
    assert told["kind"] == "mutation"
    assert "live" not in told
    deeds = {(row["table"], row["deed"]): row["documents"] for row in told["writes"]}
    assert deeds == {
        ("messages", "deleted"): 1,
        ("messages", "changed"): 1,
        ("messages", "inserted"): 1,
        ("_scheduled_jobs", "inserted"): 1,
    }
    assert told["jobs"] == 1
    assert told["reads"][0]["text"] == f'channel = "{channel}"'
    failed = explained(daemon, "chat:tidy", channel=channel, fail=True)
    assert (failed["outcome"], failed["writes"]) == ("internal_error", [])


def test_an_action_is_refused_with_what_to_do_instead(daemon: RunningDaemon) -> None:
    answer = asked(daemon, "explain", {"path": "chat:wait", "args": {}})
    assert answer.status == 400
    assert "Explain those" in answer.json["message"]


def test_roles_decide_what_may_be_explained(daemon: RunningDaemon) -> None:
    keys = {}
    for role in ("read", "deploy"):
        made = daemon.post(
            "/api/admin/keys", {"name": f"{role}-key", "role": role}, Authorization=f"Headwater {daemon.key}"
        )
        keys[role] = made.json["key"]
    hidden = {"path": "chat:hidden", "args": {}}
    writes = {"path": "chat:open_channel", "args": {"title": "x"}}
    assert asked(daemon, "explain", hidden, keys["read"]).status == 200
    assert asked(daemon, "explain", writes, keys["read"]).status == 403
    assert asked(daemon, "explain", hidden | {"actAs": {"sub": "ada"}}, keys["read"]).status == 403
    assert asked(daemon, "explain", hidden, keys["deploy"]).status == 403
    assert asked(daemon, "reruns", hidden, keys["deploy"]).status == 403
    assert daemon.post("/api/admin/explain", hidden).status == 401
    refused = daemon.get("/api/admin/conflicts", Authorization=f"Headwater {keys['deploy']}")
    assert refused.status == 403


def test_who_lost_to_whom_is_counted_by_table(daemon: RunningDaemon) -> None:
    channel = channel_of(daemon, 1)
    slow = threading.Thread(
        target=daemon.call,
        args=("mutation", "chat:count_slowly"),
        kwargs={"channel": channel, "seconds": 1.0},
    )
    slow.start()
    wait_until(lambda: daemon.metric("headwater_calls_running") == 1)
    while slow.is_alive() and not conflicts(daemon, "chat:count_slowly"):
        daemon.call("mutation", "chat:send", channel=channel, score=2)
    slow.join()
    (row,) = conflicts(daemon, "chat:count_slowly")
    assert (row["function"], row["table"], row["lost_to"]) == ("chat:count_slowly", "messages", "chat:send")
    name = 'headwater_function_conflicts_total{function="chat:count_slowly",table="messages"}'
    assert daemon.metric(name) == row["count"]
    assert daemon.metric("headwater_conflicts_total") >= row["count"] > 0
    told = explained(daemon, "chat:count_slowly", channel=channel, seconds=0.0)
    assert told["conflicts"] == [row]


def conflicts(daemon: RunningDaemon, function: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = daemon.get(
        f"/api/admin/conflicts?function={function}", Authorization=f"Headwater {daemon.key}"
    ).json["conflicts"]
    return found


def test_the_command_prints_lines_of_json_where_nobody_looks(daemon: RunningDaemon, tmp_path: Path) -> None:
    channel = channel_of(daemon, 4)

    def run(*words: str, code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", *words, "--url", daemon.url.replace("ws", "http", 1)],
            env=daemon_environment() | {"HEADWATER_KEY": daemon.key},
            cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    (line,) = run("explain", "chat:bodies", f'channel="{channel}"')[0].splitlines()
    assert json.loads(line)["reads"][0]["documents"] == 1
    assert isinstance(json.loads(run("conflicts")[0]), list)
    user = '{"sub":"ada","iss":"https://none.example"}'
    assert "issuer" in run("explain", "chat:whoami", "--as", user, code=1)[1]
    assert "Explain those" in run("explain", "chat:wait", code=1)[1]
    _, said = run("explain", "chat:open_channel", "title=x", "--follow", code=1)
    assert "--follow is for queries" in said


def test_follow_prints_each_cause_as_it_comes(daemon: RunningDaemon, tmp_path: Path) -> None:
    channel = channel_of(daemon, 4)
    url = daemon.url.replace("ws", "http", 1)
    command = [sys.executable, "-m", "headwater.cli", "explain", "chat:bodies", f'channel="{channel}"']

    async def watched() -> dict[str, Any]:
        async with headwater.connect(daemon.url) as client:
            updates = client.subscribe("chat:bodies", channel=channel)
            await anext(updates)
            process = await asyncio.create_subprocess_exec(
                *command, "--follow", "--url", url,
                env=daemon_environment() | {"HEADWATER_KEY": daemon.key}, cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            assert process.stdout is not None
            try:
                async with asyncio.timeout(60):
                    first = json.loads(await process.stdout.readline())
                    assert first["live"]["causes"] == []
                    await client.mutation("chat:send", channel=channel, score=5)
                    cause: dict[str, Any] = json.loads(await process.stdout.readline())
            finally:
                process.terminate()
                await process.wait()
            return cause

    assert asyncio.run(watched())["function"] == "chat:send"
