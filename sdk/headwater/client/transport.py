"""Carry whole frames between the client and a server: WebSocket or TCP.

At the edge: the only module of the client that touches sockets. A transport knows nothing
of what the frames mean.
"""

from __future__ import annotations

import asyncio
import os
import ssl
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
_CAUSES_MAX = 5


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
        secure: Whether TLS is spoken.
    """

    kind: Literal["websocket", "tcp"]
    url: str
    host: str
    port: int
    sync_url: str
    secure: bool = False


def parse_address(url: str) -> Address:
    """Return what `ws://`, `wss://`, `http://`, `https://`, `tcp://host:port` or `tcp+tls://host:port` means.

    A path in front (a proxy's prefix) is kept: `ws://host/db` is spoken to at `/db/sync`.

    Raises:
        RequestError: The text is no such address.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise RequestError(f"{url!r} is not an address: {error}") from None
    schemes = {"ws": "ws", "http": "ws", "wss": "wss", "https": "wss", "tcp": "tcp", "tcp+tls": "tcp"}
    scheme = schemes.get(parts.scheme)
    if scheme is None or not parts.hostname:
        raise RequestError(
            f"{url!r} is not an address; write ws://host:port or tcp://host:port, with TLS wss:// or tcp+tls://"
        )
    if scheme == "tcp":
        if port is None or parts.path not in ("", "/"):
            raise RequestError(f"{url!r} is not an address; write {parts.scheme}://host:port")
        return Address("tcp", url, parts.hostname, port, "", parts.scheme == "tcp+tls")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = port or (443 if scheme == "wss" else DEFAULT_PORT)
    path = parts.path.rstrip("/").removesuffix(SYNC_PATH)
    sync_url = f"{scheme}://{host}:{port}{path}{SYNC_PATH}"
    return Address("websocket", url, parts.hostname, port, sync_url, scheme == "wss")


async def open_transport(
    address: Address, *, frame_limit_bytes: int, tls: ssl.SSLContext | None = None
) -> Transport:
    """Connect.

    Args:
        address: Where to.
        frame_limit_bytes: Largest frame to take from the server; a larger one ends the connection.
        tls: Says which certificates count; None: those of the system's authorities.

    Raises:
        CannotConnectError: Nobody answers there, or not in this protocol.
    """
    if address.kind == "tcp":
        return await _open_tcp(address, frame_limit_bytes, tls)
    return await _open_websocket(address, frame_limit_bytes, tls)


async def _open_websocket(address: Address, frame_limit_bytes: int, tls: ssl.SSLContext | None) -> Transport:
    http = aiohttp.ClientSession()
    try:
        socket = await http.ws_connect(
            address.sync_url, max_msg_size=frame_limit_bytes, compress=0, ssl=True if tls is None else tls
        )
    except (aiohttp.ClientError, OSError) as error:
        await http.close()
        raise CannotConnectError(f"cannot connect to {address.url}: {reason_of(error)}") from error
    except BaseException:
        await http.close()
        raise
    return _WebSocketTransport(http, socket)


async def _open_tcp(address: Address, frame_limit_bytes: int, tls: ssl.SSLContext | None) -> Transport:
    context = (tls or ssl.create_default_context()) if address.secure else None
    try:
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
    except OSError as error:
        raise CannotConnectError(f"cannot connect to {address.url}: {reason_of(error)}") from error
    return _TcpTransport(reader, writer, frame_limit_bytes)


def reason_of(error: BaseException) -> str:
    """Return why a connection failed or ended, in words for people."""
    if isinstance(error, aiohttp.WSServerHandshakeError):
        return f"the server answers {error.status} instead of opening a WebSocket"
    if (secured := _tls_problem(error)) is not None:
        return secured
    cause = getattr(error, "os_error", error)
    number = getattr(cause, "errno", None)
    if isinstance(number, int) and number > 0:
        return os.strerror(number)
    return str(getattr(cause, "strerror", None) or cause or type(error).__name__)


def _tls_problem(error: BaseException | None) -> str | None:
    """Return what is wrong between two sides of which one speaks TLS, None if it is something else."""
    seen = 0
    while error is not None and seen < _CAUSES_MAX:
        match error:
            case aiohttp.ClientConnectorCertificateError():
                error = error.certificate_error
                continue
            case aiohttp.ClientConnectorError():
                error, seen = error.os_error, seen + 1
                continue
            case ssl.SSLCertVerificationError(verify_message=why):
                return f"its certificate is not accepted: {why}; see the `tls` option of connect()"
            case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE"):
                return "what answers there speaks no TLS; write the address without it, ws:// or tcp://"
            case ssl.SSLError():
                return f"no TLS connection can be made: {error.reason or error}"
        error, seen = error.__cause__, seen + 1
    return None


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
