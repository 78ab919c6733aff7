"""What a transaction read: points and key ranges.

Pure. A missing document is a point like any other, and the empty part of a range is part
of the range: that is what makes phantoms conflict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_storage.proposal import Range


class Scan:
    """One range read that is under way.

    Life: made when the reading starts. The reader sets `last` before it hands out an entry
    and `dry` when there are no more; whoever asks for the read set meanwhile gets the part
    that was consumed so far.

    Attributes:
        lo: Lower end of the whole range, inclusive.
        hi: Upper end, exclusive.
        descending: Whether it is read from the end.
        last: The key, or place for one, farthest in reading order that was consumed; None: none yet.
        dry: Whether it ran to its end.
    """

    __slots__ = ("descending", "dry", "hi", "last", "lo")

    def __init__(self, lo: bytes, hi: bytes, *, descending: bool) -> None:
        self.lo = lo
        self.hi = hi
        self.descending = descending
        self.last: bytes | None = None
        self.dry = False

    def consumed(self) -> Range | None:
        """Return the part that was read; None if nothing was."""
        if self.dry:
            return (self.lo, self.hi)
        if self.last is None:
            return None
        if self.descending:
            return (self.last, self.hi)
        return (self.lo, self.last + b"\x00")


class ReadSet:
    """Collects the points and ranges of one transaction."""

    __slots__ = ("_fold_at", "_ranges", "_ranges_max", "_scans", "points")

    def __init__(self, ranges_max: int) -> None:
        self._ranges_max = ranges_max
        self._fold_at = ranges_max  # so many scans; raised by those that cannot be folded
        self._ranges: list[Range] = []
        self._scans: list[Scan] = []
        self.points: set[bytes] = set()

    def add_range(self, lo: bytes, hi: bytes) -> None:
        """Note that all of `[lo, hi)` was read."""
        self._ranges.append((lo, hi))

    def scan(self, lo: bytes, hi: bytes, *, descending: bool) -> Scan:
        """Note that `[lo, hi)` is being read; the reader keeps the returned scan up to date."""
        scan = Scan(lo, hi, descending=descending)
        self._scans.append(scan)
        if len(self._scans) > self._fold_at:
            self._fold()
        return scan

    def ranges(self) -> list[Range]:
        """Return what was read so far: sorted, disjoint, at most as many as allowed."""
        consumed = [part for scan in self._scans if (part := scan.consumed()) is not None]
        ranges = merged([*self._ranges, *consumed])
        return widened(ranges, self._ranges_max)

    def _fold(self) -> None:
        """Turn finished scans into ranges, so that memory stays bounded in a call with many reads.

        Those that were left off before their end stay, as nobody says that they are. Each has read a
        document, so their number is bounded too; they are looked through each time it has doubled.
        """
        self._ranges.extend((scan.lo, scan.hi) for scan in self._scans if scan.dry)
        self._ranges = widened(merged(self._ranges), self._ranges_max)
        self._scans = [scan for scan in self._scans if not scan.dry]
        self._fold_at = max(self._ranges_max, 2 * len(self._scans))


def merged(ranges: Iterable[Range]) -> list[Range]:
    """Return the same keys as sorted, disjoint ranges, without empty ones."""
    result: list[Range] = []
    last_lo = last_hi = b""
    for lo, hi in sorted(ranges):
        if lo >= hi:
            continue
        if result and lo <= last_hi:
            if hi > last_hi:
                last_hi = hi
                result[-1] = (last_lo, hi)
        else:
            result.append((lo, hi))
            last_lo, last_hi = lo, hi
    return result


def widened(ranges: list[Range], ranges_max: int) -> list[Range]:
    """Return at most `ranges_max` ranges that cover sorted, disjoint ones.

    Those neighbours are joined whose ends have the longest prefix in common, so that few
    keys which nobody read come in, and different tables and indexes are joined last.
    """
    excess = len(ranges) - ranges_max
    if excess <= 0:
        return ranges
    nearness = [_common_prefix(ranges[i][1], ranges[i + 1][0]) for i in range(len(ranges) - 1)]
    joined = set(sorted(range(len(nearness)), key=nearness.__getitem__, reverse=True)[:excess])
    result = [ranges[0]]
    for i, (lo, hi) in enumerate(ranges[1:]):
        if i in joined:
            result[-1] = (result[-1][0], hi)
        else:
            result.append((lo, hi))
    return result


def _common_prefix(a: bytes, b: bytes) -> int:
    length = min(len(a), len(b))
    for i in range(length):
        if a[i] != b[i]:
            return i
    return length
