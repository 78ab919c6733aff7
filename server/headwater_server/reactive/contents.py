"""Results as immutable bytes, each kept once however many queries and clients hold it.

Pure. The daemon never decodes a whole result: a list comes with the offsets of its
elements, and two results are compared by digest.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_protocol.messages import ErrorBody

DIGEST_BYTES = 16
_CONTENT_BYTES = 650
"""What a content costs beside what is in it, measured: its object, its weak reference, its places in dicts."""


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Content:
    """One result, or the failure that stands in its place. Make it with `of` or `failed`.

    Attributes:
        data: Encoded result; empty for a failure.
        bounds: For a list: u32 little-endian offsets into `data`, the start of each element
            and the end of the last; else None.
        ids: For a list: `_id` of each element that is a map with one; else None.
        failure: Why there is no result; None if there is one.
        digest: 16 bytes that name this content; equal digests mean equal results.
    """

    data: bytes
    bounds: bytes | None
    ids: Sequence[str | None] | None
    failure: ErrorBody | None
    digest: bytes

    @classmethod
    def of(cls, data: bytes, bounds: bytes | None = None, ids: Sequence[str | None] | None = None) -> Content:
        """Return the content of a successful run."""
        return cls(data, bounds, ids, None, blake2b(data, digest_size=DIGEST_BYTES).digest())

    @classmethod
    def failed(cls, error: ErrorBody) -> Content:
        """Return the content of a run that failed; equal failures have equal digests."""
        state = blake2b(digest_size=DIGEST_BYTES, person=b"failure")
        for part in (error.code.encode(), error.message.encode(), error.data or b""):
            state.update(len(part).to_bytes(8, "big"))
            state.update(part)
        return cls(b"", None, None, error, state.digest())

    @property
    def size_bytes(self) -> int:
        """What this content costs in memory, roughly."""
        size = len(self.data) + len(self.bounds or b"") + 64 * len(self.ids or ()) + _CONTENT_BYTES
        if self.failure is not None:
            size += 4 * len(self.failure.message) + len(self.failure.data or b"")
        return size


class ContentStore:
    """Every content that is in use, by digest, and the recent ones that deltas start from.

    A client that holds a value is remembered by digest alone, so that a slow client costs
    no bytes; the ring keeps what clients were sent lately, up to a number of bytes. A base
    that has left it means a full value instead of a delta, never a wrong one.
    """

    def __init__(self, ring_bytes: int) -> None:
        self._ring_bytes = ring_bytes
        self._used: WeakValueDictionary[bytes, Content] = WeakValueDictionary()
        self._ring: OrderedDict[bytes, Content] = OrderedDict()
        self.held_bytes = 0

    def share(self, content: Content) -> Content:
        """Return the one object that stands for this content."""
        return self._used.setdefault(content.digest, content)

    def find(self, digest: bytes) -> Content | None:
        """Return the content with this digest if anything still holds it."""
        return self._used.get(digest)

    def keep(self, content: Content) -> None:
        """Hold a content as a delta base for a while, though no query may hold it any more."""
        if content.digest in self._ring:
            self._ring.move_to_end(content.digest)
            return
        self._ring[content.digest] = content
        self.held_bytes += content.size_bytes
        while self.held_bytes > self._ring_bytes and self._ring:
            _, gone = self._ring.popitem(last=False)
            self.held_bytes -= gone.size_bytes
