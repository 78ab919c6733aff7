"""What a log record changes in the store.

Pure functions of the record and of the store as it is before the record: no clock, no
settings, no user code. The local commit takes the entries that the transactions derived
(`changes_of`); replay derives them from the documents (`derive_changes`). Both come from
`EntryMaker`, and a test holds them equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headwater_storage.catalog import SYSTEM_HANDLES, CatalogCache, decode_table, is_catalog_key
from headwater_storage.indexes import EntryMaker
from headwater_storage.proposal import CommitTs
from headwater_storage.store import AppliedBatch, State
from headwater_storage.stored import document_in, unpack_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from headwater_storage.catalog import Catalog
    from headwater_storage.log import LoggedTransaction, Record
    from headwater_storage.proposal import Backfill, Write
    from headwater_storage.replay import ApplyRecord
    from headwater_storage.store import AppliedStore


class ReadableStore(Protocol):
    """The store as it is before a record is applied."""

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored document."""

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate stored documents."""

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entries."""


@dataclass(slots=True)
class Changes(AppliedBatch):
    """What a record changes, and whether the catalog is a part of it.

    Attributes:
        catalog_ts: Commit ts of the last change to the catalog, None if there is none.
    """

    catalog_ts: CommitTs | None = None


def record_applier() -> ApplyRecord:
    """Return what applies records in turn to one store, with a catalog cache of its own."""
    catalogs = CatalogCache()
    return lambda store, record: apply_record(store, record, catalogs)


def apply_record(store: AppliedStore, record: Record, catalogs: CatalogCache) -> None:
    """Apply one record of the log to the store: how a restart, and any other node, follows the log."""
    with store.snapshot() as snapshot:
        catalog_ts = snapshot.state.catalog_ts
        changes = derive_changes(
            record.transactions, record.first_ts, snapshot, catalogs.get(snapshot, catalog_ts)
        )
    catalog_ts = changes.catalog_ts or catalog_ts
    store.apply(changes, State(record.last_ts, record.number, record.digest, catalog_ts, record.wall_us))


def changes_of(commits: Iterable[tuple[CommitTs, Sequence[Write]]]) -> Changes:
    """Return what proposals change, from the entries that came with them."""
    changes = Changes()
    documents, entries = changes.documents, changes.entries
    for ts, writes in commits:
        for write in writes:
            documents[write.key] = write.value
            _move(entries, write.old_entries, write.new_entries, write.overflow)
            if is_catalog_key(write.key):
                changes.catalog_ts = ts
    return changes


def derive_changes(
    transactions: Sequence[LoggedTransaction], first_ts: CommitTs, store: ReadableStore, catalog: Catalog
) -> Changes:
    """Return what a record changes, from its documents alone."""
    changes = Changes()
    documents, entries = changes.documents, changes.entries
    by_number, get_document = catalog.by_number, store.get_document
    for ts, transaction in enumerate(transactions, first_ts):
        for key, value in transaction.writes:
            number = int.from_bytes(key[:4], "big")
            handle = by_number.get(number) or SYSTEM_HANDLES.get(number)
            if handle is not None:
                before = documents[key] if key in documents else get_document(key)
                if before is None and value is not None:  # an insert, as most writes of a long log are
                    suffix = key[4:]
                    new, overflow = handle.maker.entries(document_in(value), suffix)
                    for entry in new:
                        entries[entry] = b""
                    if overflow:
                        entries.update(overflow)
                else:
                    _derive_change(entries, handle.maker, key, before, value)
            elif is_catalog_key(key):
                changes.catalog_ts = CommitTs(ts)
                if value is not None:
                    catalog = catalog.replaced([decode_table(value, key)])
                    by_number = catalog.by_number
            documents[key] = value
        if transaction.backfill is not None:
            changes.entries.update(backfill_entries(transaction.backfill, store, catalog))
    return changes


def backfill_entries(backfill: Backfill, store: ReadableStore, catalog: Catalog) -> dict[bytes, bytes | None]:
    """Return the entries that a backfill adds to a building index, or deletes from a dropping one.

    Of a building index `[lo, hi)` is a range of documents, of a dropping one a range of its
    entries. Whatever the index has become meanwhile, anything else changes nothing.
    """
    index = catalog.indexes.get(backfill.index_number)
    if index is None:
        return {}
    if index.state == "dropping":
        return dict.fromkeys((key for key, _ in store.entries(backfill.lo, backfill.hi)), None)
    if index.state != "building":
        return {}
    maker = EntryMaker([index])
    entries: dict[bytes, bytes | None] = {}
    for key, value in store.documents(backfill.lo, backfill.hi):
        keys, overflow = maker.entries(unpack_stored(value, key)[1], key[4:])
        entries[keys[0]] = overflow.get(keys[0], b"")
    return entries


def _derive_change(
    entries: dict[bytes, bytes | None],
    maker: EntryMaker,
    key: bytes,
    before: bytes | None,
    after: bytes | None,
) -> None:
    """Add what becomes of the entries of a document that is changed or deleted."""
    new: list[bytes] = []
    overflow: dict[bytes, bytes] = {}
    if after is not None:
        new, overflow = maker.entries(document_in(after), key[4:])
    old = [] if before is None else maker.entries(unpack_stored(before, key)[1], key[4:])[0]
    _move(entries, old, new, overflow)


def _move(
    entries: dict[bytes, bytes | None], old: list[bytes], new: list[bytes], overflow: dict[bytes, bytes]
) -> None:
    """Delete a document's old entries and put its new ones, leaving alone what stays as it is."""
    for key in old:
        if key not in new:
            entries[key] = None
    for key in new:
        if key in overflow:
            entries[key] = overflow[key]
        elif key not in old:
            entries[key] = b""
