"""The worker processes: started for a bundle, replaced when they end, let go when their bundle is no longer active.

Knows nothing of calls. On the event loop, without awaits but for starting and closing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from signal import Signals
from typing import TYPE_CHECKING, Any, Protocol

from headwater.packing import invalid_bundle
from headwater_protocol.errors import HeadwaterError, TransientError, error_for
from msgspec.structs import replace

from headwater_server.functions.bundles import BundleFiles
from headwater_server.worker.control import EXIT_MEMORY, Assignment
from headwater_server.worker.messages import (
    DaemonMessage,
    Describe,
    Described,
    Failure,
    Question,
    Reply,
    WorkerMessage,
)

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_server.functions.limits import PoolOptions, WorkerLimits
    from headwater_server.functions.work import Work
    from headwater_server.worker.control import RoleName

logger = logging.getLogger("headwater.workers")

_LOST_GRACE_S = 0.5


class Link(Protocol):
    """Messages to and from one worker."""

    def send(self, message: DaemonMessage, *, at_once: bool = False) -> None:
        """Send a message, without waiting: at once, or with others of this turn of the loop."""

    def drain(self) -> None:
        """Hand over what has arrived, to the last byte."""

    def close(self) -> None:
        """Close our end; the worker ends when it reads that."""


class Progress(Protocol):
    """What a worker says it is doing, also when it can say nothing else."""

    def running(self) -> tuple[int, int]:
        """Return the call that runs, 0 if none, and when it began on the monotonic clock in ns."""
        ...

    def begun(self) -> int:
        """Return the newest call that it has begun, 0 before the first."""
        ...

    def beats(self) -> int:
        """Return how often a worker of actions has said that its loop turns."""
        ...

    def blamed(self) -> tuple[int, str]:
        """Return the call that keeps a worker's loop from turning, 0 if it is not known, and where it stands."""
        ...

    def close(self) -> None:
        """Look no more."""


class Processes(Protocol):
    """Where worker processes come from: the zygote."""

    @property
    def pid(self) -> int:
        """Its process id."""
        ...

    def spawn(
        self,
        worker: int,
        assignment: Assignment,
        receive: Callable[[WorkerMessage], None],
        lost: Callable[[], None],
    ) -> tuple[Link, Progress]:
        """Begin a worker process; `spawned` and at last `exited` follow.

        Args:
            worker: Its number.
            assignment: What it is for.
            receive: Called with each message of it.
            lost: Called once when it has closed its end or sent nonsense; not after our `close`.
        """
        ...

    def kill(self, worker: int) -> None:
        """End a worker by force; `exited` follows."""

    async def close(self, grace_s: float) -> None:
        """End all workers, by force after the grace, and what they come from."""


class ProcessEvents(Protocol):
    """What becomes of workers."""

    def spawned(self, number: int, pid: int) -> None:
        """It was forked."""

    def exited(self, number: int, status: int) -> None:
        """It is gone; `status` as in `subprocess`, negative for a signal."""

    def zygote_lost(self) -> None:
        """The zygote ended by itself, and all workers with it."""


StartProcesses = Callable[[ProcessEvents], Processes]
"""Starts a zygote. The thread that calls it must live as long as the daemon."""


@dataclass(frozen=True, slots=True, eq=False)
class Role:
    """What the workers of a generation are for.

    Attributes:
        name: What they do.
        limits: Their bounds.
        events: Who hears of them.
    """

    name: RoleName
    limits: WorkerLimits
    events: RosterEvents


@dataclass(slots=True, eq=False)
class Generation:
    """The workers of one bundle for one role.

    Attributes:
        role: What they are for.
        bundle: Its hash.
        size: How many workers it is to have; 0 once it is let go.
        workers: Those that live, oldest first: what happens to all of them happens in one order.
        manifest: What the bundle declares; resolved when the first worker is ready, failed
            when the first one could not load it.
        complete: Resolved when as many are ready as there are to be.
        pause_s: Pause before the next worker is started after one that did not come up.
    """

    role: Role
    bundle: str
    size: int
    workers: list[Worker]
    manifest: asyncio.Future[bytes]
    complete: asyncio.Future[None]
    pause_s: float


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process.

    Attributes:
        number: Its number, never used again in the life of this daemon.
        generation: Its bundle.
        link: Messages to and from it.
        progress: What it says it is doing.
        started_mono_s: When it was asked for.
        pid: Its process id; 0 until the zygote has said it.
        ready: It has loaded its bundle.
        proved: It has answered a call, or died in one: its end says nothing against starting another at once.
        announced: The pool's listener knows of it.
        leaving: It gets no more work; it ends when it has done what it has.
        doomed: It is being killed, or has closed its link.
        ending: What it is being killed for, if it is for something.
        ending_call: The call it is being killed for, 0 if for none.
        in_flight: What was sent to it and not answered, in order; None stands for a call
            that was sent elsewhere meanwhile.
        backlog_ms: Estimated cost of all that.
        chained_ms: The part of it that is members of chains.
        stuck: Its running call has already taken much longer than calls that are sent ahead should.
        opening: Rounds that it was told to open and has not opened.
        silent_looks: How often in a row it was seen with something to do and doing nothing.
        overdue: It is ended for what no single call did: one that may run elsewhere does.
    """

    number: int
    generation: Generation
    link: Link
    progress: Progress
    started_mono_s: float
    pid: int = 0
    ready: bool = False
    proved: bool = False
    announced: bool = False
    leaving: bool = False
    doomed: bool = False
    ending: Failure | None = None
    ending_call: int = 0
    in_flight: dict[int, tuple[Work | None, float]] = field(default_factory=dict)
    backlog_ms: float = 0.0
    chained_ms: float = 0.0
    stuck: bool = False
    opening: int = 0
    silent_looks: int = 0
    overdue: bool = False


class RosterEvents(Protocol):
    """What the pool hears."""

    def worker_ready(self, worker: Worker) -> None:
        """It has loaded its bundle."""

    def worker_message(self, worker: Worker, message: WorkerMessage) -> None:
        """It says something."""

    def worker_ended(self, worker: Worker, reason: str, *, planned: bool) -> None:
        """It is gone; everything it sent has been handed over before.

        Args:
            worker: The worker.
            reason: How it ended, in words.
            planned: It was let go and had nothing left to do.
        """


class Roster:
    """All worker processes and the zygote they come from.

    Args:
        options: How long things may take.
        data: The data directory.
        start_processes: Starts what workers come from.
        mono_s: Monotonic clock.
    """

    def __init__(
        self,
        options: PoolOptions,
        data: Path,
        start_processes: StartProcesses,
        mono_s: Callable[[], float],
    ) -> None:
        self._options = options
        self._data = data
        self._start_processes = start_processes
        self._mono_s = mono_s
        self._files = BundleFiles(data / "bundles")
        self._numbers = count(1)
        self._generations: set[Generation] = set()
        self._zygote: Processes | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._closing = False
        self._asked: dict[int, tuple[Worker, asyncio.Future[Reply]]] = {}
        self.workers: dict[int, Worker] = {}

    # ------------------------------------------------------------------ life

    def start(self) -> None:
        """Start the zygote. The thread that calls this must live as long as the daemon."""
        self._files.clear()
        self._start_zygote()

    async def close(self) -> None:
        """End all processes."""
        self._closing = True
        for timer in self._timers:
            timer.cancel()
        for worker in list(self.workers.values()):
            worker.link.close()
        if self._zygote is not None:
            await self._zygote.close(self._options.stop_grace_s)
        for worker in list(self.workers.values()):
            worker.progress.close()
            for future in (worker.generation.manifest, worker.generation.complete):
                future.cancel()
        self.workers.clear()

    @property
    def zygote_pid(self) -> int:
        """Process id of the zygote."""
        return self._zygote.pid if self._zygote else 0

    def workers_of(self, role: Role) -> list[Worker]:
        """Return the workers that live and have a role."""
        return [worker for worker in self.workers.values() if worker.generation.role is role]

    # ------------------------------------------------------------------ generations

    def begin(self, bundle: bytes, size: int, role: Role) -> Generation:
        """Start `size` workers for a bundle.

        Raises:
            RequestError: `invalid_bundle` when it is too large.
        """
        loop = asyncio.get_running_loop()
        generation = Generation(
            role,
            self._files.write(bundle),
            size,
            [],
            loop.create_future(),
            loop.create_future(),
            self._options.restart_pause_s,
        )
        for future in (generation.manifest, generation.complete):
            future.add_done_callback(_look_at)
        self._generations.add(generation)
        for _ in range(size):
            self._start_worker(generation)
        return generation

    def end(self, generation: Generation) -> None:
        """Let a generation go: each worker ends when it has nothing in flight."""
        generation.size = 0
        _fail(generation, TransientError("the bundle's workers were let go"))
        for worker in list(generation.workers):
            worker.leaving = True
            self.let_go_if_idle(worker)
        self._remove_files(generation)

    def retire(self, worker: Worker) -> None:
        """Let one worker go and start another in its place: it ends when it has nothing in flight."""
        worker.leaving = True
        self.let_go_if_idle(worker)
        self._start_worker(worker.generation)

    def let_go_if_idle(self, worker: Worker) -> None:
        """End a leaving worker that has nothing left to do."""
        if worker.leaving and not worker.in_flight:
            worker.link.close()

    def kill(self, worker: Worker, why: Failure, call: int = 0) -> None:
        """End a worker at once; `worker_ended` follows when it is gone."""
        if not worker.doomed and self._zygote is not None:
            worker.doomed = True
            worker.ending = why
            worker.ending_call = call
            self._zygote.kill(worker.number)

    def kill_overdue(self, worker: Worker, why: str) -> None:
        """End a worker at once that hangs, or keeps a snapshot for too long; no call that can run elsewhere is blamed."""
        if not worker.doomed:
            logger.warning("worker_overdue", extra={"fields": {"worker": worker.number, "reason": why}})
            worker.overdue = True
            self.kill(worker, Failure("worker_died", why))

    async def ask(self, generation: Generation, question: Question) -> Reply:
        """Have a worker of a generation look at documents: the one with the least to do.

        Raises:
            RequestError: `invalid_bundle`: the worker ended over it, or took longer than to load the bundle.
        """
        able = [one for one in generation.workers if one.ready and not one.doomed]
        if not able:
            raise TransientError("the bundle's workers have ended; try again")
        worker = min(able, key=lambda one: one.backlog_ms)
        number = next(self._numbers)
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asked[number] = (worker, future)
        worker.link.send(replace(question, question=number))
        try:
            async with asyncio.timeout(self._options.start_limit_s):
                return await future
        except TimeoutError:
            why = f"documents could not be looked at within {self._options.start_limit_s:g} s"
            self.kill(worker, Failure("invalid_bundle", why))
            raise invalid_bundle(why) from None
        finally:
            del self._asked[number]

    # ------------------------------------------------------------------ from the zygote

    def spawned(self, number: int, pid: int) -> None:
        """Note a worker's process id."""
        worker = self.workers.get(number)
        if worker is not None:
            worker.pid = pid

    def exited(self, number: int, status: int) -> None:
        """Take leave of a worker that is gone and start another in its place."""
        worker = self.workers.get(number)
        if worker is None:
            return
        worker.link.drain()
        del self.workers[number]
        worker.link.close()
        generation = worker.generation
        generation.workers.remove(worker)
        reason = describe_end(status)
        planned = status == 0 and not worker.in_flight and (worker.leaving or self._closing)
        if not planned:
            fields = {"worker": number, "bundle": generation.bundle, "reason": reason}
            logger.warning("worker_ended", extra={"fields": fields})
        for asked, future in self._asked.values():
            if asked is worker and not future.done():
                future.set_exception(invalid_bundle(f"a worker ended while it looked at documents: {reason}"))
        generation.role.events.worker_ended(worker, reason, planned=planned)
        worker.progress.close()
        if not worker.ready:
            why = worker.ending or Failure(
                "invalid_bundle", f"the worker ended while it loaded the bundle: {reason}"
            )
            _fail(generation, invalid_bundle(why.message))
        if _staying(generation) < generation.size:
            self._replace(worker)
        self._remove_files(generation)

    def zygote_lost(self) -> None:
        """Start over: all workers have ended with the zygote."""
        logger.error("zygote_lost")
        self._zygote = None
        for number in list(self.workers):
            self.exited(number, -Signals.SIGKILL)
        if not self._closing:
            self._later(self._options.restart_pause_s, self._start_zygote)

    # ------------------------------------------------------------------ inside

    def _start_zygote(self) -> None:
        self._zygote = self._start_processes(self)

    def _start_worker(self, generation: Generation) -> None:
        if self._closing or _staying(generation) >= generation.size:
            return
        if self._zygote is None:
            self._later(self._options.restart_pause_s, lambda: self._start_worker(generation))
            return
        number = next(self._numbers)
        assignment = Assignment(
            str(self._data),
            generation.bundle,
            str(self._files.file(generation.bundle)),
            str(self._files.unpacked(generation.bundle)),
            generation.role.limits,
            generation.role.name,
        )
        link, progress = self._zygote.spawn(
            number,
            assignment,
            lambda message: self._message(worker, message),
            lambda: self._lost(worker),
        )
        worker = Worker(number, generation, link, progress, self._mono_s())
        self.workers[number] = worker
        generation.workers.append(worker)
        link.send(Describe())

    def _lost(self, worker: Worker) -> None:
        """Send a worker that closed its link no more work.

        As a rule it is just ending, and will have said why with its exit code in a moment.
        """
        worker.doomed = True

        def end() -> None:
            if worker.number in self.workers and self._zygote is not None:
                self._zygote.kill(worker.number)

        self._later(_LOST_GRACE_S, end)

    def _message(self, worker: Worker, message: WorkerMessage) -> None:
        if isinstance(message, Reply):
            _, reply = self._asked.get(message.question, (worker, None))
            if reply is not None and not reply.done():
                reply.set_result(message)
            return
        generation = worker.generation
        if not isinstance(message, Described):
            worker.proved = True
            generation.pause_s = self._options.restart_pause_s
            generation.role.events.worker_message(worker, message)
            return
        if message.manifest is None:
            failure = message.failure or Failure("invalid_bundle", "the bundle was refused without a reason")
            _fail(generation, error_for(failure.code, failure.message))
            worker.doomed, worker.ending = True, failure
            worker.link.close()
            return
        worker.ready = True
        if not generation.manifest.done():
            generation.manifest.set_result(message.manifest)
        if (
            not generation.complete.done()
            and sum(other.ready for other in generation.workers) >= generation.size
        ):
            generation.complete.set_result(None)
        generation.role.events.worker_ready(worker)

    def _replace(self, worker: Worker) -> None:
        """Start a worker in the place of one that is gone: at once, or after a pause if it served nothing."""
        generation = worker.generation
        if self._closing:
            return
        if worker.proved:
            self._start_worker(generation)
            return
        self._later(generation.pause_s, lambda: self._start_worker(generation))
        generation.pause_s = min(generation.pause_s * 2, self._options.restart_pause_max_s)

    def _later(self, pause_s: float, action: Callable[[], None]) -> None:
        def run() -> None:
            self._timers.discard(timer)
            action()

        timer = asyncio.get_running_loop().call_later(pause_s, run)
        self._timers.add(timer)

    def _remove_files(self, generation: Generation) -> None:
        if generation.size or generation.workers or self._closing:
            return
        self._generations.discard(generation)
        if all(other.bundle != generation.bundle for other in self._generations):
            self._files.remove(generation.bundle)


def _staying(generation: Generation) -> int:
    """Return how many of its workers are not to leave."""
    return sum(not worker.leaving for worker in generation.workers)


def _fail(generation: Generation, error: HeadwaterError) -> None:
    for future in (generation.manifest, generation.complete):
        if not future.done():
            future.set_exception(error)


def _look_at(future: asyncio.Future[Any]) -> None:
    """Take note of a future's error, so that one that nobody waits for is not reported as forgotten."""
    if not future.cancelled():
        future.exception()


def describe_end(status: int) -> str:
    """Return how a process ended, in words."""
    if status == EXIT_MEMORY:
        return "it needed more memory than its limit"
    if status >= 0:
        return f"it ended with exit code {status}"
    try:
        return f"it was ended by {Signals(-status).name}"
    except ValueError:
        return f"it was ended by signal {-status}"
