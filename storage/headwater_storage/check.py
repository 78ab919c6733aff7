"""Verifies every invariant of a store: for tests and for `headwater doctor`.

Reads all of it through one snapshot, and blocks. Findings are sentences that name the key;
nothing is repaired here.
"""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from hashlib import blake2b
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.errors import RequestError, StorageError
from headwater_protocol.ids import table_prefix

from headwater_storage.apply import record_applier
from headwater_storage.catalog import (
    DEPLOYMENT,
    FIRST_USER_TABLE,
    NUMBERS_SUFFIX,
    SYSTEM_HANDLES,
    SYSTEM_INDEXES,
    Catalog,
    Numbers,
)
from headwater_storage.deployment import UniqueCheck
from headwater_storage.keys import document_key, document_parts, entry_parts
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.replay import Replay
from headwater_storage.stored import unpack_stored

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_storage.catalog import TableHandle
    from headwater_storage.indexes import IndexDefinition
    from headwater_storage.log import Log
    from headwater_storage.store import Store, StoreReader, StoreSnapshot

_FINDINGS_MAX = 100
_KEYS_LO, _KEYS_HI = b"\x00", b"\xff\xff\xff\xff"


def check(store: Store, log: Log | None = None, scratch: Path | None = None) -> list[str]:
    """Return what is wrong with a store; nothing if it is sound.

    Args:
        store: Recovered, and written by nobody meanwhile if `log` is given.
        log: Its log: the store's state must be where it ends.
        scratch: An empty or new folder. The log is replayed into it and compared, if it reaches back
            to its first record.
    """
    with store.snapshot() as snapshot:
        findings = check_snapshot(snapshot)
        if log is not None and log.head != snapshot.state.head:
            findings.append(f"the store is at {snapshot.state.head}, the log ends at {log.head}")
    if log is not None and scratch is not None and reaches_back(log):
        scratch.mkdir(parents=True, exist_ok=True)
        replayed = LmdbStore.open(scratch, create=True)
        try:
            replay(log, replayed)
            if digest(replayed) != digest(store):
                findings.append("replaying the log gives another database")
        finally:
            replayed.close()
    return findings


def check_snapshot(snapshot: StoreSnapshot) -> list[str]:
    """Return what is wrong with the contents of a snapshot.

    Raises:
        StorageError: It cannot be read at all; not with LMDB.
    """
    findings: list[str] = []
    for finding in _findings(snapshot):
        findings.append(finding)
        if len(findings) >= _FINDINGS_MAX:
            return [*findings, "there is more; the check stopped here"]
    return findings


def digest(store: StoreReader) -> bytes:
    """Return a digest of everything in a store, its state included."""
    total = blake2b(digest_size=16)
    with store.snapshot() as snapshot:
        for items in (snapshot.documents(_KEYS_LO, _KEYS_HI), snapshot.entries(_KEYS_LO, _KEYS_HI)):
            for key, value in items:
                total.update(b"%d %d " % (len(key), len(value)))
                total.update(key)
                total.update(value)
            total.update(b"end")
        total.update(msgspec.msgpack.encode(snapshot.state))
    return total.digest()


def reaches_back(log: Log) -> bool:
    """Tell whether a log still has its first record."""
    try:
        return next(iter(log.read(1)), None) is not None
    except StorageError:
        return False


def replay(log: Log, store: Store) -> None:
    """Apply a whole log to an empty store."""
    with closing(Replay(store, record_applier())) as replaying:
        for record in log.read(1):
            replaying.apply(record)
        replaying.flush()


def _findings(snapshot: StoreSnapshot) -> Iterator[str]:
    try:
        catalog = Catalog.load(snapshot)
    except (StorageError, msgspec.DecodeError) as error:
        yield f"the catalog cannot be read: {error}"
        return
    yield from _check_catalog(snapshot, catalog)
    handles = {**catalog.by_number, **SYSTEM_HANDLES}
    indexes = {**catalog.indexes, **SYSTEM_INDEXES}
    documents = Counter[int]()
    for key, value in snapshot.documents(_KEYS_LO, _KEYS_HI):
        number, suffix = document_parts(key)
        documents[number] += 1
        yield from _check_document(snapshot, handles.get(number), key, suffix, value)
    entries = Counter[int]()
    for key, _ in snapshot.entries(_KEYS_LO, _KEYS_HI):
        number = entry_parts(key)[0]
        entries[number] += 1
        index = indexes.get(number)
        if index is None:
            yield f"entry {key.hex()} is of an index that does not exist"
        elif index.state == "building":
            yield from _check_entry(snapshot, handles[index.table], index, key)
    for index in indexes.values():
        if index.state != "ready":
            continue
        if entries[index.number] != documents[index.table]:
            # Every document was found to have its entry, so the others belong to none.
            yield (
                f"index {index.name!r} of table {handles[index.table].definition.name!r} has"
                f" {entries[index.number]} entries for {documents[index.table]} documents"
            )
        if index.unique:
            try:
                unique = UniqueCheck(index)
                while not unique.advance(snapshot, catalog):
                    pass
            except RequestError as error:
                yield error.message


def _check_catalog(snapshot: StoreSnapshot, catalog: Catalog) -> Iterator[str]:
    key = document_key(DEPLOYMENT, NUMBERS_SUFFIX)
    stored = snapshot.get_document(key)
    numbers = (
        Numbers() if stored is None else msgspec.msgpack.decode(unpack_stored(stored, key)[1], type=Numbers)
    )
    rows = [handle.definition for handle in catalog.by_number.values()]
    for table in rows:
        if not FIRST_USER_TABLE <= table.number < numbers.next_table:
            yield f"table {table.name!r} has the number {table.number}, which was never given out"
        for index in table.indexes:
            if index.table != table.number or index.number >= numbers.next_index:
                yield f"index {index.name!r} of table {table.name!r} has a wrong number"
    if len(catalog.indexes) != sum(len(table.indexes) for table in rows):
        yield "two indexes have one number"


def _check_document(
    snapshot: StoreSnapshot, handle: TableHandle | None, key: bytes, suffix: bytes, value: bytes
) -> Iterator[str]:
    try:
        shape, document = unpack_stored(value, key)
    except StorageError as error:
        yield error.message
        return
    number = document_parts(key)[0]
    if handle is None:
        if number >= FIRST_USER_TABLE:
            yield f"document {key.hex()} is of a table that does not exist"
        return
    try:
        content = msgspec.msgpack.decode(document, type=dict)
        entries, overflow = handle.maker.entries(document, suffix)
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        yield f"document {key.hex()} cannot be decoded: {error}"
        return
    if content.get("_id") != table_prefix(number) + suffix.decode("ascii", "replace"):
        yield f"document {key.hex()} says that its id is {content.get('_id')!r}"
    if not 1 <= shape <= handle.shape:
        yield f"document {key.hex()} was written by shape {shape}, which does not exist"
    for index, entry in zip(handle.maker.indexes, entries, strict=True):
        if index.state == "ready" and snapshot.get_entry(entry) != overflow.get(entry, b""):
            yield f"document {key.hex()} has no entry in index {index.name!r}"


def _check_entry(
    snapshot: StoreSnapshot, handle: TableHandle, index: IndexDefinition, key: bytes
) -> Iterator[str]:
    """Check that an entry of an index that is being built has its document."""
    suffix = entry_parts(key)[2]
    document = snapshot.get_document(handle.prefix + suffix)
    if document is not None:
        entries, _ = handle.maker.entries(unpack_stored(document, handle.prefix + suffix)[1], suffix)
        if entries[handle.maker.indexes.index(index)] == key:
            return
    yield f"entry {key.hex()} of index {index.name!r} has no document"
