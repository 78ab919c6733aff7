"""Functions over HTTP, in the shape that Convex's HTTP interface has: `{path, args, format}` in, a status out."""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import socket
import struct
import subprocess
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pytest
from headwater.packing import BUNDLE_BYTES_MAX
from headwater_protocol.limits import VALUE_DEPTH_MAX
from headwater_protocol.values import Int64, pack_value
from support.daemon import BUNDLES, RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import Answer

LOSSLESS = "convex_encoded_json"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("http"), deploy="probe") as daemon:
        yield daemon
        assert "http_request_failed" not in daemon.log_text()


def echo(daemon: RunningDaemon, value: Any, form: str, args: Any = None) -> Any:
    given = {"value": value} if args is None else args
    answer = daemon.post("/api/query", {"path": "probe:echo", "args": given, "format": form})
    assert answer.status == 200, answer.text
    assert answer.json["status"] == "success", answer.text
    return answer.json["value"]


def special(kind: str, layout: str, value: float) -> dict[str, str]:
    return {kind: base64.b64encode(struct.pack(layout, value)).decode()}


# ---------------------------------------------------------------------------------------------- success


@pytest.mark.parametrize("wrap", [lambda args: args, lambda args: [args]])
def test_query_and_mutation(daemon: RunningDaemon, wrap: Any) -> None:
    text = f"over http {wrap.__code__.co_firstlineno} {len(wrap({}))}"
    kept = daemon.post(
        "/api/mutation", {"path": "probe:keep", "args": wrap({"text": text}), "format": "json"}
    )
    assert kept.status == 200
    assert kept.headers["content-type"].startswith("application/json")
    assert kept.json.keys() == {"status", "value"}
    found = daemon.post("/api/query", {"path": "probe:find", "args": wrap({"note": kept.json["value"]})})
    assert found.json["status"] == "success"
    note = found.json["value"]
    assert note.pop("_creationTime") > 1.6e12
    assert note == {"_id": kept.json["value"], "text": text, "stars": 0}


def test_arguments_may_be_left_out(daemon: RunningDaemon) -> None:
    assert daemon.post("/api/query", {"path": "probe:notes"}).json["status"] == "success"


def test_a_function_is_called_at_an_address_of_its_own(daemon: RunningDaemon) -> None:
    kept = daemon.post("/api/run/probe/keep", {"args": {"text": "at its address"}})
    assert kept.json["status"] == "success"
    assert daemon.post("/api/run/probe/notes", b"").json["status"] == "success"
    for path in ("/api/run/probe/nothing", "/api/run/probe"):
        assert "unknown_function" in daemon.post(path, {}).text
    assert daemon.post("/api/run/probe/keep", b"[1]").status == 400
    assert (
        daemon.post("/api/run/probe/keep", {"path": "probe:notes"}).json["errorCode"] == "invalid_arguments"
    )


def test_the_openapi_document_names_addresses_that_are_there(daemon: RunningDaemon) -> None:
    words = ["spec", "--openapi", "--url", f"http://127.0.0.1:{daemon.port}"]
    made = subprocess.run(
        [sys.executable, "-m", "headwater.cli", *words],
        env={"HEADWATER_KEY": daemon.key}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    paths = json.loads(made.stdout)["paths"]
    assert "/api/run/probe/keep" in paths
    for path, at in paths.items():
        answer = daemon.post(path, {"args": {"no_such_argument": 1}}).json
        assert answer["errorCode"] == "invalid_arguments", (path, answer)
        assert at["post"]["x-headwater-kind"] in ("query", "mutation")


def test_query_by_get(daemon: RunningDaemon) -> None:
    words = urlencode({"path": "probe:echo", "args": json.dumps({"value": {"a": [1]}}), "format": "json"})
    assert daemon.get(f"/api/query?{words}").json == {"status": "success", "value": {"a": [1]}}


def test_encoded_values_go_both_ways_as_they_are(daemon: RunningDaemon) -> None:
    def encoded(value: Any) -> str:
        return base64.b64encode(pack_value(value)).decode()

    value = {"when": datetime(2013, 1, 1, 0, 0, 0, 7, tzinfo=UTC), "n": Int64(3), "f": 1.0, "b": b"\xff"}
    assert echo(daemon, value, "encoded", encoded({"value": value})) == encoded(value)
    whole = {"path": "probe:notes", "format": "encoded"}
    assert daemon.post("/api/query", whole).json["status"] == "success"
    for wrong in ("!", encoded(5), encoded({"valeu": 1}), "wQ==", encoded({}) + "gA==", {}):
        answer = daemon.post("/api/query", {"path": "probe:echo", "args": wrong, "format": "encoded"}).json
        assert answer.get("errorCode", answer.get("code")) == "invalid_arguments", (wrong, answer)


def test_a_mutation_is_seen_by_the_next_query(daemon: RunningDaemon) -> None:
    for number in range(20):
        daemon.call("mutation", "probe:keep", text="seen at once")
        assert daemon.call("query", "probe:count", text="seen at once") == number + 1


def test_a_key_opens_internal_functions_of_both_kinds(daemon: RunningDaemon) -> None:
    headers = {"Authorization": f"Headwater {daemon.key}"}
    for path in ("/api/query", "/api/function"):
        body = {"path": "probe:hidden", "args": {}}
        assert daemon.post(path, body, **headers).json == {"status": "success", "value": "seen"}
        refused = daemon.post(path, body).json
        assert refused.get("errorCode", refused.get("code")) == "unknown_function"
    kept = daemon.post("/api/function", {"path": "probe:keep", "args": {"text": "by function"}}, **headers)
    assert kept.json["status"] == "success"


# ---------------------------------------------------------------------------------------------- values

PLAIN = [
    None,
    True,
    False,
    0,
    -1,
    2**53,
    0.5,
    -2.5e300,
    "",
    "é ☃ 😀",
    "\x00",
    [],
    [[1], "a"],
    {},
    {"a": {"b": None}},
]


@pytest.mark.parametrize("value", PLAIN, ids=repr)
@pytest.mark.parametrize("form", ["json", LOSSLESS])
def test_plain_values_come_back(daemon: RunningDaemon, value: Any, form: str) -> None:
    got = echo(daemon, value, form)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    "value",
    [
        special("$integer", "<q", 2**53 + 1),
        special("$integer", "<q", 2**63 - 1),
        special("$integer", "<q", -(2**63)),
        special("$float", "<d", math.inf),
        special("$float", "<d", -math.inf),
        special("$float", "<d", -0.0),
        {"$bytes": base64.b64encode(b"\x00\xff").decode()},
        [{"$bytes": ""}, {"a": special("$float", "<d", math.inf)}],
    ],
    ids=repr,
)
def test_special_values_come_back_without_loss(daemon: RunningDaemon, value: Any) -> None:
    assert echo(daemon, value, LOSSLESS) == value


def test_not_a_number_stays_one(daemon: RunningDaemon) -> None:
    got = echo(daemon, special("$float", "<d", math.nan), LOSSLESS)
    assert math.isnan(struct.unpack("<d", base64.b64decode(got["$float"]))[0])


def test_special_values_in_plain_json(daemon: RunningDaemon) -> None:
    """Plain JSON cannot hold them: they are written as text that people can read."""

    def plain(value: Any) -> Any:
        """Send without loss, receive plain."""
        sent = {"path": "probe:keep_value", "args": {"key": "plain", "value": value}, "format": LOSSLESS}
        assert daemon.post("/api/mutation", sent).json["status"] == "success"
        return daemon.call("query", "probe:value_of", key="plain")

    assert plain(special("$integer", "<q", 2**60)) == str(2**60)
    assert plain({"$bytes": "AP8="}) == "AP8="
    assert plain(special("$float", "<d", math.nan)) == "NaN"
    assert plain(special("$float", "<d", -math.inf)) == "-Infinity"


def test_the_format_depends_on_who_asks_unless_it_is_said(daemon: RunningDaemon) -> None:
    body = {"path": "probe:echo", "args": {"value": 2**60}}
    encoded = special("$integer", "<q", 2**60)
    assert daemon.post("/api/query", body).json["value"] == str(2**60)
    theirs = {"path": "probe:echo", "args": {"value": encoded}}
    assert daemon.post("/api/query", theirs, Convex_Client="python-0.8.1").json["value"] == encoded
    told = body | {"format": "json"}
    assert daemon.post("/api/query", told, Convex_Client="python-0.8.1").json["value"] == str(2**60)


def test_a_whole_number_is_taken_for_an_integer(daemon: RunningDaemon) -> None:
    assert daemon.call("query", "probe:typed", number=3.0, name="x", ratio=2) == [3, "x", 2.0]


def test_datetimes(daemon: RunningDaemon) -> None:
    assert daemon.call("query", "probe:moment", at="2020-02-29T12:00:00Z") == "2020-02-29T12:00:00Z"


# ---------------------------------------------------------------------------------------------- errors


def test_an_application_error_is_an_answer_of_200_with_its_data(daemon: RunningDaemon) -> None:
    for kind, name, arguments in (
        ("mutation", "probe:refuse", {"text": "no"}),
        ("query", "probe:refuse_query", {"why": "no"}),
    ):
        answer = daemon.post(f"/api/{kind}", {"path": name, "args": arguments, "format": "json"})
        assert answer.status == 200
        assert answer.json["status"] == "error"
        assert answer.json["errorMessage"]
        assert answer.json["errorData"] == {"why": "no"}
        assert "value" not in answer.json


def test_other_errors_have_no_data(daemon: RunningDaemon) -> None:
    for name in ("probe:stumble", "probe:nothing"):
        answer = daemon.post("/api/mutation", {"path": name, "args": {"text": "x"}})
        assert answer.status == 200
        assert answer.json["status"] == "error"
        assert answer.json["errorMessage"]
        assert "errorData" not in answer.json


BAD_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "JSON"),
    "no json": (b"nonsense", "JSON"),
    "cut off": (b'{"path": "probe:notes"', "JSON"),
    "no text": (b'{"path": "\xff"}', "JSON"),
    "a list": (b"[]", "object"),
    "no path": (b'{"args": {}}', "path"),
    "path of another type": (b'{"path": 5}', "path"),
    "arguments of another type": (b'{"path": "probe:notes", "args": 5}', "args"),
    "two lists of arguments": (b'{"path": "probe:notes", "args": [{}, {}]}', "args"),
    "no arguments in a list": (b'{"path": "probe:notes", "args": []}', "args"),
    "another format": (b'{"path": "probe:notes", "format": "xml"}', "xml"),
}


@pytest.mark.parametrize("kind", ["query", "mutation", "function"])
@pytest.mark.parametrize("case", BAD_BODIES)
def test_a_malformed_request(daemon: RunningDaemon, kind: str, case: str) -> None:
    body, word = BAD_BODIES[case]
    check_refusal(daemon.post(f"/api/{kind}", body), 400, "invalid_request", word)


@pytest.mark.parametrize("args", ["nonsense", "[1]", "5"])
def test_malformed_arguments_by_get(daemon: RunningDaemon, args: str) -> None:
    words = urlencode({"path": "probe:notes", "args": args})
    check_refusal(daemon.get(f"/api/query?{words}"), 400, "invalid_request", "args")


@pytest.mark.parametrize(
    "value", [{"$integer": "AAAA"}, {"$float": "nonsense"}, {"$bytes": 5}, {"$bytes": "é"}]
)
def test_malformed_special_values(daemon: RunningDaemon, value: Any) -> None:
    body = {"path": "probe:echo", "args": {"value": value}, "format": LOSSLESS}
    check_refusal(daemon.post("/api/query", body), 400, "invalid_arguments", next(iter(value)))


def test_an_integer_that_does_not_fit(daemon: RunningDaemon) -> None:
    """It must not become a float that is nearly the same."""
    body = {"path": "probe:echo", "args": {"value": 2**64}}
    check_refusal(daemon.post("/api/query", body), 400, "invalid_arguments", str(2**64))


@pytest.mark.parametrize("depth", [VALUE_DEPTH_MAX, 250, 900, 100_000])
def test_values_nested_too_deep(daemon: RunningDaemon, depth: int) -> None:
    """`args` itself is one of them."""
    body = b'{"path": "probe:echo", "args": {"value": ' + b"[" * depth + b"]" * depth + b"}}"
    answer = daemon.post("/api/query", body)
    assert answer.status == 400, answer.text[:300]
    assert answer.json["code"] in ("invalid_arguments", "invalid_request")
    assert f"more than {VALUE_DEPTH_MAX} lists and objects" in answer.json["message"]


def test_a_body_that_is_too_large(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("small")
    with running(folder, "--frame-limit-bytes", "100000", deploy="probe") as daemon:
        body = {"path": "probe:keep", "args": {"text": "x" * 100_000}}
        check_refusal(daemon.post("/api/mutation", body), 413, "frame_too_large", "100000")
        assert daemon.call("query", "probe:notes") == []


def test_the_limit_of_messages_does_not_bound_bundles(tmp_path: Path) -> None:
    with running(tmp_path, "--frame-limit-bytes", "70000") as daemon:
        functions = tmp_path / "large"
        shutil.copytree(BUNDLES / "probe" / "functions", functions)
        (functions / "noise.bin").write_bytes(os.urandom(11 << 20))
        daemon.must_deploy(functions)
        assert daemon.call("query", "probe:notes") == []
        check_refusal(
            daemon.deploy(bytes(BUNDLE_BYTES_MAX + 1)), 400, "invalid_bundle", str(BUNDLE_BYTES_MAX)
        )
        assert daemon.call("query", "probe:notes") == []


@pytest.mark.parametrize("path", ["/api/query", "/api/mutation", "/api/function", "/api/admin/deploy"])
def test_a_body_that_is_not_compressed_as_it_says(daemon: RunningDaemon, path: str) -> None:
    headers = {"Content-Encoding": "gzip", "Authorization": f"Headwater {daemon.key}"}
    answer = daemon.post(path, b"certainly not compressed", **headers)
    check_refusal(answer, 400, "invalid_request", "Content-Encoding")


def test_a_client_that_leaves_within_its_body_is_no_fault(daemon: RunningDaemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port)) as leaving:
        leaving.sendall(b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    assert daemon.call("query", "probe:notes") is not None
    # What the daemon logs of it is looked at when the tests have ended.


@pytest.mark.parametrize("path", ["/api/query", "/api/function", "/api/admin/deploy"])
def test_a_key_that_is_no_text(daemon: RunningDaemon, path: str) -> None:
    body = json.dumps({"path": "probe:notes"}).encode()
    answer = daemon.post(path, body, Authorization=b"Headwater \xff\xfe".decode("latin-1"))
    check_refusal(answer, 401, "unauthenticated", "key")


# ---------------------------------------------------------------------------------------------- pages elsewhere

ORIGIN = "https://app.example"
OPEN_PATHS = ["/api/query", "/api/mutation", "/api/function", "/api/run/m/f", "/version"]
CLOSED_PATHS = ["/api/admin/deploy", "/api/admin/rotate-key", "/health", "/metrics"]
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "content-type,convex-client,x-mine",
}


@pytest.mark.parametrize("path", OPEN_PATHS)
def test_a_page_elsewhere_may_ask_what_it_may_send(daemon: RunningDaemon, path: str) -> None:
    answer = daemon.request("OPTIONS", path, None, PREFLIGHT)
    assert (answer.status, answer.content) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert answer.headers["access-control-allow-headers"] == "content-type,convex-client,x-mine"
    assert answer.headers["access-control-allow-credentials"] == "true"
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert "Origin" in answer.headers["vary"]


@pytest.mark.parametrize("path", CLOSED_PATHS)
def test_a_page_elsewhere_has_no_business_with_the_rest(daemon: RunningDaemon, path: str) -> None:
    for method in ("OPTIONS", "GET", "POST"):
        answer = daemon.request(method, path, b"", PREFLIGHT)
        assert (method, answer.status == 204) != ("OPTIONS", True)
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_a_page_elsewhere_may_read_answers_and_errors(daemon: RunningDaemon) -> None:
    for body, status in ((b'{"path": "probe:notes"}', 200), (b"nonsense", 400)):
        answer = daemon.post("/api/query", body, Origin=ORIGIN)
        assert answer.status == status
        assert answer.headers["access-control-allow-origin"] == ORIGIN
        assert answer.headers["access-control-allow-credentials"] == "true"
    for odd in ({}, {"Origin": "\xff"}):
        answer = daemon.post("/api/query", b'{"path": "probe:notes"}', **odd)
        assert answer.status == 200
        assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/mutation", 405),
        ("PUT", "/api/query", 405),
        ("DELETE", "/health", 405),
        ("GET", "/api/admin/deploy", 405),
    ],
)
def test_paths_and_methods_that_are_not_there(
    daemon: RunningDaemon, method: str, path: str, status: int
) -> None:
    answer = daemon.request(method, path, None, {})
    assert answer.status == status
    assert answer.json.keys() == {"code", "message"}
    assert path in answer.json["message"]


def check_refusal(answer: Answer, status: int, code: str, word: str) -> None:
    assert answer.status == status, answer.text
    assert answer.json.keys() == {"code", "message"}
    assert answer.json["code"] == code
    assert word in answer.json["message"]


ODDS = """
from typing import Any

from headwater import ActionCtx, Int64, QueryCtx, action, query

@query
def echo(ctx: QueryCtx, raw: bytes, count: Int64, large: int = 0) -> Any:
    return {"raw": raw, "count": count, "large": large}

@action
async def acted(ctx: ActionCtx, raw: bytes) -> bytes:
    return raw + raw
"""


def test_what_a_plain_answer_shows_can_be_sent_back(tmp_path: Path) -> None:
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "odds.py").write_text(ODDS)
    with running(tmp_path / "data", deploy=functions) as daemon:
        shown = {"raw": "AP8=", "count": "9007199254740993", "large": "-9007199254740993"}
        for count in (shown["count"], 2**53 + 1):
            answer = daemon.post("/api/run/odds/echo", {"args": {**shown, "count": count}})
            assert answer.json == {"status": "success", "value": shown}
        words = urlencode({"path": "odds:echo", "args": json.dumps(shown)})
        assert daemon.get(f"/api/query?{words}").json["value"] == shown
        batch = {"queries": [{"path": "odds:echo", "args": shown}] * 2}
        assert [each["value"] for each in daemon.post("/api/query_batch", batch).json["results"]] == [
            shown
        ] * 2
        assert (
            daemon.post("/api/action", {"path": "odds:acted", "args": {"raw": "AP8A"}}).json["value"]
            == "AP8AAP8A"
        )
        refused = daemon.post("/api/run/odds/echo", {"args": {**shown, "raw": "no base64"}}).json
        assert refused["errorCode"] == "invalid_arguments"
        assert "base64" in refused["errorMessage"]
