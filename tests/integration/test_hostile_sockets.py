"""Clients that break rules of WebSocket, HTTP and TCP, or flood: each is ended, memory stays, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from headwater.client.aio import connect
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.messages import AddQuery, Connect, ModifyQuerySet, Ping, Welcome
from support.daemon import RunningDaemon, running
from support.raw_websocket import BINARY, CLOSE, PING, TEXT, websocket
from support.wire_client import UPGRADE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

HEARTBEAT_S = 1.0
FRAME_LIMIT_BYTES = 256 * 1024
HTTP_CONNECTIONS = 60
IDLE_S = 3.0
BODY_S = 1.0
BODY = b"POST /api/query HTTP/1.1\r\nHost: x\r\nContent-Length: 10000\r\n\r\n{"
DEPLOY = b"POST /api/admin/deploy HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\nAuthorization: Bearer KEY\r\n\r\n"
OPTIONS = ("--frame-limit-bytes", str(FRAME_LIMIT_BYTES), "--max-http-connections", str(HTTP_CONNECTIONS))
LIMIT_S = 90.0
MEMORY_BYTES = 48 << 20


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    limits = ("--http-idle-limit-s", str(IDLE_S), "--http-body-limit-s", str(BODY_S))
    options = (*OPTIONS, "--heartbeat-s", str(HEARTBEAT_S), *limits)
    with running(tmp_path_factory.mktemp("hostile"), *options, deploy="probe") as daemon:
        yield daemon


@contextlib.asynccontextmanager
async def unharmed(daemon: RunningDaemon) -> AsyncIterator[None]:
    """Somebody else's update arrives and `/health` answers, beside it and behind it; the daemon's peak is bounded."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status")
    Path(f"/proc/{daemon.process.pid}/clear_refs").write_text("5")  # the peak begins anew
    before = memory(status, "VmRSS")
    async with asyncio.timeout(LIMIT_S), connect(daemon.url) as client:
        shown: list[Any] = []

        async def watch() -> None:
            async for value in client.subscribe("probe:value_of", key="bystander"):
                shown.append(value)  # noqa: PERF401 - it has no end

        async def looks_well(number: int) -> None:
            await client.mutation("probe:keep_value", key="bystander", value=number)
            while number not in shown:
                await asyncio.sleep(0.01)

        watching = asyncio.create_task(watch())
        try:
            await looks_well(len(shown) + 1000)
            yield
            await looks_well(len(shown) + 2000)
            assert await asyncio.to_thread(daemon.is_ready)
        finally:
            watching.cancel()
    assert daemon.process.poll() is None
    grown = memory(status, "VmHWM") - before
    assert grown < MEMORY_BYTES, f"the daemon's peak grew by {grown} bytes"
    assert '"connection_failed"' not in daemon.log_text()


def memory(status: Path, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", status.read_text())
    assert found is not None
    return int(found[1]) * 1024


BAD_FRAMES: dict[str, tuple[list[tuple[int, bytes]], int]] = {
    "reserved bits": ([(0xA0 | BINARY, b"x")], 1002),
    "compressed without an agreement": ([(0xC0 | BINARY, b"x")], 1002),
    "reserved opcode": ([(0x83, b"x")], 1002),
    "reserved control opcode": ([(0x8B, b"")], 1002),
    "oversized control frame": ([(0x80 | PING, bytes(126))], 1002),
    "control frame in fragments": ([(PING, b"x")], 1002),
    "continuation of nothing": ([(0x80, b"x")], 1002),
    "a message within a message": ([(BINARY, b"x"), (BINARY, b"y")], 1002),
    "a close code that is none": ([(0x80 | CLOSE, b"\x00\x01")], 1002),
    "a close frame of one byte": ([(0x80 | CLOSE, b"\x03")], 1002),
    "text that is none": ([(0x80 | TEXT, b"\xff\xfe")], 1007),
    "fragments without an end": ([(BINARY, bytes(60_000)), *[(0, bytes(60_000))] * 10], 1009),
}


@pytest.mark.parametrize("greeted", [False, True], ids=["before Welcome", "after it"])
async def test_frames_that_break_the_rules_of_websocket(daemon: RunningDaemon, greeted: bool) -> None:
    async with unharmed(daemon):
        for case, (sent, code) in BAD_FRAMES.items():
            async with websocket(daemon, greeted=greeted) as socket:
                with contextlib.suppress(ConnectionError):
                    for first, payload in sent:
                        await socket.send(first, payload)
                ended, _ = await socket.end()
                # A socket that closes with something unread is reset, which may overtake the close frame.
                assert ended == code or (code == 1009 and ended is None), case


@pytest.mark.parametrize("greeted", [False, True], ids=["before Welcome", "after it"])
async def test_what_never_becomes_a_message(daemon: RunningDaemon, greeted: bool) -> None:
    """Empty fragments, and frames that were announced and come byte by byte: no message, so no sign of life."""
    async with unharmed(daemon):
        async with (
            websocket(daemon, greeted=greeted) as empty,
            websocket(daemon, greeted=greeted) as announced,
            websocket(daemon, greeted=greeted) as pinging,
        ):
            await empty.send(BINARY, b"")
            await announced.send(0x80 | BINARY, b"", announced=60_000)
            tasks = [asyncio.create_task(socket.end()) for socket in (empty, announced, pinging)]
            with contextlib.suppress(ConnectionError):
                while not all(task.done() for task in tasks):
                    with contextlib.suppress(ConnectionError):
                        await empty.send(0, b"")
                    with contextlib.suppress(ConnectionError):
                        announced.writer.write(b"x")
                        await pinging.send(0x80 | PING, b"")
                    await asyncio.sleep(0.02)
            assert [await task for task in tasks] == [(None, None)] * 3
        if greeted:
            return
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.tcp_port)
        writer.write(struct.pack(">I", 60_000))
        with contextlib.suppress(ConnectionError):
            while not reader.at_eof():
                writer.write(b"\x00")
                await asyncio.sleep(0.02)
                assert await maybe_read(reader) == b""
        writer.transport.abort()


async def maybe_read(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(0.01):
            return await reader.read(100)
    except TimeoutError:
        return b""


FLOODS: dict[str, list[bytes]] = {
    "pings": [encode_message(Ping(number)) for number in range(30_000)],
    "changes of nothing": [encode_message(ModifyQuerySet(at, at + 1, (), ())) for at in range(20_000)],
}


@pytest.mark.parametrize("case", FLOODS)
async def test_floods_of_tiny_messages(daemon: RunningDaemon, case: str) -> None:
    """They are answered, or the client is told; one that does not read the answers is ended."""
    async with unharmed(daemon):
        for reads in (True, False):
            async with websocket(daemon, greeted=True) as socket:
                reading = asyncio.create_task(socket.end() if reads else asyncio.sleep(0))
                with contextlib.suppress(ConnectionError, TimeoutError):
                    async with asyncio.timeout(10):
                        for message in FLOODS[case]:
                            await socket.send(0x80 | BINARY, message)
                        await asyncio.sleep(0.2)
                if reads and reading.done():
                    assert reading.result() == (1013, "overloaded")
                reading.cancel()


def queries(*numbers: int) -> tuple[AddQuery, ...]:
    return tuple(AddQuery(number, "probe:echo", b"\x81\xa5value\xc0") for number in numbers)


BAD_QUERY_SETS: dict[str, list[ModifyQuerySet]] = {
    "more than a session may have": [
        ModifyQuerySet(0, 1, queries(*range(1, 4_001)), ()),
        ModifyQuerySet(1, 2, queries(*range(4_001, 4_098)), ()),
    ],
    "one number twice": [ModifyQuerySet(0, 1, queries(5, 5), ())],
    "a number that is there": [ModifyQuerySet(0, 1, queries(5), ()), ModifyQuerySet(1, 2, queries(5), ())],
    "number 0": [ModifyQuerySet(0, 1, queries(0), ())],
    "removed twice": [ModifyQuerySet(0, 1, queries(5), ()), ModifyQuerySet(1, 2, (), (5, 5))],
    "removed though unknown": [ModifyQuerySet(0, 1, queries(5), (6,))],
    "more than a message may list": [ModifyQuerySet(0, 1, (), tuple(range(16_385)))],
}


async def test_bad_query_sets(daemon: RunningDaemon) -> None:
    async with unharmed(daemon):
        for case, messages in BAD_QUERY_SETS.items():
            async with websocket(daemon, greeted=True) as socket:
                for message in messages:
                    await socket.send(0x80 | BINARY, encode_message(message))
                assert await socket.end() == (1002, "protocol_error"), case


async def test_a_page_of_another_origin(daemon: RunningDaemon) -> None:
    """It may connect, as it may call functions: there is nothing that a browser would add to its requests by itself."""
    async with unharmed(daemon), aiohttp.ClientSession() as http:
        headers = {"Origin": "https://elsewhere.example", "Cookie": "session=somebody"}
        async with http.ws_connect(f"{daemon.url}/sync", headers=headers) as wire:
            await wire.send_bytes(encode_message(Connect((1,), os.urandom(16), 0, None, "page")))
            assert isinstance(decode_server_message(await wire.receive_bytes()), Welcome)
        admin = await http.post(f"http://127.0.0.1:{daemon.port}/api/admin/deploy", headers=headers)
        assert admin.status == 401
        assert "Access-Control-Allow-Origin" not in admin.headers


# --------------------------------------------------------------------------------- half-open and slow


async def hold_all(daemon: RunningDaemon, head: bytes) -> list[asyncio.StreamWriter]:
    """Take all connections that HTTP has."""
    held = [await asyncio.open_connection("127.0.0.1", daemon.port) for _ in range(HTTP_CONNECTIONS)]
    for _, writer in held:
        writer.write(head)
    return [writer for _, writer in held]


@pytest.mark.parametrize(
    "head",
    [b"", b"GET /health HTTP/1.1\r\nHost: x\r\nX: ", UPGRADE[:-2].encode(), BODY, DEPLOY],
    ids=["silent", "slow", "upgrade", "body", "deploy"],
)
async def test_connections_that_never_ask_hold_no_places(daemon: RunningDaemon, head: bytes) -> None:
    async with asyncio.timeout(LIMIT_S):
        held = await hold_all(daemon, head.replace(b"KEY", daemon.key.encode()))
        assert not await asyncio.to_thread(daemon.is_ready), "all places are taken"
        while not await asyncio.to_thread(daemon.is_ready):
            for writer in held:
                writer.write(b"x" if head else b"")
            await asyncio.sleep(0.05)
    async with unharmed(daemon):
        for writer in held:
            writer.transport.abort()


@pytest.mark.parametrize(("head", "limit"), [(b"", "idle"), (BODY, "body")], ids=["silent", "body"])
async def test_without_a_limit_they_hold_them(tmp_path: Path, head: bytes, limit: str) -> None:
    limits = {"idle": IDLE_S, "body": BODY_S} | {limit: 3600}
    options = [f"--http-{name}-limit-s={value}" for name, value in limits.items()]
    with running(tmp_path, *OPTIONS, *options, deploy="probe") as daemon:
        held = await hold_all(daemon, head)
        await asyncio.sleep(2 * IDLE_S)
        assert not await asyncio.to_thread(daemon.is_ready)
        for writer in held:
            writer.transport.abort()


async def test_a_body_that_takes_too_long_is_answered(daemon: RunningDaemon) -> None:
    async with asyncio.timeout(LIMIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
        writer.write(BODY)
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b'"invalid_request"' in answer
        assert b"within 1 s" in answer
        writer.close()


async def test_half_open_connections_go(daemon: RunningDaemon) -> None:
    """Over TCP without a word, and WebSockets without Connect: cut after three heartbeats."""
    async with unharmed(daemon):
        held = [await asyncio.open_connection("127.0.0.1", daemon.tcp_port) for _ in range(400)]
        for _ in range(HTTP_CONNECTIONS - 20):
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
            writer.write(UPGRADE.encode())
            held.append((reader, writer))
        for reader, _ in held:
            with contextlib.suppress(ConnectionError):
                await reader.read()
        for _, writer in held:
            writer.transport.abort()
