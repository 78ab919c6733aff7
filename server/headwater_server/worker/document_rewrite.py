"""Brings documents that an earlier shape of their table wrote to the current one: in a worker, for daemons run no user code.

A document stays as it is where that would lose something: what it has in fields that are no longer declared is what a
roll back would look for. It then goes on being decoded at each read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec
from headwater.values import MisfitError
from headwater_protocol.errors import HeadwaterError
from headwater_protocol.ids import SUFFIX_LENGTH
from headwater_storage.catalog import DEPLOYMENT, RewriteProgress, read_row, rewrite_row_suffix
from headwater_storage.stored import STORED_HEADER_BYTES, unpack_stored
from msgspec.structs import replace

from headwater_server.worker.document_check import table_names
from headwater_server.worker.messages import DocumentsRewritten

if TYPE_CHECKING:
    from headwater.bundle import Bundle
    from headwater.documents import DocumentCodec
    from headwater_storage.catalog import TableHandle
    from headwater_storage.proposal import Proposal
    from headwater_storage.transaction import Transaction

    from headwater_server.worker.messages import RewriteDocuments

_PASSED_MAX = 10_000
"""Documents of the current shape that one part passes over: a few milliseconds."""

_BYTES_MAX = 512 << 10
_TOLD_MAX = 3
_TOO_MUCH = ("too_many_documents", "too_many_bytes")


class _Part(NamedTuple):
    """What one part came to.

    Attributes:
        next: Key at which to go on, None at the end of the table.
        rewritten: How many documents it writes.
        stay: How many stay as they are.
        told: First ids of those, and why.
        alike: Whether calls read the same as before from what it writes.
    """

    next: bytes | None
    rewritten: int
    stay: int
    told: list[tuple[str, str]]
    alike: bool


def rewrite_documents(
    bundle: Bundle, transaction: Transaction, asked: RewriteDocuments
) -> DocumentsRewritten:
    """Rewrite the next documents of a table, as far as one part goes, and note how far that is."""
    handle = transaction.catalog.by_number[asked.table]
    transaction.add_point(handle.row_key)
    suffix = rewrite_row_suffix(asked.table)
    progress = read_row(transaction, DEPLOYMENT, suffix, RewriteProgress)
    if progress is None or progress.shape != handle.shape:
        progress = RewriteProgress(handle.shape)
    if progress.done or handle.definition.removed:
        return DocumentsRewritten(asked.question, None)
    documents = bundle.documents_of(handle.definition.name)
    lo, hi = handle.documents
    part = _rewrite(
        documents, transaction, handle, progress.next or lo, asked.documents_max, tell=not progress.left
    )
    stay = progress.left + part.stay
    progress = RewriteProgress(handle.shape, part.next or hi, part.next is None, stay)
    transaction.put_row(DEPLOYMENT, suffix, msgspec.msgpack.encode(progress))
    proposal = transaction.proposal()
    if part.alike and _keeps_entries(proposal):
        proposal = replace(proposal, quiet=True)
    return DocumentsRewritten(asked.question, proposal, part.rewritten, part.told, progress.done, stay)


def _rewrite(
    documents: DocumentCodec,
    transaction: Transaction,
    handle: TableHandle,
    begin: bytes,
    documents_max: int,
    *,
    tell: bool,
) -> _Part:
    table_of = table_names(transaction.catalog)
    size = rewritten = stay = 0
    told: list[tuple[str, str]] = []
    alike = True
    for passed, (key, value) in enumerate(transaction.snapshot.documents(begin, handle.documents[1])):
        if passed >= _PASSED_MAX or rewritten + stay >= documents_max or size >= _BYTES_MAX:
            return _Part(key, rewritten, stay, told, alike)
        if value[4:STORED_HEADER_BYTES] == handle.shape_bytes:
            continue
        size += len(value)
        document_id = handle.id_prefix + key[-SUFFIX_LENGTH:].decode()
        try:
            shape, document = unpack_stored(value, key)
            if shape != handle.shape:  # else an old value of the current one
                written, reads_alike = documents.rewritten(document, table_of)
                transaction.put(document_id, written)
                rewritten += 1
                alike = alike and reads_alike
        except (MisfitError, HeadwaterError) as error:
            if rewritten and isinstance(error, HeadwaterError) and error.code in _TOO_MUCH:
                return _Part(key, rewritten, stay, told, alike)  # a part is no larger than a call may be
            stay += 1
            if tell and len(told) < _TOLD_MAX:
                told.append((document_id, str(error)))
    return _Part(None, rewritten, stay, told, alike)


def _keeps_entries(proposal: Proposal) -> bool:
    """Tell whether every document has the same entries as before."""
    return all(write.old_entries == write.new_entries and not write.overflow for write in proposal.writes)
