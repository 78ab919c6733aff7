"""Compression over WebSocket, on a real daemon and real sockets whose bytes are looked at.

The client is written here from RFC 6455 and RFC 7692 and shares nothing with the product but the messages.
Faults it produces: a frame of a few kilobytes that inflates to far more than any message may have.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import headwater
import pytest
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.messages import AddQuery, Connect, ModifyQuerySet, Transition, Value
from headwater_protocol.values import pack_value
from support.daemon import running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.daemon import RunningDaemon

PLAYERS = 40
TIMEOUT_S = 30.0
BINARY, CLOSE = 2, 8
TOO_BIG = 1009
OFFERED = "permessage-deflate; client_max_window_bits"
TAIL = b"\x00\x00\xff\xff"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("compression"), deploy="screens_one") as daemon:
        asyncio.run(fill(daemon))
        yield daemon


async def fill(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        for number in range(PLAYERS):
            await client.mutation(
                "game:join", name=f"the player with number {number}", team=None, score=number, level=None
            )


def peak_memory_bytes(daemon: RunningDaemon) -> int:
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:"))


class Wire:
    """A WebSocket, frame by frame."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, answer: str) -> None:
        self._reader = reader
        self.writer = writer
        self.answer = answer

    def send(self, payload: bytes, *, deflated: bool = False) -> None:
        first = 0xC2 if deflated else 0x82
        self.writer.write(struct.pack(">BBQ", first, 0x80 | 127, len(payload)) + bytes(4) + payload)

    async def frame(self) -> tuple[int, bool, bytes]:
        """Return kind, whether it is compressed, and payload of the next frame."""
        first, length = await self._reader.readexactly(2)
        if length == 126:
            length = int.from_bytes(await self._reader.readexactly(2), "big")
        elif length == 127:
            length = int.from_bytes(await self._reader.readexactly(8), "big")
        return first & 0x0F, bool(first & 0x40), await self._reader.readexactly(length)


@asynccontextmanager
async def connected(daemon: RunningDaemon, extensions: str | None) -> AsyncIterator[Wire]:
    host, _, port = daemon.url.removeprefix("ws://").partition(":")
    offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            writer.write(
                f"GET /sync HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{offer}"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
            )
            yield Wire(reader, writer, (await reader.readuntil(b"\r\n\r\n")).decode())
        finally:
            writer.close()


async def first_value(wire: Wire) -> tuple[list[bool], int, bytes]:
    """Subscribe; return which messages came compressed, the bytes of the last one's payload, and the value."""
    wire.send(encode_message(Connect((1,), b"s" * 16, 0, None, "test")))
    arguments = pack_value({"count": PLAYERS})
    wire.send(encode_message(ModifyQuerySet(0, 1, (AddQuery(1, "screens:newest", arguments),), ())))
    compressed = []
    while True:
        kind, deflated, payload = await wire.frame()
        assert kind == BINARY
        compressed.append(deflated)
        # Each message stands for itself: an inflater that has seen no other one can read it.
        message = zlib.decompressobj(-15).decompress(payload + TAIL) if deflated else payload
        decoded = decode_server_message(message)
        if isinstance(decoded, Transition) and decoded.changes:
            body = decoded.changes[0].body
            assert isinstance(body, Value)
            return compressed, len(payload), body.content


async def test_a_client_that_can_inflate_gets_large_messages_compressed(daemon: RunningDaemon) -> None:
    async with connected(daemon, None) as plain:
        assert "permessage-deflate" not in plain.answer
        as_it_is, size, value = await first_value(plain)
    async with connected(daemon, OFFERED) as wire:
        assert "permessage-deflate" in wire.answer
        compressed, small, same = await first_value(wire)
    assert not any(as_it_is)
    assert compressed[-1], "the value is large"
    assert not compressed[0], "the Welcome is small"
    assert same == value
    assert small < size / 3


@pytest.mark.parametrize("offer", ["permessage-deflate; server_max_window_bits=10", "x-webkit-deflate-frame"])
async def test_a_client_with_a_small_window_or_another_method_gets_messages_as_they_are(
    daemon: RunningDaemon, offer: str
) -> None:
    async with connected(daemon, offer) as wire:
        compressed, _, _ = await first_value(wire)
    assert not any(compressed)


async def test_a_frame_that_inflates_to_more_than_a_message_may_have_ends_its_connection_alone(
    daemon: RunningDaemon,
) -> None:
    compressor = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join([compressor.compress(bytes(1 << 20)) for _ in range(512)])
    bomb = (bomb + compressor.flush(zlib.Z_SYNC_FLUSH)).removesuffix(TAIL)
    assert len(bomb) < 1 << 20
    before = peak_memory_bytes(daemon)
    async with connected(daemon, OFFERED) as other, connected(daemon, OFFERED) as wire:
        await first_value(wire)
        wire.send(bomb, deflated=True)
        kind, _, payload = await wire.frame()
        assert (kind, int.from_bytes(payload[:2], "big")) == (CLOSE, TOO_BIG)
        compressed, _, _ = await first_value(other)
        assert compressed[-1]
    assert peak_memory_bytes(daemon) - before < 64 << 20, "512 MiB were inflated"


def test_nothing_is_compressed_where_the_setting_says_so(tmp_path: Path) -> None:
    async def values() -> tuple[list[bool], str]:
        async with connected(daemon, OFFERED) as wire:
            compressed, _, _ = await first_value(wire)
            return compressed, wire.answer

    with running(tmp_path, "--compress-from-bytes", "0", deploy="screens_one") as daemon:
        asyncio.run(fill(daemon))
        compressed, answer = asyncio.run(values())
    assert not any(compressed)
    assert "permessage-deflate" not in answer
