"""Function workers in the simulated world: the real loop of a worker over the real frames, in this process.

Faults they may have: a worker dies at any moment, also after a call has run and before its answer
was sent; a call takes long; messages take their time in either direction, in order; the end of a
worker is heard of before or after the end of its link; the zygote dies with all of them.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from headwater.bundle import Bundle
from headwater.packing import bundle_hash, pack
from headwater_server.worker.determinism import Determinism
from headwater_server.worker.guard import Guard
from headwater_server.worker.link import FrameSplitter, FrameWriter
from headwater_server.worker.messages import (
    DaemonMessage,
    RunMutation,
    RunQuery,
    TransactionOrder,
    WorkerMessage,
)
from headwater_server.worker.output import CallOutput
from headwater_server.worker.serve import Server, Surroundings

from support.world.timeline import TICK_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from headwater_server.functions.roster import ProcessEvents
    from headwater_server.worker.control import Assignment

    from support.world.life import Life

BUNDLES = Path(__file__).parents[1] / "bundles"
KILLED = -9


@cache
def archive(name: str) -> bytes:
    return pack(BUNDLES / name / name)


@cache
def _loaded() -> dict[str, Bundle]:
    """All bundles of the world by their hash; a process can import each but once."""
    bundles = {}
    for name in ("world_one", "world_two"):
        sys.path.insert(0, str(BUNDLES / name))
        package = importlib.import_module(name)
        for module in ("schema", "bank", "screens"):
            importlib.import_module(f"{name}.{module}")
        sys.path.remove(str(BUNDLES / name))
        bundles[bundle_hash(archive(name))] = Bundle.load(package)
    return bundles


class _Progress:
    """What a worker says it is doing; a call that ran in no time runs on until its time is up."""

    def __init__(self, draw_cost_s: Callable[[], float]) -> None:
        self._draw_cost_s = draw_cost_s
        self.call = (0, 0)
        self.newest = 0
        self.cost_s = 0.0  # of the calls since it was last cleared

    def begin(self, call: int, mono_ns: int) -> None:
        self.newest = call
        if not self.call[0]:
            self.call = (call, mono_ns)
        self.cost_s += self._draw_cost_s()

    def end(self) -> None:
        """The answer is ready, and sent later."""

    def clear(self) -> None:
        self.call, self.cost_s = (0, 0), 0.0

    def running(self) -> tuple[int, int]:
        return self.call

    def begun(self) -> int:
        return self.newest

    def beats(self) -> int:
        return 0

    def blamed(self) -> tuple[int, str]:
        return 0, ""

    def close(self) -> None:
        """Nothing is mapped."""


class _End:
    """The worker's end of its link, as its loop sees it."""

    def __init__(self) -> None:
        self._writer = FrameWriter()
        self.flushed = bytearray()

    @property
    def unsent_bytes(self) -> int:
        return len(self._writer)

    def add(self, message: object) -> None:
        self._writer.add(message)

    def flush(self) -> None:
        self.flushed += self._writer.take()


class _Link:
    """The daemon's end of a worker's link; implements `Link`."""

    def __init__(
        self, worker: SeededWorker, receive: Callable[[Any], None], lost: Callable[[], None]
    ) -> None:
        self._worker = worker
        self._receive = receive
        self._lost = lost
        self._writer = FrameWriter()
        self._splitter = FrameSplitter(msgspec.msgpack.Decoder(WorkerMessage))
        self._flush_scheduled = False
        self.arriving: list[bytes] = []
        self.at_end = False
        self.open = True

    def send(self, message: DaemonMessage, *, at_once: bool = False) -> None:
        if self.open:
            self._writer.add(message)
            if at_once:
                self._flush()
            elif not self._flush_scheduled:
                self._flush_scheduled = True
                self._worker.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        if self.open and len(self._writer):
            self._worker.later("to", self._worker.arrived, bytes(self._writer.take()))

    def drain(self) -> None:
        while self.open and self.arriving:
            for message in self._splitter.feed(self.arriving.pop(0)):
                self._receive(message)
        if self.open and self.at_end:
            self.close()
            self._lost()

    def close(self) -> None:
        if self.open:
            self.open = False
            self._worker.later("to", self._worker.link_closed)


class SeededWorker:
    """One worker process."""

    def __init__(
        self,
        processes: SeededProcesses,
        number: int,
        assignment: Assignment,
        receive: Callable[[Any], None],
        lost: Callable[[], None],
    ) -> None:
        self.loop = processes.life.loop
        self.number = number
        self.name = f"worker {number}"
        self.alive = True
        self.progress = _Progress(self._draw_cost_s)
        self.link = _Link(self, receive, lost)
        self._processes = processes
        self._life = processes.life
        self._random = processes.random
        self._assignment = assignment
        self._server: Server | None = None
        self._end = _End()
        self._splitter = FrameSplitter(msgspec.msgpack.Decoder(TransactionOrder))
        self._inbox: list[Any] = []
        self._busy = True  # importing
        self._no_more = False
        self._last = {"to": 0.0, "from": 0.0}
        self.loop.at(self.loop.time() + 0.005 + self._random.random() * 0.05, self._imported)

    def later(self, direction: str, action: Callable[..., None], *arguments: Any) -> None:
        """Do something when what is sent now arrives: in order for each direction."""
        delay = self._random.choice((0.00005, 0.0002, 0.001))
        when = self._last[direction] = max(self._last[direction] + TICK_S, self.loop.time() + delay)
        self.loop.at(when, action, *arguments)

    def _draw_cost_s(self) -> float:
        faults = self._processes.faults
        return self._random.choice(faults.call_costs_s)

    def _imported(self) -> None:
        if not self.alive:
            return
        self._server = Server(
            self._end,
            self._life.store.reader(self.name),
            _loaded()[self._assignment.bundle_hash],
            self._assignment.bundle_hash,
            self.progress,
            Guard(),  # not installed: it would refuse things to the whole process, for good
            Determinism(),  # neither
            CallOutput(10, 1000),
            self._assignment.limits,
            Surroundings(
                lambda: int((self.loop.time() + self.progress.cost_s) * 1e9),
                self._random.randbytes,
            ),
        )
        self._busy = False
        self._work()

    def arrived(self, data: bytes) -> None:
        if self.alive:
            self._inbox += self._splitter.feed(data)
            self._work()

    def link_closed(self) -> None:
        self._no_more = True
        self._work()

    def _work(self) -> None:
        if not self.alive or self._busy:
            return
        if not self._inbox:
            if self._no_more:
                self.end(0)
            return
        assert self._server is not None
        taken = self._random.randint(1, len(self._inbox))
        messages, self._inbox = self._inbox[:taken], self._inbox[taken:]
        self._server.answer(messages)
        names = [message.name for message in messages if isinstance(message, RunMutation | RunQuery)]
        if names:
            self._life.timeline.note(f"{self.name} runs {' '.join(names)}")
        self._busy = True
        self.loop.at(self.loop.time() + self.progress.cost_s, self._worked)

    def _worked(self) -> None:
        if not self.alive:
            return
        self.progress.clear()
        data, self._end.flushed = bytes(self._end.flushed), bytearray()
        if data:
            self.later("from", self._deliver, data)
        self._busy = False
        self._work()

    def _deliver(self, data: bytes) -> None:
        self.link.arriving.append(data)
        self.link.drain()

    def end(self, status: int) -> None:
        """End the process: what it had sent arrives, what it had not is gone."""
        if not self.alive:
            return
        self.alive = False
        self._life.timeline.note(f"{self.name} ends with {status}")
        if self._life.store is not None:
            self._life.store.dead.add(self.name)
        actions: list[Callable[[], None]] = [self._link_ended, partial(self._processes.exited, self, status)]
        if self._random.random() < 0.5:
            actions.reverse()
        for action in actions:
            self.later("from", action)

    def _link_ended(self) -> None:
        self.link.at_end = True
        self.link.drain()


class SeededProcesses:
    """Where they come from; implements `Processes`."""

    pid = 0

    def __init__(self, life: Life, random: Random, events: ProcessEvents) -> None:
        self.life = life
        self.random = random
        self.faults = life.faults
        self.workers: dict[int, SeededWorker] = {}
        self._events = events
        self._closing = False
        self._lost = False

    def spawn(
        self,
        worker: int,
        assignment: Assignment,
        receive: Callable[[Any], None],
        lost: Callable[[], None],
    ) -> tuple[_Link, _Progress]:
        made = self.workers[worker] = SeededWorker(self, worker, assignment, receive, lost)
        made.later("from", self._spawned, worker)
        return made.link, made.progress

    def _spawned(self, worker: int) -> None:
        if not self._lost:
            self._events.spawned(worker, 0)

    def kill(self, worker: int) -> None:
        if worker in self.workers:
            made = self.workers[worker]
            made.later("to", made.end, KILLED)

    def exited(self, worker: SeededWorker, status: int) -> None:
        if not self._lost and self.workers.pop(worker.number, None) is not None:
            self._events.exited(worker.number, status)

    def lose_zygote(self) -> None:
        """End the zygote and with it all workers."""
        if self._closing or self._lost:
            return
        self._lost = True
        for worker in self.workers.values():
            worker.alive = False
            self.life.store.dead.add(worker.name)
        self.life.timeline.note("the zygote is lost")
        self.life.loop.at(self.life.loop.time() + 0.001, self._events.zygote_lost)

    async def close(self, grace_s: float) -> None:
        self._closing = True
        for worker in self.workers.values():
            worker.alive = False
            self.life.store.dead.add(worker.name)
        self.workers.clear()
