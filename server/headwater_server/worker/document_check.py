"""Looks whether stored documents fit a bundle that is to become active: in one of its own workers, for daemons run no user code."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater.values import MisfitError
from headwater_protocol.ids import SUFFIX_LENGTH, is_id
from headwater_storage.catalog import SYSTEM_HANDLES
from headwater_storage.indexes import EntryMaker, IndexDefinition
from headwater_storage.keys import MISSING
from headwater_storage.stored import unpack_stored

from headwater_server.worker.messages import DocumentsChecked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

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
    table_of = table_names(catalog)
    documents = bundle.documents_of(handle.definition.name)
    maker = _maker_of(bundle, handle)
    size = checked = 0
    following = None
    misfits: list[tuple[str, str]] = []
    for key, value in _wanted(handle, snapshot, asked):
        if checked >= _DOCUMENTS_MAX or size >= _BYTES_MAX or len(misfits) >= _MISFITS_MAX:
            following = key
            break
        checked += 1
        size += len(value)
        document = bytes(unpack_stored(value, key)[1])
        try:
            written = documents.reread(document, table_of)
        except MisfitError as error:
            problem = str(error)
        else:
            problem = "" if written == document else _misindexed(maker, document, written)
        if problem:
            misfits.append((handle.id_prefix + key[-SUFFIX_LENGTH:].decode(), problem))
    return DocumentsChecked(asked.question, following, misfits, checked)


def table_names(catalog: Catalog) -> Callable[[str], str | None]:
    """Return what names the table of an id; removed tables too, since a switch may bring them back."""
    handles = (*catalog.by_number.values(), *SYSTEM_HANDLES.values())
    tables = {one.id_prefix: one.definition.name for one in handles}

    def table_of(document_id: str) -> str | None:
        return tables.get(document_id[:-SUFFIX_LENGTH]) if is_id(document_id) else None

    return table_of


def _maker_of(bundle: Bundle, handle: TableHandle) -> EntryMaker:
    """Return what derives entries of a table's documents in the indexes that a bundle declares."""
    indexes = bundle.indexes_of(handle.definition.name)
    return EntryMaker(
        [
            IndexDefinition(
                number, handle.definition.number, one.name, list(one.fields), one.unique, "", one.defaults
            )
            for number, one in enumerate(indexes)
        ]
    )


def _misindexed(maker: EntryMaker, document: bytes, written: bytes) -> str:
    """Return what an index would hold that is not what calls read, "" if there is no such thing.

    Entries are made of what is stored; under an earlier shape that may be another form of what it is now.
    """
    if maker.entries(document, b"") == maker.entries(written, b""):
        return ""
    for position, index in enumerate(maker.indexes):
        for path, old, new in zip(
            index.fields, maker.values(position, document), maker.values(position, written), strict=True
        ):
            if old != new or type(old) is not type(new):
                return (
                    f"`{path}` is {_shown(new)}, and an index would hold {_shown(old)}, which is stored;"
                    " deploy without the index first: documents are then written anew in the background"
                )
    return "an index would hold what is stored, which is another form of what it is now"


def _shown(value: Any) -> str:
    return "nothing" if value is MISSING else f"{value!r:.100}"


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
