"""Tables and indexes as documents.

A table and all its indexes are one row of `_tables`, named by the table. Whoever uses the
table reads that one row, so any change to it or to one of its indexes makes running calls
conflict and live results stale.

Life of an index: `building` from the commit that adds it (every writer maintains it from
then on), `ready` at the switch of the deploy that asked for it, `dropping` once no deployed
bundle uses it (nobody maintains it), gone from its row after its entries are.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol, TypeVar
from zlib import crc32

import msgspec
from headwater_protocol.ids import table_prefix

from headwater_storage.indexes import EntryMaker, IndexDefinition
from headwater_storage.keys import document_key, table_range
from headwater_storage.stored import shape_field, unpack_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headwater_storage.proposal import CommitTs

TABLES = 1
INDEXES = 2
BUNDLES = 3
DEPLOYMENT = 4
REQUESTS = 5
KEYS = 6
JOBS = 7
CRONS = 8
ENVIRONMENT = 9
FIRST_USER_TABLE = 32
FIRST_INDEX = 1
FIRST_SYSTEM_INDEX = 1 << 30
"""Indexes of system tables are numbered from here on; a deploy never gets there."""

SYSTEM_SHAPE = 0
"""Shape number that rows of system tables carry."""

ACTIVE_SUFFIX = b"active"
ACTIVE_BUNDLE_KEY = document_key(DEPLOYMENT, ACTIVE_SUFFIX)
NUMBERS_SUFFIX = b"numbers"
CHECK_SUFFIX = b"check"
SIGNING_KEYS_SUFFIX = b"signing_keys"
DEPLOYS_PREFIX = b"deploys/"
"""Suffixes of the rows of past deploys begin so, a number of eight bytes follows."""
TABLES_RANGE = table_range(TABLES)
TABLE_NAME_BYTES_MAX = 200


class TableDefinition(msgspec.Struct, frozen=True):
    """One table, as stored in its row.

    Attributes:
        number: Stands in ids and keys.
        name: As in the schema.
        shape: Number of its current shape; documents carry the number that wrote them.
        schema: That shape as canonical JSON schema text.
        indexes: All its indexes, whatever their state.
        removed: No deployed bundle has it; its documents are kept.
    """

    number: int
    name: str
    shape: int
    schema: str
    indexes: list[IndexDefinition] = []
    removed: bool = False

    @property
    def row_suffix(self) -> bytes:
        """Suffix of its row in `_tables`."""
        return self.name.encode()


class Numbers(msgspec.Struct, frozen=True):
    """The row that says which table and index numbers are still free."""

    next_table: int = FIRST_USER_TABLE
    next_index: int = FIRST_INDEX


class CatalogSnapshot(Protocol):
    """What the catalog needs of a snapshot of the store."""

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate stored documents of a key range."""


class TableHandle:
    """A table with what transactions need at hand.

    Attributes:
        definition: Its row.
        shape: Number of its current shape.
        shape_bytes: That number as stored values have it.
        shape_checksum: Its CRC-32: where the checksum of a stored value begins, before key and document.
        row_key: Key of that row: part of the read set of whoever uses the table.
        prefix: What its document keys begin with.
        documents: Key range of its documents.
        id_prefix: What its ids begin with.
        maker: Derives entries of its maintained indexes.
        ready: Its ready indexes by name.
        unique_positions: Where in `maker.indexes` the unique ones are.
    """

    __slots__ = (
        "definition",
        "documents",
        "id_prefix",
        "maker",
        "prefix",
        "ready",
        "row_key",
        "shape",
        "shape_bytes",
        "shape_checksum",
        "unique_positions",
    )

    def __init__(self, definition: TableDefinition) -> None:
        self.definition = definition
        self.shape = definition.shape
        self.shape_bytes = shape_field(definition.shape)
        self.shape_checksum = crc32(self.shape_bytes)
        self.row_key = document_key(TABLES, definition.row_suffix)
        self.prefix = document_key(definition.number, b"")
        self.documents = table_range(definition.number)
        self.id_prefix = table_prefix(definition.number)
        self.maker = EntryMaker([index for index in definition.indexes if index.maintained])
        self.ready = {index.name: index for index in definition.indexes if index.state == "ready"}
        self.unique_positions = [i for i, index in enumerate(self.maker.indexes) if index.unique]


def _system_index(number: int, table: int, name: str, fields: list[str]) -> IndexDefinition:
    return IndexDefinition(FIRST_SYSTEM_INDEX + number, table, name, fields, False, "ready")


_SYSTEM_DEFINITIONS = (
    TableDefinition(
        JOBS,
        "_scheduled_jobs",
        1,
        "",
        [
            _system_index(0, JOBS, "by_state", ["state", "kind", "due_ms"]),
            _system_index(1, JOBS, "by_completed", ["completed_ms"]),
        ],
    ),
    TableDefinition(CRONS, "_crons", 1, "", [_system_index(2, CRONS, "by_name", ["name"])]),
)
"""System tables whose rows are documents with ids. They have no row in `_tables`: they are the same in each catalog,
and another index for one of them is another format."""

SYSTEM_HANDLES = {definition.number: TableHandle(definition) for definition in _SYSTEM_DEFINITIONS}
SYSTEM_BY_NAME = {handle.definition.name: handle for handle in SYSTEM_HANDLES.values()}
SYSTEM_BY_PREFIX = {handle.id_prefix: handle for handle in SYSTEM_HANDLES.values()}
SYSTEM_INDEXES = {
    index.number: index for handle in SYSTEM_HANDLES.values() for index in handle.definition.indexes
}


class Catalog:
    """All tables of bundles at one commit ts. Immutable. System tables are in `SYSTEM_HANDLES`.

    Attributes:
        by_name: Tables of the deployed bundle.
        by_id_prefix: The same by what their ids begin with.
        by_number: Every table, removed ones too.
    """

    def __init__(self, definitions: Iterable[TableDefinition]) -> None:
        handles = [TableHandle(definition) for definition in definitions]
        self.by_number = {handle.definition.number: handle for handle in handles}
        present = [handle for handle in handles if not handle.definition.removed]
        self.by_name = {handle.definition.name: handle for handle in present}
        self.by_id_prefix = {handle.id_prefix: handle for handle in present}

    @classmethod
    def load(cls, snapshot: CatalogSnapshot) -> Catalog:
        """Read the catalog of a snapshot."""
        return cls(decode_table(value, key) for key, value in snapshot.documents(*TABLES_RANGE))

    @cached_property
    def indexes(self) -> dict[int, IndexDefinition]:
        """Every index by number."""
        return {
            index.number: index for handle in self.by_number.values() for index in handle.definition.indexes
        }

    def replaced(self, definitions: Iterable[TableDefinition]) -> Catalog:
        """Return the catalog with some rows put in the place of older ones."""
        rows = {handle.definition.name: handle.definition for handle in self.by_number.values()}
        rows.update((definition.name, definition) for definition in definitions)
        return Catalog(rows.values())


class CatalogCache:
    """Keeps the newest catalog, so that a reader decodes it only when it has changed."""

    def __init__(self) -> None:
        self._ts: CommitTs | None = None
        self._catalog = Catalog([])

    def get(self, snapshot: CatalogSnapshot, catalog_ts: CommitTs) -> Catalog:
        """Return the catalog of a snapshot whose state says that it last changed at `catalog_ts`."""
        if self._ts != catalog_ts:
            self._catalog = Catalog.load(snapshot)
            self._ts = catalog_ts
        return self._catalog


_decode_definition = msgspec.msgpack.Decoder(TableDefinition).decode


def encode_table(definition: TableDefinition) -> bytes:
    """Return a table's row, encoded."""
    return msgspec.msgpack.encode(definition)


def decode_table(value: bytes, key: bytes) -> TableDefinition:
    """Return the table of a stored row of `_tables`."""
    return _decode_definition(unpack_stored(value, key)[1])


def is_catalog_key(key: bytes) -> bool:
    """Tell whether a write to this document key changes the catalog."""
    return TABLES_RANGE[0] <= key < TABLES_RANGE[1]


class ActiveBundle(msgspec.Struct, frozen=True):
    """The row that says which bundle is deployed. Every call reads it.

    Attributes:
        bundle: Hash that names the bundle; its archive is the row of that name in `_bundles`.
        deployed_us: When it was deployed, µs since 1970.
    """

    bundle: str
    deployed_us: int


class DeployRecord(msgspec.Struct, frozen=True):
    """The row of a deploy that made another bundle the active one.

    Attributes:
        number: Counts them, from 1.
        bundle: Hash of what became active.
        deployed_us: When, µs since 1970.
        deployer: Who, as the one who deployed has told it; "" if not.
    """

    number: int
    bundle: str
    deployed_us: int
    deployer: str

    @property
    def row_suffix(self) -> bytes:
        """Suffix of its row in `_deployment`."""
        return DEPLOYS_PREFIX + self.number.to_bytes(8, "big")


class BuildProgress(msgspec.Struct, frozen=True):
    """The row of an index that is being built or emptied.

    Attributes:
        next: Document key (entry key, when it is emptied) at which to go on.
        done: Whether nothing is left to do.
    """

    next: bytes
    done: bool


class RewriteProgress(msgspec.Struct, frozen=True):
    """The row of a table whose documents are being brought to its current shape.

    Attributes:
        shape: Number of that shape; under another one it begins anew.
        next: Document key at which to go on; b"" for the first.
        done: Whether no document is left that could be.
        left: How many stay as they are.
    """

    shape: int
    next: bytes = b""
    done: bool = False
    left: int = 0


class CheckProgress(msgspec.Struct, frozen=True):
    """The row of a check of documents that a deploy asked for and that may have been cut off.

    Attributes:
        bundle: Hash of the bundle that they were to fit.
        checker: Version of what looked.
        since_record: Number of the log's last record when it began: what later ones wrote may not have been seen.
        positions: Number of each table, and the document key up to which it has been looked at.
    """

    bundle: str
    checker: str
    since_record: int
    positions: dict[int, bytes]


def rewrite_row_suffix(table_number: int) -> bytes:
    """Return the suffix of a table's row in `_deployment` that tells how far its documents are rewritten."""
    return b"rewrites/%d" % table_number


class RowReader(Protocol):
    """Whatever reads rows of system tables: a transaction."""

    def get_row(self, table_number: int, suffix: bytes) -> bytes | None:
        """Read a row; it counts as read."""


class RowsReader(Protocol):
    """Whatever reads many rows of a system table: a transaction."""

    def read_rows(
        self, table_number: int, lo: bytes, hi: bytes, *, descending: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Iterate rows by suffix; what is consumed counts as read."""


_Row = TypeVar("_Row", bound=msgspec.Struct)


def read_row(reader: RowReader, table_number: int, suffix: bytes, kind: type[_Row]) -> _Row | None:
    """Return a row of a system table, decoded; None if there is none."""
    content = reader.get_row(table_number, suffix)
    return None if content is None else msgspec.msgpack.decode(content, type=kind)


def active_bundle(reader: RowReader) -> str | None:
    """Return the hash of the deployed bundle, None before the first deploy; it counts as read."""
    row = read_row(reader, DEPLOYMENT, ACTIVE_SUFFIX, ActiveBundle)
    return row.bundle if row else None


def deploy_records(transaction: RowsReader) -> list[DeployRecord]:
    """Return the deploys that are remembered, the newest first; they count as read."""
    rows = transaction.read_rows(DEPLOYMENT, DEPLOYS_PREFIX, DEPLOYS_PREFIX + b"\xff" * 9, descending=True)
    return [msgspec.msgpack.decode(content, type=DeployRecord) for _, content in rows]


def index_row_suffix(index_number: int) -> bytes:
    """Return the suffix of an index's row in `_indexes`."""
    return b"%d" % index_number
