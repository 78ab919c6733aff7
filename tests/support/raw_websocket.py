"""A bare WebSocket: any frame can be sent, whole or not."""

from __future__ import annotations

import asyncio
import contextlib
import os
import struct
from typing import TYPE_CHECKING

from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.messages import Connect, FatalError, Welcome

from support.wire_client import UPGRADE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from support.daemon import RunningDaemon

BINARY, TEXT, CLOSE, PING = 2, 1, 8, 9
FINAL, COMPRESSED = 0x80, 0x40
_DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"


def frame(first: int, payload: bytes = b"", *, mask: bytes = bytes(4), announced: int | None = None) -> bytes:
    """Return a frame by its first byte; without a mask if that is empty."""
    size = len(payload) if announced is None else announced
    length = bytes([size]) if size < 126 else b"\x7f" + struct.pack(">Q", size)
    if mask:
        payload = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload)) if any(mask) else payload
        length = bytes([0x80 | length[0]]) + length[1:]
    return bytes([first]) + length + mask + payload


class Socket:
    """What a client has of it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, first: int, payload: bytes, *, announced: int | None = None) -> None:
        """Send a frame by its first byte, masked with zeros."""
        self.writer.write(frame(first, payload, announced=announced))
        await self.writer.drain()

    async def greet(self) -> None:
        await self.send(0x80 | BINARY, encode_message(Connect((1,), os.urandom(16), 0, None, "hostile")))
        opcode, payload = await self.receive()
        assert opcode == BINARY
        assert isinstance(decode_server_message(payload), Welcome)

    async def receive(self) -> tuple[int, bytes]:
        first, second = await self.reader.readexactly(2)
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8), "big")
        return first & 15, await self.reader.readexactly(size)

    async def end(self) -> tuple[int | None, str | None]:
        """Return close code and error code of the end; None where there is none."""
        told: str | None = None
        try:
            while True:
                opcode, payload = await self.receive()
                if opcode == CLOSE:
                    return int.from_bytes(payload[:2], "big"), told
                if opcode == BINARY:
                    message = decode_server_message(payload)
                    told = message.error.code if isinstance(message, FatalError) else None
        except (asyncio.IncompleteReadError, ConnectionError):
            return None, told


@contextlib.asynccontextmanager
async def websocket(
    daemon: RunningDaemon, *, greeted: bool, deflates: bool = False, at_once: bytes = b""
) -> AsyncIterator[Socket]:
    """Open one; `at_once` comes in one piece with the request for it."""
    reader, writer = await asyncio.open_connection("127.0.0.1", daemon.port)
    try:
        head = UPGRADE[:-2] + (_DEFLATE if deflates else "") + UPGRADE[-2:]
        writer.write(head.encode() + at_once)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert b" 101 " in answer
        assert deflates == (b"permessage-deflate" in answer)
        socket = Socket(reader, writer)
        if greeted:
            await socket.greet()
        yield socket
    finally:
        writer.transport.abort()
