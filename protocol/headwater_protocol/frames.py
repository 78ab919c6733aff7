"""Length-prefixed messages on a byte stream: u32 big-endian length, then that many bytes.

Pure. Used on TCP between client and server. WebSocket needs none of it: there a message is
one binary frame.
"""

from __future__ import annotations

from headwater_protocol.errors import ProtocolError

PREFIX_BYTES = 4


def frame(message: bytes) -> bytes:
    """Return one message with its length before it."""
    return len(message).to_bytes(PREFIX_BYTES, "big") + message


class FrameDecoder:
    """Take a byte stream apart into messages, however its pieces arrive.

    Holds at most one unfinished message; a length above the limit is refused when its prefix
    is read, before anything is kept for it.

    Attributes:
        limit_bytes: Largest message from here on; the owner raises it once a connection is
            accepted.
    """

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete with this piece of the stream.

        Raises:
            ProtocolError: `frame_too_large`. The stream cannot be read any further.
        """
        if self._rest:
            self._rest += data
            data = bytes(self._rest) if self._complete() else b""
            if not data:
                return []
            self._rest.clear()
        messages = []
        start, size = 0, len(data)
        while size - start >= PREFIX_BYTES:
            length = self._checked(int.from_bytes(data[start : start + PREFIX_BYTES], "big"))
            end = start + PREFIX_BYTES + length
            if end > size:
                break
            messages.append(data[start + PREFIX_BYTES : end])
            start = end
        self._rest += data[start:] if start else data
        return messages

    @property
    def buffered_bytes(self) -> int:
        """Bytes of an unfinished message."""
        return len(self._rest)

    def _complete(self) -> bool:
        if len(self._rest) < PREFIX_BYTES:
            return False
        length = self._checked(int.from_bytes(self._rest[:PREFIX_BYTES], "big"))
        return len(self._rest) >= PREFIX_BYTES + length

    def _checked(self, length: int) -> int:
        if length > self.limit_bytes:
            raise ProtocolError(
                f"a message of {length} bytes is larger than the limit of {self.limit_bytes}",
                code="frame_too_large",
            )
        return length
