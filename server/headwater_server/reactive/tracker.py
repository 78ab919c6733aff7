"""Find what a commit makes stale among very many registered reads.

Pure. A point is a dict entry. A range `[lo, hi)` stands in the bucket of the longest
prefix that all its keys begin with: an equality prefix of an index, in the common case,
so that a key is looked up by hash once for each prefix length in use in its keyspace
(its first four bytes). A bucket that grows becomes sorted blocks.

Invariant: an entry is found by every key it read. It may be found by no other.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

KEYSPACE_BYTES = 4
SMALL_BUCKET_LIMIT = 64
BLOCK_LIMIT = 128
PREFIX_LENGTHS_LIMIT = 16
_POINT_BYTES = 300
_SPAN_BYTES = 500
"""What one costs beside the key itself, measured: objects, dict entries, a set of readers or a bucket of its own."""

Entry = TypeVar("Entry")


class _Span(Generic[Entry]):
    """One registered range: where it is, whose it is. `block` is None while its bucket is small."""

    __slots__ = ("block", "entry", "hi", "lo", "prefix")

    def __init__(self, lo: bytes, hi: bytes, entry: Entry, prefix: bytes) -> None:
        self.lo = lo
        self.hi = hi
        self.entry = entry
        self.prefix = prefix
        self.block: _Block[Entry] | None = None


class _Block(Generic[Entry]):
    """Spans sorted by `lo`, with an upper bound of their `hi`: it may be too high after removals."""

    __slots__ = ("hi_max", "los", "spans")

    def __init__(self, spans: list[_Span[Entry]]) -> None:
        self.spans = spans
        self.los = [span.lo for span in spans]
        self.hi_max = max(span.hi for span in spans)
        for span in spans:
            span.block = self

    def add(self, span: _Span[Entry]) -> None:
        place = bisect_right(self.los, span.lo)
        self.los.insert(place, span.lo)
        self.spans.insert(place, span)
        self.hi_max = max(self.hi_max, span.hi)
        span.block = self

    def remove(self, span: _Span[Entry]) -> None:
        place = bisect_left(self.los, span.lo)
        while self.spans[place] is not span:
            place += 1
        del self.los[place], self.spans[place]

    def collect(self, key: bytes, found: dict[Entry, bytes]) -> None:
        for span in self.spans[: bisect_right(self.los, key)]:
            if key < span.hi:
                found[span.entry] = key


class _Blocks(Generic[Entry]):
    """A bucket with many spans: blocks in the order of their first `lo`, none of them empty."""

    __slots__ = ("blocks", "firsts")

    def __init__(self, spans: Iterable[_Span[Entry]]) -> None:
        ordered = sorted(spans, key=lambda span: span.lo)
        half = BLOCK_LIMIT // 2
        self.blocks = [_Block(ordered[i : i + half]) for i in range(0, len(ordered), half)]
        self.firsts = [block.los[0] for block in self.blocks]

    def add(self, span: _Span[Entry]) -> None:
        place = max(bisect_right(self.firsts, span.lo) - 1, 0)
        block = self.blocks[place]
        block.add(span)
        if len(block.spans) > BLOCK_LIMIT:
            half = BLOCK_LIMIT // 2
            self.blocks[place : place + 1] = [_Block(block.spans[:half]), _Block(block.spans[half:])]
            self.firsts[place : place + 1] = [b.los[0] for b in self.blocks[place : place + 2]]
        else:
            self.firsts[place] = block.los[0]

    def remove(self, span: _Span[Entry]) -> None:
        block = span.block
        assert block is not None
        first = block.los[0]
        block.remove(span)
        if block.los and block.los[0] == first:
            return
        place = bisect_left(self.firsts, first)
        while self.blocks[place] is not block:
            place += 1
        if block.los:
            self.firsts[place] = block.los[0]
        else:
            del self.blocks[place], self.firsts[place]

    def collect(self, key: bytes, found: dict[Entry, bytes]) -> None:
        for block in self.blocks[: bisect_right(self.firsts, key)]:
            if key < block.hi_max:
                block.collect(key, found)


class Tracker(Generic[Entry]):
    """Registered reads: which entries read a given key."""

    def __init__(self) -> None:
        self._points: dict[bytes, set[Entry]] = {}
        self._buckets: dict[bytes, set[_Span[Entry]] | _Blocks[Entry]] = {}
        self._lengths: dict[bytes, dict[int, int]] = {}
        self._entries: dict[Entry, tuple[Sequence[bytes], list[_Span[Entry]]]] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, entry: Entry) -> bool:
        return entry in self._entries

    def add(self, entry: Entry, points: Sequence[bytes], ranges: Iterable[tuple[bytes, bytes]]) -> None:
        """Register what an entry has read. The entry must not be registered already."""
        for point in points:
            readers = self._points.get(point)
            if readers is None:
                self._points[point] = {entry}
            else:
                readers.add(entry)
        spans = [self._add_range(entry, lo, hi) for lo, hi in ranges if lo < hi]
        self._entries[entry] = (points, spans)

    def remove(self, entry: Entry) -> None:
        """Forget an entry that is registered."""
        points, spans = self._entries.pop(entry)
        for point in points:
            readers = self._points.get(point)
            if readers is not None:
                readers.discard(entry)
                if not readers:
                    del self._points[point]
        for span in spans:
            self._remove_span(span)

    def size_bytes(self, entry: Entry) -> int:
        """Return what the reads of an entry cost in memory, roughly; 0 if it is not registered."""
        points, spans = self._entries.get(entry, ((), ()))
        return _POINT_BYTES * len(points) + _SPAN_BYTES * len(spans)

    def matching(self, keys: Iterable[bytes]) -> dict[Entry, bytes]:
        """Return the entries that have read any of these keys, each with one that it has read."""
        found: dict[Entry, bytes] = {}
        buckets = self._buckets
        everywhere = self._lengths.get(b"")
        for key in keys:
            readers = self._points.get(key)
            if readers is not None:
                found.update(dict.fromkeys(readers, key))
            lengths = self._lengths.get(key[:KEYSPACE_BYTES])
            if lengths is not None:
                for length in lengths:
                    bucket = buckets.get(key[:length])
                    if bucket is not None:
                        _collect(bucket, key, found)
            if everywhere is not None:
                _collect(buckets[b""], key, found)
        return found

    def _add_range(self, entry: Entry, lo: bytes, hi: bytes) -> _Span[Entry]:
        length = covering_length(lo, hi)
        keyspace = lo[:KEYSPACE_BYTES] if length >= KEYSPACE_BYTES else b""
        lengths = self._lengths.get(keyspace)
        if lengths is None:
            lengths = self._lengths[keyspace] = {}
        if not keyspace:
            length = 0
        elif length not in lengths and len(lengths) >= PREFIX_LENGTHS_LIMIT:
            # Every length is one more probe for each key of the keyspace; a shorter prefix covers as well.
            length = max((used for used in lengths if used < length), default=KEYSPACE_BYTES)
        span = _Span(lo, hi, entry, lo[:length])
        bucket = self._buckets.get(span.prefix)
        if bucket is None:
            lengths[length] = lengths.get(length, 0) + 1
            self._buckets[span.prefix] = {span}
        else:
            bucket.add(span)
            if type(bucket) is set and len(bucket) > SMALL_BUCKET_LIMIT:
                self._buckets[span.prefix] = _Blocks(bucket)
        return span

    def _remove_span(self, span: _Span[Entry]) -> None:
        bucket = self._buckets[span.prefix]
        bucket.remove(span)
        if bucket.blocks if isinstance(bucket, _Blocks) else bucket:
            return
        del self._buckets[span.prefix]
        keyspace = span.prefix[:KEYSPACE_BYTES]
        lengths = self._lengths[keyspace]
        left = lengths[len(span.prefix)] - 1
        if left:
            lengths[len(span.prefix)] = left
            return
        del lengths[len(span.prefix)]
        if not lengths:
            del self._lengths[keyspace]

    def check(self) -> None:
        """Verify that every registered read is where a lookup finds it, and that nothing else is there."""
        spans = 0
        for entry, (points, own) in self._entries.items():
            assert all(entry in self._points[point] for point in points), "a point is lost"
            for span in own:
                spans += 1
                bucket = self._buckets[span.prefix]
                inside = bucket if isinstance(bucket, set) else span.block.spans if span.block else ()
                assert span in inside, "a range is lost"
                assert len(span.prefix) in self._lengths[span.prefix[:KEYSPACE_BYTES]], "a length is lost"
        held = 0
        for bucket in self._buckets.values():
            blocks = bucket.blocks if isinstance(bucket, _Blocks) else ()
            assert all(block.los == [s.lo for s in block.spans] == sorted(block.los) for block in blocks)
            assert all(block.hi_max >= span.hi for block in blocks for span in block.spans)
            held += len(bucket) if isinstance(bucket, set) else sum(len(block.spans) for block in blocks)
        assert held == spans, "a bucket holds a range of nobody"
        assert all(readers <= self._entries.keys() for readers in self._points.values())


def covering_length(lo: bytes, hi: bytes) -> int:
    """Return the length of the longest usable prefix of `lo` that every key in `[lo, hi)` begins with."""
    length = len(hi)
    if (
        length
        and lo[: length - 1] == hi[:-1]
        and lo[length - 1 : length] == bytes((hi[-1] - 1 & 0xFF,))
        and hi[-1]
    ):
        return (
            length  # `hi` is the end of everything that begins with a prefix: the common case, without a loop
        )
    length = 0
    for a, b in zip(lo, hi, strict=False):
        if a != b:
            # `hi` may be the end of everything that begins with one more byte: the whole of a prefix.
            return length + 1 if len(hi) == length + 1 and b == a + 1 else length
        length += 1
    return length


def _collect(bucket: set[_Span[Entry]] | _Blocks[Entry], key: bytes, found: dict[Entry, bytes]) -> None:
    if type(bucket) is set:
        for span in bucket:
            if span.lo <= key < span.hi:
                found[span.entry] = key
    else:
        bucket.collect(key, found)  # type: ignore[union-attr]
