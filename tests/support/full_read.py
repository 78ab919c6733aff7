"""Everything that a prepared store can be asked, as a worker asks it, and what plain dicts say to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import StorageError
from headwater_storage.catalog import BUNDLES, REQUESTS, CatalogCache, active_bundle
from headwater_storage.limits import CallLimits
from headwater_storage.transaction import Transaction

from support.memory_store import decode
from support.prepared_stores import ARCHIVE, BUNDLE, TABLES, TableOf

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_protocol.documents import StoredDocument
    from headwater_storage.lmdb_store import LmdbStore

    from support.prepared_stores import Truth

DAMAGED = "damaged"
"""Stands for what a read gave that met damage and said so."""

_UNLIMITED = CallLimits(documents_read_max=1 << 30, bytes_read_max=1 << 40)


def read_all(store: LmdbStore, truth: Truth) -> dict[str, Any]:
    """Ask everything of the newest snapshot; reads that say `damaged` give `DAMAGED`."""
    with store.snapshot() as snapshot:
        try:
            catalog = CatalogCache().get(snapshot, snapshot.state.catalog_ts)
        except StorageError:
            return {"catalog": DAMAGED}

        def begin() -> Transaction:
            return Transaction(
                snapshot,
                catalog,
                _UNLIMITED,
                now_us=1,
                random_bytes=lambda count: bytes(count),
                writable=False,
            )

        found: dict[str, Any] = {}

        def ask(name: str, question: Callable[[Transaction], Any]) -> None:
            try:
                found[name] = question(begin())
            except StorageError as error:
                found[name] = DAMAGED if error.code == "damaged" else repr(error)

        for document_id in truth.documents:
            ask(f"get {document_id}", lambda t, wanted=document_id: _decoded(t.get(wanted)))
        for suffix in truth.requests:
            ask(f"request {suffix.hex()}", lambda t, wanted=suffix: t.get_row(REQUESTS, wanted))
        ask("active bundle", active_bundle)
        ask("bundle", lambda t: t.get_row(BUNDLES, BUNDLE.encode()))
        for table in TABLES:
            if table.name not in catalog.by_name:
                found[table.name] = None
                continue
            _ask_table(ask, table, truth)
    return found


def expected(truth: Truth) -> dict[str, Any]:
    """Return what `read_all` must give."""
    told: dict[str, Any] = {f"get {document_id}": fields for document_id, fields in truth.documents.items()}
    told.update((f"request {suffix.hex()}", content) for suffix, content in truth.requests.items())
    told["active bundle"] = BUNDLE
    told["bundle"] = ARCHIVE
    for table in TABLES:
        rows = _rows(table, truth)
        told[f"{table.name}"] = told[f"{table.name} backwards"] = [row["_id"] for row in rows]
        told[f"{table.name} backwards"] = told[table.name][::-1]
        for index in table.indexes:
            ordered = sorted(rows, key=lambda row, fields=index.fields: [row[name] for name in fields])
            told[f"{table.name}.{index.name}"] = [row["_id"] for row in ordered]
            told[f"{table.name}.{index.name} backwards"] = [row["_id"] for row in ordered[::-1]]
            for value in sorted({row[index.fields[0]] for row in rows}):
                equal = [row["_id"] for row in ordered if row[index.fields[0]] == value]
                told[f"{table.name}.{index.name} = {value!r}"] = equal
    return told


def differences(found: dict[str, Any], told: dict[str, Any]) -> list[str]:
    """Return what was answered, and answered wrongly."""
    if found == {"catalog": DAMAGED}:
        return []
    return [
        name
        for name in told.keys() | found.keys()
        if found.get(name) != DAMAGED and found.get(name) != told.get(name)
    ]


def _rows(table: TableOf, truth: Truth) -> list[dict[str, Any]]:
    """Return a table's documents in the order of their creation."""
    names = set(_fields_of(table))
    rows = [row for row in truth.documents.values() if names <= row.keys()]
    return sorted(rows, key=lambda row: row["_id"][-31:])


def _fields_of(table: TableOf) -> Iterable[str]:
    return ["number"] if table.name == "plain" else [name for index in table.indexes for name in index.fields]


def _ask_table(
    ask: Callable[[str, Callable[[Transaction], Any]], None], table: TableOf, truth: Truth
) -> None:
    def scan(index: str | None, equal: list[Any], descending: bool) -> Callable[[Transaction], list[str]]:
        return lambda transaction: [
            decode(stored.document)["_id"]
            for stored in transaction.read_range(table.name, index, equal, None, None, descending=descending)
        ]

    ask(table.name, scan(None, [], False))
    ask(f"{table.name} backwards", scan(None, [], True))
    rows = _rows(table, truth)
    for index in table.indexes:
        ask(f"{table.name}.{index.name}", scan(index.name, [], False))
        ask(f"{table.name}.{index.name} backwards", scan(index.name, [], True))
        for value in sorted({row[index.fields[0]] for row in rows}):
            ask(f"{table.name}.{index.name} = {value!r}", scan(index.name, [value], False))


def _decoded(stored: StoredDocument | None) -> Any:
    return None if stored is None else decode(stored.document)
