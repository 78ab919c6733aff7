"""The rules of WebSocket frames that the library's reader does not keep, or keeps only once it has buffered them.

Pure. It walks the heads of the frames (RFC 6455 section 5.2) in a byte stream and keeps nothing of what they carry, but
for what a client has compressed before its Welcome: to be refused before the reader inflates it, it is inflated here first.
"""

from __future__ import annotations

import zlib
from typing import Any

from headwater_protocol.errors import ProtocolError
from headwater_protocol.limits import CONNECT_FRAME_BYTES

from headwater_server.net.deflate import FLUSH_TAIL, WINDOW_BITS

_FRAGMENT_BYTES = 256
_FINAL, _COMPRESSED, _OPCODE, _CONTROL = 0x80, 0x40, 0x0F, 0x08
_MASKED, _LENGTH = 0x80, 0x7F
_MASK_BYTES = 4
_LONGEST_SHORT = 125
_SHORT_BYTES = 2 + _MASK_BYTES + _LONGEST_SHORT
_SHORT_LENGTH = (
    _MASKED - 2 - _MASK_BYTES
)  # the second byte of a short frame is this, and the bytes of all of it
_PLAIN = 0x82  # of the first byte: final, binary
_STREAM_ENDS = (b"", FLUSH_TAIL, b"\x00" + FLUSH_TAIL)  # RFC 7692 section 7.2.3.4


class FrameGate:
    """Looks at the bytes of one client before the reader has them.

    Refused are frames that are not masked; messages whose frames together are larger than the limit, by their
    announced lengths; messages of many fragments smaller than 256 bytes; a message begun within another. All else is
    the reader's to refuse.

    Args:
        then_limit_bytes: Largest message from the second on, of clients that do not wait until they are accepted; None:
            until `welcome` says.

    Attributes:
        limit_bytes: Largest message.
    """

    __slots__ = (
        "_fragments",
        "_goes_on",
        "_head",
        "_inflation",
        "_is_even",
        "_left_bytes",
        "_size_bytes",
        "_then_limit_bytes",
        "limit_bytes",
    )

    def __init__(self, then_limit_bytes: int | None = None) -> None:
        self.limit_bytes = CONNECT_FRAME_BYTES
        self._then_limit_bytes = then_limit_bytes
        self._head = b""  # the part that has come of a head that has not come whole
        self._left_bytes = 0  # of the present frame's payload
        self._size_bytes = 0  # of the present message's frames
        self._fragments = 0  # of the present message
        self._goes_on = False  # whether the next frame of data belongs to the present message
        self._inflation: _Inflation | None = _Inflation(CONNECT_FRAME_BYTES)  # None from Welcome on
        self._is_even = False  # whether what comes next is a message from its beginning, after Welcome

    def welcome(self, limit_bytes: int) -> None:
        """Hold what follows to the limit of clients that have been accepted."""
        self.limit_bytes = limit_bytes
        self._inflation = None

    def look_at(self, data: bytes) -> None:
        """Look at the next bytes, however the stream is cut into pieces.

        Raises:
            ProtocolError: `protocol_error` or `frame_too_large`. Nothing more may be read of this client.
        """
        at, end = 0, len(data)
        if (
            self._is_even
            and 1 < end <= _SHORT_BYTES
            and data[1] == end + _SHORT_LENGTH
            and data[0] & _PLAIN == _PLAIN
        ):
            return  # one short message: nearly all that is ever read, at a fifth of the cost
        if self._head:
            data, self._head = self._head + data, b""
            end = len(data)
        while True:
            if self._left_bytes:
                start, at = at, min(end, at + self._left_bytes)
                self._left_bytes -= at - start
                if self._inflation is not None:
                    self._inflation.take(data[start:at], is_whole=not self._left_bytes)
            if end - at < 2:
                break
            first, second = data[at], data[at + 1]
            if not second & _MASKED:
                raise ProtocolError("a frame that is not masked")
            length = second & _LENGTH
            start = at + 2
            if length > _LONGEST_SHORT:
                start += 2 if length == _LONGEST_SHORT + 1 else 8
                length = int.from_bytes(data[at + 2 : start], "big")
            start += _MASK_BYTES
            if start > end:
                break
            if not first & _CONTROL:
                self._count(first, length)
            if self._inflation is not None:
                self._inflation.begin(first, data[start - _MASK_BYTES : start], length)
            self._left_bytes = length
            at = start
        self._head = data[at:]
        self._is_even = not (self._head or self._left_bytes or self._goes_on or self._inflation)

    def _count(self, first: int, length: int) -> None:
        """Add a frame of data to its message."""
        if first & _OPCODE:
            if self._goes_on:
                raise ProtocolError("a message begins within another")
            if self._fragments and self._then_limit_bytes is not None:
                self.welcome(self._then_limit_bytes)
            self._size_bytes = self._fragments = 0
        elif not self._goes_on:
            raise ProtocolError("a fragment of no message")
        self._goes_on = not first & _FINAL
        self._size_bytes += length
        self._fragments += 1
        if self._size_bytes > self.limit_bytes:
            raise _too_large(self._size_bytes, self.limit_bytes)
        if self._fragments > self.limit_bytes // _FRAGMENT_BYTES:
            raise ProtocolError(
                f"a message of more than {self._fragments - 1} fragments", code="frame_too_large"
            )


class _Inflation:
    """Inflates compressed messages as far as the limit. The reader does the same again: its window needs all of them."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._inflater: Any = None  # made for the first compressed message
        self._mask = b""
        self._first = 0  # byte of the present frame
        self._is_compressed = False
        self._payload = bytearray()  # of the present frame
        self._message = bytearray()  # of the frames before it

    def begin(self, first: int, mask: bytes, length: int) -> None:
        self._first, self._mask = first, mask
        if first & _OPCODE and not first & _CONTROL:
            self._is_compressed = bool(first & _COMPRESSED)
        if not length:
            self.take(b"", is_whole=True)

    def take(self, payload: bytes, *, is_whole: bool) -> None:
        if not self._is_compressed or self._first & _CONTROL:
            return
        self._payload += payload
        if is_whole:
            self._message += _unmasked(self._payload, self._mask)
            self._payload.clear()
            if self._first & _FINAL:
                self._inflate()

    def _inflate(self) -> None:
        message = bytes(self._message) + FLUSH_TAIL
        self._message.clear()
        if self._inflater is None:
            self._inflater = zlib.decompressobj(-WINDOW_BITS)
        try:
            inflated = self._inflater.decompress(message, self._limit_bytes + 1)
        except zlib.error:
            raise ProtocolError("a message that cannot be inflated") from None
        if len(inflated) > self._limit_bytes:
            raise _too_large(len(inflated), self._limit_bytes)
        if self._inflater.eof:
            if self._inflater.unused_data not in _STREAM_ENDS:
                raise ProtocolError("a message of more than one compressed stream")
            self._inflater = None


def _unmasked(payload: bytes | bytearray, mask: bytes) -> bytes:
    size = len(payload)
    key = (mask * (size // _MASK_BYTES + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def _too_large(size_bytes: int, limit_bytes: int) -> ProtocolError:
    message = f"a message of {size_bytes} bytes or more is larger than the limit of {limit_bytes}"
    return ProtocolError(message, code="frame_too_large")
