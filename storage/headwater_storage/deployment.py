"""Moves the database to a new bundle while the old one serves.

Indexes on tables that have documents are built first, by log records that each derive the
entries of some documents, while all writers already maintain them. Then one commit switches
tables, indexes and active bundle together. A deploy that fails before it has changed
nothing that a call can see; one that was cut off is taken up by the next.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

import msgspec
from headwater_protocol.errors import RequestError, TransientError
from headwater_protocol.ids import SUFFIX_LENGTH

from headwater_storage.catalog import (
    ACTIVE_SUFFIX,
    BUNDLES,
    DEPLOYMENT,
    INDEXES,
    NUMBERS_SUFFIX,
    TABLES,
    TABLES_RANGE,
    ActiveBundle,
    BuildProgress,
    DeployRecord,
    Numbers,
    active_bundle,
    deploy_records,
    encode_table,
    index_row_suffix,
    read_row,
)
from headwater_storage.catalog_plan import (
    IndexesIncompleteError,
    check_specs,
    plan_abandon,
    plan_building,
    plan_switch,
)
from headwater_storage.crons import declare
from headwater_storage.keys import MISSING, decode_fields, index_range, table_range
from headwater_storage.proposal import Backfill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from headwater_storage.catalog import Catalog, TableDefinition
    from headwater_storage.catalog_plan import CatalogPlan, TableSpec
    from headwater_storage.crons import CronSpec
    from headwater_storage.indexes import IndexDefinition
    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import StoreSnapshot
    from headwater_storage.transaction import Transaction

BUNDLE_BYTES_MAX = 15 << 20
"""An archive is a row, so it has to fit into one transaction."""

_CHUNK_ITEMS = 256
_CHUNK_BYTES = 1 << 20
_CHECK_ITEMS = 4096
"""Entries that are looked at over one snapshot: some milliseconds."""

_SWITCH_ATTEMPTS = 30

_T = TypeVar("_T")


class Database(Protocol):
    """What a deployment needs of the engine."""

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it, again after a conflict."""

    async def read_blocking(self, function: Callable[[StoreSnapshot, Catalog], _T]) -> _T:
        """Run a function over the newest state without holding up the event loop."""


@dataclass(frozen=True, slots=True)
class KeptDeploys:
    """How much of the past is kept.

    Attributes:
        bundles: So many bundles can be gone back to, the active one included.
        records: So many deploys are told of.
    """

    bundles: int = 5
    records: int = 1_000


class _Switch(NamedTuple):
    """What becomes active."""

    bundle: str
    archive: bytes
    deployer: str
    kept: KeptDeploys
    crons: Sequence[CronSpec]


class DocumentsNotCheckedError(Exception):
    """Documents were written that have to be looked at before the switch."""


class DeployGivenUpError(RequestError):
    """Another deploy takes the place of this one, and what it has built."""


class DocumentChecks(Protocol):
    """Looks whether the documents that are there fit what is to become active, and follows the deploy."""

    async def catch_up(self) -> None:
        """Look at everything that was not looked at as it is now."""

    def require(self, transaction: Transaction) -> None:
        """Have the switch fail unless that is so when it commits."""

    def built(self, index: IndexDefinition, key: bytes | None) -> None:
        """Hear that an index has the entries of all documents up to a key, None: of all.

        Raises:
            DeployGivenUpError: The deploy shall end.
        """


class Deployment:
    """Deploys one bundle at a time.

    Args:
        database: The engine.
        kept: How much of the past is kept.
    """

    def __init__(self, database: Database, kept: KeptDeploys) -> None:
        self._database = database
        self._kept = kept
        self._turn = asyncio.Lock()

    async def deploy(
        self,
        tables: Sequence[TableSpec],
        bundle: str,
        archive: bytes,
        deployer: str = "",
        checks: DocumentChecks | None = None,
        crons: Sequence[CronSpec] = (),
    ) -> CommitTs:
        """Make a bundle the active one and its tables the catalog.

        Args:
            tables: What the bundle's manifest declares.
            bundle: Hash that names it.
            archive: Its zip.
            deployer: Who does it, as they say; kept with the deploy.
            checks: What the documents have to pass before.
            crons: What its manifest declares of these.

        Returns:
            Commit ts of the switch.

        Raises:
            RequestError: `invalid_bundle`, or `unique_violation`: the documents that exist do
                not allow a unique index. Nothing has changed then.
        """
        check_specs(tables)
        if len(archive) > BUNDLE_BYTES_MAX:
            raise RequestError(
                f"the bundle has {len(archive)} bytes, the limit is {BUNDLE_BYTES_MAX}", code="invalid_bundle"
            )
        async with self._turn:
            try:
                return await self._deploy(
                    tables, _Switch(bundle, archive, deployer, self._kept, crons), checks
                )
            except DeployGivenUpError:
                raise
            except RequestError:
                await self._database.transact(_abandon)
                raise

    async def sweep(self) -> None:
        """Delete the entries of indexes that are no longer used, in small steps."""
        for index in await self._indexes("dropping"):
            while not (await self._step(index)).done:
                pass

    async def _deploy(
        self, tables: Sequence[TableSpec], switch: _Switch, checks: DocumentChecks | None
    ) -> CommitTs:
        if checks is not None:
            await checks.catch_up()  # what does not fit is refused before anything is built
        for _ in range(_SWITCH_ATTEMPTS):
            await self._database.transact(lambda transaction: _begin_building(transaction, tables))
            for index in await self._indexes("building"):
                await self._build(index, checks)
                if index.unique:
                    check = UniqueCheck(index)
                    while not await self._database.read_blocking(check.advance):
                        pass
            if checks is not None:
                await checks.catch_up()
            try:
                _, ts = await self._database.transact(
                    lambda transaction: _switch_to(transaction, tables, switch, checks)
                )
            except (IndexesIncompleteError, DocumentsNotCheckedError):
                continue  # a table that was empty when the building was planned no longer is, or was written to
            return ts
        message = "the tables change faster than their indexes can be built and their documents checked"
        raise TransientError(message, code="conflict")

    async def _build(self, index: IndexDefinition, checks: DocumentChecks | None) -> None:
        done = False
        while not done:
            progress = await self._step(index)
            done = progress.done
            if checks is not None:
                checks.built(index, None if done else progress.next)

    async def _step(self, index: IndexDefinition) -> BuildProgress:
        """Build or empty the next part of an index; return how far it is."""
        progress, _ = await self._database.transact(lambda transaction: _advance(transaction, index))
        return progress

    async def _indexes(self, state: str) -> list[IndexDefinition]:
        indexes = await self._database.read_blocking(lambda _, catalog: list(catalog.indexes.values()))
        return [index for index in indexes if index.state == state]


class _Facts:
    """Answers a plan's questions within a transaction, so that the answers count as read."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def is_empty(self, table: TableDefinition) -> bool:
        """Tell whether the table has no document."""
        return self._transaction.is_empty(self._transaction.catalog.by_number[table.number])

    def is_built(self, index: IndexDefinition) -> bool:
        """Tell whether a building index has every entry."""
        return self._is_done(index)

    def is_swept(self, index: IndexDefinition) -> bool:
        """Tell whether a dropping index has no entry left."""
        return self._is_done(index)

    def _is_done(self, index: IndexDefinition) -> bool:
        row = read_row(self._transaction, INDEXES, index_row_suffix(index.number), BuildProgress)
        return row is not None and row.done


class UniqueCheck:
    """A look through a built unique index for documents that have the same fields.

    In parts, each over a snapshot of its own, since an open snapshot keeps every page that is
    freed meanwhile. What is written between them cannot hide anything: once the index is built,
    every writer sees all of its entries, and who began before conflicts with the building. So
    no two documents come to have the same fields any more; those that have them stay where they
    are until one of them changes, and are met one after the other. That both are still there is
    looked up in the snapshot in which the second one is met.
    """

    def __init__(self, index: IndexDefinition) -> None:
        self._index = index
        self._next, self._end = index_range(index.number)
        self._fields = b""
        self._seen: dict[
            bytes, bytes
        ] = {}  # of the entries with these cut fields: the rest of them, and the key

    def advance(self, snapshot: StoreSnapshot, catalog: Catalog) -> bool:
        """Look at the next part; return whether it was the last one.

        Raises:
            RequestError: `unique_violation`, naming table, index and value.
        """
        for count, (key, overflow) in enumerate(snapshot.entries(self._next, self._end), 1):
            fields = key[:-SUFFIX_LENGTH]
            if fields != self._fields:
                self._fields, self._seen = fields, {}
            earlier = self._seen.get(overflow)
            if earlier is not None and snapshot.get_entry(earlier) == overflow:
                self._refuse(fields + overflow, catalog)
            self._seen[overflow] = key
            self._next = key + b"\x00"
            if count >= _CHECK_ITEMS:
                return False
        return True

    def _refuse(self, fields: bytes, catalog: Catalog) -> None:
        """Refuse fields that two documents have, unless one of them is null or missing."""
        values = decode_fields(fields[4:])
        if any(value is None or value is MISSING for value in values):
            return
        index = self._index
        table = catalog.by_number[index.table].definition.name
        raise RequestError(
            f"table {table!r} has two documents with {', '.join(index.fields)} = {values!r:.500},"
            f" so the index {index.name!r} cannot be unique",
            code="unique_violation",
        )


def _begin_building(transaction: Transaction, tables: Sequence[TableSpec]) -> None:
    transaction.add_range(*TABLES_RANGE)
    plan = plan_building(transaction.catalog, _numbers(transaction), tables, _Facts(transaction))
    _write_plan(transaction, plan)


def _abandon(transaction: Transaction) -> None:
    transaction.add_range(*TABLES_RANGE)
    _write_plan(transaction, plan_abandon(transaction.catalog, _numbers(transaction)))


def _switch_to(
    transaction: Transaction, tables: Sequence[TableSpec], switch: _Switch, checks: DocumentChecks | None
) -> None:
    if checks is not None:
        checks.require(transaction)
    transaction.add_range(*TABLES_RANGE)
    plan = plan_switch(transaction.catalog, _numbers(transaction), tables, _Facts(transaction))
    _write_plan(transaction, plan)
    declare(transaction, switch.crons)
    previous = active_bundle(transaction)
    if previous == switch.bundle:
        return
    past = deploy_records(transaction)
    number = past[0].number + 1 if past else 1
    record = DeployRecord(number, switch.bundle, transaction.now_us, switch.deployer)
    transaction.put_row(DEPLOYMENT, record.row_suffix, msgspec.msgpack.encode(record))
    for forgotten in past[switch.kept.records - 1 :]:
        transaction.put_row(DEPLOYMENT, forgotten.row_suffix, None)
    # The one before is named by itself: who deployed it may have kept no records.
    names = list(dict.fromkeys([switch.bundle, previous or "", *[one.bundle for one in past]]))
    kept = {name.encode() for name in names[: switch.kept.bundles]}
    for key, _ in transaction.snapshot.documents(*table_range(BUNDLES)):
        if key[4:] not in kept:
            transaction.put_row(BUNDLES, key[4:], None)
    transaction.put_row(BUNDLES, switch.bundle.encode(), switch.archive)
    row = ActiveBundle(switch.bundle, transaction.now_us)
    transaction.put_row(DEPLOYMENT, ACTIVE_SUFFIX, msgspec.msgpack.encode(row))


def _numbers(transaction: Transaction) -> Numbers:
    return read_row(transaction, DEPLOYMENT, NUMBERS_SUFFIX, Numbers) or Numbers()


def _write_plan(transaction: Transaction, plan: CatalogPlan) -> None:
    before = transaction.catalog.indexes
    for table in plan.tables:
        transaction.put_row(TABLES, table.row_suffix, encode_table(table))
        after = {index.number: index for index in table.indexes}
        for number, index in before.items():
            # The progress row belongs to one stay in one state.
            if index.table == table.number and index != after.get(number):
                transaction.put_row(INDEXES, index_row_suffix(number), None)
    if plan.numbers != _numbers(transaction):
        transaction.put_row(DEPLOYMENT, NUMBERS_SUFFIX, msgspec.msgpack.encode(plan.numbers))


def _advance(transaction: Transaction, index: IndexDefinition) -> BuildProgress:
    """Plan the next part of building or emptying an index; return how far it is then."""
    current = transaction.catalog.indexes.get(index.number)
    handle = transaction.catalog.by_number[index.table]
    transaction.add_point(handle.row_key)
    if current is None or current.state != index.state:
        return BuildProgress(b"", True)
    building = current.state == "building"
    lo, hi = handle.documents if building else index_range(index.number)
    suffix = index_row_suffix(index.number)
    progress = read_row(transaction, INDEXES, suffix, BuildProgress) or BuildProgress(lo, False)
    if progress.done:
        return progress
    snapshot = transaction.snapshot
    items = snapshot.documents(progress.next, hi) if building else snapshot.entries(progress.next, hi)
    end = _chunk_end(items)
    if end is None:
        progress = BuildProgress(hi, True)
    else:
        transaction.backfill = Backfill(index.number, progress.next, end)
        progress = BuildProgress(end, False)
    transaction.put_row(INDEXES, suffix, msgspec.msgpack.encode(progress))
    return progress


def _chunk_end(items: Iterable[tuple[bytes, bytes]]) -> bytes | None:
    """Return where a part ends that is small enough for one record, None if there is nothing."""
    end = None
    size = 0
    for count, (key, value) in enumerate(items, 1):
        end = key + b"\x00"
        size += len(key) + len(value)
        if count >= _CHUNK_ITEMS or size >= _CHUNK_BYTES:
            break
    return end
