"""A transaction over dicts: what the authoring API needs of a database, written again as plainly as can be."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from headwater.backend import Bound, StoredDocument
from headwater_protocol.errors import RequestError
from headwater_protocol.ids import SUFFIX_LENGTH, is_id, make_suffix, table_number_of, table_prefix

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater_protocol.manifest import Manifest

NOW_US = 1_700_000_000_000_000


class MemoryBackend:
    """Holds documents in a dict; no faults.

    Attributes:
        documents: Stored bytes by id.
        old_shape: Ids of documents that an older shape of their table wrote.
        consumed: Ids that range reads have yielded, in order.
    """

    def __init__(self, manifest: Manifest, now_us: int = NOW_US) -> None:
        self.numbers = {table.name: 32 + place for place, table in enumerate(manifest.tables)}
        self.indexes = {
            (table.name, index.name): index for table in manifest.tables for index in table.indexes
        }
        self.documents: dict[str, bytes] = {}
        self.old_shape: set[str] = set()
        self.consumed: list[str] = []
        self.now_us = now_us
        self._inserts = 0

    def table_name(self, document_id: str) -> str | None:
        if not is_id(document_id):
            return None
        number = table_number_of(document_id)
        return next((name for name, own in self.numbers.items() if own == number), None)

    def variable(self, name: str) -> bytes | None:
        return None

    def get(self, document_id: str) -> StoredDocument | None:
        return self._stored(document_id) if document_id in self.documents else None

    def _stored(self, document_id: str) -> StoredDocument:
        return StoredDocument(self.documents[document_id], document_id not in self.old_shape)

    def read_range(
        self,
        table: str,
        index: str | None,
        equal: Sequence[Any],
        lower: Bound | None,
        upper: Bound | None,
        *,
        descending: bool,
        after: bytes | None = None,
        until: bytes | None = None,
    ) -> Iterator[StoredDocument]:
        keys = {document_id: self._key(table, index, document_id) for document_id in self.documents}
        start = sort_key(list(equal))[1]
        found = []
        for document_id, key in keys.items():
            if self.table_name(document_id) != table or key[: len(start)] != start:
                continue
            field = key[len(start)]
            if lower is not None and not compares(field, lower, above=True):
                continue
            if upper is not None and not compares(field, upper, above=False):
                continue
            found.append((key, document_id))
        found.sort(reverse=descending)
        for key, document_id in found:
            if after is not None and not behind(key, after, descending=descending):
                continue
            if until is not None and behind(key, until, descending=descending):
                return
            self.consumed.append(document_id)
            yield self._stored(document_id)

    def _key(self, table: str, index: str | None, document_id: str) -> list[Any]:
        document = msgspec.msgpack.decode(self.documents[document_id])
        fields = self.indexes[table, index].fields if index and self.table_name(document_id) == table else ()
        values = [sort_key(value_at(document, path)) for path in fields]
        return [*values, sort_key(document["_creationTime"]), document_id[-SUFFIX_LENGTH:]]

    def position(self, table: str, index: str | None, document_id: str, document: bytes) -> bytes:
        assert self.documents[document_id] == document
        return json.dumps(self._key(table, index, document_id)).encode()

    def new_id(self, table: str) -> tuple[str, float]:
        self._inserts += 1
        suffix = make_suffix(self.now_us, self._inserts, self._inserts.to_bytes(10, "big"))
        return table_prefix(self.numbers[table]) + suffix, self.now_us / 1000

    def put(self, document_id: str, document: bytes) -> None:
        assert msgspec.msgpack.decode(document)["_id"] == document_id
        self.documents[document_id] = document
        self.old_shape.discard(document_id)

    def delete(self, document_id: str) -> None:
        if self.documents.pop(document_id, None) is None:
            raise RequestError("no such document", code="document_not_found")

    def savepoint(self) -> tuple[dict[str, bytes], set[str]]:
        return dict(self.documents), set(self.old_shape)

    def roll_back(self, savepoint: tuple[dict[str, bytes], set[str]]) -> None:
        self.documents, self.old_shape = dict(savepoint[0]), set(savepoint[1])


class Missing:
    """Stands for a field that a document does not have."""


def value_at(document: Any, path: str) -> Any:
    for step in path.split("."):
        if not isinstance(document, dict) or step not in document:
            return Missing
        document = document[step]
    return document


def sort_key(value: Any) -> list[Any]:
    """Return what sorts as the value does among all values."""
    if value is Missing:
        return [0]
    if value is None:
        return [1]
    if isinstance(value, bool):
        return [2, value]
    if isinstance(value, int | float):
        return [3, 1e308 * 10, 1] if math.isnan(value) else [3, value, 0]
    if isinstance(value, datetime):
        return [4, value.timestamp()]
    if isinstance(value, str):
        return [5, value]
    if isinstance(value, bytes):
        return [6, value.hex()]
    if isinstance(value, list):
        return [7, [sort_key(item) for item in value]]
    return [8, sorted((key, sort_key(item)) for key, item in value.items())]


def compares(field: list[Any], bound: Bound, *, above: bool) -> bool:
    edge = sort_key(bound.value)
    if field == edge:
        return bound.inclusive
    return (field > edge) == above


def behind(key: list[Any], position: bytes, *, descending: bool) -> bool:
    place = json.loads(position)
    return bool(key < place if descending else key > place)
