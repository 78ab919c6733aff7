"""Conflict keys of recent commits: what validation and registration of results ask.

Pure. The window reaches back to the oldest open call or round; whoever began before its
`floor` cannot be checked and counts as in conflict.

A point is one dict look-up, however long the window is. A range is one bisection for each
batch committed since the reader began, which is a handful: keeping one sorted structure of
all keys instead would cost every commit more than the ranges of the few readers that are
far behind.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import TYPE_CHECKING, NamedTuple

from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from headwater_storage.proposal import Proposal, Range

_KEY_OVERHEAD_BYTES = 120
"""What a key costs besides its own bytes: the object, its dict entry, its place in a list."""


class _Batch(NamedTuple):
    ts: CommitTs
    keys: list[bytes]
    size: int


class CommitWindow:
    """Recent commits' conflict keys, by batch.

    Attributes:
        floor: Commit ts at or after which a reader must have begun to be checked exactly.
    """

    def __init__(self, floor: CommitTs, *, bytes_max: int = 64 << 20) -> None:
        self.floor = floor
        self._bytes_max = bytes_max
        self._batches: list[_Batch] = []
        self._stamps: list[int] = []
        self._last: dict[bytes, CommitTs] = {}
        self._size = 0

    @property
    def size_bytes(self) -> int:
        """Estimated memory."""
        return self._size

    def add(self, ts: CommitTs, keys: Collection[bytes]) -> None:
        """Add what was committed after the previous call and up to `ts`, which only grows.

        Beyond the cap of bytes the oldest batches are dropped and `floor` rises.
        """
        if not keys:
            return
        ordered = sorted(keys)
        size = sum(map(len, ordered)) + len(ordered) * _KEY_OVERHEAD_BYTES
        self._batches.append(_Batch(ts, ordered, size))
        self._stamps.append(ts)
        self._last.update(dict.fromkeys(ordered, ts))
        self._size += size
        excess = 0
        remaining = self._size
        while remaining > self._bytes_max:
            remaining -= self._batches[excess].size
            excess += 1
        self._drop(excess)

    def undo(self, ts: CommitTs) -> None:
        """Take back the newest `add`, whose commits did not happen after all. Rare, so it may search."""
        if not self._batches or self._batches[-1].ts != ts:
            return
        batch = self._batches.pop()
        self._stamps.pop()
        self._size -= batch.size
        for key in batch.keys:
            del self._last[key]
        for earlier in self._batches:
            for key in batch.keys:
                position = bisect_left(earlier.keys, key)
                if position < len(earlier.keys) and earlier.keys[position] == key:
                    self._last[key] = earlier.ts

    def since(self, ts: CommitTs, *, bytes_max: int) -> CommitWindow:
        """Return a window of its own with what was committed after `ts`."""
        result = CommitWindow(max(ts, self.floor), bytes_max=bytes_max)
        for batch in self._since(ts):
            result.add(batch.ts, batch.keys)
        return result

    def trim(self, oldest_ts: CommitTs) -> None:
        """Forget what no reader that began at `oldest_ts` or later can ask for."""
        self._drop(bisect_right(self._stamps, oldest_ts))
        self.floor = max(self.floor, oldest_ts)

    def touched_after(self, ts: CommitTs, points: Iterable[bytes], ranges: Sequence[Range]) -> bool:
        """Tell whether anything in a read set was committed after `ts`."""
        if ts < self.floor:
            return True
        if not self._batches or self._batches[-1].ts <= ts:
            return False
        last = self._last
        for point in points:
            if last.get(point, 0) > ts:
                return True
        if not ranges:
            return False
        return any(_met(batch.keys, ranges) is not None for batch in self._since(ts))

    def last_write(self, key: bytes) -> CommitTs | None:
        """Return the end of the newest batch that wrote a key, None if none did."""
        return self._last.get(key)

    def touching(self, after_ts: CommitTs, points: Iterable[bytes], ranges: Sequence[Range]) -> bytes | None:
        """Return a key of a read set that was committed after a ts, one of the newest; None if no such key is known."""
        for point in points:
            if self._last.get(point, 0) > after_ts:
                return point
        for batch in reversed(self._since(after_ts)):
            if (key := _met(batch.keys, ranges)) is not None:
                return key
        return None

    def first_touch(
        self, after_ts: CommitTs, points: Collection[bytes], ranges: Sequence[Range]
    ) -> CommitTs | None:
        """Return the first ts after `after_ts` at which a read set was touched, None if none.

        It is the end of a batch, as only these exist as snapshots. A reader from before the
        window counts as touched at once.
        """
        if after_ts < self.floor:
            return CommitTs(after_ts + 1)
        if not self._batches or self._batches[-1].ts <= after_ts:
            return None
        last = self._last
        hit = any(last.get(point, 0) > after_ts for point in points)
        if not hit and not ranges:
            return None
        wanted = set(points) if hit else frozenset[bytes]()
        for batch in self._since(after_ts):
            if (hit and not wanted.isdisjoint(batch.keys)) or (
                ranges and _met(batch.keys, ranges) is not None
            ):
                return batch.ts
        return None

    def _since(self, ts: CommitTs) -> list[_Batch]:
        return self._batches[bisect_right(self._stamps, ts) :]

    def _drop(self, count: int) -> None:
        """Drop the oldest batches."""
        last = self._last
        for batch in self._batches[:count]:
            self._size -= batch.size
            self.floor = max(self.floor, batch.ts)
            for key in batch.keys:
                if last.get(key) == batch.ts:
                    del last[key]
        del self._batches[:count], self._stamps[:count]


class PendingKeys:
    """Conflict keys of the transactions that are to share the next log record."""

    __slots__ = ("_ordered", "_unordered", "keys")

    def __init__(self) -> None:
        self.keys: set[bytes] = set()
        self._ordered: list[bytes] = []
        self._unordered: list[set[bytes]] = []

    def add(self, keys: set[bytes]) -> None:
        """Add the keys of one more transaction."""
        self.keys |= keys
        self._unordered.append(keys)

    def touched(self, points: Iterable[bytes], ranges: Sequence[Range]) -> bool:
        """Tell whether a read set is touched by one of these transactions."""
        if not self.keys:
            return False
        if not self.keys.isdisjoint(points):
            return True
        if not ranges:
            return False
        if self._unordered:
            self._order()
        return _met(self._ordered, ranges) is not None

    def touching(self, points: Iterable[bytes], ranges: Sequence[Range]) -> bytes | None:
        """Return a key of a read set that one of these transactions writes, None if none does."""
        for point in points:
            if point in self.keys:
                return point
        self._order()
        return _met(self._ordered, ranges)

    def _order(self) -> None:
        """Sort in what came since the last look; ranges are rare enough that most batches never need it."""
        new = set[bytes]().union(*self._unordered)
        if len(new) * 8 < len(self._ordered):
            for key in new:
                insort(self._ordered, key)
        else:
            self._ordered.extend(new)
            self._ordered.sort()
        self._unordered.clear()


def conflict(window: CommitWindow, pending: PendingKeys, proposal: Proposal) -> bool:
    """Tell whether a proposal read something that was committed, or will be, since it began."""
    return window.touched_after(proposal.begin_ts, proposal.points, proposal.ranges) or pending.touched(
        proposal.points, proposal.ranges
    )


def _met(keys: list[bytes], ranges: Sequence[Range]) -> bytes | None:
    """Return one of the sorted keys that lies in one of the ranges, None if none does."""
    count = len(keys)
    for lo, hi in ranges:
        position = bisect_left(keys, lo)
        if position < count and keys[position] < hi:
            return keys[position]
    return None
