"""Carry whole frames between the client and a server: WebSocket or TCP.

At the edge: the only module of the client that touches sockets. A transport knows nothing
of what the frames mean.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from dataclasses import dataclass
from typing import Literal, Protocol
from urllib.parse import urlsplit

import aiohttp
from headwater_protocol.errors import RequestError, TransientError
from headwater_protocol.frames import FrameDecoder
from headwater_protocol.frames import frame as length_prefixed

DEFAULT_PORT = 4510
SYNC_PATH = "/sync"
_READ_BYTES = 256 * 1024
_CLOSE_TIMEOUT_S = 1.0


class CannotConnectError(TransientError):
    """No connection could be made; nothing was sent."""


class TransportClosedError(Exception):
    """The connection ended.

    Attributes:
        reason: Why, for logs and for people.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Transport(Protocol):
    """One connection that carries whole frames in order."""

    async def send(self, frame: bytes) -> None:
        """Hand over one frame; waits while the peer takes none.

        Raises:
            TransportClosedError: The connection has ended; the frame may or may not have arrived.
        """

    async def receive(self) -> bytes:
        """Return the next frame.

        Raises:
            TransportClosedError: The connection has ended.
            ProtocolError: What comes is no frame, or one above the limit.
        """
        ...

    async def close(self) -> None:
        """End the connection and free what it holds. May be called twice; takes a bounded time."""


class OpenTransport(Protocol):
    """How connections are made: see `open_transport`."""

    async def __call__(self, address: Address, /, *, frame_limit_bytes: int) -> Transport:
        """Connect."""
        ...


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server is and how to speak to it.

    Attributes:
        kind: Which transport.
        url: The address as people write it, for messages.
        host: Name or address.
        port: Port.
        sync_url: Full WebSocket address; empty for TCP.
    """

    kind: Literal["websocket", "tcp"]
    url: str
    host: str
    port: int
    sync_url: str


def parse_address(url: str) -> Address:
    """Return what `ws://`, `wss://`, `http://`, `https://` or `tcp://host:port` means.

    A path in front (a proxy's prefix) is kept: `ws://host/db` is spoken to at `/db/sync`.

    Raises:
        RequestError: The text is no such address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(f"{url!r} is not an address: {error}") from None
    schemes = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss", "tcp": "tcp"}
    scheme = schemes.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise RequestError(f"{url!r} is not an address; write ws://host:port or tcp://host:port")
    if scheme == "tcp":
        if port is None or parts.path not in ("", "/"):
            raise RequestError(f"{url!r} is not an address; write tcp://host:port")
        return Address("tcp", url, parts.hostname, port, "")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = port or (443 if scheme == "wss" else DEFAULT_PORT)
    path = parts.path.rstrip("/").removesuffix(SYNC_PATH)
    return Address("websocket", url, parts.hostname, port, f"{scheme}://{host}:{port}{path}{SYNC_PATH}")


async def open_transport(address: Address, *, frame_limit_bytes: int) -> Transport:
    """Connect.

    Args:
        address: Where to.
        frame_limit_bytes: Largest frame to take from the server; a larger one ends the connection.

    Raises:
        CannotConnectError: Nobody answers there, or not in this protocol.
    """
    if address.kind == "tcp":
        return await _open_tcp(address, frame_limit_bytes)
    return await _open_websocket(address, frame_limit_bytes)


async def _open_websocket(address: Address, frame_limit_bytes: int) -> Transport:
    http = aiohttp.ClientSession()
    try:
        socket = await http.ws_connect(address.sync_url, max_msg_size=frame_limit_bytes, compress=0)
    except (aiohttp.ClientError, OSError) as error:
        await http.close()
        raise CannotConnectError(f"cannot connect to {address.url}: {reason_of(error)}") from error
    except BaseException:
        await http.close()
        raise
    return _WebSocketTransport(http, socket)


async def _open_tcp(address: Address, frame_limit_bytes: int) -> Transport:
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port)
    except OSError as error:
        raise CannotConnectError(f"cannot connect to {address.url}: {reason_of(error)}") from error
    return _TcpTransport(reader, writer, frame_limit_bytes)


def reason_of(error: BaseException) -> str:
    """Return why a connection failed or ended, in words for people."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"the server answers {error.status} instead of opening a WebSocket"
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)


class _WebSocketTransport:
    def __init__(self, http: aiohttp.ClientSession, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._http = http
        self._socket = socket

    async def send(self, frame: bytes) -> None:
        try:
            await self._socket.send_bytes(frame)
        except (aiohttp.ClientError, OSError) as error:
            raise TransportClosedError(reason_of(error)) from error

    async def receive(self) -> bytes:
        message = await self._socket.receive()
        if message.type is aiohttp.WSMsgType.BINARY:
            data: bytes = message.data
            return data
        if message.type is aiohttp.WSMsgType.TEXT:
            raise TransportClosedError("the server sent a text frame")
        if message.type is aiohttp.WSMsgType.ERROR:
            raise TransportClosedError(reason_of(message.data))
        code = self._socket.close_code
        detail = f" ({message.extra})" if message.extra else ""
        raise TransportClosedError(
            "the connection ended" if code is None else f"closed with code {code}{detail}"
        )

    async def close(self) -> None:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._socket.close()
        except TimeoutError:
            pass
        finally:
            await self._http.close()


class _TcpTransport:
    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, frame_limit_bytes: int
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(frame_limit_bytes)
        self._received: deque[bytes] = deque()

    async def send(self, frame: bytes) -> None:
        try:
            self._writer.write(length_prefixed(frame))
            await self._writer.drain()
        except OSError as error:
            raise TransportClosedError(reason_of(error)) from error

    async def receive(self) -> bytes:
        while not self._received:
            try:
                data = await self._reader.read(_READ_BYTES)
            except OSError as error:
                raise TransportClosedError(reason_of(error)) from error
            if not data:
                raise TransportClosedError("the connection ended")
            self._received += self._decoder.feed(data)
        return self._received.popleft()

    async def close(self) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                await self._writer.wait_closed()
        except (TimeoutError, OSError):
            self._writer.transport.abort()
