"""What clients and tools of Convex ask over HTTP, beside calls of functions."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_clients.driven import FOLDER, node_program
from support.daemon import RunningDaemon, running
from support.users import STAFF

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("convex")
CLIENT = {"Convex_Client": "npm-1.48.0"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("convex-http"), deploy="dialect") as daemon:
        yield daemon


def send(daemon: RunningDaemon, channel: str) -> None:
    args = {"channel": channel, "author": "a", "body": "b"}
    assert daemon.post("/api/mutation", {"path": "messages:send", "args": args}).json["status"] == "success"


def test_several_requests_may_ask_for_one_ts(daemon: RunningDaemon) -> None:
    def at(ts: str, channel: str) -> Any:
        body = {"path": "messages:list", "args": [{"channel": channel}], "ts": ts}
        return daemon.post("/api/query_at_ts", body, **CLIENT)

    ts = daemon.post("/api/query_ts", {}).json["ts"]
    assert at(ts, "one").json == {"status": "success", "value": []}
    send(daemon, "two")
    assert at(ts, "one").json["value"] == []
    assert (at(ts, "two").json["status"], at(ts, "two").json["errorCode"]) == ("error", "conflict")
    assert len(at(daemon.post("/api/query_ts", {}).json["ts"], "two").json["value"]) == 1
    for wrong in ("", "AAAA", None, "////////DwA="):
        assert (at(wrong, "one").status, at(wrong, "one").json["code"]) == (400, "invalid_request")


def test_several_queries_in_one_request_have_one_ts(daemon: RunningDaemon) -> None:
    send(daemon, "batch")
    asked = [
        {"path": "messages:counter", "args": [{"name": "none"}]},
        {"path": "messages:list", "args": [{"channel": "batch"}]},
        {"path": "messages:nowhere", "args": [{}]},
        {"path": "messages:fail", "args": [{"channel": "none", "data": 5}]},
    ]
    answer = daemon.post("/api/query_batch", {"queries": asked}, **CLIENT)
    number, rows, missing, failed = answer.json["results"]
    assert (number["value"], len(rows["value"])) == (0, 1)
    assert (missing["status"], "errorData" in missing) == ("error", False)
    assert failed["errorData"] == 5
    for wrong in ({}, {"queries": []}, {"queries": [5]}, {"queries": asked * 26}):
        assert daemon.post("/api/query_batch", wrong, **CLIENT).status == 400


def test_names_are_taken_as_the_clients_write_them(daemon: RunningDaemon) -> None:
    for path in ("messages", "messages:default", "messages.js:default"):
        assert (
            daemon.post("/api/query", {"path": path, "args": [{}]}, **CLIENT).json["value"] == "the default"
        )
    assert "messages'" in daemon.post("/api/query", {"path": "messages", "args": {}}).json["errorMessage"]


def test_a_key_may_say_as_whom_its_holder_acts(daemon: RunningDaemon) -> None:
    def whoami(authorization: str) -> Any:
        return daemon.post("/api/query", {"path": "messages:whoami", "args": {}}, Authorization=authorization)

    ada = base64.b64encode(json.dumps({"subject": "ada", "issuer": STAFF}).encode()).decode()
    assert whoami(f"Convex {daemon.key}:{ada}").json["value"] == f"{STAFF}|ada"
    assert whoami(f"Convex {daemon.key}").json["value"] is None
    secret = {"path": "messages:secret", "args": {}}
    assert (
        daemon.post("/api/function", secret, Authorization=f"Convex {daemon.key}").json["value"] == "secret"
    )
    assert whoami(f"Convex {daemon.key}x").status == 401
    assert whoami(f"Convex {daemon.key}:no-base64").status == 401
    elsewhere = base64.b64encode(b'{"subject": "ada", "issuer": "https://elsewhere.example"}').decode()
    assert whoami(f"Convex {daemon.key}:{elsewhere}").status == 400


def test_a_result_that_clients_cannot_take_is_told(daemon: RunningDaemon) -> None:
    kept = {"path": "messages:keep", "args": {"name": "k", "value": {"$x": 1}}}
    assert daemon.post("/api/mutation", kept).json["status"] == "success"
    told = daemon.post("/api/query", {"path": "messages:kept", "args": [{"name": "k"}]}, **CLIENT).json
    assert (told["status"], told["errorCode"]) == ("error", "invalid_result")


def test_tools_find_out_what_they_talk_to(daemon: RunningDaemon) -> None:
    assert daemon.get("/instance_name").text == "headwater"
    assert daemon.get("/instance_version").text == daemon.get("/version").text


@pytest.mark.parametrize(
    ("path", "command"),
    [
        ("/api/stream_function_logs", "headwater logs"),
        ("/api/update_environment_variables", "headwater env"),
        ("/api/deploy2/start_push", "headwater deploy"),
        ("/api/run_test_function", "headwater run"),
    ],
)
def test_what_is_not_served_says_what_to_use_instead(daemon: RunningDaemon, path: str, command: str) -> None:
    for answer in (daemon.get(path), daemon.post(path, {})):
        assert answer.status == 404
        assert f"`{command}" in answer.json["message"]


def test_the_command_line_runs_functions_and_is_told_what_else_there_is(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    """Convex's own, of the package on npm."""
    script = FOLDER / "node_modules" / "convex" / "bin" / "main.js"
    (tmp_path / "package.json").write_text('{"name": "x", "dependencies": {"convex": "1.48.0"}}')

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        origin = f"http://127.0.0.1:{daemon.port}"
        more = {"CONVEX_SELF_HOSTED_URL": origin, "CONVEX_SELF_HOSTED_ADMIN_KEY": daemon.key, "CI": "1"}
        return subprocess.run(
            [node_program(), script, *words], cwd=tmp_path, env=os.environ | more,
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = run("run", "messages:add", '{"name": "cli", "by": 3}')
    assert (done.stdout.strip(), done.returncode) == ("3", 0), done.stderr
    assert run("run", "messages:secret").stdout.strip() == '"secret"'
    for words, command in ((["data"], "data"), (["function-spec"], "spec"), (["env", "list"], "env")):
        refused = run(*words)
        assert refused.returncode != 0
        assert f"use `headwater {command}" in refused.stderr
