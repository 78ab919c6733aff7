"""Environment variables on a real daemon: needed by a deploy, seen by functions at once, secret ones nowhere to be found."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater.packing import pack
from support.daemon import BUNDLES, RunningDaemon, daemon_environment, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SECRET = "sk-nobody-shall-find-this-4711"


def post(daemon: RunningDaemon, path: str, key: str | None = None, /, **fields: Any) -> Any:
    answer = daemon.post(
        f"/api/admin/environment{path}", fields, Authorization=f"Headwater {key or daemon.key}"
    )
    return answer.json


def put(daemon: RunningDaemon, name: str, value: str, *, secret: bool = False) -> None:
    answer = post(daemon, "", name=name, value=value, secret=secret)
    assert answer["status"] == "success", answer


def listed(daemon: RunningDaemon) -> dict[str, dict[str, Any]]:
    answer = daemon.get("/api/admin/environment", Authorization=f"Headwater {daemon.key}").json
    return {one.pop("name"): one for one in answer["variables"]}


def started(folder: Path, *options: str) -> RunningDaemon:
    daemon = RunningDaemon(folder, options)
    daemon.start()
    put(daemon, "API_KEY", SECRET, secret=True)
    daemon.must_deploy("environment")
    return daemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    daemon = started(tmp_path_factory.mktemp("environment"))
    yield daemon
    daemon.end()


# ------------------------------------------------------------------------------------------- deploys and changes


def test_a_deploy_is_refused_until_what_it_needs_is_set_and_fits(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        put(daemon, "LIMIT", "many")
        refused = daemon.deploy("environment").json
        assert refused["code"] == "invalid_bundle"
        assert "API_KEY is not set; it is a secret str" in refused["message"]
        assert "LIMIT: Expected `int`, got `str`" in refused["message"]
        put(daemon, "LIMIT", "3")
        put(daemon, "API_KEY", "in the clear")
        refused = daemon.deploy("environment").json
        assert refused["message"].endswith(
            "\n  API_KEY is a secret, and is stored in the clear: set it again with --secret"
        )
        put(daemon, "API_KEY", SECRET, secret=True)
        path = "/api/admin/deploy?dry_run=true"
        trial = daemon.request(
            "POST", path, packed("environment"), {"Authorization": f"Headwater {daemon.key}"}
        )
        assert {
            "sign": "added",
            "what": "variable",
            "name": "API_KEY",
            "details": ["secret str", "must be set"],
        } in (trial.json["changes"])
        daemon.must_deploy("environment")
        assert daemon.call("query", "reads:limit") == 3


def packed(name: str) -> bytes:
    return pack(BUNDLES / name / "functions")


def test_a_dry_run_tells_what_is_missing(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        answer = daemon.request(
            "POST",
            "/api/admin/deploy?dry_run=true",
            packed("environment"),
            {"Authorization": f"Headwater {daemon.key}"},
        )
        assert answer.json["code"] == "invalid_bundle"
        assert "API_KEY is not set" in answer.json["message"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "LIMIT", "value": "ten"}, "LIMIT: Expected `int`, got `str`"),
        ({"name": "REGIONS", "value": "eu"}, "REGIONS: Expected `array`, got `str`"),
        ({"name": "limit", "value": "1"}, "cannot name a variable"),
        ({"name": "A" * 65, "value": "1"}, "cannot name a variable"),
        ({"name": "_A", "value": "1"}, "cannot name a variable"),
        ({"name": "OTHER", "value": "x" * 16_385}, "the limit is 16384"),
        ({"name": "OTHER"}, "the body: Object missing required field `value`"),
        ({"name": "OTHER", "value": 5}, "the body: Expected `str`, got `int`"),
    ],
)
def test_a_value_that_does_not_fit_is_refused(daemon: RunningDaemon, fields: Any, said: str) -> None:
    before = listed(daemon)
    answer = post(daemon, "", **fields)
    assert answer["code"] == "invalid_request"
    assert said in answer["message"]
    assert listed(daemon) == before


def test_what_the_active_bundle_needs_is_not_removed(daemon: RunningDaemon) -> None:
    put(daemon, "API_KEY", SECRET)
    refused = post(daemon, "/remove", name="API_KEY")
    assert "API_KEY is not set; it is a secret str" in refused["message"]
    assert daemon.call("query", "reads:key_length") == len(SECRET)
    put(daemon, "NOBODY_READS_IT", "1")
    assert post(daemon, "/remove", name="NOBODY_READS_IT")["status"] == "success"
    assert "is not set" in post(daemon, "/remove", name="NOBODY_READS_IT")["message"]


def test_a_declared_secret_is_sealed_without_being_asked(daemon: RunningDaemon) -> None:
    assert post(daemon, "", name="API_KEY", value=SECRET)["secret"] is True
    assert listed(daemon)["API_KEY"]["value"] is None


async def test_a_change_is_seen_by_calls_and_runs_what_has_read_it_again(daemon: RunningDaemon) -> None:
    put(daemon, "LIMIT", "20")
    async with (
        headwater.connect(daemon.url) as client,
        client.subscribe("reads:limit") as limits,
        client.subscribe("reads:indifferent") as indifferent,
    ):
        assert await anext(limits) == 20
        assert await anext(indifferent) == 1
        runs = daemon.metric('headwater_calls_total{kind="query",outcome="success"}')
        put(daemon, "LIMIT", "21")
        assert await anext(limits) == 21
        assert daemon.metric('headwater_calls_total{kind="query",outcome="success"}') == runs + 1
        assert post(daemon, "/remove", name="LIMIT")["status"] == "success"
        assert await anext(limits) == 10, "its default"
        put(daemon, "LIMIT", "22")
        assert await anext(limits) == 22
        assert await client.mutation("reads:use") == 22
        assert await client.query("reads:limit") == 22
        put(daemon, "REGIONS", '["eu", "us"]')
        assert await client.query("reads:regions") == ["eu", "us"]


def test_an_action_that_goes_on_sees_it_and_one_that_begins_later_for_certain(daemon: RunningDaemon) -> None:
    put(daemon, "API_KEY", SECRET)
    put(daemon, "LIMIT", "1")
    found: list[int] = []
    calling = threading.Thread(target=lambda: found.append(daemon.call("action", "reads:wait", limit=2)))
    calling.start()
    wait_until(lambda: daemon.metric("headwater_actions_running") == 1)
    assert daemon.call("action", "reads:now") == [1, len(SECRET)]
    put(daemon, "LIMIT", "2")
    assert daemon.call("action", "reads:now") == [2, len(SECRET)]
    calling.join(20)
    assert found == [len(SECRET)]


def test_bounds_and_rights(tmp_path: Path) -> None:
    with running(tmp_path, "--environment-limit-variables", "2", deploy="logs") as daemon:
        put(daemon, "A", "1")
        put(daemon, "B", "1")
        assert "environment_limit_variables" in post(daemon, "", name="C", value="1")["message"]
        put(daemon, "A", "2")

        def key(role: str) -> str:
            headers = {"Authorization": f"Headwater {daemon.key}"}
            made: str = daemon.post("/api/admin/keys", {"name": role, "role": role}, **headers).json["key"]
            return made

        assert post(daemon, "", key("read"), name="A", value="3")["code"] == "forbidden"
        assert post(daemon, "", key("deploy"), name="A", value="3")["status"] == "success"
        assert daemon.get("/api/admin/environment").status == 401


# ------------------------------------------------------------------------------------------------------- secrets


def files_with(folder: Path, text: str) -> list[str]:
    return [str(path) for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def test_a_secret_is_in_no_file_no_log_no_command_line_and_no_answer(tmp_path: Path) -> None:
    log = tmp_path / "calls.log"
    options = ("--call-log-file", str(log), "--call-log-console", "info", "--log-level", "debug")
    daemon = started(tmp_path / "daemon", *options)
    try:
        assert daemon.call("query", "reads:key_length") == len(SECRET)
        assert daemon.call("query", "reads:shown").startswith("Settings(api_key=Secret(…), limit=10")
        failed = daemon.post("/api/query", {"path": "reads:fail", "args": {}})
        wait_until(lambda: log.exists() and "cannot use" in log.read_text())
        headers = {"Authorization": f"Headwater {daemon.key}"}
        answers = [
            failed.text,
            daemon.get("/api/admin/environment", **headers).text,
            daemon.get("/api/admin/manifest", **headers).text,
            daemon.get("/api/admin/logs", **headers).text,
            daemon.get("/metrics").text,
        ]
        assert "Secret(…)" in answers[3]
        assert daemon.process is not None
        for pid in [daemon.process.pid, daemon.zygote_pid(), *daemon.worker_pids()]:
            answers += [Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "environ")]
        assert [text for text in answers if SECRET in text] == []
        put(daemon, "PLAIN", "found-in-the-clear")
        assert files_with(tmp_path, "found-in-the-clear"), "the search finds what is there"
        assert daemon.terminate() == 0
        assert files_with(tmp_path, SECRET) == []
        key_file = tmp_path / "daemon" / "data.key"
        assert key_file.stat().st_mode & 0o777 == 0o600
        assert files_with(tmp_path / "daemon" / "data", key_file.read_text().strip()) == []
    finally:
        daemon.end()


def test_values_are_there_after_a_kill_and_doctor_finds_nothing(tmp_path: Path) -> None:
    daemon = started(tmp_path)
    try:
        put(daemon, "LIMIT", "77")
        daemon.kill()
        daemon.start()
        assert daemon.call("query", "reads:limit") == 77
        assert daemon.call("query", "reads:key_length") == len(SECRET)
        assert daemon.call("action", "reads:now") == [77, len(SECRET)]
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()


def test_without_its_key_the_daemon_starts_and_refuses_only_what_needs_it(tmp_path: Path) -> None:
    daemon = started(tmp_path)
    key_file = tmp_path / "data.key"
    right = key_file.read_text()
    try:
        put(daemon, "LIMIT", "5")
        for wrong, said in (
            (None, "there is no key file"),
            ("hw-seal-" + "A" * 43, "with another key than the one in"),
            ("something else", "holds no key"),
        ):
            assert daemon.terminate() == 0
            if wrong is None:
                key_file.unlink()
            else:
                key_file.write_text(wrong + "\n")
            daemon.start()
            assert daemon.call("query", "reads:indifferent") == 1
            answer = daemon.post("/api/query", {"path": "reads:key_length", "args": {}}).json
            assert answer["errorCode"] == "internal_error"
            assert said in answer["errorMessage"]
            assert str(key_file) in answer["errorMessage"]
            assert SECRET not in answer["errorMessage"]
            key_file.write_text(right)
            if wrong is None:
                assert daemon.call("query", "reads:key_length") == len(SECRET), "it is looked for again"
    finally:
        daemon.end()


@pytest.mark.parametrize("place", ["data/key", "nowhere/key"])
def test_a_key_file_that_cannot_be_is_named(tmp_path: Path, place: str) -> None:
    with running(tmp_path, "--environment-key-file", str(tmp_path / place)) as daemon:
        put(daemon, "PLAIN", "1")
        answer = post(daemon, "", name="API_KEY", value=SECRET, secret=True)
        assert answer["code"] == "invalid_request"
        assert place in answer["message"]
        assert "environment_key_file" in answer["message"]
        assert listed(daemon).keys() == {"PLAIN"}


# ---------------------------------------------------------------------------------------------- the command line


@pytest.mark.timeout(400)
def test_the_commands(daemon: RunningDaemon, tmp_path: Path) -> None:
    environment = daemon_environment() | {
        "HEADWATER_KEY": daemon.key,
        "HEADWATER_URL": f"http://127.0.0.1:{daemon.port}",
    }

    def env(*words: str, given: str = "", code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", "env", *words],
            cwd=tmp_path, env=environment, input=given, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    env("set", "LIMIT", "41")
    assert env("get", "LIMIT") == ("41\n", "")
    assert json.loads(env("get", "LIMIT", "--json")[0]) == {"name": "LIMIT", "value": "41"}
    assert (
        env("set", "API_KEY", "--stdin", "--secret", given=SECRET + "\n")[1] == "API_KEY is set, and sealed\n"
    )
    assert daemon.call("query", "reads:key_length") == len(SECRET)
    (tmp_path / "key").write_text("another-key")
    env("set", "API_KEY", "--file", "key")
    assert daemon.call("query", "reads:key_length") == len("another-key")
    assert "is a secret" in env("get", "API_KEY", code=1)[1]
    assert "others may have seen" in env("set", "API_KEY", "on-the-line")[1]
    assert "LIMIT: Expected `int`" in env("set", "LIMIT", "x", code=1)[1]
    for words in (["API_KEY", "v", "--secret"], ["LIMIT"], ["LIMIT", "1", "--stdin"]):
        assert "on-the-line" not in env("set", *words, code=2)[1]
    told = subprocess.run(
        [sys.executable, "-m", "headwater.cli", "env", "set", "LIMIT", "--stdin"],
        cwd=tmp_path, env=environment, input=b"\xff", capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert (told.returncode, "standard input: it is not UTF-8 text" in told.stderr.decode()) == (2, True)
    names = {row["name"]: row for row in json.loads(env("list", "--json")[0])}
    assert names["API_KEY"]["value"] is None
    assert (names["LIMIT"]["value"], names["LIMIT"]["kind"], names["LIMIT"]["required"]) == (
        "41",
        "int",
        False,
    )
    assert env("remove", "LIMIT")[1] == "LIMIT is removed\n"
    assert "is not set" in env("get", "LIMIT", code=1)[1]
