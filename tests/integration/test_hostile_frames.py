"""Frames that the library's reader would take: refused by the gate before it, as a broken daemon without it shows."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.messages import Connect, Ping, Pong
from support.daemon import RunningDaemon, running
from support.raw_websocket import BINARY, COMPRESSED, FINAL, PING, frame, websocket

if TYPE_CHECKING:
    from collections.abc import Iterator

FRAME_LIMIT_BYTES = 16 << 20
CONNECT_BYTES = 64 << 10
LIMIT_S = 60.0
MASK = b"\x11\x92\x03\xf4"
CONNECT = encode_message(Connect((1,), os.urandom(16), 0, None, "hostile"))
PINGED = encode_message(Ping(7))
OPTIONS = ("--frame-limit-bytes", str(FRAME_LIMIT_BYTES), "--heartbeat-s", "1")


def deflated(message: bytes, *, ends: bool = False) -> bytes:
    """Compress a message; `ends` makes it a stream of its own."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    if ends:
        return compressor.compress(message) + compressor.flush(zlib.Z_FINISH)
    return (compressor.compress(message) + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\0\0\xff\xff")


@dataclass(frozen=True)
class Case:
    """What a client sends, and how its connection ends.

    Attributes:
        greeted: After Welcome.
        sent: Bytes.
        code: Of the close frame.
        error: Of the message before it.
        deflates: Whether compression is agreed.
        at_once: Whether it comes in one piece with the request for the WebSocket.
    """

    greeted: bool
    sent: bytes
    code: int
    error: str
    deflates: bool = False
    at_once: bool = False


HALF = CONNECT_BYTES // 2
CASES = {
    "an unmasked frame": Case(True, frame(FINAL | BINARY, PINGED, mask=b""), 1002, "protocol_error"),
    "an unmasked ping": Case(True, frame(FINAL | PING, mask=b""), 1002, "protocol_error"),
    "an unmasked Connect": Case(False, frame(FINAL | BINARY, CONNECT, mask=b""), 1002, "protocol_error"),
    "an unmasked Connect with the request": Case(
        False, frame(FINAL | BINARY, CONNECT, mask=b""), 1002, "protocol_error", at_once=True
    ),
    "an unmasked fragment": Case(
        True,
        frame(BINARY, PINGED[:1], mask=MASK) + frame(FINAL, PINGED[1:], mask=b""),
        1002,
        "protocol_error",
    ),
    "a large frame announced before Welcome": Case(
        False, frame(FINAL | BINARY, announced=CONNECT_BYTES + 1), 1009, "frame_too_large"
    ),
    "large fragments before Welcome": Case(
        False,
        frame(BINARY, bytes(HALF)) + frame(FINAL | PING) + frame(0, announced=HALF + 1),
        1009,
        "frame_too_large",
    ),
    "small fragments before Welcome": Case(
        False, frame(BINARY) + frame(0, b"x") * 256, 1009, "frame_too_large"
    ),
    "small fragments after it": Case(
        True, frame(BINARY) + frame(0) * (FRAME_LIMIT_BYTES // 256), 1009, "frame_too_large"
    ),
    "a message behind an empty fragment": Case(
        True, frame(BINARY) + frame(FINAL | BINARY, PINGED), 1002, "protocol_error"
    ),
    "more than one compressed stream before Welcome": Case(
        False,
        frame(
            FINAL | COMPRESSED | BINARY, deflated(CONNECT[:9], ends=True) + deflated(CONNECT[9:], ends=True)
        ),
        1002,
        "protocol_error",
        deflates=True,
    ),
}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("frames"), *OPTIONS) as daemon:
        yield daemon


@pytest.fixture(scope="module")
def broken_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(tmp_path_factory.mktemp("ungated"), OPTIONS)
    daemon.break_rule("gate")
    try:
        daemon.start()
        yield daemon
    finally:
        daemon.end()


async def end_of(daemon: RunningDaemon, case: Case) -> tuple[int | None, str | None]:
    """Return how it ends, what was answered before left out."""
    async with (
        asyncio.timeout(LIMIT_S),
        websocket(
            daemon,
            greeted=case.greeted,
            deflates=case.deflates,
            at_once=case.sent if case.at_once else b"",
        ) as socket,
    ):
        with contextlib.suppress(ConnectionError):
            if not case.at_once:
                socket.writer.write(case.sent)
                await socket.writer.drain()
        return await socket.end()


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
async def test_what_the_gate_refuses(daemon: RunningDaemon, case: Case) -> None:
    assert await end_of(daemon, case) == (case.code, case.error)
    assert '"connection_failed"' not in daemon.log_text()


async def test_a_daemon_without_the_gate_takes_it(broken_daemon: RunningDaemon) -> None:
    ends = await asyncio.gather(*(end_of(broken_daemon, case) for case in CASES.values()))
    for (name, case), end in zip(CASES.items(), ends, strict=True):
        assert end != (case.code, case.error), name


def padded(size_bytes: int) -> bytes:
    """Return a Ping of so many bytes: what stands behind its fields is ignored."""
    ping = encode_message(Ping(7))
    fields = ping[0] & 0x0F
    return (
        bytes([0x90 | fields + 1])
        + ping[1:]
        + b"\xc6"
        + (size_bytes - len(ping) - 5).to_bytes(4)
        + bytes(size_bytes - len(ping) - 5)
    )


async def test_what_the_gate_lets_through(daemon: RunningDaemon) -> None:
    """Messages of exactly the limit: whole, in fragments with a ping in between, compressed; and pieces of any size."""
    whole = padded(FRAME_LIMIT_BYTES)
    third = FRAME_LIMIT_BYTES // 3
    fragments = (
        frame(BINARY, whole[:third]) + frame(FINAL | PING, b"p", mask=MASK) + frame(FINAL, whole[third:])
    )
    small = frame(FINAL | BINARY, PINGED, mask=MASK)
    async with asyncio.timeout(LIMIT_S), websocket(daemon, greeted=False, deflates=True) as socket:
        connect = frame(COMPRESSED | BINARY, deflated(CONNECT)[:9], mask=MASK)
        socket.writer.write(connect + frame(FINAL, deflated(CONNECT)[9:], mask=MASK))
        assert (await socket.receive())[0] == BINARY
        for sent in (frame(FINAL | BINARY, whole), fragments, small * 50):
            socket.writer.write(sent)
            for _ in range(50 if sent == small * 50 else 1):
                assert await pong(socket.receive) == Pong(7)
        for byte in small:
            socket.writer.write(bytes([byte]))
            await socket.writer.drain()
            await asyncio.sleep(0)
        assert await pong(socket.receive) == Pong(7)
        socket.writer.write(frame(FINAL | COMPRESSED | BINARY, deflated(whole), mask=MASK))
        assert await pong(socket.receive) == Pong(7)


async def pong(receive: object) -> object:
    """Return the next message that is no heartbeat."""
    assert callable(receive)
    while True:
        opcode, payload = await receive()
        if opcode == BINARY and not isinstance(message := decode_server_message(payload), Ping):
            return message


BOMBS = {
    "a large frame": (
        False,
        frame(FINAL | BINARY, bytes(FRAME_LIMIT_BYTES - 10), announced=FRAME_LIMIT_BYTES),
    ),
    "a compressed message": (
        True,
        frame(FINAL | COMPRESSED | BINARY, deflated(bytes(FRAME_LIMIT_BYTES - 10)), mask=MASK),
    ),
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=list(BOMBS))
async def test_what_a_bomb_before_welcome_takes(
    daemon: RunningDaemon, broken_daemon: RunningDaemon, bomb: tuple[bool, bytes]
) -> None:
    deflates, sent = bomb
    grown = [await peak_growth(each, sent, deflates=deflates) for each in (daemon, broken_daemon)]
    assert grown[0] < FRAME_LIMIT_BYTES / 4 < FRAME_LIMIT_BYTES * 3 / 4 < grown[1], grown


async def peak_growth(daemon: RunningDaemon, sent: bytes, *, deflates: bool) -> int:
    """Return by how many bytes the daemon's peak is above what it had before."""
    assert daemon.process is not None
    files = Path(f"/proc/{daemon.process.pid}")
    async with asyncio.timeout(LIMIT_S):
        async with websocket(daemon, greeted=True):
            (files / "clear_refs").write_text("5")  # the peak begins anew
            before = memory(files, "VmRSS")
        async with websocket(daemon, greeted=False, deflates=deflates) as socket:
            with contextlib.suppress(ConnectionError):
                socket.writer.write(sent)
                await socket.writer.drain()
            await socket.end()
    return memory(files, "VmHWM") - before


def memory(files: Path, what: str) -> int:
    found = re.search(rf"{what}:\s+(\d+) kB", (files / "status").read_text())
    assert found is not None
    return int(found[1]) * 1024
