"""A database in memory with a single writer that decides at once: for the testing kit and for tests.

What decides is what decides in the daemon: transactions, catalog, window, deployment. What is
left out is what makes commits durable and lets many share one write: log, batches, checkpoints.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from headwater_protocol.errors import RequestError, TransientError
from headwater_protocol.ids import SUFFIX_LENGTH, is_id

from headwater_storage.apply import backfill_entries, changes_of
from headwater_storage.catalog import SYSTEM_BY_PREFIX, CatalogCache
from headwater_storage.committer import CommitterOptions
from headwater_storage.deployment import Deployment, KeptDeploys
from headwater_storage.memory_store import MemoryStore
from headwater_storage.proposal import CommitTs
from headwater_storage.store import State
from headwater_storage.timeline import Timeline
from headwater_storage.transaction import Transaction
from headwater_storage.window import CommitWindow, PendingKeys, conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwater_storage.catalog import Catalog
    from headwater_storage.catalog_plan import TableSpec
    from headwater_storage.crons import CronSpec
    from headwater_storage.environment import Clock
    from headwater_storage.limits import CallLimits
    from headwater_storage.proposal import Proposal
    from headwater_storage.store import StoreSnapshot

_T = TypeVar("_T")


class MemoryEngine:
    """One database. Everything happens in the caller's thread, one thing after another.

    Attributes:
        store: What workers read.
        window: Conflict keys of the commits since the oldest that `trim` was told of.
    """

    def __init__(self, clock: Clock, random_bytes: Callable[[int], bytes], limits: CallLimits) -> None:
        self.store = MemoryStore()
        self.window = CommitWindow(self.store.state.ts)
        self._timeline = Timeline(clock, 0)
        self._random_bytes = random_bytes
        self._limits = limits
        self._transaction_bytes_max = CommitterOptions().transaction_bytes_max
        self._catalogs = CatalogCache()

    def next_us(self) -> int:
        """Return the time in µs for one call: later than for any before it, and than any commit."""
        return self._timeline.next_us()

    def table_name(self, document_id: str) -> str | None:
        """Return the table that an id names, None if it is malformed or of no known table."""
        if not is_id(document_id):
            return None
        with self.store.snapshot() as snapshot:
            prefix = document_id[:-SUFFIX_LENGTH]
            handle = self._catalog(snapshot).by_id_prefix.get(prefix) or SYSTEM_BY_PREFIX.get(prefix)
        return None if handle is None else handle.definition.name

    @contextmanager
    def begin(self, *, writable: bool = True) -> Iterator[Transaction]:
        """Open a transaction over the newest state for the length of a block."""
        with self.store.snapshot() as snapshot:
            yield Transaction(
                snapshot,
                self._catalog(snapshot),
                self._limits,
                now_us=self.next_us(),
                random_bytes=self._random_bytes,
                writable=writable,
            )

    def commit(self, proposal: Proposal) -> CommitTs:
        """Commit a proposal and return its ts; for one that writes nothing, the ts it saw.

        Raises:
            TransientError: `conflict`: run it again over a newer snapshot.
            RequestError: `too_many_bytes`.
        """
        if not proposal.writes and proposal.backfill is None:
            return proposal.begin_ts
        size = sum(len(write.key) + len(write.value or b"") for write in proposal.writes)
        if size > self._transaction_bytes_max:
            message = f"the transaction writes {size} bytes, the limit is {self._transaction_bytes_max}"
            raise RequestError(message, code="too_many_bytes")
        if conflict(self.window, PendingKeys(), proposal):
            raise TransientError(code="conflict")
        state = self.store.state
        ts = CommitTs(state.ts + 1)
        changes = changes_of([(ts, proposal.writes)])
        if proposal.backfill is not None:
            with self.store.snapshot() as snapshot:
                derived = backfill_entries(proposal.backfill, snapshot, self._catalog(snapshot))
            changes.entries.update(derived)
        self.window.add(ts, proposal.conflict_keys())
        catalog_ts = changes.catalog_ts or state.catalog_ts
        self.store.apply(changes, State(ts, state.record_number + 1, b"", catalog_ts, self.next_us()))
        return ts

    def deploy(self, tables: Sequence[TableSpec], bundle: str, crons: Sequence[CronSpec] = ()) -> None:
        """Make a bundle the active one and its tables the catalog.

        Raises:
            RequestError: See `Deployment.deploy`.
        """
        deploying = Deployment(self, KeptDeploys()).deploy(tables, bundle, b"", crons=crons)
        try:
            deploying.send(None)
        except StopIteration:
            return
        raise RuntimeError("a deploy in memory has nothing to wait for")

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it; waits for nothing, so nothing comes in between."""
        with self.begin() as transaction:
            result = function(transaction)
            proposal = transaction.proposal()
        return result, self.commit(proposal)

    async def read_blocking(self, function: Callable[[StoreSnapshot, Catalog], _T]) -> _T:
        """Run a function over the newest state."""
        with self.store.snapshot() as snapshot:
            return function(snapshot, self._catalog(snapshot))

    def _catalog(self, snapshot: StoreSnapshot) -> Catalog:
        return self._catalogs.get(snapshot, snapshot.state.catalog_ts)
