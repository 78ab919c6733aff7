"""Compressing what is sent over WebSocket (RFC 7692, permessage-deflate), so that all clients can share it.

Each message is compressed for itself: a client's window of earlier messages, which the RFC allows to refer to, would make
every client's bytes other ones. One compressor serves for ever: a full flush ends a message and forgets it, while
a new compressor takes ten times as long as a small message.
"""

from __future__ import annotations

import zlib

WINDOW_BITS = 15
_LEVEL = 1  # of messages of 14 kB level 6 makes 22 % instead of 26 %, in five times the time
_MEMORY_LEVEL = 8
FLUSH_TAIL = b"\x00\x00\xff\xff"  # of every flush; the RFC has it left out
_WORTHWHILE = 0.8


class Deflater:
    """Compresses messages for clients that inflate with a window of `WINDOW_BITS`.

    Args:
        from_bytes: Shorter messages stay as they are; 0 leaves all of them.
        up_to_bytes: So do longer ones: the event loop waits meanwhile, 10 ms for a megabyte.
    """

    def __init__(self, from_bytes: int, up_to_bytes: int = 1 << 20) -> None:
        self._from_bytes = from_bytes
        self._up_to_bytes = up_to_bytes
        self._compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -WINDOW_BITS, _MEMORY_LEVEL)

    @property
    def is_on(self) -> bool:
        """Whether anything is compressed at all."""
        return self._from_bytes > 0

    def deflated(self, message: bytes) -> bytes | None:
        """Return the payload of a compressed frame, None where it is not worth it."""
        if not self._from_bytes <= len(message) <= self._up_to_bytes or not self.is_on:
            return None
        payload = self._compressor.compress(message) + self._compressor.flush(zlib.Z_FULL_FLUSH)
        if len(payload) > _WORTHWHILE * len(message):
            return None
        return payload.removesuffix(FLUSH_TAIL)
