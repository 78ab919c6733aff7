"""The lane, the committer and workers' chains in one process; one seed decides who does what when.

Real: `Mutations` with lane and gate, the committer, the worker's side of chains, transactions.
The workers here run calls when they are told to. Faults they may have: a worker dies with
what it has not answered; it is found to run for long while answers of it are on the way; the
log has no space for a batch. Every decided call is then done again in commit order on plain
dicts, and has to have seen the same.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_server.functions.failures import CallReporter
from headwater_server.functions.lane import LaneLimits
from headwater_server.functions.mutations import Decision, MutationCall, MutationLimits, Mutations
from headwater_server.observe.call_log import CallLog, CallLogOptions
from headwater_server.observe.metrics import Metrics
from headwater_server.worker.chains import OpenChain
from headwater_server.worker.messages import MutationDone, Usage
from headwater_storage.catalog import Catalog
from headwater_storage.committer import Committer, CommitterOptions, PublishedBatch
from headwater_storage.limits import CallLimits
from headwater_storage.memory_log import AppendFault, MemoryLog
from headwater_storage.proposal import CommitTs
from headwater_storage.timeline import Timeline
from headwater_storage.transaction import Transaction
from headwater_storage.window import CommitWindow

from support.memory_store import MemoryStore, decode, encode, insert, table
from support.storage_world import FakeClock, inline_environment

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.errors import HeadwaterError

pack = msgspec.msgpack.encode

COUNTERS = 6
OUTSTANDING = 10
GROUP_MAX = 5
KINDS = ["add", "add", "move", "join", "leave", "peek"]


@dataclass
class Seen:
    """One decided call: what it was to do, what it saw, and where it stands."""

    number: int
    kind: str
    places: list[int]
    result: Any
    ts: int
    committed: bool


@dataclass(eq=False)
class Sent:
    """A call in a worker.

    Attributes:
        call: The call.
        chain: Number of its chain, how many are settled, and as of when; None: of no chain.
        moved: It was sent elsewhere meanwhile; its answer means nothing.
    """

    call: MutationCall
    chain: tuple[int, int, int] | None
    moved: bool = False


@dataclass(eq=False)
class Worker:
    """A pipe of calls, and answers on their way back."""

    number: int
    pipe: list[Sent] = field(default_factory=list)
    answers: list[tuple[Sent, MutationDone]] = field(default_factory=list)
    chain: OpenChain | None = None
    stuck: bool = False


class LaneWorld:
    """One run of one seed."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.store = MemoryStore()
        self.store.add_table(table(32, "t", ("by_group", ["group"], False)))
        self.log = MemoryLog(b"l" * 16)
        record = self.log.claim(b"i" * 16, CommitTs(1), 0)
        self.store.state = self.store.state._replace(record_number=record.number, record_digest=record.digest)
        setup = self.store.transaction()
        self.ids = [insert(setup, "t", group=-1, value=0) for _ in range(COUNTERS)]
        self.first = setup.proposal()
        self.window = CommitWindow(CommitTs(0))
        self.committer = Committer(
            self.store,  # type: ignore[arg-type]
            self.log,
            self.window,
            inline_environment(),
            CommitterOptions(batch_count_max=4),
            self,
            Timeline(FakeClock(), 0),
        )
        self.worker_numbers = count(1)
        self.workers = [Worker(next(self.worker_numbers)) for _ in range(2)]
        self.held: list[tuple[int, Callable[[], None]]] = []
        self.timers: list[Callable[[], None]] = []
        self.metrics = Metrics()
        self.mutations = Mutations(
            self,  # type: ignore[arg-type]
            self.committer,  # type: ignore[arg-type]
            self,
            CallReporter(production=False, random_bytes=bytes, log=CallLog(CallLogOptions(), int)),
            self.metrics,
            MutationLimits(lane=LaneLimits(ahead_ms=4.0, patience=2)),
            lambda: 0.0,
            lambda pause_s, action: self.timers.append(action),
            lambda request, failure: self.first,
        )
        self.calls: dict[MutationCall, tuple[int, str, list[int]]] = {}
        self.numbers = count(1)
        self.noise = count(1)
        self.results: dict[int, Any] = {}
        self.seen: list[Seen] = []
        self.refused = 0
        self.now_ns = 0

    # ------------------------------------------------------------------ what the product asks for

    def chain_worker(self) -> int | None:
        free = [worker.number for worker in self.workers if not worker.stuck]
        return self.chance.choice(free) if free else None

    def run_chained(self, worker: int, call: MutationCall, *chain: int) -> float | None:
        found = next((known for known in self.workers if known.number == worker), None)
        if found is None or found.stuck:
            return None
        found.pipe.append(Sent(call, (chain[0], chain[1], chain[2])))
        return 1.0

    def estimate_ms(self, name: str) -> float:
        return 1.0

    def end_chain(self, worker: int, chain: int) -> None:
        """The message is lost: a worker has to do without it too."""

    def run_mutation(self, call: MutationCall) -> None:
        self.chance.choice(self.workers).pipe.append(Sent(call, None))

    def when_published(self, ts: int, action: Callable[[], None]) -> None:
        if ts <= self.committer.published_ts:
            action()
        else:
            self.held.append((ts, action))

    def published(self, batch: PublishedBatch) -> None:
        self.window.trim(min([batch.ts, *filter(None, [self.mutations.oldest_ts()])]))
        commits = [(call, self.mutations.committed(call, ts)) for call, ts, _ in batch.commits if call]
        for ts, action in [held for held in self.held if held[0] <= batch.ts]:
            self.held.remove((ts, action))
            action()
        for call, decision in commits:
            call.decided(call, decision)
            self.mutations.finish(call, decision)

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        self.mutations.refused(owner, error)

    # ------------------------------------------------------------------ clients

    def ask(self) -> None:
        number = next(self.numbers)
        kind = self.chance.choice(KINDS)
        places = [int(COUNTERS * self.chance.random() ** 3) for _ in range(2)]
        call = MutationCall(kind, b"", None, internal=False, decided=self.decided)
        self.calls[call] = (number, kind, places)
        self.mutations.run(call)

    def decided(self, call: MutationCall, decision: Decision) -> None:
        number, kind, places = self.calls.pop(call)
        if decision.error is not None:
            assert decision.error.code == "disk_full", decision.error
            self.refused += 1
            return
        assert decision.value is not None
        self.seen.append(Seen(number, kind, places, decode(decision.value), decision.ts, decision.committed))

    # ------------------------------------------------------------------ workers

    def run_next(self, worker: Worker) -> None:
        """Run what is first in the pipe."""
        worker.stuck = False
        if not worker.pipe:
            return
        sent = worker.pipe.pop(0)
        call, chain = sent.call, sent.chain
        self.now_ns += 4_000_000
        if chain is None:
            snapshot: Any = self.store.snapshot()
        else:
            if worker.chain is None or worker.chain.number != chain[0]:
                worker.chain = OpenChain(chain[0], self.store, self.now_ns)  # type: ignore[arg-type]
            worker.chain.move_on(chain[1], CommitTs(chain[2]), self.now_ns)
            snapshot = worker.chain.snapshot
        transaction = Transaction(
            snapshot,
            Catalog.load(snapshot),
            CallLimits(),
            now_us=1_700_000_000_000_000,
            random_bytes=lambda size: next(self.noise).to_bytes(size, "big"),
            writable=True,
        )
        result = self.run(transaction, *self.calls[call][1:]) if call in self.calls else None
        proposal = transaction.proposal()
        if chain is not None:
            assert worker.chain is not None
            worker.chain.add(proposal.writes)
        kept = proposal if proposal.writes or chain is not None else None
        done = MutationDone(0, transaction.begin_ts, pack(result), None, kept, False, Usage(1000))
        worker.answers.append((sent, done))

    def run(self, transaction: Transaction, kind: str, places: list[int]) -> Any:
        """The functions: counters, and "insert if fewer than so many in a group"."""
        if kind in ("join", "leave"):
            group = places[0]
            found = transaction.read_range("t", "by_group", [group], None, None, descending=kind == "leave")
            members = [decode(row.document)["_id"] for row in found]
            if kind == "join" and len(members) < GROUP_MAX:
                insert(transaction, "t", group=group, value=0)
            elif kind == "leave" and members:
                transaction.delete(members[0])
            return len(members)
        chosen = [self.ids[place] for place in (dict.fromkeys(places) if kind != "add" else places[:1])]
        values = []
        for document_id in chosen:
            stored = transaction.get(document_id)
            assert stored is not None
            value = decode(stored.document)["value"]
            values.append(value)
            if kind != "peek":
                transaction.put(document_id, encode(document_id, 1.0, group=-1, value=value + 1))
        return values

    def answer(self, worker: Worker) -> None:
        """Let the answer that was sent first arrive."""
        if worker.answers:
            sent, done = worker.answers.pop(0)
            if not sent.moved:
                self.mutations.ran(sent.call, done)

    def die(self, worker: Worker) -> None:
        """End a worker: what it has answered arrives, what it has not goes back, last first."""
        while worker.answers:
            self.answer(worker)
        self.workers.remove(worker)
        self.workers.append(Worker(next(self.worker_numbers)))  # a number is never used again
        for sent in reversed(worker.pipe):
            self.send_back(sent)

    def hold_up(self, worker: Worker) -> None:
        """Take the next call for stuck, and those behind it back, while its answer may be on the way.

        Now and then those before it go back too, as if they had not run.
        """
        if worker.stuck or not worker.pipe or worker.pipe[0].moved:
            return
        worker.stuck = True
        running, behind = worker.pipe[0], worker.pipe[1:]
        if running.chain is not None:
            self.mutations.stuck(running.call)
        before = [sent for sent, _ in worker.answers] if self.chance.random() < 0.3 else []
        for sent in reversed([*before, *behind]):
            self.send_back(sent)

    def send_back(self, sent: Sent) -> None:
        if sent.moved:
            return
        sent.moved = True
        if sent.chain is None:
            self.run_mutation(sent.call)
        else:
            self.mutations.sent_back(sent.call)

    # ------------------------------------------------------------------ a run

    async def play(self, steps: int) -> None:
        """Do something at random so many times, then finish what is open, and check it all."""
        task = asyncio.create_task(self.committer.run())
        self.committer.submit(self.first, None)
        await self.settle()
        for _ in range(steps):
            self.step()
            for _ in range(self.chance.choice((0, 0, 1, 3))):
                await asyncio.sleep(0)
            if task.done():
                break
        for _ in range(20_000):
            if not self.calls or task.done():
                break
            for worker in list(self.workers):
                self.run_next(worker)
                self.answer(worker)
            self.ring()
            await asyncio.sleep(0)
        self.committer.close()
        await task
        assert not self.calls, f"{len(self.calls)} calls were never decided"
        check(self.seen)

    async def settle(self) -> None:
        for _ in range(50):
            await asyncio.sleep(0)

    def ring(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def step(self) -> None:
        while len(self.calls) < OUTSTANDING:
            self.ask()
        chance, worker = self.chance.random(), self.chance.choice(self.workers)
        if chance < 0.45:
            self.run_next(worker)
        elif chance < 0.9:
            self.answer(worker)
        elif chance < 0.93:
            self.die(worker)
        elif chance < 0.96:
            self.hold_up(worker)
        elif chance < 0.98:
            self.ring()
        else:
            self.log.fault = AppendFault.DISK_FULL


def check(seen: list[Seen]) -> None:
    """Do all calls again in commit order; those that did not commit stand behind the commit whose ts they saw."""
    counters = [0] * COUNTERS
    groups = [0] * COUNTERS
    for call in sorted(seen, key=lambda call: (call.ts, not call.committed)):
        if call.kind in ("join", "leave"):
            expected: Any = groups[call.places[0]]
            if call.kind == "join" and expected < GROUP_MAX:
                groups[call.places[0]] += 1
            elif call.kind == "leave" and expected:
                groups[call.places[0]] -= 1
        else:
            places = call.places[:1] if call.kind == "add" else list(dict.fromkeys(call.places))
            expected = [counters[place] for place in places]
            if call.kind != "peek":
                for place in places:
                    counters[place] += 1
        assert call.result == expected, (
            f"call {call.number} at {call.ts} saw {call.result}, not {expected}: {call}"
        )
