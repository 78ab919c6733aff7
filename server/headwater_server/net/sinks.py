"""Where encoded messages leave the daemon: one sink a connection, written to without waiting.

A sink never blocks and never drops: it tells when its client has more unread bytes than it
may have, and the reactive core then sends nothing but answers until they are read.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING, Any, Protocol

from headwater_protocol.frames import frame
from headwater_protocol.server_session import SameTransitions

from headwater_server.net.deflate import WINDOW_BITS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import web

    from headwater_server.net.deflate import Deflater
    from headwater_server.reactive.moves import Moved

_BINARY_FINAL = 0x82
_BINARY_FINAL_DEFLATED = 0xC2
_TEXT_FINAL = 0x81
_TEXT_FINAL_DEFLATED = 0xC1
_TEXT_BEGINS, _GOES_ON, _ENDS = 0x01, 0x00, 0x80
_TEXT_FRAME_BYTES = 8 << 20  # some of the clients that take text refuse larger frames, not larger messages
_CLOSE_TIMEOUT_S = 2.0
_ENTRY_BYTES = 256  # what an entry of a cache costs besides its bytes


def limit_unsent(transport: asyncio.BaseTransport, limit_bytes: int) -> None:
    """Let the system take no more for a client than is about to be sent.

    Else it takes some MiB of what a client does not read, where nobody can see it or take it back. What is on
    its way to one that reads is not limited, as it would be by a smaller send buffer.
    """
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, limit_bytes)


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


def websocket_frame(payload: bytes, first_byte: int = _BINARY_FINAL) -> bytes:
    """Return one unmasked, final binary frame (RFC 6455 section 5.2)."""
    length = len(payload)
    if length < 126:
        return bytes((first_byte, length)) + payload
    if length < 65536:
        return struct.pack(">BBH", first_byte, 126, length) + payload
    return struct.pack(">BBQ", first_byte, 127, length) + payload


def text_frames(payload: bytes) -> bytes:
    """Return unmasked frames of a text: one, or fragments of it where it is large."""
    if len(payload) <= _TEXT_FRAME_BYTES:
        return websocket_frame(payload, _TEXT_FINAL)
    starts = range(0, len(payload), _TEXT_FRAME_BYTES)
    firsts = [_TEXT_BEGINS, *[_GOES_ON] * (len(starts) - 2), _ENDS]
    return b"".join(
        [
            websocket_frame(payload[start : start + _TEXT_FRAME_BYTES], first)
            for start, first in zip(starts, firsts, strict=True)
        ]
    )


class _Transitions(SameTransitions):
    """Tells the size of each transition before it goes in; looking one up costs what it costs in a dict."""

    def __init__(self, make_room: Callable[[int], None]) -> None:
        super().__init__()
        self._make_room = make_room

    def __setitem__(self, key: object, made: tuple[Any, bytes]) -> None:
        if isinstance(key, tuple):  # else it is in already, and goes in again under what is looked up faster
            self._make_room(len(made[1]))
        super().__setitem__(key, made)


class SharedFrames:
    """What goes to many clients in one step, made once: their equal transitions, and the frames of messages.

    Bounded: it holds what one turn of the event loop sends, at most `bytes_max` of it or a
    single larger message.

    Args:
        soon: Calls something at the end of this turn of the event loop.
        deflater: Compresses for the clients that can inflate.
        bytes_max: Bound of all entries together.

    Attributes:
        deflates: Whether any frame is compressed.
    """

    def __init__(
        self,
        soon: Callable[[Callable[[], None]], object],
        deflater: Deflater,
        bytes_max: int = 8 << 20,
    ) -> None:
        self._soon = soon
        self._deflater = deflater
        self._bytes_max = bytes_max
        self._transitions: dict[tuple[object, ...], _Transitions] = {}
        self._in_use: list[_Transitions] = []
        self._frames: dict[bytes, bytes] = {}
        self._deflated_frames: dict[bytes, bytes] = {}
        self.deflates = deflater.is_on
        self._clear_due = False
        self.held_bytes = 0

    def transitions(self, moved: Moved) -> SameTransitions:
        """Return what has been made of a move, or of one with the same ts and changes; for `ServerSession.transition`.

        It may be used until the end of this turn, and is emptied before what is held grows beyond the bound.
        """
        key = (moved.ts, *moved.changes)
        found = self._transitions.get(key)
        if found is None:
            self._make_room(sum(len(body) for _, body in moved.changes))
            found = self._transitions[key] = _Transitions(self._make_room)
            self._in_use.append(found)
        return found

    def frame(self, message: bytes) -> bytes:
        """Return the WebSocket frame of a message."""
        return self._frames.get(message) or self._framed(message, websocket_frame)

    def deflated_frame(self, message: bytes) -> bytes:
        """Return the WebSocket frame of a message for a client that can inflate; compressed where that pays."""
        found = self._deflated_frames.get(message)
        return found or self._deflated(message, _BINARY_FINAL_DEFLATED) or self.frame(message)

    def text_frame(self, message: bytes) -> bytes:
        """Return the WebSocket frames of a message that is text."""
        return self._frames.get(message) or self._framed(message, text_frames)

    def deflated_text_frame(self, message: bytes) -> bytes:
        """Return the same for a client that can inflate; compressed where that pays."""
        found = self._deflated_frames.get(message)
        return found or self._deflated(message, _TEXT_FINAL_DEFLATED) or self.text_frame(message)

    def _framed(self, message: bytes, framed: Callable[[bytes], bytes]) -> bytes:
        """Make the frame of a message. Text is JSON and begins with another byte than any other message."""
        self._make_room(2 * len(message))
        found = self._frames[message] = framed(message)
        return found

    def _deflated(self, message: bytes, first_byte: int) -> bytes | None:
        payload = self._deflater.deflated(message)
        if payload is None:
            return None
        self._make_room(len(message) + len(payload))
        found = self._deflated_frames[message] = websocket_frame(payload, first_byte)
        return found

    def clear(self) -> None:
        """Forget them; called after each publish."""
        self._frames.clear()
        self._deflated_frames.clear()
        self._transitions.clear()
        for transitions in self._in_use:
            transitions.clear()
        self.held_bytes = 0

    def _make_room(self, size_bytes: int) -> None:
        size_bytes += _ENTRY_BYTES
        if self.held_bytes + size_bytes > self._bytes_max:
            self.clear()
        self.held_bytes += size_bytes
        if not self._clear_due:  # results of rounds are sent outside of a publish
            self._clear_due = True
            self._soon(self._end_turn)

    def _end_turn(self) -> None:
        self._clear_due = False
        self.clear()
        self._in_use.clear()


class WebSocketSink:
    """Writes prebuilt frames to the transport of an accepted WebSocket.

    aiohttp itself writes only control frames there, in the same thread, so frames never mix.
    A frame's bytes are the same for every client, or for every client that can inflate.
    """

    def __init__(
        self,
        socket: web.WebSocketResponse,
        transport: asyncio.Transport,
        frames: SharedFrames,
        *,
        text: bool = False,
    ) -> None:
        self._socket = socket
        self._transport = transport
        # A client may inflate in a smaller window than ours, or not at all: all frames may come to it as they are.
        if socket.compress == WINDOW_BITS:
            self._frame = frames.deflated_text_frame if text else frames.deflated_frame
        else:
            self._frame = frames.text_frame if text else frames.frame
        self._closing: asyncio.Task[bool] | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages."""
        if self._closing is not None or self._transport.is_closing():
            return
        if len(messages) == 1:
            self._transport.write(self._frame(messages[0]))
        else:
            self._transport.write(b"".join([self._frame(message) for message in messages]))

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
        self._cut: asyncio.TimerHandle | None = None

    def send(self, messages: Sequence[bytes]) -> None:
        """Send messages."""
        if self._cut is None and not self._transport.is_closing():
            self._transport.write(b"".join([frame(message) for message in messages]))

    def unsent_bytes(self) -> int:
        """Return what waits in the transport."""
        return self._transport.get_write_buffer_size()

    def close(self, code: int, reason: str) -> None:
        """Flush and end our side; TCP has no close code, the fatal message before it says why.

        The client's own end closes the socket. To close it while bytes of the client are unread
        would be a reset, which may overtake what was just sent. A client that does not end, or
        does not read, is cut off.
        """
        if self._cut is None:
            self._cut = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, self._transport.abort)
            if not self._transport.can_write_eof():  # TLS has an end of its own, sent behind what is buffered
                self._transport.close()
            elif not self._transport.is_closing():
                self._transport.write_eof()

    def lost(self) -> None:
        """The socket has ended."""
        if self._cut is not None:
            self._cut.cancel()

    def abort(self) -> None:
        """Cut the connection."""
        self._transport.abort()
