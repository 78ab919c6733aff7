"""The HTTP client against a small server that says what a test wants."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from headwater.client.transport import CannotConnectError
from headwater.http_client import Deployed, HttpClient
from headwater_protocol.errors import ApplicationError, HeadwaterError, InternalError, RequestError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Scripted:
    """Answers each path with what was put under it; keeps the requests."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.requests: list[tuple[str, str | None, bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path, request.headers.get("Authorization"), await request.read()))
        status, body = self.answers.get(request.path, (404, "not here"))
        if body is None:
            assert request.transport is not None
            request.transport.abort()
        if isinstance(body, str):
            return web.Response(status=status, text=body)
        return web.json_response(body, status=status)


@asynccontextmanager
async def serving(scripted: Scripted) -> AsyncIterator[str]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", scripted.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def scripted() -> Scripted:
    return Scripted()


async def test_a_call_sends_path_arguments_and_key_and_returns_the_value(scripted: Scripted) -> None:
    scripted.answers["/api/function"] = 200, {"status": "success", "value": [1, None]}
    async with serving(scripted) as url, HttpClient(url, key="k-1") as http:
        assert await http.call("messages:list", {"limit": 2}) == [1, None]
    ((path, authorization, body),) = scripted.requests
    assert (path, authorization) == ("/api/function", "Headwater k-1")
    assert body == b'{"path": "messages:list", "args": {"limit": 2}, "format": "json"}'


async def test_failures_come_as_errors_of_their_code(scripted: Scripted) -> None:
    async with serving(scripted) as url, HttpClient(url) as http:
        scripted.answers["/api/function"] = (
            200,
            {
                "status": "error",
                "errorMessage": "full",
                "errorData": {"free": 0},
                "errorCode": "application_error",
            },
        )
        with pytest.raises(ApplicationError) as application:
            await http.call("rooms:enter", {})
        assert application.value.data == {"free": 0}
        scripted.answers["/api/function"] = 404, {"code": "unknown_function", "message": "no rooms:entr"}
        with pytest.raises(RequestError, match="no rooms:entr") as unknown:
            await http.call("rooms:entr", {})
        assert unknown.value.code == "unknown_function"
        scripted.answers["/api/function"] = (
            400,
            {"status": "error", "errorMessage": "no", "errorCode": "invalid_arguments"},
        )
        with pytest.raises(RequestError) as arguments:
            await http.call("rooms:enter", {})
        assert arguments.value.code == "invalid_arguments"


@pytest.mark.parametrize(
    "answer",
    [(200, "<html>"), (502, "bad gateway"), (200, []), (200, {"status": "success"}), (500, {"oops": 1})],
)
async def test_answers_of_another_server_are_told_as_such(
    scripted: Scripted, answer: tuple[int, Any]
) -> None:
    scripted.answers["/api/function"] = answer
    async with serving(scripted) as url, HttpClient(url) as http:
        with pytest.raises(InternalError, match="something else than Headwater"):
            await http.call("a:b", {})


async def test_a_connection_lost_in_a_call_leaves_its_outcome_unknown(scripted: Scripted) -> None:
    scripted.answers["/api/function"] = 200, None
    async with serving(scripted) as url, HttpClient(url) as http:
        with pytest.raises(HeadwaterError) as caught:
            await http.call("a:b", {})
        assert caught.value.code == "connection_lost"


async def test_nobody_there_is_an_error_of_its_own() -> None:
    async with serving(Scripted()) as url:
        pass
    async with HttpClient(url) as http:
        with pytest.raises(CannotConnectError, match=r"127\.0\.0\.1"):
            await http.call("a:b", {})
        assert not await http.ready()


async def test_deploy_rotate_and_health(scripted: Scripted) -> None:
    scripted.answers["/api/admin/deploy"] = (
        200,
        {"status": "success", "bundle": "abc", "functions": 3, "tables": 2, "changed": True},
    )
    scripted.answers["/api/admin/rotate-key"] = 200, {"status": "success", "key": "new"}
    scripted.answers["/health"] = 503, {"status": "starting"}
    async with serving(scripted) as url, HttpClient(url, key="old") as http:
        assert await http.deploy(b"PK") == Deployed("abc", 3, 2, changed=True)
        assert await http.rotate_key() == "new"
        assert not await http.ready()
        scripted.answers["/health"] = 200, {"status": "ready", "ts": 7}
        assert await http.ready()
    assert scripted.requests[0] == ("/api/admin/deploy", "Headwater old", b"PK")


async def test_arguments_that_are_no_json_are_refused_before_anything_is_sent(scripted: Scripted) -> None:
    async with serving(scripted) as url, HttpClient(url) as http:
        with pytest.raises(RequestError) as caught:
            await http.call("a:b", {"x": float("nan")})
        assert caught.value.code == "invalid_arguments"
    assert scripted.requests == []
