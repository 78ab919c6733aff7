"""Which worker runs what: the active bundle's workers, the calls that wait for them, and those that run too long.

On the event loop. No user code ever runs here. Little is sent ahead to a worker, so that a
slow call does not hold up others behind it; a call that takes its worker with it is told as
a failure, and the others that were sent there run elsewhere. That is safe for mutations
too: nothing is committed in a worker.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from itertools import count
from typing import TYPE_CHECKING, Protocol

from headwater.packing import bundle_hash
from headwater_protocol.errors import HeadwaterError, TransientError

from headwater_server.costs import RunCosts
from headwater_server.functions.roster import Generation, Role, Roster, Worker
from headwater_server.functions.work import (
    ChainWork,
    MutationReceiver,
    MutationWork,
    QueryWork,
    RoundReceiver,
    RoundWork,
    Work,
)
from headwater_server.functions.worker_bounds import WorkerBounds
from headwater_server.worker.messages import (
    CallExplained,
    CloseRound,
    EndChain,
    Failure,
    MutationDone,
    OpenRound,
    QueryDone,
    RoundOpened,
    WorkerMessage,
    WrongBundle,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.functions.limits import PoolOptions
    from headwater_server.functions.mutations import MutationCall
    from headwater_server.worker.messages import Question, Reply

logger = logging.getLogger("headwater.pool")

_NAMES_MAX = 4096
_NEW_FUNCTION_MS = 1.0
_EMA_WEIGHT = 0.2
_WATCH_S = 0.02
_STUCK_MS = 20.0
_BUNDLE_PAUSE_S = 0.002
_BUNDLE_TRIES_MAX = 1000


class PoolListener(RoundReceiver, Protocol):
    """Hears of workers and of what belongs to rounds. No method may wait."""

    def worker_ready(self, worker: int) -> None:
        """A worker of the active bundle takes rounds."""

    def worker_gone(self, worker: int, reason: str) -> None:
        """It takes no more rounds and its open one is lost: it has ended, or its bundle is no longer active."""

    def worker_ended(self, worker: int, *, planned: bool) -> None:
        """The process is gone; LMDB's reader table may hold an entry of it.

        Args:
            worker: Its number.
            planned: It was let go and had nothing left to do; it neither died nor was killed.
        """

    def round_opened(self, worker: int, message: RoundOpened) -> None:
        """The round has its transaction."""


class WorkerPool:
    """Runs calls in the workers of the active bundle.

    Args:
        options: How many workers, how long calls may take.
        roster: The worker processes, of a data directory that has been recovered.
        mono_s: Monotonic clock, the one that worker processes see too.
        next_us: The database's time: each call is told its own.
    """

    def __init__(
        self,
        options: PoolOptions,
        roster: Roster,
        *,
        mono_s: Callable[[], float],
        next_us: Callable[[], int],
    ) -> None:
        self._options = options
        self._mono_s = mono_s
        self._next_us = next_us
        self._roster = roster
        self._role = Role("transactions", options.worker, self)
        self._listener: PoolListener | None = None
        self._mutations: MutationReceiver | None = None
        self._active: Generation | None = None
        self._prepared: dict[str, Generation] = {}
        self._ready: list[Worker] = []
        self._waiting: deque[Work] = deque()
        self._calls = count(1)
        self._costs = RunCosts(_EMA_WEIGHT, _NEW_FUNCTION_MS, _NAMES_MAX)
        self._timer: asyncio.TimerHandle | None = None
        self._bounds = WorkerBounds(
            roster, options.start_limit_s, options.worker.memory_limit_bytes, options.memory_watch_s
        )
        self._served_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closing = False

    # ------------------------------------------------------------------ life

    def start(self, listener: PoolListener, mutations: MutationReceiver) -> None:
        """Start the zygote. The thread that calls this must live as long as the daemon."""
        self._listener = listener
        self._mutations = mutations
        self._loop = asyncio.get_running_loop()
        self._roster.start()

    async def close(self) -> None:
        """End all processes; what still waits or runs is refused as `unavailable`."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        lost = list(self._waiting)
        self._waiting.clear()
        self._ready.clear()
        for worker in self._roster.workers_of(self._role):
            lost += [work for work, _ in worker.in_flight.values() if work is not None and work.movable]
            worker.in_flight.clear()
        await self._roster.close()
        for work in lost:
            work.refused(TransientError("the server is stopping"))

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the zygote and all workers, for metrics and tests."""
        return [self._roster.zygote_pid, *(worker.pid for worker in self._roster.workers.values())]

    def end_reader(self, process: int, age_s: float) -> bool:
        """End the worker that has kept a snapshot for so long, whatever it does; False if the process is none."""
        for worker in self._roster.workers.values():
            if worker.pid == process:
                self._roster.kill_overdue(worker, f"the worker kept a snapshot for {age_s:.1f} s")
                return True
        return False

    # ------------------------------------------------------------------ bundles

    async def describe(self, bundle: bytes) -> bytes:
        """Load a bundle in a worker of its own, which then ends, and return its manifest as JSON.

        Raises:
            RequestError: `invalid_bundle`, with what was wrong.
        """
        generation = self._roster.begin(bundle, 1, self._role)
        self._watch()
        try:
            return await generation.manifest
        finally:
            self._roster.end(generation)

    @property
    def active_bundle(self) -> str | None:
        """Hash of the bundle that calls go to; None as long as there is none."""
        return self._active.bundle if self._active is not None else None

    async def prepare(self, bundle: bytes) -> str:
        """Start workers for a bundle beside the active ones and return its hash when all are ready.

        Raises:
            RequestError: `invalid_bundle`, with what was wrong.
        """
        name = bundle_hash(bundle)
        if self._active is not None and self._active.bundle == name:
            return name
        if name in self._prepared:
            await asyncio.shield(self._prepared[name].complete)
            return name
        generation = self._roster.begin(bundle, self._options.workers, self._role)
        self._prepared[generation.bundle] = generation
        self._watch()
        try:
            await generation.complete
        except BaseException:
            self.discard(generation.bundle)
            raise
        return generation.bundle

    async def ask(self, question: Question, bundle: str = "") -> Reply:
        """Have a worker of a prepared bundle, else of the active one, look at documents; see `Roster.ask`."""
        generation = self._prepared.get(bundle) or self._active
        if generation is None:
            raise TransientError("no bundle is active")
        return await self._roster.ask(generation, question)

    def discard(self, bundle_hash: str) -> None:
        """Let the workers of a prepared bundle go that will not become active after all."""
        generation = self._prepared.pop(bundle_hash, None)
        if generation is not None:
            self._roster.end(generation)

    def activate(self, bundle_hash: str) -> None:
        """Send all calls to a prepared bundle from now on.

        The workers of the one before end when they are done, those of others that were prepared at once.
        """
        for other in [name for name in self._prepared if name != bundle_hash]:
            self.discard(other)
        if self._active is not None and self._active.bundle == bundle_hash:
            return
        generation = self._prepared.pop(bundle_hash)
        before, self._active = self._active, generation
        if before is not None:
            for worker in before.workers:
                self._take_out(worker, "another bundle is active")
            self._roster.end(before)
        for worker in generation.workers:
            if worker.ready:
                self._take_in(worker)
        self._fill()

    # ------------------------------------------------------------------ calls

    def run_mutation(self, call: MutationCall) -> None:
        """Run a mutation; the mutation receiver hears how it ended."""
        assert self._mutations is not None
        self.submit(MutationWork(call, self._mutations))

    def chain_worker(self) -> int | None:
        """Return the worker to run a chain in, None if none takes one now."""
        worker = self._least_busy()
        return worker.number if worker is not None else None

    def run_chained(
        self, worker: int, call: MutationCall, chain: int, settled: int, settled_ts: int, published_ts: int
    ) -> float | None:
        """Run a mutation as the next member of a chain.

        Returns:
            Its estimated cost in ms; None if the worker takes no more work: the chain is at its end.
        """
        assert self._mutations is not None
        found = self._roster.workers.get(worker)
        if found is None or not found.announced or found.doomed or found.stuck:
            return None
        work = ChainWork(call, self._mutations, chain, settled, settled_ts, published_ts)
        return self._send(found, work)

    def estimate_ms(self, name: str) -> float:
        """Return what a call of a function is expected to cost."""
        return self._costs.estimate_ms(name)

    def end_chain(self, worker: int, chain: int) -> None:
        """Have a worker close a chain's snapshot."""
        found = self._roster.workers.get(worker)
        if found is not None:
            found.link.send(EndChain(chain))

    def run_query(
        self,
        name: str,
        arguments: bytes,
        done: Callable[[QueryDone], None],
        *,
        identity: bytes | None = None,
        journal: bytes | None = None,
        internal: bool = False,
    ) -> None:
        """Run a query at the newest snapshot; `done` gets the result, also when it consists of a failure."""
        self.submit(QueryWork(name, arguments, identity, journal, internal, done))

    async def query(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> QueryDone:
        """Run a query at the newest snapshot and return its result, also when it consists of a failure."""
        future: asyncio.Future[QueryDone] = asyncio.get_running_loop().create_future()

        def done(result: QueryDone) -> None:
            if not future.done():
                future.set_result(result)

        self.run_query(name, arguments, done, identity=identity, internal=internal)
        return await future

    # ------------------------------------------------------------------ rounds

    def open_round(self, worker: int, round_number: int) -> None:
        """Have a worker open a round's transaction; `round_opened` follows, or `worker_gone`."""
        found = self._roster.workers.get(worker)
        if found is not None:
            found.opening += 1
            found.link.send(OpenRound(round_number))
            self._watch()

    def run_round_query(
        self,
        worker: int,
        round_number: int,
        call: int,
        name: str,
        arguments: bytes,
        identity: bytes | None,
        journal: bytes | None,
        *,
        internal: bool = False,
    ) -> None:
        """Run a query in a round; `round_query_done` or `round_query_killed` follows, or `worker_gone` alone.

        It may be sent along with the order to open the round, and is dropped if that meets another bundle.
        """
        found = self._roster.workers.get(worker)
        if found is not None and self._listener is not None:
            key = (name, arguments, identity, journal)
            self._send(found, RoundWork(self._listener, worker, round_number, call, *key, internal=internal))

    def close_round(self, worker: int, round_number: int) -> None:
        """Have a worker close a round's transaction."""
        found = self._roster.workers.get(worker)
        if found is not None:
            found.link.send(CloseRound(round_number))

    # ------------------------------------------------------------------ from the roster

    def worker_ready(self, worker: Worker) -> None:
        """Use a worker, if its bundle is the active one."""
        if worker.generation is self._active:
            self._take_in(worker)
            self._fill()

    def worker_message(self, worker: Worker, message: WorkerMessage) -> None:
        """Hand an answer on."""
        worker.silent_looks = 0
        if isinstance(message, RoundOpened):
            worker.opening -= 1
            if worker.announced and self._listener is not None:
                self._listener.round_opened(worker.number, message)
            return
        if not isinstance(message, (CallExplained, MutationDone, QueryDone, WrongBundle)):
            return
        sent = worker.in_flight.pop(message.call, None)
        if sent is None:
            return
        work, estimate_ms = sent
        worker.backlog_ms -= estimate_ms
        if work is not None and work.chained:
            worker.chained_ms -= estimate_ms
        worker.stuck = False
        if self._waiting and not worker.leaving:
            self._fill()  # before the core hears that a round is over, and fills the worker with the next one
        if work is not None:
            if isinstance(message, WrongBundle):
                again = work.for_any_worker()
                if again is not None:
                    self._again_after_pause(again)
            else:
                self._costs.ran(work.name, message.usage.duration_us / 1000)
                if worker.announced or work.movable:
                    work.ran(message)
        if worker.leaving:
            self._roster.let_go_if_idle(worker)
        elif self._waiting:
            self._fill()

    def worker_ended(self, worker: Worker, reason: str, *, planned: bool) -> None:
        """Tell what ran, send what did not run elsewhere."""
        culprit = self._culprit(worker)
        sent = [work for work, _ in worker.in_flight.values() if work is not None]
        worker.in_flight.clear()
        if culprit is not None:
            worker.proved = True
            why = worker.ending or Failure("worker_died", f"the worker ended during the call: {reason}")
            if worker.announced or culprit.movable:
                culprit.killed(why)
        self._take_out(worker, reason)
        if self._listener is not None:
            self._listener.worker_ended(worker.number, planned=planned)
        for work in reversed(sent):
            if work.movable and work is not culprit:
                self._again(work)
        self._fill()

    # ------------------------------------------------------------------ inside

    def _culprit(self, worker: Worker) -> Work | None:
        """Return the call that a worker's end is put down to, None if it is known to be none.

        If nothing ran it is the oldest that cannot run elsewhere and that it has begun: nobody else would count how
        many workers end over it. (Those that can are counted by `_again`.) One that was sent to a worker that had
        ended already is innocent.
        """
        running = worker.ending_call or worker.progress.running()[0]
        if running:
            work = worker.in_flight.get(running, (None, 0.0))[0]
            return None if worker.overdue and work is not None and work.movable else work
        if worker.ending is not None or not worker.announced:
            return None
        newest = worker.progress.begun()
        begun = [work for number, (work, _) in worker.in_flight.items() if number <= newest]
        return next((work for work in begun if work and not work.movable), None)

    def _take_in(self, worker: Worker) -> None:
        worker.announced = True
        self._ready.append(worker)
        self._served_s = self._mono_s()
        if self._listener is not None:
            self._listener.worker_ready(worker.number)

    def _take_out(self, worker: Worker, reason: str) -> None:
        if worker in self._ready:
            self._ready.remove(worker)
        if worker.announced and self._listener is not None:
            worker.announced = False
            self._served_s = self._mono_s()
            self._listener.worker_gone(worker.number, reason)

    def submit(self, work: Work) -> None:
        """Send a call to a worker, or let it wait for one."""
        if not self._waiting:
            worker = self._choose(self.estimate_ms(work.name))
            if worker is not None:
                self._send(worker, work)
                return
        refusal = self._refusal()
        if refusal is not None:
            work.refused(refusal)
            return
        self._waiting.append(work)
        if self._timer is None:
            self._watch()

    def _refusal(self) -> HeadwaterError | None:
        """Return why a call cannot wait, None if it can."""
        if self._closing:
            return TransientError("the server is stopping")
        if self._active is None:
            return TransientError(code="no_bundle")
        if len(self._waiting) >= self._options.waiting_max:
            return TransientError(
                f"{self._options.waiting_max} calls are waiting for a worker", code="overloaded"
            )
        return None

    def _choose(self, estimate_ms: float) -> Worker | None:
        """Return the worker with the least to do, None if even that one has enough."""
        best = self._least_busy()
        if best is None or not best.in_flight:
            return best
        options = self._options
        if (
            best.backlog_ms - best.chained_ms + estimate_ms > options.prefetch_ms
            or len(best.in_flight) >= options.prefetch_calls_max
        ):
            return None
        return best

    def _least_busy(self) -> Worker | None:
        best: Worker | None = None
        for worker in self._ready:
            if (
                (best is None or worker.backlog_ms < best.backlog_ms)
                and not worker.stuck
                and not worker.doomed
            ):
                best = worker
        return best

    def _send(self, worker: Worker, work: Work) -> float:
        """Send a call; return its estimated cost in ms."""
        number = next(self._calls)
        estimate_ms = self.estimate_ms(work.name)
        idle = not worker.in_flight and not any(each.in_flight for each in self._ready)
        worker.in_flight[number] = (work, estimate_ms)
        worker.backlog_ms += estimate_ms
        if work.chained:
            worker.chained_ms += estimate_ms
        worker.link.send(work.message(number, self._next_us()), at_once=idle)
        if self._timer is None:
            self._watch()
        return estimate_ms

    def _fill(self) -> None:
        """Send waiting calls while workers take them."""
        waiting = self._waiting
        while waiting:
            worker = self._choose(self.estimate_ms(waiting[0].name))
            if worker is None:
                return
            self._send(worker, waiting.popleft())

    def _again(self, work: Work) -> None:
        """Let a call be sent again, before those that came later; not for ever."""
        work.reruns += 1
        if work.reruns > self._options.reruns_max:
            work.killed(Failure("worker_died", f"{work.reruns} workers ended while the call waited in them"))
        elif self._closing:
            work.refused(TransientError("the server is stopping"))
        elif not work.take_back():
            self._waiting.appendleft(work)

    def _again_after_pause(self, work: Work) -> None:
        """Send a call again that met a snapshot with another active bundle: the switch is under way."""
        work.switches += 1
        if work.switches > _BUNDLE_TRIES_MAX:
            work.refused(TransientError("the active bundle's workers do not see it as active"))
            return
        assert self._loop is not None
        self._loop.call_later(_BUNDLE_PAUSE_S, self.submit, work)

    # ------------------------------------------------------------------ watch

    def _watch(self) -> None:
        """Look at the workers again soon; called whenever there may be something to see."""
        if self._timer is None and self._loop is not None and not self._closing:
            self._timer = self._loop.call_later(_WATCH_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._mono_s()
        self._bounds.begin(now_s)
        busy = bool(self._waiting)
        for worker in self._roster.workers_of(self._role):
            if not worker.ready:
                busy = True
                self._bounds.look_at_start(worker, now_s)
            elif worker.in_flight or worker.opening:
                busy = True
                self._look_at_call(worker, now_s)
                self._bounds.look_at_memory(worker, worker.progress.running()[0])
        self._refuse_if_nobody_serves(now_s)
        if busy:
            self._watch()

    def _look_at_call(self, worker: Worker, now_s: float) -> None:
        call, started_ns = worker.progress.running()
        if call not in worker.in_flight:
            worker.silent_looks += 1  # and not the time: the daemon itself may have stood still
            if worker.silent_looks * _WATCH_S > self._options.silence_limit_s:
                self._roster.kill_overdue(worker, "the worker did not begin what it was sent")
            return
        worker.silent_looks = 0
        elapsed_s = now_s - started_ns / 1e9
        limit_s = self._options.time_limit_s
        if elapsed_s > limit_s:
            name = next((work.name for work, _ in [worker.in_flight[call]] if work), "")
            why = f"{name} ran longer than {limit_s:g} s and was ended"
            self._roster.kill(worker, Failure("time_limit", why), call)
        elif elapsed_s * 1000 > _STUCK_MS and not worker.stuck:
            worker.stuck = True
            self._move_away(worker, call)

    def _move_away(self, worker: Worker, running: int) -> None:
        """Let calls run elsewhere that were sent to a worker behind one that turned out slow.

        Those before it have run: their answers are on the way.
        """
        slow: Work | None = None
        moved: list[Work] = []
        for number, (work, estimate_ms) in worker.in_flight.items():
            if number == running:
                slow = work
            elif number > running and work is not None and work.movable:
                worker.in_flight[number] = (None, estimate_ms)
                if work.chained:
                    worker.chained_ms -= estimate_ms
                moved.append(work)
        if slow is not None:
            slow.stuck()
        self._waiting.extendleft(work for work in reversed(moved) if not work.take_back())
        self._fill()

    def _refuse_if_nobody_serves(self, now_s: float) -> None:
        """Do not let calls wait for workers that do not come up."""
        if self._ready:
            self._served_s = now_s
        elif now_s - self._served_s > self._options.start_limit_s:
            while self._waiting:
                self._waiting.popleft().refused(TransientError("no worker comes up; see the server's log"))
