"""Frames between daemon and worker: u32 big-endian length, then one msgpack array.

`FrameSplitter` and `FrameWriter` are pure and used by both sides; `WorkerEnd` is the
worker's blocking end, where waiting is right: there is nothing else to do.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec

from headwater_server.worker.messages import TransactionOrder

if TYPE_CHECKING:
    import socket

FRAME_BYTES_MAX = 128 * 1024 * 1024
"""Larger than anything that the limits of a call let through; a longer one is a fault of the other side."""

_HEADER = struct.Struct(">I")
_RECEIVE_BYTES = 256 * 1024

MessageT = TypeVar("MessageT")


class FrameError(ValueError):
    """The other side sent what is no frame."""


class FrameSplitter(Generic[MessageT]):
    """Cuts a stream of bytes into messages."""

    def __init__(self, decoder: msgspec.msgpack.Decoder[MessageT]) -> None:
        self._decoder = decoder
        self._rest = bytearray()

    def feed(self, data: bytes | bytearray | memoryview) -> list[MessageT]:
        """Take what was received and return the messages that are complete now.

        Nothing returned refers to `data`, which may be overwritten. Only a frame that came
        in several pieces is copied together.

        Raises:
            FrameError: A length beyond the limit, or a frame that is no known message.
        """
        messages: list[MessageT] = []
        with memoryview(data) as view:
            position, end = 0, len(view)
            if self._rest:
                position = self._complete(view, messages)
            while end - position >= 4:
                after = position + 4 + _length(view, position)
                if after > end:
                    break
                messages.append(self._message(view[position + 4 : after]))
                position = after
            if position < end:
                self._rest += view[position:]
        return messages

    def _complete(self, view: memoryview, messages: list[MessageT]) -> int:
        """Add to the frame that is under way; return how many bytes it took."""
        rest = self._rest
        taken = 0
        if len(rest) < 4:
            taken = min(4 - len(rest), len(view))
            rest += view[:taken]
            if len(rest) < 4:
                return taken
        begun = taken
        taken = min(begun + 4 + _length(rest, 0) - len(rest), len(view))
        rest += view[begun:taken]
        if len(rest) == 4 + _length(rest, 0):
            messages.append(self._message(memoryview(rest)[4:]))
            self._rest = bytearray()
        return taken

    def _message(self, frame: memoryview) -> MessageT:
        try:
            return self._decoder.decode(frame)
        except msgspec.DecodeError as error:
            raise FrameError(f"a frame is no known message: {error}") from None


def _length(data: bytearray | memoryview, position: int) -> int:
    length: int = _HEADER.unpack_from(data, position)[0]
    if length > FRAME_BYTES_MAX:
        raise FrameError(f"a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}")
    return length


class FrameWriter:
    """Collects messages so that several leave in one system call."""

    def __init__(self) -> None:
        self._encode_into = msgspec.msgpack.Encoder().encode_into
        self._buffer = bytearray()

    def add(self, message: object) -> None:
        """Append one message, or nothing of it.

        Raises:
            ValueError: The message is longer than the other side takes, or has a text that is no UTF-8.
            TypeError: It has an object that cannot be encoded.
            OverflowError: It has an integer that cannot be.
        """
        buffer = self._buffer
        start = len(buffer)
        try:
            buffer += b"\0\0\0\0"
            self._encode_into(message, buffer, -1)
            size = len(buffer) - start - 4
            if size > FRAME_BYTES_MAX:
                raise ValueError(f"a message of {size} bytes; the limit is {FRAME_BYTES_MAX}")
            _HEADER.pack_into(buffer, start, size)
        except BaseException:
            del buffer[start:]
            raise

    def __len__(self) -> int:
        return len(self._buffer)

    def take(self) -> bytearray:
        """Return what was collected and begin anew."""
        taken, self._buffer = self._buffer, bytearray()
        return taken


class WorkerEnd:
    """The worker's end of its link: blocking, several messages at a time in both directions."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._splitter = FrameSplitter(msgspec.msgpack.Decoder(TransactionOrder))
        self._writer = FrameWriter()
        self._chunk = bytearray(_RECEIVE_BYTES)

    def receive(self) -> list[TransactionOrder] | None:
        """Wait for messages; None when the daemon has closed its end."""
        chunk = self._chunk
        while True:
            size = self._connection.recv_into(chunk)
            if size == 0:
                return None
            messages = self._splitter.feed(memoryview(chunk)[:size])
            if messages:
                return messages

    def add(self, message: object) -> None:
        """Append a message for the next `flush`."""
        self._writer.add(message)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait for `flush`."""
        return len(self._writer)

    def flush(self) -> None:
        """Send what was added."""
        if len(self._writer):
            self._connection.sendall(self._writer.take())
