"""A store in memory with the reading side of the real one, and documents to put into it or into the real one.

It has no faults of its own: a failure is always the product's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_storage.apply import Changes, changes_of
from headwater_storage.catalog import TABLES, Catalog, TableDefinition, TableHandle, encode_table
from headwater_storage.indexes import IndexDefinition
from headwater_storage.keys import document_key
from headwater_storage.limits import CallLimits
from headwater_storage.log import LoggedTransaction
from headwater_storage.proposal import CommitTs, Proposal
from headwater_storage.store import EMPTY_STATE, AppliedBatch, State
from headwater_storage.stored import pack_stored
from headwater_storage.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater_storage.store import AppliedStore, StoreSnapshot


class MemorySnapshot:
    """A frozen copy."""

    def __init__(self, documents: dict[bytes, bytes], entries: dict[bytes, bytes], state: State) -> None:
        self.state = state
        self._documents = documents
        self._entries = entries

    @property
    def ts(self) -> CommitTs:
        return self.state.ts

    def get_document(self, key: bytes) -> bytes | None:
        return self._documents.get(key)

    def get_entry(self, key: bytes) -> bytes | None:
        return self._entries.get(key)

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return _scan(self._documents, lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return _scan(self._entries, lo, hi, reverse)

    def close(self) -> None:
        pass

    def __enter__(self) -> MemorySnapshot:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def _scan(items: dict[bytes, bytes], lo: bytes, hi: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    yield from sorted((item for item in items.items() if lo <= item[0] < hi), reverse=reverse)


class Tables(ABC):
    """Makes tables and transactions in a store, and commits them without log or validation."""

    state: State

    @abstractmethod
    def snapshot(self) -> Any:
        """Return the newest state."""

    @abstractmethod
    def apply(self, changes: AppliedBatch, state: State) -> None:
        """Apply one record."""

    def commit(self, *proposals: Proposal) -> Changes:
        """Apply proposals as one record, without validation."""
        first = self.state.ts + 1
        commits = [(CommitTs(ts), proposal.writes) for ts, proposal in enumerate(proposals, first)]
        changes = changes_of(commits)
        last = CommitTs(self.state.ts + len(proposals))
        self.apply(
            changes,
            State(last, self.state.record_number + 1, b"", changes.catalog_ts or self.state.catalog_ts),
        )
        return changes

    def add_table(self, definition: TableDefinition) -> TableHandle:
        key = document_key(TABLES, definition.row_suffix)
        row = pack_stored(0, encode_table(definition), key)
        self.apply(AppliedBatch(documents={key: row}), self.state)
        return TableHandle(definition)

    def transaction(
        self, *, now_us: int = 1_700_000_000_000_000, writable: bool = True, limits: CallLimits | None = None
    ) -> Transaction:
        """Return one over a snapshot of its own, which is closed with the transaction's `snapshot`."""
        snapshot = self.snapshot()
        noise = iter(range(self.state.ts << 20, 1 << 60))
        return Transaction(
            snapshot,
            Catalog.load(snapshot),
            limits or CallLimits(),
            now_us=now_us,
            random_bytes=lambda count: next(noise).to_bytes(count, "big"),
            writable=writable,
        )


class MemoryStore(Tables):
    """Documents, entries and state as dicts."""

    path = Path("/")

    def __init__(self) -> None:
        self.document_values: dict[bytes, bytes] = {}
        self.entry_values: dict[bytes, bytes] = {}
        self.state = EMPTY_STATE

    def has_room(self, size: int) -> bool:
        return True

    def snapshot(self) -> MemorySnapshot:
        return MemorySnapshot(dict(self.document_values), dict(self.entry_values), self.state)

    def apply(self, changes: AppliedBatch, state: State) -> None:
        for target, changed in (
            (self.document_values, changes.documents),
            (self.entry_values, changes.entries),
        ):
            for key, value in changed.items():
                if value is None:
                    target.pop(key, None)
                else:
                    target[key] = value
        self.state = state


class StoredTables(Tables):
    """Tables in a real store."""

    def __init__(self, store: AppliedStore) -> None:
        self._store = store
        self.state = EMPTY_STATE

    def snapshot(self) -> StoreSnapshot:
        return self._store.snapshot()

    def apply(self, changes: AppliedBatch, state: State) -> None:
        self._store.apply(changes, state)
        self.state = state


def table(number: int, name: str, *indexes: tuple[str, list[str], bool], shape: int = 1) -> TableDefinition:
    """A table whose indexes are numbered from ten times its own number."""
    return TableDefinition(
        number,
        name,
        shape,
        "{}",
        [
            IndexDefinition(number * 10 + i, number, index_name, fields, unique, "ready")
            for i, (index_name, fields, unique) in enumerate(indexes)
        ],
    )


def insert(transaction: Transaction, table_name: str, **fields: Any) -> str:
    document_id, created = transaction.new_id(table_name)
    transaction.put(document_id, encode(document_id, created, **fields))
    return document_id


def encode(document_id: str, created: float, **fields: Any) -> bytes:
    return msgspec.msgpack.encode({"_id": document_id, "_creationTime": created, **fields})


def decode(document: bytes) -> dict[str, Any]:
    return msgspec.msgpack.decode(document)


def logged(proposal: Proposal) -> LoggedTransaction:
    return LoggedTransaction([(write.key, write.value) for write in proposal.writes], proposal.backfill)
