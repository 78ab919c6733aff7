"""Virtual time: event loops that wait by moving a shared clock on, and what blocks in threads on it.

Each process of the simulated world has an event loop of its own. A loop that is never stepped
again is a process that was killed: none of its handlers runs, no matter what they would do.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import deque
from concurrent.futures import Future
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from support.memory_files import Crashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_TRACE_KEPT = 120
_SAME_TIME_MAX = 100_000
_BURIAL_TURNS = 20
TICK_S = 1e-9
"""What keeps apart what follows one another on one way: timers of the same time come in any order."""


class Stuck(Exception):  # noqa: N818
    """The world goes round in circles without time passing."""


class Timeline:
    """What time it is, whose turn it is, and what has happened so far.

    Attributes:
        now: Virtual seconds since the world began.
        recent: The last events, for people.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.recent: deque[str] = deque(maxlen=_TRACE_KEPT)
        self._digest = blake2b(digest_size=16)
        self._loops: list[VirtualLoop] = []

    def note(self, text: str) -> None:
        """Add an event to the trace."""
        line = f"{self.now:10.6f} {text}"
        self.recent.append(line)
        self._digest.update(line.encode())

    @property
    def trace(self) -> str:
        """Digest of all events so far: equal for equal seeds."""
        return self._digest.hexdigest()

    def new_loop(self, name: str) -> VirtualLoop:
        loop = VirtualLoop(self, name)
        self._loops.append(loop)
        return loop

    def forget(self, loop: VirtualLoop) -> None:
        self._loops.remove(loop)

    def run(self, done: Callable[[], bool], limit_s: float) -> bool:
        """Let the world go on until something holds; False if it does not within `limit_s`."""
        end = self.now + limit_s
        still = 0
        while not done():
            best: VirtualLoop | None = None
            when = end
            for loop in self._loops:
                next_time = loop.next_time()
                if next_time is not None and next_time < when:
                    best, when = loop, next_time
            if best is None:
                self.now = end
                return done()
            still = 0 if when > self.now else still + 1
            if still > _SAME_TIME_MAX:
                raise Stuck(f"{best.name} does not wait for anything")
            self.now = max(self.now, when)
            best.step()
        return True


class VirtualLoop(asyncio.BaseEventLoop):
    """An event loop on a timeline.

    Attributes:
        dead: Its process has ended: it stops in the middle of whatever it does.
        errors: What handlers raised.
        signals: What is called when a signal comes.
    """

    def __init__(self, timeline: Timeline, name: str) -> None:
        super().__init__()
        self.set_debug(False)
        self.name = name
        self.dead = False
        self.errors: list[dict[str, Any]] = []
        self.signals: dict[int, Callable[..., object]] = {}
        self._timeline = timeline
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._timeline.now

    def _write_to_self(self) -> None:
        """Nobody waits in another thread."""

    def add_signal_handler(self, number: int, action: Callable[..., object], *_: object) -> None:
        self.signals[number] = action

    def next_time(self) -> float | None:
        """When it has something to do; None if it waits for others."""
        if self.dead:
            return None
        if self._ready:
            return self._timeline.now
        scheduled = self._scheduled
        while scheduled and scheduled[0]._cancelled:
            heapq.heappop(scheduled)._scheduled = False
        return scheduled[0]._when if scheduled else None

    def step(self) -> None:
        """Do what is due, one turn of it."""
        scheduled, ready, now = self._scheduled, self._ready, self._timeline.now
        while scheduled and scheduled[0]._when <= now:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        self._run_ready(lambda: self.dead)

    def _run_ready(self, stopped: Callable[[], bool]) -> None:
        ready = self._ready
        before = asyncio._get_running_loop()
        asyncio._set_running_loop(self)
        try:
            for _ in range(len(ready)):
                if stopped():
                    return
                handle = ready.popleft()
                if not handle._cancelled:
                    handle._run()
        finally:
            asyncio._set_running_loop(before)

    def at(self, when: float, action: Callable[..., object], *arguments: Any) -> None:
        """Do something here at a time; called from any loop."""
        if not self.dead:
            self.call_at(max(when, self._timeline.now), action, *arguments)

    def bury(self) -> None:
        """End the tasks of a dead process, which reach nobody any more, so that Python has nothing to say."""
        self.dead = True
        self._ready.clear()
        self._scheduled.clear()
        tasks = asyncio.all_tasks(self)
        for _ in range(_BURIAL_TURNS):
            for task in tasks:
                task.cancel()
            while self._ready:
                self._run_ready(lambda: False)
            self._scheduled.clear()
            tasks = {task for task in tasks if not task.done()}
            if not tasks:
                break
        for task in tasks:
            task._log_destroy_pending = False
            with contextlib.suppress(RuntimeError):  # it may want to wait once more
                task.get_coro().close()
        self.close()


class _Work(Future):
    """Work that a thread does: whoever waits for it without a loop makes time pass until it is done."""

    def __init__(self, work: Callable[[], Any], busy: Callable[[], bool]) -> None:
        super().__init__()
        self._work = work
        self._busy = busy

    def run(self) -> None:
        if self.done() or self._busy():
            return
        try:
            result = self._work()
        except Crashed:
            return
        except Exception as error:
            self.set_exception(error)
        else:
            self.set_result(result)

    def result(self, timeout: float | None = None) -> Any:
        self._finish()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        self._finish()
        return super().exception(timeout)

    def _finish(self) -> None:
        self.run()
        if not self.done():
            raise Crashed


class SeededExecutor:
    """Does blocking work whole, at a moment that the seed chooses.

    Attributes:
        slow_s: Longest time that work takes now.
    """

    def __init__(self, loop: VirtualLoop, random: Random) -> None:
        self._loop = loop
        self._random = random
        self.slow_s = 0.004

    def submit(self, work: Callable[[], Any], /) -> Future[Any]:
        future = _Work(work, lambda: self._loop.dead)
        self._loop.at(self._loop.time() + self._random.random() * self.slow_s, future.run)
        return future

    def close(self) -> None:
        """Nothing is left that anybody waits for."""


class SeededRandom:
    """Implements `Random`, of storage."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


class WallClock:
    """Implements `Clock`: one machine's clocks, whose wall clock can be set.

    Attributes:
        wall_offset_s: What the wall clock is ahead of where it began.
    """

    def __init__(self, timeline: Timeline) -> None:
        self._timeline = timeline
        self.wall_offset_s = 1_700_000_000.0

    def wall_us(self) -> int:
        return int((self._timeline.now + self.wall_offset_s) * 1e6)

    def mono_s(self) -> float:
        return self._timeline.now

    def sleep(self, seconds: float) -> None:
        self._timeline.now += seconds
