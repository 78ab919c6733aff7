"""Places in a query, as clients keep them: cursors between pages, and journals that fix a page's end.

Pure. Both come back from clients and may be forged. They name the query they belong to and
hold a position that the backend intersects with the query's own range, so the worst that
a forged one does is to show another part of what the caller may read anyway.
"""

from __future__ import annotations

import base64
import binascii
from hashlib import blake2b
from typing import Any

import msgspec
from headwater_protocol.errors import RequestError

from headwater.values import encode

_FINGERPRINT_BYTES = 8
_JOURNAL_PAGES_MAX = 64


class Cursor(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A place in a query.

    Attributes:
        query: Fingerprint of the query.
        position: Position of the last document before this place; None: its end.
    """

    query: bytes
    position: bytes | None


class _PageEnd(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Where a page ended in an earlier run: fingerprint of query and start, position of the end."""

    page: bytes
    position: bytes


_decode_cursor = msgspec.msgpack.Decoder(Cursor).decode
_decode_ends = msgspec.msgpack.Decoder(list[_PageEnd]).decode


def fingerprint(parts: Any) -> bytes:
    """Return a digest of encodable parts that tells queries and pages apart."""
    return blake2b(encode(parts), digest_size=_FINGERPRINT_BYTES, person=b"headwater-query").digest()


def write_cursor(cursor: Cursor) -> str:
    """Return the text that clients keep."""
    return base64.urlsafe_b64encode(encode(cursor)).decode().rstrip("=")


def read_cursor(text: str, query: bytes) -> Cursor:
    """Return the place that a client's text names.

    Raises:
        RequestError: `invalid_cursor`; it is no cursor, or that of another query.
    """
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        cursor = _decode_cursor(content)
    except (ValueError, binascii.Error, TypeError):
        raise RequestError(
            "the cursor is damaged; start again from the first page", code="invalid_cursor"
        ) from None
    if cursor.query != query:
        raise RequestError(
            "the cursor belongs to another query or to other arguments; start again from the first page",
            code="invalid_cursor",
        )
    return cursor


class Journal:
    """Keeps the ends of a call's pages from one run to the next.

    A page that a client shows next to others must not move its end when documents come or
    go, or else rows between two pages are lost or doubled. A journal that does not fit
    the call is of no use and is passed over: it only makes a fresh page.
    """

    def __init__(self, content: bytes | None) -> None:
        self._old = _read_ends(content)
        self._ends: dict[bytes, bytes] = {}

    def end_of(self, page: bytes) -> bytes | None:
        """Return the position where this page ended in the earlier run, None if that is open."""
        return self._old.get(page)

    def keep(self, page: bytes, position: bytes) -> None:
        """Remember where a page ended."""
        if len(self._ends) < _JOURNAL_PAGES_MAX:
            self._ends[page] = position

    def content(self) -> bytes | None:
        """Return what the next run must be given, None if no page needs it."""
        if not self._ends:
            return None
        return encode([_PageEnd(page, position) for page, position in sorted(self._ends.items())])


def _read_ends(content: bytes | None) -> dict[bytes, bytes]:
    if not content:
        return {}
    try:
        return {end.page: end.position for end in _decode_ends(content)}
    except (ValueError, RecursionError):
        return {}
