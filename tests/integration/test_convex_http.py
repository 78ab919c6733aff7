"""What clients and tools of Convex ask over HTTP, beside calls of functions."""

from __future__ import annotations

import base64
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
from support.daemon import RunningDaemon, running
from support.users import STAFF

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    ("path", "advice"),
    [
        ("/api/deploy2/start_push", "headwater deploy"),
        ("/api/get_config_hashes", "headwater deploy"),
        ("/api/v1/get_canonical_urls", "headwater dev"),
        ("/api/run_test_function", "headwater run"),
        ("/api/import/start_upload", "headwater run"),
        ("/api/export/request/zip", "headwater data"),
        ("/api/delete_tables", "headwater data"),
        ("/api/app_metrics/udf_rate", "/metrics"),
        ("/api/current_deployment", "headwater deploy"),
    ],
)
def test_what_is_not_served_says_what_to_use_instead(daemon: RunningDaemon, path: str, advice: str) -> None:
    """With the status after which the command line shows what it is told, and does not try again."""
    for answer in (daemon.get(path), daemon.post(path, {})):
        assert answer.status == 403
        assert advice in answer.json["message"]


def system(daemon: RunningDaemon, name: str, key: str = "", /, **args: Any) -> Any:
    authorization = {"Authorization": f"Convex {key}"} if key else {}
    body = {"path": f"_system/cli/{name}", "args": [args]}
    return daemon.post("/api/query", body, **CLIENT, **authorization).json


def test_functions_of_the_system_need_a_key_that_opens_them(daemon: RunningDaemon) -> None:
    owner = {"Authorization": f"Headwater {daemon.key}"}
    keys = {
        role: daemon.post("/api/admin/keys", {"name": f"http-{role}", "role": role}, **owner).json["key"]
        for role in ("read", "deploy")
    }
    opened = {
        ("tables", ()): {"admin", "read"},
        ("tableData", (("table", "messages"),)): {"admin", "read"},
        ("queryEnvironmentVariables", ()): {"admin", "deploy"},
        ("queryEnvironmentVariables:get", (("name", "X"),)): {"admin", "deploy"},
        ("modules:apiSpec", ()): {"admin", "read", "deploy"},
    }
    for (name, args), roles in opened.items():
        assert system(daemon, name, **dict(args))["errorCode"] == "unauthenticated"
        for role, key in {**keys, "admin": daemon.key}.items():
            answer = system(daemon, name, key, **dict(args))
            if role in roles:
                assert answer["status"] == "success", (name, role)
            else:
                assert answer["errorCode"] == "forbidden", (name, role)
                assert answer["errorMessage"].startswith("You do not have permission")


@pytest.mark.parametrize(
    ("name", "args", "code"),
    [
        ("tables", {"paginationOpts": 5}, "invalid_arguments"),
        ("tableData", {}, "invalid_arguments"),
        ("tableData", {"table": "nowhere"}, "unknown_table"),
        ("tableData", {"table": "messages", "order": "up"}, "invalid_arguments"),
        ("tableData", {"table": "messages", "paginationOpts": {"numItems": 0, "cursor": None}}, "invalid_arguments"),
        ("tableData", {"table": "messages", "paginationOpts": {"numItems": {"$float": "AAAAAAAA+H8="}}}, "invalid_arguments"),
        ("tableData", {"table": "messages", "paginationOpts": {"numItems": 1e300}}, "invalid_arguments"),
        ("tableData", {"table": "messages", "paginationOpts": {"numItems": 5, "cursor": "é"}}, "invalid_request"),
        ("queryEnvironmentVariables:get", {"name": "x" * 20_000}, "invalid_arguments"),
        ("tableSize", {}, "unknown_function"),
    ],
)  # fmt: skip
def test_what_functions_of_the_system_cannot_take_is_refused(
    daemon: RunningDaemon, name: str, args: Any, code: str
) -> None:
    answer = system(daemon, name, daemon.key, **args)
    assert (answer.get("errorCode") or answer["code"]) == code


def change(daemon: RunningDaemon, key: str, **values: str | None) -> Any:
    changes = [{"name": name, "value": value} for name, value in values.items()]
    return daemon.post(
        "/api/update_environment_variables", {"changes": changes}, Authorization=f"Convex {key}"
    )


def test_variables_are_changed_all_or_none(daemon: RunningDaemon) -> None:
    owner = {"Authorization": f"Headwater {daemon.key}"}
    read = daemon.post("/api/admin/keys", {"name": "env-read", "role": "read"}, **owner).json["key"]

    def listed() -> dict[str, str]:
        found = system(daemon, "queryEnvironmentVariables", daemon.key)["value"]
        return {one["name"]: one["value"] for one in found}

    assert change(daemon, read, A="1").status == 403
    assert change(daemon, daemon.key, A="1", B="2").status == 200
    for wrong in (
        {"A": "3", "lower": "4"},
        {"A": "3", "NONE": None},
        {"A": "3", "C": "(secret)"},
        {"A": "3", "C": "x" * 20_000},
    ):
        assert change(daemon, daemon.key, **wrong).status == 400
    assert listed() == {"A": "1", "B": "2"}
    assert change(daemon, daemon.key, A=None, B="3").status == 200
    secret = {"name": "HIDDEN", "value": "nobody-sees-this", "secret": True}
    assert daemon.post("/api/admin/environment", secret, **owner).status == 200
    assert change(daemon, daemon.key, HIDDEN="another").status == 200
    assert listed() == {"B": "3", "HIDDEN": "(secret)"}  # it stays one
    assert change(daemon, daemon.key, B=None, HIDDEN=None).status == 200
    assert listed() == {}


def test_what_the_active_bundle_cannot_read_is_not_set(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        secret = {"name": "API_KEY", "value": "k", "secret": True}
        owner = {"Authorization": f"Headwater {daemon.key}"}
        assert daemon.post("/api/admin/environment", secret, **owner).status == 200
        daemon.must_deploy("environment")
        assert "Expected `int`" in change(daemon, daemon.key, LIMIT="many").json["message"]
        assert "active bundle refuses" in change(daemon, daemon.key, API_KEY=None).json["message"]
        assert change(daemon, daemon.key, LIMIT="7").status == 200
        assert daemon.call("query", "reads:limit") == 7


def test_a_table_is_read_page_by_page(daemon: RunningDaemon) -> None:
    for number in range(5):
        send(daemon, f"page {number}")

    def page(cursor: str | None) -> Any:
        opts = {"numItems": 2, "cursor": cursor}
        found = system(daemon, "tableData", daemon.key, table="messages", order="asc", paginationOpts=opts)
        return found["value"]

    channels, cursor, done = [], None, False
    while not done:
        found = page(cursor)
        assert 0 < len(found["page"]) <= 2
        channels += [row["channel"] for row in found["page"]]
        cursor, done = found["continueCursor"], found["isDone"]
    assert [channel for channel in channels if channel.startswith("page")] == [f"page {n}" for n in range(5)]


@pytest.mark.parametrize("cursor", ["x", "-1", "1e9", "9" * 17, "²"])
def test_a_cursor_that_is_none_is_refused(daemon: RunningDaemon, cursor: str) -> None:
    address = f"/api/stream_function_logs?cursor={quote(cursor)}"
    assert daemon.get(address, Authorization=f"Convex {daemon.key}").status == 400


def test_the_log_goes_on_where_it_ended_and_nothing_is_told_twice(tmp_path: Path) -> None:
    with running(tmp_path, deploy="logs") as daemon:
        key = {"Authorization": f"Convex {daemon.key}"}

        def poll(cursor: float) -> Any:
            return daemon.get(f"/api/stream_function_logs?cursor={cursor}", **key).json

        empty = poll(0)
        assert empty["entries"] == []
        daemon.call("mutation", "says:add", name="one")
        first = poll(empty["newCursor"])
        (entry,) = first["entries"]
        assert (entry["kind"], entry["identifier"], entry["udfType"]) == (
            "Completion",
            "says:add",
            "Mutation",
        )
        lines = [(line["level"], line["messages"]) for line in entry["logLines"]]
        assert lines == [("INFO", ["adding one"]), ("ERROR", ["grave"])]
        assert (entry["error"], entry["usageStats"]["databaseWriteBytes"] > 0) == (None, True)
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(poll, first["newCursor"])
            answer = daemon.post("/api/query", {"path": "says:break_query", "args": {}})
            assert answer.json["status"] == "error"
            (entry,) = waiting.result(30)["entries"]
        assert entry["identifier"] == "says:break_query"
        assert "KeyError" in entry["error"]
        assert len(poll(0)["entries"]) == 2
        daemon.terminate()
        daemon.start()
        missing, *_ = poll(first["newCursor"])["entries"]
        assert "missing" in missing["logLines"][0]["messages"][0]


def test_json_of_millions_of_values_costs_neither_memory_nor_time(daemon: RunningDaemon) -> None:
    """16 MB of empty lists took 700 MB and several seconds in which nothing else was done."""

    def peak_mb() -> int:
        assert daemon.process is not None
        lines = Path(f"/proc/{daemon.process.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) // 1024

    before = peak_mb()
    lists = b"[" + b",".join([b"[]"] * 5_000_000) + b"]"
    body = b'{"path":"messages:keep","args":{"name":"x","value":%b}}' % lists
    for headers in ({}, CLIENT):
        answer = daemon.post("/api/mutation", body, **headers)
        assert (answer.status, answer.json["code"]) == (413, "frame_too_large")
    assert peak_mb() - before < 200
