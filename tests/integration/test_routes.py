"""HTTP routes of a bundle on a real daemon: addresses, bodies both ways, errors, CORS, who asks, who goes away."""

from __future__ import annotations

import hashlib
import http.client
import json
import socket
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from support.daemon import BUNDLES, Answer, RunningDaemon, free_port, running, wait_until
from support.users import user_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WINDOW = 64 * 1024
BODY_LIMIT = 4 << 20


@pytest.fixture(scope="module")
def routes_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, routes_port: int) -> Iterator[RunningDaemon]:
    options = ("--routes-port", str(routes_port), "--route-body-limit-bytes", str(BODY_LIMIT))
    with running(tmp_path_factory.mktemp("routes"), *options, deploy="routes") as found:
        yield found


def texts(daemon: RunningDaemon, box: str) -> list[str]:
    found: list[str] = daemon.call("query", "store:texts", box=box)
    return found


def running_requests(daemon: RunningDaemon) -> float:
    return daemon.metric("headwater_route_requests_running") + daemon.metric("headwater_actions_running")


def asked(daemon: RunningDaemon, path: str = "/http/asked", **headers: str) -> Answer:
    return daemon.request("POST", path, b"the body", headers)


# --------------------------------------------------------------------------------------- addresses


def test_parameters_of_the_path_have_their_types(daemon: RunningDaemon) -> None:
    assert daemon.get("/http/numbers/-5/red").json == {"whole": -5, "colour": "RED"}
    assert daemon.get("/http/numbers/5/none").json == {"any": "5"}, "text fits more closely than a parameter"
    assert daemon.get("/http/files/a/b%2Fc/%C3%BC").text == "a/b/c/ü"
    assert daemon.get("/http/files/").text == ""
    box = daemon.call("mutation", "store:make_box", name="mine")
    assert daemon.get(f"/http/boxes/{box}").json == {"name": "mine"}


@pytest.mark.parametrize(
    "path", ["/numbers/x/red", "/numbers/1/pink", "/numbers/1.5/red", "/boxes/nonsense", "/boxes/", "/nowhere", "/files"]
)  # fmt: skip
def test_an_address_that_names_nothing_is_404(daemon: RunningDaemon, path: str) -> None:
    answer = daemon.get("/http" + path)
    assert (answer.status, answer.json["code"]) == (404, "unknown_function")


def test_an_id_of_another_table_names_nothing(daemon: RunningDaemon) -> None:
    note = daemon.call("mutation", "store:put", box="x", text="y")
    assert daemon.get(f"/http/boxes/{note}").status == 404


def test_methods_that_a_path_has_not_are_405(daemon: RunningDaemon) -> None:
    answer = daemon.request("DELETE", "/http/files/x", None, {})
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS, PUT")
    assert daemon.request("PROPFIND", "/http/echo", None, {}).headers["allow"] == "OPTIONS, POST"
    options = daemon.request("OPTIONS", "/http/files/x", None, {})
    assert (options.status, options.headers["allow"]) == (204, "GET, HEAD, OPTIONS, PUT")


def test_head_is_get_without_the_body(daemon: RunningDaemon) -> None:
    for path in ("/http/kinds/text", "/http/count/5"):
        head, get = daemon.request("HEAD", path, None, {}), daemon.get(path)
        assert (head.status, head.content) == (200, b"")
        for name in ("content-type", "content-length"):
            assert head.headers.get(name) == get.headers.get(name)
    assert daemon.request("HEAD", "/http/nowhere", None, {}).status == 404
    wait_until(lambda: running_requests(daemon) == 0)


def test_routes_have_a_port_of_their_own_with_nothing_else_on_it(
    daemon: RunningDaemon, routes_port: int
) -> None:
    own = RunningDaemon(daemon.folder, port=routes_port)
    assert own.get("/kinds/text").text == "grün"
    assert own.post("/hooks/own", b"hello").status == 204
    assert texts(daemon, "own") == ["hello"]
    for path in ("/health", "/metrics", "/api/query", "/sync", "/http/kinds/text"):
        assert own.get(path).status == 404, path
    for path in ("/kinds/text", "/hooks/own"):
        assert daemon.get(path).status == 404, path


def test_the_request_is_told_whole(daemon: RunningDaemon) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    with closing(connection):
        connection.putrequest("POST", "/http/asked?a=1&b=%C3%BC&a=2")
        for name, value in [("X-Two", "1"), ("x-two", "2"), ("Content-Length", "4"), ("Cookie", "a=b")]:
            connection.putheader(name, value)
        connection.endheaders(b"body")
        told = json.loads(connection.getresponse().read())
    assert (told["method"], told["path"], told["body"], told["address"]) == (
        "POST",
        "/asked",
        "body",
        "127.0.0.1",
    )
    assert told["query"] == [["a", "1"], ["b", "ü"], ["a", "2"]]
    headers = [(name.lower(), value) for name, value in told["headers"]]
    assert [value for name, value in headers if name == "x-two"] == ["1", "2"]
    assert ("cookie", "a=b") in headers


# ------------------------------------------------------------------------------------------ bodies


def test_a_body_streams_both_ways_through_small_windows(daemon: RunningDaemon) -> None:
    body = bytes(range(256)) * 12_000
    answer = daemon.request("PUT", "/http/files/a/b", body, {})
    digest = hashlib.sha256(body).hexdigest()
    assert (answer.status, answer.json) == (201, {"path": "a/b", "size": len(body), "digest": digest})
    assert daemon.request("POST", "/http/echo", body, {"Content-Type": "x/y"}).content == body


def test_an_answer_begins_before_the_body_has_ended(daemon: RunningDaemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
        client.sendall(
            b"POST /http/echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n"
        )
        found = b""
        while b"one" not in found:
            found += client.recv(4096)
        client.sendall(b"3\r\ntwo\r\n0\r\n\r\n")
        while b"two" not in found:
            found += client.recv(4096)
        assert b"Transfer-Encoding: chunked" in found


def test_bodies_are_read_as_what_they_are(daemon: RunningDaemon) -> None:
    assert daemon.post("/http/orders", {"item": "ab", "count": 2}).json == {"item": "abab"}
    for body in (b"{", b'{"item": "ab"}', b'{"item": 1, "count": 2}', b"", b"[" * 50_000):
        answer = daemon.post("/http/orders", body)
        assert (answer.status, answer.json["code"]) == (400, "invalid_request"), body[:20]
    form = daemon.request(
        "POST", "/http/form", b"a=1&a=2", {"Content-Type": "application/x-www-form-urlencoded"}
    )
    assert form.json == {"fields": [["a", "1"], ["a", "2"]], "files": {}}
    assert daemon.request("POST", "/http/form", b"a=1", {"Content-Type": "text/plain"}).status == 400


def test_answers_are_of_all_kinds(daemon: RunningDaemon) -> None:
    assert daemon.get("/http/kinds/none").content == b""
    assert daemon.get("/http/kinds/bytes").content == b"\x00\xff"
    assert daemon.get("/http/kinds/list").json == [1, None, {"a": 1.5}]
    assert daemon.get("/http/kinds/struct").json == {"item": "x", "count": 2}
    assert daemon.get("/http/count/3").text == "0\n1\n2\n"
    away = daemon.get("/http/away")
    assert (away.status, away.headers["location"]) == (303, "/http/files/there")
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    with closing(connection):
        connection.request("GET", "/http/cookies")
        answer = connection.getresponse()
        assert (answer.status, answer.headers.get_all("Set-Cookie")) == (202, ["a=1", "b=2; Path=/"])


def test_large_answers_come_whole(daemon: RunningDaemon) -> None:
    for query in ("", "?whole=1"):
        assert len(daemon.get(f"/http/pour/5000000{query}").content) == 5_000_000


def test_a_body_beyond_the_limit_is_413(daemon: RunningDaemon) -> None:
    assert daemon.post("/http/short", b"x" * 11).status == 413
    assert daemon.post("/http/short", b"x" * 10).content == b"x" * 10
    announced = daemon.request("POST", "/http/hooks/large", b"x", {"Content-Length": str(BODY_LIMIT + 1)})
    assert (announced.status, announced.json["code"]) == (413, "frame_too_large")
    assert texts(daemon, "large") == []
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
        client.sendall(b"POST /http/caught HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
        for _ in range(BODY_LIMIT // 0x10000 + 1):
            client.sendall(chunk)
        assert client.recv(4096).startswith(b"HTTP/1.1 422")
    assert texts(daemon, "caught") == ["frame_too_large"]


# ------------------------------------------------------------------------------------------ errors


def test_an_exception_is_500_with_its_request_id(daemon: RunningDaemon) -> None:
    for how in ("raise", "exit"):
        answer = daemon.get(f"/http/fails/{how}")
        assert (answer.status, answer.json["code"]) == (500, "internal_error")
        request_id = answer.json["message"].partition("[request id ")[2][:12]
        assert len(request_id) == 12
        wait_until(lambda told=request_id: told in daemon.log_text())  # type: ignore[misc]
    assert "the secret reason" in daemon.get("/http/fails/raise").text


def test_in_production_an_exception_says_nothing_more(tmp_path: Path) -> None:
    with running(tmp_path, "--production", deploy="routes") as daemon:
        answer = daemon.get("/http/fails/raise")
        assert answer.status == 500
        assert "secret" not in answer.text
        assert "[request id " in answer.json["message"]


def test_an_application_error_is_400_with_its_data(daemon: RunningDaemon) -> None:
    answer = daemon.get("/http/fails/application")
    assert answer.status == 400
    assert answer.json["code"] == "application_error"
    assert answer.json["data"] == {"code": "refused", "text": "refuse"}


@pytest.mark.parametrize("how", ["header", "header-name", "type", "length", "none", "smuggled", "location"])
def test_an_answer_that_cannot_be_sent_is_500_and_nothing_of_it_is_sent(
    daemon: RunningDaemon, how: str
) -> None:
    answer = daemon.get(f"/http/fails/{how}?to=/a%0d%0aSet-Cookie:%20stolen=1")
    assert answer.status == 500, answer
    assert "set-cookie" not in answer.headers
    assert answer.json["code"] in ("internal_error", "invalid_result")


@pytest.mark.parametrize("how", ["late", "piece"])
def test_an_answer_that_fails_on_its_way_is_cut_off(daemon: RunningDaemon, how: str) -> None:
    """Nobody may take what came of it for the whole."""
    with pytest.raises((http.client.IncompleteRead, ConnectionError)):
        daemon.get(f"/http/fails/{how}")


def test_without_a_bundle_routes_are_unavailable_and_deploys_change_them(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert (daemon.get("/http/kinds/text").status, daemon.get("/http/kinds/text").json["code"]) == (
            503,
            "no_bundle",
        )
        answer = daemon.deploy("routes")
        assert {"sign": "added", "what": "route", "name": "POST /hooks/{name}", "details": []} in answer.json[
            "changes"
        ]
        assert daemon.get("/http/kinds/text").status == 200
        daemon.terminate()
        daemon.start()
        assert daemon.get("/http/kinds/text").status == 200, "restored with the bundle"
        daemon.must_deploy("probe")
        assert daemon.get("/http/kinds/text").status == 404


def test_two_routes_for_the_same_requests_are_not_deployed(daemon: RunningDaemon, tmp_path: Path) -> None:
    folder = tmp_path / "functions"
    folder.mkdir()
    for path in (BUNDLES / "routes" / "functions").glob("*.py"):
        (folder / path.name).write_text(path.read_text())
    again = "\n\n@route('GET', '/kinds/{other}')\nasync def again(ctx: ActionCtx, request: Request, other: str) -> Response: ...\n"
    with (folder / "http.py").open("a") as file:
        file.write(again)
    answer = daemon.deploy(folder)
    assert (answer.status, answer.json["code"]) == (400, "invalid_bundle")
    assert "in again" in answer.json["message"]
    assert "in kinds" in answer.json["message"]


# ------------------------------------------------------------------------------- pages and identity


def page(daemon: RunningDaemon, method: str, path: str, origin: str, **headers: str) -> Answer:
    return daemon.request(method, path, None, {"Origin": origin, **headers})


def test_pages_of_allowed_origins_may_read(daemon: RunningDaemon) -> None:
    friend, stranger = "https://app.example.com", "https://evil.example.com"
    got = page(daemon, "GET", "/http/pages", friend)
    assert got.headers["access-control-allow-origin"] == friend
    assert got.headers["access-control-allow-credentials"] == "true"
    assert got.headers["access-control-expose-headers"] == "X-Told"
    assert got.headers["vary"] == "Origin"
    other = page(daemon, "GET", "/http/pages", stranger)
    assert (other.status, other.headers.get("access-control-allow-origin"), other.headers["vary"]) == (
        200,
        None,
        "Origin",
    )
    failed = page(daemon, "DELETE", "/http/pages", friend)
    assert (failed.status, failed.headers["access-control-allow-origin"]) == (500, friend), (
        "pages see errors as well"
    )
    assert page(daemon, "GET", "/http/public", stranger).headers["access-control-allow-origin"] == "*"
    assert "access-control-allow-origin" not in page(daemon, "GET", "/http/kinds/text", friend).headers


def test_the_daemon_answers_what_browsers_ask_first(daemon: RunningDaemon) -> None:
    friend = "https://app.example.com"
    before = daemon.metric('headwater_calls_total{kind="route",outcome="internal_error"}')
    asked = page(daemon, "OPTIONS", "/http/pages", friend, Access_Control_Request_Method="DELETE")
    assert asked.status == 204
    assert asked.headers["access-control-allow-methods"] == "DELETE"
    assert asked.headers["access-control-allow-headers"] == "X-Key"
    assert asked.headers["access-control-max-age"] == "60"
    for origin, path, method in [
        ("https://evil.example.com", "/http/pages", "GET"),
        (friend, "/http/pages", "PUT"),
        (friend, "/http/kinds/text", "GET"),
    ]:
        refused = page(daemon, "OPTIONS", path, origin, Access_Control_Request_Method=method)
        assert "access-control-allow-methods" not in refused.headers
        assert "access-control-allow-origin" not in refused.headers
    assert daemon.metric('headwater_calls_total{kind="route",outcome="internal_error"}') == before, (
        "it was not asked"
    )


def test_a_token_of_a_provider_says_who_asks(daemon: RunningDaemon) -> None:
    assert asked(daemon).json["subject"] is None
    assert asked(daemon, Authorization=f"Bearer {user_token('ada')}").json["subject"] == "ada"
    expired = asked(daemon, Authorization=f"Bearer {user_token('ada', lasts_s=-1000)}")
    assert (expired.status, expired.json["code"]) == (401, "unauthenticated")
    for other in (
        "Bearer a-shared-secret",
        "Basic YTpi",
        f"Bearer {user_token('ada', issuer='https://other.example')}",
    ):
        answer = asked(daemon, Authorization=other)
        assert (answer.status, answer.json["subject"]) == (200, None), "the route's own affair"
        assert ["Authorization", other] in answer.json["headers"]


# --------------------------------------------------------------------------------- who goes away


def test_who_goes_away_cancels_the_route(daemon: RunningDaemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
        client.sendall(b"GET /http/wait/gone HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: texts(daemon, "gone") == ["began"])
    wait_until(lambda: texts(daemon, "gone") == ["began", "ended"])
    wait_until(lambda: running_requests(daemon) == 0)


def test_who_goes_away_while_the_answer_streams_cancels_it(daemon: RunningDaemon) -> None:
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
        client.sendall(b"GET /http/count/100000?pause_s=0.01 HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"\n3\n" not in client.recv(65_536):
            pass
    wait_until(lambda: running_requests(daemon) == 0)


def test_who_goes_away_behind_a_body_that_is_not_read_cancels_the_route(daemon: RunningDaemon) -> None:
    """The daemon has stopped reading, so the socket does not tell by itself."""
    with socket.create_connection(("127.0.0.1", daemon.port), 30) as client:
        client.sendall(b"GET /http/wait/unread HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n")
        wait_until(lambda: texts(daemon, "unread") == ["began"])
        client.sendall(bytes(1_500_000))
    wait_until(lambda: texts(daemon, "unread") == ["began", "ended"])


def test_a_route_takes_no_more_than_its_time(tmp_path: Path) -> None:
    with running(tmp_path, "--route-time-limit-s", "1", deploy="routes") as daemon:
        answer = daemon.get("/http/wait/slow")
        assert (answer.status, answer.json["code"]) == (504, "time_limit")
        wait_until(lambda: texts(daemon, "slow") == ["began", "ended"])
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):
            daemon.get("/http/count/100000?pause_s=0.05")
        wait_until(lambda: running_requests(daemon) == 0)


def test_so_many_requests_are_answered_at_a_time(tmp_path: Path) -> None:
    with running(tmp_path, "--routes-running-limit", "2", deploy="routes") as daemon:
        clients = [socket.create_connection(("127.0.0.1", daemon.port), 30) for _ in range(2)]
        for client in clients:
            client.sendall(b"GET /http/wait/many HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: len(texts(daemon, "many")) == 2)
        refused = daemon.get("/http/kinds/text")
        assert (refused.status, refused.json["code"], refused.headers["retry-after"]) == (
            503,
            "overloaded",
            "1",
        )
        for client in clients:
            client.close()
        wait_until(lambda: daemon.get("/http/kinds/text").status == 200)
