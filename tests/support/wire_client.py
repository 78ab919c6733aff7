"""A client that speaks the protocol by its codec alone, over either transport, and keeps all that it is sent."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from itertools import count
from typing import TYPE_CHECKING

from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.messages import (
    Connect,
    FatalError,
    MutationAnswer,
    Ping,
    Pong,
    Transition,
    Welcome,
)
from headwater_protocol.versions import SUPPORTED_VERSIONS

from support.screen_client import open_wire

if TYPE_CHECKING:
    from headwater_protocol.messages import ClientMessage, ErrorBody

    from support.screen_client import Wire

ANSWER_TIMEOUT_S = 60.0
UPGRADE = (
    "GET /sync HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    f"Sec-WebSocket-Key: {b64encode(bytes(16)).decode()}\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
"""What opens a WebSocket on a bare socket."""


class WireClient:
    """One connection, past its Welcome. It answers pings; it does nothing else by itself.

    Attributes:
        answers: Of mutations, by their numbers.
        changed: Numbers of the queries that a transition has told something of.
        end: What the server said last, None if it did not say why it ends.
        close_code: That of the WebSocket.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._nonces = count(1)
        self._pongs: dict[int, asyncio.Future[None]] = {}
        self._reading: asyncio.Task[None] | None = None
        self.answers: dict[int, MutationAnswer] = {}
        self.changed: set[int] = set()
        self.welcome: Welcome | None = None
        self.end: ErrorBody | None = None
        self.close_code: int | None = None

    @classmethod
    async def open(cls, url: str, session: bytes) -> WireClient:
        """Connect to `tcp://host:port` or `ws://host:port` and greet."""
        client = cls(await open_wire(url))
        await client.send(Connect(SUPPORTED_VERSIONS, session, 0, None, "wire"))
        client._reading = asyncio.create_task(client._read())
        await client.received()
        return client

    async def send(self, *messages: ClientMessage) -> None:
        """Send messages, unless the connection has ended."""
        for message in messages:
            await self._wire.send(encode_message(message))

    async def received(self) -> None:
        """Return once the server has taken in all that was sent before."""
        nonce = next(self._nonces)
        pong = self._pongs[nonce] = asyncio.get_running_loop().create_future()
        await self.send(Ping(nonce))
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await pong

    async def ended(self) -> None:
        """Return once the server has ended the connection."""
        assert self._reading is not None
        async with asyncio.timeout(ANSWER_TIMEOUT_S):
            await self._reading

    async def close(self) -> None:
        """End it."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        await self._wire.close()

    async def _read(self) -> None:
        while messages := await self._wire.receive():
            for message in messages:
                await self._take(decode_server_message(message))
        self.close_code = self._wire.close_code
        await self._wire.close()

    async def _take(self, message: object) -> None:
        assert self.end is None, "something came behind the end"
        match message:
            case Welcome():
                self.welcome = message
            case MutationAnswer(request):
                assert request not in self.answers, "a second answer"
                self.answers[request] = message
            case Transition():
                self.changed |= {change.query for change in message.changes}
            case Ping(nonce):
                await self.send(Pong(nonce))
            case Pong(nonce):
                self._pongs.pop(nonce).set_result(None)
            case FatalError(error):
                self.end = error


def masked_frame(message: bytes) -> bytes:
    """Return a client's WebSocket frame; the mask is zero, which is allowed."""
    size = len(message)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return b"\x82" + length + bytes(4) + message
