"""What is about a ts that is not published yet, and is held until it is.

Pure.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(order=True, slots=True)
class _Entry:
    ts: int
    order: int
    release: Callable[[], None] = field(compare=False)


class HeldBack:
    """Steps to be taken once a ts is published; those of one ts in the order in which they came."""

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._count = 0

    def hold(self, ts: int, release: Callable[[], None]) -> None:
        """Have a step taken when `ts` is published."""
        self._count += 1
        heapq.heappush(self._entries, _Entry(ts, self._count, release))

    def release(self, ts: int) -> None:
        """Take the steps of all that is published with `ts`."""
        while self._entries and self._entries[0].ts <= ts:
            heapq.heappop(self._entries).release()

    def check(self, published_ts: int) -> None:
        """Verify that nothing is held too long."""
        assert all(entry.ts > published_ts for entry in self._entries), "something is held too long"
