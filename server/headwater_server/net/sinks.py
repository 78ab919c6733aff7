"""Where encoded messages leave the daemon: one sink a connection, written to without waiting.

A sink never blocks and never drops: it tells when its client has more unread bytes than it
may have, and the reactive core then sends nothing but answers until they are read.
"""

from __future__ import annotations

import asyncio
import struct
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.frames import frame

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web
    from headwater_protocol.server_session import SameTransitions

_BINARY_FINAL = 0x82
_CLOSE_TIMEOUT_S = 2.0


class Sink(Protocol):
    """One connection's way out."""

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages, together in one write; after `close` they are dropped."""

    def unsent_bytes(self) -> int:
        """Return how many bytes the client has not taken yet."""

    def close(self, code: int, reason: str) -> None:
        """Send what is buffered and end the connection."""

    def abort(self) -> None:
        """End the connection now."""


def websocket_frame(message: bytes) -> bytes:
    """Return one unmasked, final binary frame (RFC 6455 section 5.2)."""
    length = len(message)
    if length < 126:
        return bytes((_BINARY_FINAL, length)) + message
    if length < 65536:
        return struct.pack(">BBH", _BINARY_FINAL, 126, length) + message
    return struct.pack(">BBQ", _BINARY_FINAL, 127, length) + message


class SharedFrames:
    """What goes to many clients in one step, made once: their equal transitions, and the frames of messages.

    Bounded: it holds what one step of the event loop sends, and at most `entries_max` of each.

    Attributes:
        transitions: For `ServerSession.transition`.
    """

    def __init__(self, entries_max: int = 256) -> None:
        self._entries_max = entries_max
        self._frames: dict[bytes, bytes] = {}
        self.transitions: SameTransitions = {}

    def frame(self, message: bytes) -> bytes:
        """Return the WebSocket frame of a message."""
        found = self._frames.get(message)
        if found is None:
            if len(self._frames) >= self._entries_max or len(self.transitions) >= self._entries_max:
                self.clear()
            found = self._frames[message] = websocket_frame(message)
        return found

    def clear(self) -> None:
        """Forget them; called after each publish."""
        self._frames.clear()
        self.transitions.clear()


class WebSocketSink:
    """Writes prebuilt frames to the transport of an accepted WebSocket.

    aiohttp itself writes only control frames there, in the same thread, so frames never mix;
    compression is off, so a frame's bytes are the same for every client.
    """

    def __init__(
        self, socket: web.WebSocketResponse, transport: asyncio.Transport, frames: SharedFrames
    ) -> None:
        self._socket = socket
        self._transport = transport
        self._frames = frames
        self._closing: asyncio.Task[bool] | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages."""
        if self._closing is not None or self._transport.is_closing():
            return
        if len(messages) == 1:
            self._transport.write(self._frames.frame(messages[0]))
        else:
            self._transport.write(b"".join([websocket_frame(message) for message in messages]))

    def unsent_bytes(self) -> int:
        """Return what waits in the transport."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Start the closing handshake; a client that does not answer is cut off."""
        if self._closing is None:
            self._closing = asyncio.ensure_future(self._close(code, reason))

    async def _close(self, code: int, reason: str) -> bool:
        try:
            async with asyncio.timeout(_CLOSE_TIMEOUT_S):
                return await self._socket.close(code=code, message=reason.encode()[:120])
        except (TimeoutError, ConnectionError):
            self._transport.abort()
            return False

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()


class TcpSink:
    """Writes length-prefixed messages to a TCP transport."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages."""
        if not self._transport.is_closing():
            self._transport.write(b"".join([frame(message) for message in messages]))

    def unsent_bytes(self) -> int:
        """Return what waits in the transport."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Flush and close; TCP has no close code, the fatal message before it says why."""
        self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()
