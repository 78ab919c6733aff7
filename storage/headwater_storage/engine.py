"""The database as the rest of the daemon sees it; everything else in this package is behind it.

Lives on the event loop. Life: `open` recovers the directory (blocks), `run` commits and
checkpoints until `stop`, `close` makes the last checkpoint and lets the directory go.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from headwater_protocol.errors import HeadwaterError, OutcomeUnknown, StorageError, TransientError

from headwater_storage.apply import record_applier
from headwater_storage.catalog import BUNDLES, CatalogCache, active_bundle, deploy_records
from headwater_storage.committer import Committer, CommitterOptions, PublishedBatch
from headwater_storage.deployment import Deployment, KeptDeploys
from headwater_storage.keys import NUMBER_BYTES, table_range
from headwater_storage.limits import CallLimits
from headwater_storage.readers import OldReader, ReaderAges
from headwater_storage.recovery import StorageOptions, recover
from headwater_storage.timeline import Timeline
from headwater_storage.transaction import Transaction
from headwater_storage.window import CommitWindow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
    from pathlib import Path

    from headwater_storage.catalog import Catalog, DeployRecord, TableDefinition
    from headwater_storage.catalog_plan import TableSpec
    from headwater_storage.chain import Chain
    from headwater_storage.committer import Listener
    from headwater_storage.crons import CronSpec
    from headwater_storage.deployment import DocumentChecks
    from headwater_storage.environment import Environment
    from headwater_storage.log import Log
    from headwater_storage.proposal import CommitTs, Proposal
    from headwater_storage.recovery import Recovered
    from headwater_storage.store import Store, StoreSnapshot

_T = TypeVar("_T")
_CLOCK_BEHIND_US = 1_000_000
"""A clock that is further behind than usual corrections make it is worth a line of the log."""

_log = logging.getLogger("headwater.storage.engine")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How the database runs.

    Attributes:
        storage: How it lies on disk.
        committer: Bounds of batches and queues.
        call_limits: Bounds of the engine's own transactions.
        window_bytes_max: Memory for conflict keys; calls from before it are rerun.
        transact_attempts: How often `transact` runs a function that meets conflicts.
        checkpoint_poll_s: How often it is asked whether a checkpoint is due.
        sweep_retry_s: Pause after a sweep of old index entries that could not write.
        snapshot_limit_s: How long another process may keep a snapshot that is not the newest.
        reader_poll_s: How often it is asked who does.
        kept_deploys: How much of past deploys is kept.
    """

    storage: StorageOptions = field(default_factory=StorageOptions)
    committer: CommitterOptions = field(default_factory=CommitterOptions)
    call_limits: CallLimits = field(default_factory=lambda: CallLimits(bytes_written_max=16 << 20))
    window_bytes_max: int = 64 << 20
    transact_attempts: int = 50
    checkpoint_poll_s: float = 0.25
    sweep_retry_s: float = 5.0
    snapshot_limit_s: float = 10.0
    reader_poll_s: float = 0.25
    kept_deploys: KeptDeploys = field(default_factory=KeptDeploys)


class PastDeploy(NamedTuple):
    """A deploy, and whether its bundle can be gone back to."""

    record: DeployRecord
    is_kept: bool


class _NobodyListens:
    """Stands in until the server sets its listener."""

    def published(self, batch: PublishedBatch) -> None:
        """Do nothing."""

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        """Do nothing."""


class _Waiter:
    """Owner of a proposal whose outcome somebody awaits."""

    __slots__ = ("future",)

    def __init__(self, future: asyncio.Future[CommitTs]) -> None:
        self.future = future


class Engine:
    """One open database.

    Attributes:
        listener: Hears of what `submit` was given, and of every batch.
        window: Conflict keys of recent commits.
        end_reader: Told of a process that keeps a snapshot for too long, and of how long; whether it will end.
        lost: Told of proposals that have lost to others; see `Committer`.
    """

    def __init__(self, recovered: Recovered, options: EngineOptions, environment: Environment) -> None:
        self.listener: Listener = _NobodyListens()
        self.end_reader: Callable[[int, float], bool] = lambda process, age_s: False
        self.lost: Callable[[Any, bytes | None, Any], None] = lambda *_: None
        with recovered.store.snapshot() as snapshot:
            self.window = CommitWindow(snapshot.state.ts, bytes_max=options.window_bytes_max)
            self._timeline = Timeline(environment.clock, snapshot.state.wall_us)
        if self._timeline.behind_us > _CLOCK_BEHIND_US:
            fields = {"behind_s": self._timeline.behind_us / 1e6}
            _log.warning("clock behind: time stands until it has caught up", extra={"fields": fields})
        self._recovered = recovered
        self._options = options
        self._environment = environment
        self._catalogs = CatalogCache()
        self._holds: Counter[CommitTs] = Counter()
        self._oldest: list[Callable[[], CommitTs | None]] = []
        self._waiters: set[_Waiter] = set()
        self._stopping = asyncio.Event()
        self._sweep_due = asyncio.Event()
        self._sweep_due.set()  # an earlier process may have left something
        self._deployment = Deployment(self, options.kept_deploys)
        self._committer = Committer(
            recovered.store,
            recovered.log,
            self.window,
            environment,
            options.committer,
            self,
            self._timeline,
            recovered.checkpointer.is_behind,
        )
        self._committer.lost = self._lost
        self.watch_oldest(self._committer.waiting_since)

    @classmethod
    def open(cls, path: Path, options: EngineOptions, environment: Environment) -> Engine:
        """Open a data directory; one that is missing is made. Blocks while it recovers.

        Raises:
            StorageError: See `recovery.recover`.
        """
        return cls(recover(path, options.storage, environment, record_applier()), options, environment)

    @property
    def published_ts(self) -> CommitTs:
        """Newest ts that the outside may see."""
        return self._committer.published_ts

    @property
    def incarnation(self) -> bytes:
        """Random; names this opening of the log."""
        return self._recovered.claim.incarnation

    @property
    def store(self) -> Store:
        """What workers open for reading."""
        return self._recovered.store

    @property
    def log(self) -> Log:
        """The log."""
        return self._recovered.log

    def next_us(self) -> int:
        """Return the time in µs for one call: later than for any before it, and than any commit."""
        return self._timeline.next_us()

    # ------------------------------------------------------------------------------------- running

    async def run(self) -> None:
        """Commit, checkpoint and sweep until `stop`; then everything submitted is decided.

        Raises:
            StorageError: Storage failed: the process has to end and recover. Whoever waits
                for a commit gets `outcome_unknown`.
        """
        loops = [
            asyncio.create_task(self._committer.run(), name="committer"),
            asyncio.create_task(self._checkpoint_loop(), name="checkpoints"),
            asyncio.create_task(self._sweep_loop(), name="index sweep"),
            asyncio.create_task(self._reader_loop(), name="old readers"),
        ]
        try:
            await asyncio.wait(loops, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self._committer.close()  # whatever comes from now on is refused
            for task in loops:
                task.cancel()
            outcomes = await asyncio.gather(*loops, return_exceptions=True)
            for waiter in self._waiters:
                if not waiter.future.done():
                    waiter.future.set_exception(OutcomeUnknown("the storage failed during the commit"))
            self._waiters.clear()
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    def stop(self) -> None:
        """Refuse new proposals and let `run` end when those before are decided."""
        self._committer.close()
        self._stopping.set()
        self._sweep_due.set()

    def close(self, *, clean: bool = True) -> None:
        """Let the directory go, after `run` has ended and no snapshot is open. Blocks.

        Args:
            clean: Make a last checkpoint, so that the next start replays nothing; not after a failure.
        """
        self._recovered.close(clean=clean)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Engine]:
        """Run for the length of a block, then stop and close."""
        task = asyncio.create_task(self.run(), name="engine")
        try:
            yield self
        finally:
            self.stop()
            await asyncio.wait([task])
            self.close(clean=task.exception() is None)
        await task

    # ----------------------------------------------------------------------------------- committing

    def submit(self, proposal: Proposal, owner: Any, chain: Chain | None = None) -> None:
        """Hand a proposal to the committer; the listener hears how it ended, maybe before this returns."""
        self._committer.submit(proposal, owner, chain)

    def has_touched(self, proposal: Proposal) -> bool:
        """Tell whether anybody has written, since a proposal's snapshot, what it read."""
        return self._committer.has_touched(proposal)

    def end_chain(self, chain: Chain) -> None:
        """Forget a chain whose members are all decided."""
        self._committer.end_chain(chain)

    async def commit(self, proposal: Proposal) -> CommitTs:
        """Commit a proposal and return its ts once it is published.

        Raises:
            TransientError: `conflict`: run it again over a newer snapshot; `disk_full`, `overloaded`.
        """
        waiter = _Waiter(asyncio.get_running_loop().create_future())
        self._waiters.add(waiter)
        self.hold(proposal.begin_ts)
        try:
            self._committer.submit(proposal, waiter)
            return await waiter.future
        finally:
            self.release(proposal.begin_ts)
            self._waiters.discard(waiter)

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it, again over a newer snapshot after a conflict.

        Returns:
            What the function returned, and the commit ts.
        """
        for _ in range(self._options.transact_attempts):
            with self.begin() as transaction:
                result = function(transaction)
                proposal = transaction.proposal()
            try:
                return result, await self.commit(proposal)
            except TransientError as error:
                if error.code != "conflict":
                    raise
        raise TransientError(f"gave up after {self._options.transact_attempts} conflicts", code="conflict")

    @contextmanager
    def begin(self, *, writable: bool = True) -> Iterator[Transaction]:
        """Open a transaction over the newest state for the length of a block."""
        with self.snapshot() as snapshot:
            yield Transaction(
                snapshot,
                self.catalog(snapshot),
                self._options.call_limits,
                now_us=self.next_us(),
                random_bytes=self._environment.random.bytes,
                writable=writable,
            )

    def snapshot(self) -> StoreSnapshot:
        """Return the newest state; close it before the engine."""
        return self.store.snapshot()

    def catalog(self, snapshot: StoreSnapshot) -> Catalog:
        """Return the catalog of a snapshot."""
        return self._catalogs.get(snapshot, snapshot.state.catalog_ts)

    async def read_blocking(self, function: Callable[[StoreSnapshot, Catalog], _T]) -> _T:
        """Run a reading function over the newest state in a thread; what takes long belongs into several."""

        def work() -> _T:
            with self.snapshot() as snapshot:
                return function(snapshot, CatalogCache().get(snapshot, snapshot.state.catalog_ts))

        return await self._environment.run_blocking(work)

    async def written_since(
        self, record_number: int, tables: Collection[bytes], keys_max: int
    ) -> set[bytes] | None:
        """Return the keys of documents that later records of the log wrote, in a thread.

        Args:
            record_number: Of the last record that does not count.
            tables: What keys of the tables that are asked for begin with.
            keys_max: So many at most.

        Returns:
            None if there are more, or the log does not reach back so far.
        """

        def work() -> set[bytes] | None:
            found: set[bytes] = set()
            try:
                for record in self.log.read(record_number + 1):
                    for transaction in record.transactions:
                        found.update(key for key, _ in transaction.writes if key[:NUMBER_BYTES] in tables)
                    if len(found) > keys_max:
                        return None
            except StorageError:
                return None
            return found

        return await self._environment.run_blocking(work)

    # --------------------------------------------------------------------------------------- window

    def hold(self, ts: CommitTs) -> None:
        """Keep the window back to `ts`, the published ts when a call or round began, until `release`."""
        self._holds[ts] += 1

    def release(self, ts: CommitTs) -> None:
        """Undo one `hold`."""
        self._holds[ts] -= 1
        if self._holds[ts] <= 0:
            del self._holds[ts]

    def watch_oldest(self, oldest_ts: Callable[[], CommitTs | None]) -> None:
        """Also keep the window back to what a callable says at each commit."""
        self._oldest.append(oldest_ts)

    def _trim_window(self) -> None:
        oldest = [ts for callable_ in self._oldest if (ts := callable_()) is not None]
        self.window.trim(min([self.published_ts, *self._holds, *oldest]))

    # -------------------------------------------------------------------------------------- bundles

    async def deploy(
        self,
        tables: Sequence[TableSpec],
        bundle: str,
        archive: bytes,
        deployer: str = "",
        checks: DocumentChecks | None = None,
        crons: Sequence[CronSpec] = (),
    ) -> CommitTs:
        """Deploy a bundle; see `Deployment.deploy`."""
        try:
            return await self._deployment.deploy(tables, bundle, archive, deployer, checks, crons)
        finally:
            self._sweep_due.set()

    def tables(self) -> list[TableDefinition]:
        """Return every table there is, removed ones too."""
        with self.snapshot() as snapshot:
            return [handle.definition for handle in self.catalog(snapshot).by_number.values()]

    def active_bundle(self) -> str | None:
        """Return the hash of the deployed bundle, None before the first deploy."""
        with self.begin(writable=False) as transaction:
            return active_bundle(transaction)

    def bundle(self, bundle: str) -> bytes | None:
        """Return a bundle's archive, None if it is not kept; those of the active one and of the last ones before are."""
        with self.begin(writable=False) as transaction:
            return transaction.get_row(BUNDLES, bundle.encode())

    def deploys(self) -> list[PastDeploy]:
        """Return the deploys that are remembered, the newest first."""
        with self.begin(writable=False) as transaction:
            kept = self.kept_bundles()
            return [PastDeploy(one, one.bundle in kept) for one in deploy_records(transaction)]

    def kept_bundles(self) -> list[str]:
        """Return the bundles whose archives are there."""
        with self.snapshot() as snapshot:
            return [key[4:].decode() for key, _ in snapshot.documents(*table_range(BUNDLES))]

    # --------------------------------------------------------------------- listener of the committer

    def published(self, batch: PublishedBatch) -> None:
        """Pass a batch on and wake who waits for a commit in it."""
        waiting = [commit for commit in batch.commits if isinstance(commit.owner, _Waiter)]
        if waiting:
            others = [commit for commit in batch.commits if not isinstance(commit.owner, _Waiter)]
            batch = batch._replace(commits=others)
        self.listener.published(batch)
        for commit in waiting:
            if not commit.owner.future.done():
                commit.owner.future.set_result(commit.ts)
        self._trim_window()  # last: clients wait for what comes before

    def _lost(self, owner: Any, key: bytes | None, other: Any) -> None:
        """Pass on that a proposal has lost, unless it is of the engine's own."""
        if not isinstance(owner, _Waiter):
            self.lost(owner, key, None if isinstance(other, _Waiter) else other)

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        """Pass a rejection on."""
        if not isinstance(owner, _Waiter):
            self.listener.rejected(owner, error)
        elif not owner.future.done():
            owner.future.set_exception(error)

    # -------------------------------------------------------------------------------------- private

    async def _checkpoint_loop(self) -> None:
        checkpointer = self._recovered.checkpointer
        while not await self._stopped_within(self._options.checkpoint_poll_s):
            if not checkpointer.due():
                checkpointer.trim_log()
                continue
            try:
                await checkpointer.run()
            except TransientError as error:
                _log.warning(
                    "checkpoint put off", extra={"fields": {"code": error.code, "reason": error.message}}
                )

    async def _reader_loop(self) -> None:
        """Have everybody ended who keeps a snapshot for too long: the store's file grows meanwhile."""
        options = self._options
        ages, told = ReaderAges(2 * options.reader_poll_s), set[OldReader]()
        while not await self._stopped_within(options.reader_poll_s):
            found = ages.look(self.store.old_readers(), self._environment.clock.mono_s())
            told &= found.keys()
            for reader, age_s in found.items():
                if age_s < options.snapshot_limit_s or reader in told:
                    continue
                told.add(reader)
                if not self.end_reader(reader.process, age_s):
                    fields = {"process": reader.process, "age_s": age_s}
                    text = "a strange process keeps an old snapshot: the store's file grows by all that is written"
                    _log.warning(text, extra={"fields": fields})

    async def _stopped_within(self, seconds: float) -> bool:
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return False
        return True

    async def _sweep_loop(self) -> None:
        while True:
            await self._sweep_due.wait()
            self._sweep_due.clear()
            if self._stopping.is_set():
                return
            try:
                await self._deployment.sweep()
            except TransientError as error:
                _log.warning(
                    "index sweep put off", extra={"fields": {"code": error.code, "reason": error.message}}
                )
                if await self._stopped_within(self._options.sweep_retry_s):
                    return
                self._sweep_due.set()
