"""Applying a log to a store: at a start, in a check, and on whatever node follows the log.

Each record is applied once and in order, whatever the log delivers twice. Many small records share
one write transaction of the store: pages near the root are then copied once for all of them. What
a crash cuts off in between was in no write transaction yet, and is replayed again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Self

from headwater_storage.keys import prefix_range
from headwater_storage.log import Position, advance
from headwater_storage.store import AppliedBatch, AppliedStore, State

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater_storage.log import Record
    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import StoreSnapshot

GROUP_BYTES = 32 << 20
"""Enough that a write transaction costs little beside its puts: replaying 1 GB of log takes two thirds
of the time that it takes in groups of 8 MiB. About three times as much is in memory meanwhile."""


ApplyRecord = Callable[[AppliedStore, "Record"], None]
"""Applies one record with transactions and moves the store's state to `record.head`."""


class GroupedStore:
    """A store whose writes are collected and go to the real one together.

    Readers of this object see all that was applied to it; readers of the real store see it from
    `flush` on.
    """

    def __init__(self, store: AppliedStore, group_bytes: int) -> None:
        self._store = store
        self._group_bytes = group_bytes
        self._look_below(store.snapshot())
        self._pending = AppliedBatch()
        self._pending_bytes = 0
        self.state = self._below.state
        self._flushed = self.state

    def snapshot(self) -> _GroupedSnapshot:
        """Return the newest state, for use before the next `apply`."""
        return _GroupedSnapshot(self, self.state)

    def apply(self, changes: AppliedBatch, state: State) -> None:
        """Apply changes here, and in the real store when enough has come together."""
        pending = self._pending
        pending.documents.update(changes.documents)
        pending.entries.update(changes.entries)
        self.state = state
        self._pending_bytes += _size_of(changes)
        if self._pending_bytes >= self._group_bytes:
            self.flush()

    def flush(self) -> None:
        """Bring the real store up to date."""
        if self.state == self._flushed:
            return
        self._below.close()
        self._store.apply(self._pending, self.state)
        self._flushed = self.state
        self._pending, self._pending_bytes = AppliedBatch(), 0
        self._look_below(self._store.snapshot())

    def _look_below(self, snapshot: StoreSnapshot) -> None:
        self._below = snapshot
        self._last_below: dict[bytes, bytes] = {}

    def close(self) -> None:
        """Give up what was not flushed."""
        self._below.close()

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value of the newest state.

        Keys begin with the time at which their document was made, so that of an insert is mostly
        behind all keys that the real store has of its table, and needs no look at its tree.
        """
        pending = self._pending.documents
        if key in pending:
            return pending[key]
        table = key[:4]
        last = self._last_below.get(table)
        if last is None:
            last = self._last_below[table] = self._find_last_below(table)
        return self._below.get_document(key) if key <= last else None

    def _find_last_below(self, table: bytes) -> bytes:
        lo, hi = prefix_range(table)
        return next((key for key, _ in self._below.documents(lo, hi, reverse=True)), lo)

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value of the newest state."""
        pending = self._pending.entries
        return pending[key] if key in pending else self._below.get_entry(key)

    def up_to_date(self) -> StoreSnapshot:
        """Return a snapshot of the real store that has everything, for reading ranges."""
        self.flush()
        return self._below


def _size_of(changes: AppliedBatch) -> int:
    return sum(
        [
            sum(map(len, part)) + sum(map(len, filter(None, part.values())))
            for part in (changes.documents, changes.entries)
        ]
    )


class _GroupedSnapshot:
    """The newest state of a `GroupedStore`."""

    __slots__ = ("_store", "get_document", "get_entry", "state")

    def __init__(self, store: GroupedStore, state: State) -> None:
        self._store = store
        self.state = state
        self.get_document = store.get_document
        self.get_entry = store.get_entry

    @property
    def ts(self) -> CommitTs:
        return self.state.ts

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._store.up_to_date().documents(lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._store.up_to_date().entries(lo, hi, reverse)

    def close(self) -> None:
        """Nothing: the store closes what is below."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Replay:
    """Applies the records of a log to a store.

    Attributes:
        applied: How many were.
    """

    def __init__(
        self, store: AppliedStore, apply_record: ApplyRecord, *, group_bytes: int = GROUP_BYTES
    ) -> None:
        """Go on where the store is.

        Args:
            store: Written by nobody else until `close`.
            apply_record: Applies one record.
            group_bytes: About how much is collected for one write transaction; 0 makes one for
                each record.
        """
        self.applied = 0
        self._group = GroupedStore(store, group_bytes)
        self._apply_record = apply_record
        self._position = Position(self._group.state.head)

    def apply(self, record: Record) -> None:
        """Apply the next record; one that was applied before is passed over.

        Raises:
            StorageError: `damaged`: it is not the next one; see `log.advance`.
        """
        position = advance(self._position, record)
        if position is None:
            return
        group = self._group
        if record.transactions:
            self._apply_record(group, record)
        else:
            state = State(
                record.last_ts, record.number, record.digest, group.state.catalog_ts, record.wall_us
            )
            group.apply(AppliedBatch(), state)
        self._position = position
        self.applied += 1

    @property
    def wall_us(self) -> int:
        """Time of the last record that was applied."""
        return self._group.state.wall_us

    def flush(self) -> None:
        """Bring the store up to the last record that was applied."""
        self._group.flush()

    def close(self) -> None:
        """Let the store go; what was not flushed is not in it."""
        self._group.close()
