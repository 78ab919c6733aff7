"""The single writer: validates proposals, makes them durable together, applies and publishes them.

Lives on the event loop; only the append to the log leaves it, unless it is a quick one (`appender.py`). Order of a batch: its
conflict keys enter the window, its record is appended and durable, the store applies it,
and `published` is called in the same step of the loop, so that nobody acts on a state which
the rest of the daemon does not know yet.

A proposal is validated when it joins the open batch, against the window (which has
everything handed to the log already) and against those in the open batch before it. The
open batch collects while the disk is busy with the one before and is closed the moment the
disk is free; the store applies that one while the disk works on the next, in a thread.

A proposal that lost to one which is not visible yet hears of its conflict when that one is
published: only from then on can it be rerun with success.

A proposal may be the member of a chain: then it has seen the uncommitted writes of those
before it in the chain, and is validated against what others wrote (`Chain.stands`). It
takes part also when it writes nothing, since what it read has to commit first.

Other proposals that write nothing are published at once with the ts they saw: each saw one
snapshot, taken after it was asked for, and that is where it stands in the serial order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, assert_never

import lmdb
from headwater_protocol.errors import HeadwaterError, RequestError, StorageError, TransientError

from headwater_storage.appender import Appender
from headwater_storage.apply import backfill_entries, changes_of
from headwater_storage.catalog import CatalogCache
from headwater_storage.disk_errors import no_room, no_room_in_store, store_error
from headwater_storage.log import Appended, Conflict, LoggedTransaction, Unknown
from headwater_storage.proposal import CommitTs
from headwater_storage.recent_commits import RecentCommits, writer_in
from headwater_storage.store import State
from headwater_storage.window import PendingKeys, conflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_storage.apply import Changes
    from headwater_storage.chain import Chain
    from headwater_storage.environment import Environment
    from headwater_storage.log import AppendOutcome, EncodedRecord, Log
    from headwater_storage.proposal import Backfill, Proposal
    from headwater_storage.store import Store
    from headwater_storage.timeline import Timeline
    from headwater_storage.window import CommitWindow

_log = logging.getLogger("headwater.storage.committer")


@dataclass(frozen=True, slots=True)
class CommitterOptions:
    """Bounds of the committer.

    Attributes:
        batch_bytes_max: Logged bytes at which a batch is closed.
        batch_count_max: Transactions at which it is closed.
        transaction_bytes_max: Logged bytes of one transaction; between this and
            `batch_bytes_max` it is a batch of its own.
        waiting_max: Proposals that may wait behind a full batch; more are refused.
        free_bytes_min: Space that has to be left after an append, on the disk and below the store's
            largest size: the store needs some to apply what is in the log.
        wait_poll_s: Pause before it is asked again whether commits must wait for a checkpoint.
        retry_s: Pause before a durable batch is applied again after the store had no room.
        quick_append_s: An append of few commits that is expected to take less runs on the event loop; 0: none does.
    """

    batch_bytes_max: int = 1 << 20
    batch_count_max: int = 1_024
    transaction_bytes_max: int = 16 << 20
    waiting_max: int = 20_000
    free_bytes_min: int = 64 << 20
    wait_poll_s: float = 0.01
    retry_s: float = 0.5
    quick_append_s: float = 0.0


class Commit(NamedTuple):
    """One committed proposal.

    Attributes:
        owner: As it was submitted.
        ts: Its commit ts; for a proposal that writes nothing, the ts it saw.
        proposal: What was committed.
    """

    owner: Any
    ts: CommitTs
    proposal: Proposal


class BatchTimes(NamedTuple):
    """When what became of a batch; monotonic seconds.

    Attributes:
        sealed_s: It was closed, and began to be written to the log.
        durable_s: It was durable there.
    """

    sealed_s: float
    durable_s: float


class PublishedBatch(NamedTuple):
    """What becomes visible in one step.

    Attributes:
        ts: Published ts from now on.
        commits: In commit order.
        conflict_keys: Of all of them together.
        times: When it was made durable; None: nothing was written.
    """

    ts: CommitTs
    commits: list[Commit]
    conflict_keys: set[bytes]
    times: BatchTimes | None = None


class Listener(Protocol):
    """Whoever hears of commits. Called on the event loop; must not wait, nor raise."""

    def published(self, batch: PublishedBatch) -> None:
        """Act on a batch that is durable, applied, and the newest state from now on."""

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        """Act on a proposal that did not commit: `conflict`, `disk_full`, `overloaded` and the like.

        May be called before `submit` returns.
        """


class _Submitted(NamedTuple):
    """A proposal on its way into a batch."""

    proposal: Proposal
    owner: Any
    chain: Chain | None


class _OpenBatch:
    """Proposals that are valid after one another and will share a record, and whom they beat."""

    __slots__ = ("backfill", "commits", "losers", "pending", "size")

    def __init__(self) -> None:
        self.commits: list[_Submitted] = []
        self.losers: list[Any] = []
        self.pending = PendingKeys()
        self.size = 0
        self.backfill: Backfill | None = None


class _SealedBatch(NamedTuple):
    """A batch on its way: encoded, its conflict keys in the window; `members`: how many of which chain."""

    record: EncodedRecord
    commits: list[Commit]
    members: Counter[Chain]
    losers: list[Any]
    conflict_keys: set[bytes]
    derived: dict[bytes, bytes | None]
    wall_us: int
    times: BatchTimes
    append: asyncio.Future[AppendOutcome]


class Committer:
    """Turns proposals into commits, in the order in which they are submitted.

    Attributes:
        listener: Hears of every commit and rejection; set before the first `submit`.
        published_ts: Newest ts that the outside may see.
        lost: Told of each proposal that has lost to another: whose it is, a key that it had read and that the other
            one wrote, and whose that is. None: not known, as it is of what the server itself commits.
    """

    def __init__(
        self,
        store: Store,
        log: Log,
        window: CommitWindow,
        environment: Environment,
        options: CommitterOptions,
        listener: Listener,
        timeline: Timeline,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> None:
        """Go on where the store is.

        Args:
            store: What batches are applied to.
            log: Claimed, and ending where the store is.
            window: Gets the conflict keys of each batch.
            environment: Files and threads.
            options: Bounds.
            listener: See the attribute.
            timeline: Times of batches.
            is_behind: Tells whether batches must wait for a checkpoint, so that what a start replays
                stays bounded.
        """
        self.listener = listener
        self.lost: Callable[[Any, bytes | None, Any], None] = lambda *_: None
        self._is_behind = is_behind
        self._timeline = timeline
        with store.snapshot() as snapshot:
            self._state = snapshot.state
        self.published_ts = self._state.ts
        self._store = store
        self._log = log
        self._appender = Appender(log, environment, options.quick_append_s)
        self._head = log.head
        self._window = window
        self._environment = environment
        self._options = options
        self._catalogs = CatalogCache()
        self._open = _OpenBatch()
        self._sealed_losers: list[Any] = []  # of the newest sealed batch; used until it is published
        self._waiting: deque[_Submitted] = deque()
        self._waiting_ts: Counter[CommitTs] = Counter()  # their snapshots
        self._recent = RecentCommits()
        self._chains: list[Chain] = []  # from their first member to `end_chain`
        self._wake = asyncio.Event()
        self._full: TransientError | None = None  # set while a durable batch waits for room in the store
        self._closing = False

    def submit(self, proposal: Proposal, owner: Any, chain: Chain | None = None) -> None:
        """Take a proposal; the listener is told once how it ended.

        Args:
            proposal: What to commit.
            owner: Handed back to the listener.
            chain: The chain of which it is the next member.
        """
        submitted = _Submitted(proposal, owner, chain)
        if self._closing:
            self._reject(submitted, TransientError("the daemon is stopping"))
        elif not proposal.writes and proposal.backfill is None and chain is None:
            commit = Commit(owner, proposal.begin_ts, proposal)
            self.listener.published(PublishedBatch(self.published_ts, [commit], set()))
        elif self._full is not None:
            self._reject(submitted, self._full)
        elif len(self._waiting) >= self._options.waiting_max:
            message = f"{len(self._waiting)} transactions wait to be committed"
            self._reject(submitted, TransientError(message, code="overloaded"))
        elif self._waiting or not self._join(submitted):
            self._waiting.append(submitted)
            self._waiting_ts[proposal.begin_ts] += 1
        self._wake.set()

    def has_touched(self, proposal: Proposal) -> bool:
        """Tell whether anybody has written, since a proposal's snapshot, what it read; chains included."""
        return conflict(self._window, self._open.pending, proposal)

    def end_chain(self, chain: Chain) -> None:
        """Forget a chain whose members are all decided; a chain that never began may be ended too."""
        if chain in self._chains:
            self._chains.remove(chain)

    def waiting_since(self) -> CommitTs | None:
        """Return the oldest snapshot of those who wait for room in a batch: the window has to keep it."""
        return min(self._waiting_ts, default=None)

    def close(self) -> None:
        """Refuse what comes from now on; `run` ends when what came before is decided."""
        self._closing = True
        self._wake.set()

    async def run(self) -> None:
        """Commit until `close`; one task runs it.

        Raises:
            StorageError: `disk_failed`: whether the last batch is in the log is known to nobody, or
                the store failed; `log_taken`: somebody else has the log. The process has to end
                and recover from the log.
            TransientError: `disk_full`: the store had no room for a durable batch until `close`;
                the next start applies it.
        """
        flying: _SealedBatch | None = None
        while True:
            if flying is None and not self._open.commits:
                if self._closing:
                    return
                self._wake.clear()
                await self._wake.wait()
                continue
            if flying is not None:
                flying = await self._appended(flying)
            if flying is not None and (
                self._appender.is_quick(len(self._open.commits)) or self._open.backfill is not None
            ):
                # Not behind an append that holds up the loop; and a backfill derives its entries from what is applied.
                await self._finish(flying)
                flying = None
                if self._open.commits:
                    await asyncio.sleep(0)  # for whoever has something to say by now
            if self._open.commits and self._must_wait() and not self._closing:
                if flying is not None:
                    await self._finish(flying)
                    flying = None
                await asyncio.sleep(self._options.wait_poll_s)
                continue
            following = self._seal() if self._open.commits else None
            if flying is not None:
                await self._finish(flying)
            flying = following

    # -------------------------------------------------------------------------------------- joining

    def _join(self, submitted: _Submitted) -> bool:
        """Validate a proposal and add it to the open batch; False if the batch has no room for it."""
        options, batch = self._options, self._open
        proposal, _, chain = submitted
        size = sum([len(write.key) + len(write.value or b"") for write in proposal.writes])
        if size > options.transaction_bytes_max:
            message = f"the transaction writes {size} bytes, the limit is {options.transaction_bytes_max}"
            self._reject(submitted, RequestError(message, code="too_many_bytes"))
            return True
        if batch.commits and (
            batch.size + size > options.batch_bytes_max
            or len(batch.commits) >= options.batch_count_max
            or batch.backfill is not None
            or proposal.backfill is not None
        ):
            return False
        if chain is not None:
            if not chain.begun:
                chain.begin(self._window, batch.pending, proposal.begin_ts)
                self._chains.append(chain)
            if not chain.stands(proposal):
                self._lost_in_chain(submitted)
                return True
        elif conflict(self._window, batch.pending, proposal):
            self._lost(proposal, submitted.owner)
            return True
        keys = proposal.conflict_keys()
        for other in self._chains:
            if other is not chain:
                other.others_join(keys)
        batch.commits.append(submitted)
        batch.pending.add(keys)
        batch.size += size
        batch.backfill = proposal.backfill
        return True

    def _reject(self, submitted: _Submitted, error: HeadwaterError) -> None:
        """Reject a proposal for what it is, or for the state of things."""
        if submitted.chain is not None:
            submitted.chain.fail(submitted.proposal)
        self.listener.rejected(submitted.owner, error)

    def _lost(self, proposal: Proposal, owner: Any) -> None:
        """Reject a proposal, now or when the batch that beat it can be seen."""
        self._tell_lost(proposal, owner)
        touched_ts = self._window.first_touch(proposal.begin_ts, proposal.points, proposal.ranges)
        if touched_ts is None:
            self._open.losers.append(owner)
        elif touched_ts > self.published_ts:
            self._sealed_losers.append(owner)
        else:
            self.listener.rejected(owner, TransientError(code="conflict"))

    def _lost_in_chain(self, submitted: _Submitted) -> None:
        """Reject a member of a chain when everything can be seen that may have beaten it.

        What touched its reads may be the chain's own, so that the window cannot say which batch beat it.
        """
        assert submitted.chain is not None, "a member"
        self._tell_lost(submitted.proposal, submitted.owner, submitted.chain)
        submitted.chain.fail(submitted.proposal)
        if self._open.commits:
            self._open.losers.append(submitted.owner)
        elif self._head.last_ts > self.published_ts:
            self._sealed_losers.append(submitted.owner)
        else:
            self.listener.rejected(submitted.owner, TransientError(code="conflict"))

    def _tell_lost(self, proposal: Proposal, owner: Any, chain: Chain | None = None) -> None:
        """Tell that a proposal has lost, and to whom."""
        if chain is not None:
            key = chain.touching(proposal)
        else:
            key = self._window.touching(proposal.begin_ts, proposal.points, proposal.ranges)
            if key is None:
                key = self._open.pending.touching(proposal.points, proposal.ranges)
        self.lost(owner, key, None if key is None else self._writer(key))

    def _writer(self, key: bytes) -> Any:
        """Return whose the newest proposal is that wrote a key, in the open batch or one before; None if that is not known."""
        batch = self._open
        if key in batch.pending.keys:
            return writer_in([(each.owner, each.proposal) for each in batch.commits], key)
        return self._recent.writer(self._window.last_write(key), key)

    def _open_next(self, first: Iterable[_Submitted] = ()) -> None:
        """Begin a new open batch with those that wait, after `first`, which had a place in a batch."""
        self._open = _OpenBatch()
        for submitted in first:
            self._join(submitted)
        waiting = self._waiting
        while waiting and self._join(waiting[0]):
            begin_ts = waiting.popleft().proposal.begin_ts
            self._waiting_ts[begin_ts] -= 1
            if not self._waiting_ts[begin_ts]:
                del self._waiting_ts[begin_ts]

    # -------------------------------------------------------------------------------- log and store

    def _must_wait(self) -> bool:
        """Tell whether the open batch has to wait for a checkpoint; one that has no room waits for nothing."""
        return self._is_behind() and not self._refused_for_room()

    def _refused_for_room(self) -> bool:
        """Refuse the open batch if the disk has no room for it, or the store below its largest size."""
        batch = self._open
        error = self._no_room(batch.size)
        if error is None:
            return False
        for submitted in batch.commits:
            if submitted.chain is not None:
                submitted.chain.break_off()
        self._open_next()
        self._refuse([submitted.owner for submitted in batch.commits], batch.losers, error)
        return True

    def _no_room(self, size: int) -> TransientError | None:
        """Return why a batch of this size cannot be taken, None if it can."""
        store, kept = self._store, self._options.free_bytes_min
        free = self._environment.files.free_bytes(store.path)
        if free < kept + size:
            return no_room(store.path, f"writes: {free} bytes are left, {kept} are kept in reserve")
        return None if store.has_room(kept + size) else no_room_in_store(store.path)

    def _seal(self) -> _SealedBatch | None:
        """Close the open batch and begin to append it; None if it was refused for want of space."""
        batch = self._open
        members = Counter(submitted.chain for submitted in batch.commits if submitted.chain is not None)
        if self._refused_for_room():
            return None
        keys = batch.pending.keys
        derived: dict[bytes, bytes | None] = {}
        if batch.backfill is not None:
            with self._store.snapshot() as snapshot:
                catalog = self._catalogs.get(snapshot, snapshot.state.catalog_ts)
                derived = backfill_entries(batch.backfill, snapshot, catalog)
            keys.update(derived)
        wall_us = self._timeline.next_us()  # after that of every call in the batch
        record = self._log.encode(
            self._head,
            [
                LoggedTransaction([(write.key, write.value) for write in proposal.writes], proposal.backfill)
                for proposal, _, _ in batch.commits
            ],
            wall_us,
        )
        commits = [
            Commit(owner, CommitTs(ts), proposal)
            for ts, (proposal, owner, _) in enumerate(batch.commits, self._head.last_ts + 1)
        ]
        self._head = record.head
        self._window.add(record.head.last_ts, keys)
        written = [(each.owner, each.proposal) for each in batch.commits]
        self._recent.add(record.head.last_ts, written, batch.size)
        for chain in self._chains:
            chain.others_seal(record.head.last_ts, derived)
        self._sealed_losers = batch.losers
        self._open_next()
        times = BatchTimes(self._environment.clock.mono_s(), 0.0)
        append = self._appender.append(record, len(commits))
        return _SealedBatch(record, commits, members, batch.losers, keys, derived, wall_us, times, append)

    async def _appended(self, batch: _SealedBatch) -> _SealedBatch | None:
        """Wait until a batch is durable; None if the log refused it and is as it was."""
        try:
            outcome = await batch.append
        except TransientError as error:
            self._head = batch.record.previous
            self._window.undo(batch.record.head.last_ts)
            self._recent.undo(batch.record.head.last_ts)
            for chain in self._chains:
                chain.undo(batch.record.head.last_ts)
            for chain in batch.members:
                chain.break_off()
            self._reopen()
            self._refuse([commit.owner for commit in batch.commits], batch.losers, error)
            return None
        match outcome:
            case Appended():
                return batch._replace(
                    times=BatchTimes(batch.times.sealed_s, self._environment.clock.mono_s())
                )
            case Conflict(reason):
                raise StorageError(reason, code="log_taken")
            case Unknown(reason):
                raise StorageError(reason, code="disk_failed")
            case _:
                assert_never(outcome)

    def _reopen(self) -> None:
        """Take back from the open batch what ran over writes that did not commit after all."""
        batch = self._open
        if not any(submitted.chain is not None and submitted.chain.broken for submitted in batch.commits):
            return
        self._open_next(batch.commits)
        self._reject_losers(batch.losers)

    def _refuse(self, owners: list[Any], losers: list[Any], error: HeadwaterError) -> None:
        """Reject a batch and whom it beat; the next one tries anew."""
        _log.warning("batch refused", extra={"fields": {"code": error.code, "transactions": len(owners)}})
        for owner in owners:
            self.listener.rejected(owner, error)
        self._reject_losers(losers)

    def _reject_losers(self, losers: list[Any]) -> None:
        for owner in losers:
            self.listener.rejected(owner, TransientError(code="conflict"))

    async def _finish(self, batch: _SealedBatch) -> None:
        """Apply and publish a durable batch. It is decided: without room it waits, it does not fail."""
        changes = changes_of((commit.ts, commit.proposal.writes) for commit in batch.commits)
        changes.entries.update(batch.derived)
        head = batch.record.head
        catalog_ts = changes.catalog_ts or self._state.catalog_ts
        state = State(head.last_ts, head.number, head.digest, catalog_ts, batch.wall_us)
        await self._apply(changes, state)
        self._state = state
        self.published_ts = state.ts
        for chain, count in batch.members.items():
            chain.settle(count, state.ts)
        published = PublishedBatch(state.ts, batch.commits, batch.conflict_keys, batch.times)
        self.listener.published(published)
        self._reject_losers(batch.losers)

    async def _apply(self, changes: Changes, state: State) -> None:
        """Apply what is durable. Without room it is tried again and again, and new proposals are refused."""
        while True:
            try:
                self._store.apply(changes, state)
                break
            except lmdb.Error as error:
                failure = store_error(error, self._store.path, self._environment.files)
                if not isinstance(failure, TransientError) or self._closing:
                    raise failure from error
            if self._full is None:
                self._refuse_while(failure)
            await asyncio.sleep(self._options.retry_s)
        if self._full is not None:
            _log.warning("store has room again", extra={"fields": {"commit_ts": state.ts}})
            self._full = None

    def _refuse_while(self, full: TransientError) -> None:
        """Refuse whatever is not in the log yet, and from now on all that comes."""
        _log.error("store is full", extra={"fields": {"reason": full.message}})
        self._full = full
        batch = self._open
        refused = [*batch.commits, *self._waiting]
        self._open = _OpenBatch()
        self._waiting.clear()
        self._waiting_ts.clear()
        for submitted in refused:
            if submitted.chain is not None:
                submitted.chain.break_off()
        self._refuse([submitted.owner for submitted in refused], batch.losers, full)
