"""The chain of mutations that a worker runs over one another's uncommitted writes.

See `headwater_storage.chain`. The daemon says with each member how many of the chain are
published by now; what a worker has run and the daemon never handed in belongs to the end of
a chain, after which no member of it is sent any more.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from headwater_storage.chain import ChainSnapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_storage.proposal import CommitTs, Write
    from headwater_storage.store import StoreReader

MEMBERS_MAX = 32
"""Published members at which a newer snapshot is taken: taking one lays the others over it again."""

AGE_MAX_NS = 10_000_000
"""Age at which one is taken anyway: while a snapshot is open no page of it is used again."""


class OpenChain:
    """One chain and its snapshot.

    Attributes:
        number: The daemon's number for it.
        snapshot: What the next member reads.
    """

    def __init__(self, number: int, store: StoreReader, now_ns: int) -> None:
        self.number = number
        self._store = store
        self._base = store.snapshot()
        self._base_at_ns = now_ns
        self._settled = 0
        self._unsettled: deque[Sequence[Write]] = deque()
        self.snapshot = ChainSnapshot(self._base, self._base.state.ts)

    def add(self, writes: Sequence[Write]) -> None:
        """Show one more member's writes to those after it."""
        self._unsettled.append(writes)
        self.snapshot.lay_over(writes)

    def move_on(self, settled: int, settled_ts: CommitTs, now_ns: int) -> None:
        """Take a newer snapshot if enough members are published, or the one at hand is old.

        The newer one may show more than the published members, and what others wrote after
        them. So the ts from which on others' writes count is the published one, not its own.
        """
        ready = settled - self._settled
        if not ready or (ready < MEMBERS_MAX and now_ns - self._base_at_ns < AGE_MAX_NS):
            return
        self._base.close()
        self._base = self._store.snapshot()
        self._base_at_ns = now_ns
        self._settled = settled
        for _ in range(ready):
            self._unsettled.popleft()
        self.snapshot = ChainSnapshot(self._base, settled_ts)
        for writes in self._unsettled:
            self.snapshot.lay_over(writes)

    def close(self) -> None:
        """Close the snapshot."""
        self._base.close()
