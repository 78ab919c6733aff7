"""`ctx.db`: typed documents over one transaction.

A document has one class whether it is stored or not; its `id` is UNSET until then.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import msgspec
from headwater_protocol.errors import RequestError

from headwater.documents import UNSTORED
from headwater.indexes import BoundIndex
from headwater.queries import Query, equal_prefix
from headwater.refusals import invalid_document
from headwater.schema import TableMeta

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater.backend import StoredDocument
    from headwater.calls import Call, CompiledTable
    from headwater.fields import Id
    from headwater.indexes import HasFields
    from headwater.schema import Fits

P = ParamSpec("P")
T = TypeVar("T")


class DatabaseReader:
    """Reads documents; what it has read decides when the call's result is stale."""

    __slots__ = ("_backend", "_call")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._backend = call.backend

    def get(self, id: Id[T], /) -> T | None:  # noqa: A002 - positional; the word of the API
        """Return a document, None if it is not there."""
        table = self._table_of(id)
        stored = self._backend.get(id)
        return cast("T", table.codec.decode(stored.document)) if stored is not None else None

    def get_many(self, ids: Iterable[Id[T]], /) -> list[T | None]:
        """Return the documents of some ids, in their order."""
        return [self.get(document_id) for document_id in ids]

    def normalize_id(self, table: type[T], text: str, /) -> Id[T] | None:
        """Return text as an id of a table, None if it is none."""
        name = self._compiled(table).codec.name
        known = isinstance(text, str) and self._backend.table_name(text) == name
        return cast("Id[T]", text) if known else None

    def query(self, index: BoundIndex[T, P], /, *args: P.args, **equal: P.kwargs) -> Query[T]:
        """Return a query over the documents whose first index fields have the given values."""
        if not isinstance(index, BoundIndex):
            raise TypeError(f"ctx.db.query takes an index, such as Message.by_channel, got {index!r}")
        table = self._compiled(index.table)
        plan = table.indexes[index.name]
        return Query(self._call, table.codec, plan, equal_prefix(plan, args, equal))

    def scan(self, table: type[T], /) -> Query[T]:
        """Return a query over the whole table, in creation order."""
        return Query(self._call, self._compiled(table).codec, None)

    def _compiled(self, table: Any) -> CompiledTable:
        if not isinstance(table, TableMeta):
            raise TypeError(f"expected a table class, got {table!r}")
        compiled = self._call.tables.get(table.__table__)
        if compiled is None or compiled.codec.table is not table:
            self._call.require_running()
            raise TypeError(f"{table.__name__} is not a table of this bundle")
        return compiled

    def _table_of(self, document_id: Any) -> CompiledTable:
        name = self._backend.table_name(document_id) if type(document_id) is str else None
        if name is None:
            told = UNSTORED if document_id is msgspec.UNSET else f"{document_id!r}, which is no id of a table"
            raise RequestError(f"expected an id, got {told}")
        return self._call.table_named(name)


class Database(DatabaseReader):
    """Reads and writes documents. The writes take effect together, when the mutation commits."""

    __slots__ = ()

    def insert(self, document: T, /) -> Id[T]:
        """Store a new document and return its id.

        Raises:
            RequestError: `invalid_document`, `unique_violation` or a limit.
        """
        if not isinstance(type(document), TableMeta):
            raise TypeError(f"ctx.db.insert takes a document, such as Message(body=...), got {document!r}")
        table = self._writable(self._compiled(type(document)))
        stored_id: Any = document.id  # type: ignore[attr-defined]  # every table has it; T says so to callers only
        if stored_id is not msgspec.UNSET:
            raise invalid_document(
                f"table {table.codec.name!r}: the document {stored_id} is stored already; use replace or patch"
            )
        document_id, creation_time_ms = self._backend.new_id(table.codec.name)
        self._put(table, document, document_id, creation_time_ms)
        return cast("Id[T]", document_id)

    def patch(self, id: Id[HasFields[P, Any]], /, *args: P.args, **changes: P.kwargs) -> None:  # noqa: A002
        """Change some fields of a document.

        Raises:
            RequestError: `document_not_found`, `invalid_document`, `unique_violation` or a limit.
        """
        if args:
            raise TypeError("ctx.db.patch takes its changes by name: patch(id, body=...)")
        table = self._writable(self._table_of(id))
        old = table.codec.decode(self._existing(id).document)
        creation_time_ms = old.creation_time_ms
        self._put(table, table.codec.changed(old, changes), id, creation_time_ms)

    def replace(self, id: Id[T], document: Fits[T], /) -> None:  # noqa: A002
        """Put another document in the place of one; id and creation time stay.

        Raises:
            RequestError: `document_not_found`, `invalid_document`, `unique_violation` or a limit.
        """
        table = self._writable(self._table_of(id))
        if not isinstance(document, table.codec.table):
            raise invalid_document(
                f"table {table.codec.name!r}: expected `{table.codec.table.__name__}`, got `{type(document).__name__}`"
            )
        own_id = cast("Any", document).id
        if own_id is not msgspec.UNSET and own_id != id:
            raise invalid_document(
                f"table {table.codec.name!r}: the document {own_id} cannot take the place of {id}"
            )
        old = table.codec.decode(self._existing(id).document)
        self._put(table, document, id, old.creation_time_ms)

    def delete(self, id: Id[Any], /) -> None:  # noqa: A002
        """Delete a document.

        Raises:
            RequestError: `document_not_found`.
        """
        self._writable(self._table_of(id))
        self._backend.delete(id)

    def _writable(self, table: CompiledTable) -> CompiledTable:
        if table.codec.name.startswith("_"):
            raise RequestError(
                f"{table.codec.table.__name__} is a table of the system: functions read it, and ctx.scheduler"
                " schedules and cancels",
                code="not_allowed_here",
            )
        return table

    def _existing(self, document_id: str) -> StoredDocument:
        stored = self._backend.get(document_id)
        if stored is None:
            raise RequestError(f"there is no document {document_id}", code="document_not_found")
        return stored

    def _put(self, table: CompiledTable, document: Any, document_id: str, creation_time_ms: float) -> None:
        if self._call.unread:
            self._call.read_all()
        content = table.codec.encode(document, document_id, creation_time_ms, self._backend.table_name)
        self._backend.put(document_id, content)
