"""Looks at tables as they are stored, for whoever runs the deployment: what there is, and its documents page by page.

Reads in a thread, each page over a snapshot of its own, so that nothing waits for it and no snapshot is held for long.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import msgspec
from headwater_protocol.errors import RequestError
from headwater_storage.limits import CallLimits
from headwater_storage.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from headwater_storage.catalog import Catalog
    from headwater_storage.store import StoreSnapshot

_T = TypeVar("_T")
_decode = msgspec.msgpack.Decoder().decode
_UNLIMITED = CallLimits(documents_read_max=1 << 62, bytes_read_max=1 << 62)


class Database(Protocol):
    """Where the documents are."""

    def read_blocking(self, function: Callable[[StoreSnapshot, Catalog], _T]) -> Awaitable[_T]:
        """Run a reading function over the newest state in a thread."""


@dataclass(frozen=True, slots=True)
class BrowseLimits:
    """Bounds of one look.

    Attributes:
        documents_max: Of a page, and of what is counted.
        bytes_max: Of a page; a single larger document is one all the same.
    """

    documents_max: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class BrowsedTable:
    """A table.

    Attributes:
        name: Its name.
        documents: How many it has, as far as they were counted.
        more: Whether it has more.
        indexes: Names of those that can be read.
    """

    name: str
    documents: int
    more: bool
    indexes: list[str]


@dataclass(frozen=True, slots=True)
class BrowsedPage:
    """A part of a table.

    Attributes:
        documents: Encoded, in order.
        cursor: What to ask for to get what follows; None at the end.
    """

    documents: list[bytes]
    cursor: str | None


class TableBrowser:
    """All tables of the deployment that functions have declared.

    Args:
        database: Where they are.
        limits: Bounds.
    """

    def __init__(self, database: Database, limits: BrowseLimits) -> None:
        self._database = database
        self._limits = limits

    async def tables(self) -> list[BrowsedTable]:
        """Return them by name."""
        names = await self._database.read_blocking(lambda _, catalog: sorted(catalog.by_name))
        found = [await self._database.read_blocking(partial(self._look, name)) for name in names]
        return [table for table in found if table is not None]

    async def page(
        self, table: str, *, index: str | None, descending: bool, size: int, cursor: str | None
    ) -> BrowsedPage:
        """Return documents of a table.

        Args:
            table: Its name.
            index: In whose order; None: in that of creation.
            descending: From the end.
            size: So many at most, from 1; the limits may make it fewer.
            cursor: From the page before, of the same table, index and direction.

        Raises:
            RequestError: There is no such table or index, or the size or cursor is none.
        """
        if size < 1:
            raise RequestError(f"`limit` is a number of documents from 1, not {size}")
        size = min(size, self._limits.documents_max)
        after = _place(cursor)

        def read(snapshot: StoreSnapshot, catalog: Catalog) -> BrowsedPage:
            transaction = _reading(snapshot, catalog)
            stored = transaction.read_range(table, index, [], None, None, descending=descending, after=after)
            documents: list[bytes] = []
            left_bytes = self._limits.bytes_max
            for found in stored:
                left_bytes -= len(found.document)
                if documents and (len(documents) == size or left_bytes < 0):
                    return BrowsedPage(documents, _cursor(transaction, table, index, documents[-1]))
                documents.append(bytes(found.document))
            return BrowsedPage(documents, None)

        return await self._database.read_blocking(read)

    def _look(self, name: str, snapshot: StoreSnapshot, catalog: Catalog) -> BrowsedTable | None:
        handle = catalog.by_name.get(name)
        if handle is None:  # a deploy has removed it meanwhile
            return None
        count, limit = 0, self._limits.documents_max
        for _ in snapshot.documents(*handle.documents):
            if count == limit:
                return BrowsedTable(name, count, True, sorted(handle.ready))
            count += 1
        return BrowsedTable(name, count, False, sorted(handle.ready))


def _reading(snapshot: StoreSnapshot, catalog: Catalog) -> Transaction:
    return Transaction(
        snapshot, catalog, _UNLIMITED, now_us=0, random_bytes=lambda count: bytes(count), writable=False
    )


def _cursor(transaction: Transaction, table: str, index: str | None, document: bytes) -> str:
    fields: dict[str, Any] = _decode(document)
    return base64.urlsafe_b64encode(transaction.position(table, index, fields["_id"], document)).decode()


def _place(cursor: str | None) -> bytes | None:
    if cursor is None:
        return None
    try:
        return base64.b64decode(cursor, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("`cursor` is none that a page had") from None
