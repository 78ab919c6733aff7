"""A bound for the head of a request as a whole, before aiohttp's parser, which bounds its lines and their number only."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp.http_exceptions import HttpProcessingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp.http_parser import RawRequestMessage
    from aiohttp.streams import StreamReader

_SEPARATORS_BYTES = 4  # of a header: colon, space, end of line


class HeadGate:
    """Takes the parser's place on one connection: what it is fed is counted while no request's body is on its way.

    Of a head that comes in the same piece as the end of the body before it, that piece is not counted until all of it is there. So
    what is held of one is at most the limit and one piece.

    Args:
        parser: aiohttp's.
        limit_bytes: Of a head.
        compressed: Called when a request has come whose body is compressed.
    """

    __slots__ = ("_body", "_compressed", "_limit_bytes", "_parser", "_size_bytes")

    def __init__(self, parser: Any, limit_bytes: int, compressed: Callable[[], None]) -> None:
        self._parser = parser
        self._compressed = compressed
        self._limit_bytes = limit_bytes
        self._size_bytes = 0  # of the head that is on its way
        self._body: StreamReader | None = None  # of the last request

    def feed_data(self, data: bytes) -> tuple[Sequence[tuple[RawRequestMessage, StreamReader]], bool, bytes]:
        """Parse what has come; called by aiohttp.

        Raises:
            HttpProcessingError: A head is too large, or malformed.
        """
        in_head = self._body is None or self._body.is_eof()
        messages, upgraded, tail = self._parser.feed_data(data)
        if messages:
            for message, _ in messages:
                self._require_fits(head_bytes(message))
                if message.compression:
                    self._compressed()
            self._size_bytes, self._body = 0, messages[-1][1]
        elif in_head:
            self._size_bytes += len(data)
            self._require_fits(self._size_bytes)
        return messages, upgraded, tail

    def _require_fits(self, size_bytes: int) -> None:
        if size_bytes > self._limit_bytes:
            raise HttpProcessingError(
                code=400, message=f"the head of the request has more than {self._limit_bytes} bytes"
            )

    def __getattr__(self, name: str) -> Any:
        """All else is the parser's."""
        return getattr(self._parser, name)


def head_bytes(message: RawRequestMessage) -> int:
    """Return the size of a request's head."""
    fields = sum(len(name) + len(value) + _SEPARATORS_BYTES for name, value in message.raw_headers)
    return len(message.method) + len(message.path) + fields
