"""Looks whether stored documents fit a bundle that is to become active: in one of its own workers, for daemons run no user code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.ids import SUFFIX_LENGTH, is_id
from headwater_storage.stored import unpack_stored

from headwater_server.worker.messages import DocumentsChecked

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.bundle import Bundle
    from headwater_storage.catalog import Catalog, TableHandle
    from headwater_storage.store import StoreSnapshot

    from headwater_server.worker.messages import CheckDocuments

_DOCUMENTS_MAX = 2_000
_BYTES_MAX = 4 << 20
"""Of one part: some ten milliseconds, in which the snapshot stays open."""

_MISFITS_MAX = 5


def check_documents(
    bundle: Bundle, snapshot: StoreSnapshot, catalog: Catalog, asked: CheckDocuments
) -> DocumentsChecked:
    """Check the next part of a table, or some of its documents that have changed since."""
    handle = catalog.by_number[asked.table]
    # Removed tables too: the switch may bring them back.
    tables = {one.id_prefix: one.definition.name for one in catalog.by_number.values()}

    def table_of(document_id: str) -> str | None:
        return tables.get(document_id[:-SUFFIX_LENGTH]) if is_id(document_id) else None

    size = 0
    following = None
    misfits: list[tuple[str, str]] = []
    for checked, (key, value) in enumerate(_wanted(handle, snapshot, asked)):
        if checked >= _DOCUMENTS_MAX or size >= _BYTES_MAX or len(misfits) >= _MISFITS_MAX:
            following = key
            break
        size += len(value)
        document = bytes(unpack_stored(value, key)[1])
        problem = bundle.misfit(handle.definition.name, document, table_of)
        if problem is not None:
            misfits.append((handle.id_prefix + key[-SUFFIX_LENGTH:].decode(), problem))
    return DocumentsChecked(asked.check, following, misfits)


def _wanted(
    handle: TableHandle, snapshot: StoreSnapshot, asked: CheckDocuments
) -> Iterator[tuple[bytes, bytes]]:
    if not asked.keys:
        lo, hi = handle.documents
        yield from snapshot.documents(asked.next or lo, hi)
        return
    for key in asked.keys:
        value = snapshot.get_document(key)
        if value is not None:  # deleted since
            yield key, value
