"""Actions that stream, from a real daemon to its clients: order, flow, cancelling, cuts, and over HTTP."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import socket
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import ApplicationError, HeadwaterError, OutcomeUnknown, RequestError
from support.daemon import RunningDaemon, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

WINDOW = 4096


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    options = ("--action-workers", "1", "--action-stream-window-bytes", str(WINDOW))
    with running(tmp_path_factory.mktemp("streams"), *options, deploy="actions") as found:
        yield found


def texts(daemon: RunningDaemon) -> list[str]:
    found: list[str] = daemon.call("query", "works:texts")
    return found


def actions_running(daemon: RunningDaemon) -> int:
    return int(daemon.metric("headwater_actions_running"))


async def test_all_pieces_come_in_order_and_as_they_are_made(daemon: RunningDaemon) -> None:
    for url in (daemon.url, daemon.tcp_url):
        async with headwater.connect(url) as client:
            assert [piece async for piece in client.stream("works:count", upto=3_000)] == [*range(3_000)]
            assert [piece async for piece in client.stream("works:count", upto=0)] == []
            slow = client.stream("works:count", upto=10, pause_s=0.3)
            began_s = time.monotonic()
            assert await anext(slow) == 0
            assert time.monotonic() - began_s < 2.5, "before the others were made"
            assert client.state.actions == 1
            await slow.aclose()
            assert client.state.actions == 0


async def test_many_streams_side_by_side(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:

        async def whole(upto: int) -> list[Any]:
            return [piece async for piece in client.stream("works:count", upto=upto)]

        found = await asyncio.gather(*(whole(number) for number in range(200)))
        assert [len(one) for one in found] == [*range(200)]


def test_a_blocking_client_takes_pieces_too(daemon: RunningDaemon) -> None:
    with headwater.connect_blocking(daemon.url) as client:
        with client.stream("works:count", upto=5) as pieces:
            assert list(pieces) == [0, 1, 2, 3, 4]
        with client.stream("works:count", upto=5, pause_s=60.0) as pieces, pytest.raises(TimeoutError):
            pieces.next(0.1)
    wait_until(lambda: actions_running(daemon) == 0)


async def test_an_error_comes_behind_the_pieces_before_it(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        got = []
        stream = client.stream("works:fails", after=3)
        with suppress(ApplicationError):
            while True:
                got.append(await anext(stream))
        with pytest.raises(ApplicationError) as caught:
            await anext(client.stream("works:fails", after=0))
        assert (got, caught.value.data) == ([0, 1, 2], {"after": 0})
        with pytest.raises(RequestError) as refused:
            await anext(client.stream("works:nap", seconds=0))
        assert refused.value.code == "invalid_request"
        with pytest.raises(HeadwaterError) as unknown:
            await anext(client.stream("works:counts"))
        assert unknown.value.code == "unknown_function"


async def test_a_slow_caller_slows_the_action_down(daemon: RunningDaemon) -> None:
    """It is at most a window and a piece ahead of what was taken."""
    async with headwater.connect(daemon.url) as client:
        before = len(texts(daemon))
        size = 1000
        stream = client.stream("works:pour", pieces=50, size=size)
        await anext(stream)
        await asyncio.sleep(0.5)
        ahead = len(await asyncio.to_thread(texts, daemon)) - before
        assert ahead <= WINDOW // size + 3
        for _ in range(20):
            await anext(stream)
        await asyncio.sleep(0.3)
        assert 20 < len(await asyncio.to_thread(texts, daemon)) - before <= 20 + WINDOW // size + 4
        rest = [piece async for piece in stream]
        assert len(rest) == 29
        assert len(await asyncio.to_thread(texts, daemon)) - before == 50


async def test_other_traffic_passes_a_stream_that_is_not_taken(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        stuck = client.stream("works:pour", pieces=1000, size=1000)
        await anext(stuck)
        assert await client.action("works:nap", seconds=0)
        await client.mutation("works:add", text="passes")
        assert [piece async for piece in client.stream("works:count", upto=100)] == [*range(100)]
        await stuck.aclose()


@pytest.mark.parametrize("way", ["close", "forget", "client", "task"])
async def test_who_leaves_a_stream_ends_its_action(daemon: RunningDaemon, way: str) -> None:
    await asyncio.to_thread(wait_until, lambda: actions_running(daemon) == 0)
    async with headwater.connect(daemon.url) as client:
        stream: Any = client.stream("works:count", upto=1000, pause_s=0.05)
        await anext(stream)
        assert await asyncio.to_thread(actions_running, daemon) == 1
        if way == "close":
            await stream.aclose()
        elif way == "forget":
            del stream
            gc.collect()
        elif way == "task":

            async def take() -> None:
                async with stream:
                    async for _ in stream:
                        pass

            task = asyncio.create_task(take())
            await asyncio.sleep(0.1)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        if way != "client":
            await asyncio.to_thread(wait_until, lambda: actions_running(daemon) == 0)
            assert await client.action("works:nap", seconds=0), "the connection goes on"
    await asyncio.to_thread(wait_until, lambda: actions_running(daemon) == 0)


async def test_a_daemon_that_dies_ends_the_streams(tmp_path_factory: pytest.TempPathFactory) -> None:
    with running(tmp_path_factory.mktemp("dies"), deploy="actions") as daemon:
        async with headwater.connect(daemon.url) as client:
            stream = client.stream("works:count", upto=1000, pause_s=0.05)
            await anext(stream)
            daemon.kill()
            with pytest.raises(OutcomeUnknown) as caught:
                async for _ in stream:
                    pass
            assert caught.value.code == "connection_lost"
            daemon.start()
            assert [piece async for piece in client.stream("works:count", upto=3)] == [0, 1, 2]


# ------------------------------------------------------------------------------------------- over HTTP


def events(
    daemon: RunningDaemon, name: str, /, **arguments: Any
) -> tuple[http.client.HTTPResponse, list[Any]]:
    """Return the answer and its events, each as name and data."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    body = json.dumps({"path": name, "args": arguments})
    headers = {"Accept": "text/event-stream", "Origin": "http://page.example"}
    connection.request("POST", "/api/action", body, headers)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    if response.headers["Content-Type"] != "text/event-stream":
        return response, [json.loads(text)]
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        found.append((fields.get("event", ""), json.loads(fields["data"])))
    return response, found


def test_pieces_are_server_sent_events(daemon: RunningDaemon) -> None:
    response, found = events(daemon, "works:count", upto=3)
    assert response.status == 200
    assert found == [("", 0), ("", 1), ("", 2), ("done", None)]
    assert response.headers["Access-Control-Allow-Origin"] == "http://page.example"
    assert response.headers["Cache-Control"] == "no-store"
    _, many = events(daemon, "works:pour", pieces=30, size=2_000)
    assert [data for name, data in many if not name] == ["x" * 2_000] * 30


def test_an_error_is_an_event_behind_pieces_and_an_answer_before_them(daemon: RunningDaemon) -> None:
    _, found = events(daemon, "works:fails", after=1)
    assert found[0] == ("", 0)
    assert found[1][0] == "error"
    assert found[1][1]["errorData"] == {"after": 1}
    response, [answer] = events(daemon, "works:fails", after=0)
    assert (response.status, answer["errorCode"]) == (200, "application_error")
    _, [answer] = events(daemon, "works:counts", upto=1)
    assert answer["errorCode"] == "unknown_function"
    response, [answer] = events(daemon, "works:nap", seconds=0)
    assert (response.status, answer["code"]) == (400, "invalid_request")


def test_an_empty_stream_is_its_end(daemon: RunningDaemon) -> None:
    assert events(daemon, "works:count", upto=0)[1] == [("done", None)]


def test_a_reader_over_http_that_goes_away_ends_its_action(daemon: RunningDaemon) -> None:
    wait_until(lambda: actions_running(daemon) == 0)
    body = json.dumps({"path": "works:count", "args": {"upto": 1000, "pause_s": 0.05}}).encode()
    head = b"POST /api/action HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        while b"data: 1\n" not in connection.recv(65536):
            pass
        assert actions_running(daemon) == 1
    wait_until(lambda: actions_running(daemon) == 0, 5.0)


def test_a_reader_over_http_that_goes_away_before_the_first_piece_ends_its_action(
    daemon: RunningDaemon,
) -> None:
    wait_until(lambda: actions_running(daemon) == 0)
    body = json.dumps({"path": "works:count", "args": {"upto": 5, "pause_s": 60.0}}).encode()
    head = b"POST /api/action HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
    head += b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    with socket.create_connection(("127.0.0.1", daemon.port)) as reader:
        reader.sendall(head + body)
        wait_until(lambda: actions_running(daemon) == 1)
    wait_until(lambda: actions_running(daemon) == 0)


def test_a_reader_over_http_that_does_not_read_slows_the_action_down(daemon: RunningDaemon) -> None:
    before = len(texts(daemon))
    size = 100_000
    body = json.dumps({"path": "works:pour", "args": {"pieces": 1000, "size": size}}).encode()
    head = b"POST /api/action HTTP/1.1\r\nHost: x\r\nAccept: text/event-stream\r\n"
    with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
        connection.sendall(head + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        wait_until(lambda: len(texts(daemon)) > before)
        made = -1
        while made != (made := len(texts(daemon))):
            time.sleep(2.0)
        assert made - before < 500, "what the system's buffers hold, and no more"
    wait_until(lambda: actions_running(daemon) == 0, 5.0)
