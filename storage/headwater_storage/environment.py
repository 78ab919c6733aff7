"""What storage needs of the outside: clock, randomness, threads, the store; files are in `files.py`.

Small protocols with the real implementations; simulation and tests hand in others. LMDB goes
to the operating system itself, so whoever hands in other files hands in another store too.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from headwater_storage.files import FileSystem, RealFileSystem
from headwater_storage.lmdb_store import LmdbStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_storage.store import OpenStore

_T = TypeVar("_T")

_BLOCKING_THREADS = 4
"""One append, one checkpoint and one next segment may be under way, and one look at the disk."""


class Clock(Protocol):
    """Time."""

    def wall_us(self) -> int:
        """Return wall clock time, µs since 1970. May go back."""
        ...

    def mono_s(self) -> float:
        """Return monotonic time in seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; only ever called before the daemon serves."""


class Random(Protocol):
    """Randomness."""

    def bytes(self, count: int) -> bytes:
        """Return `count` random bytes."""
        ...


class Executor(Protocol):
    """Runs blocking work: in threads in the daemon, at once in simulation."""

    def submit(self, work: Callable[[], _T], /) -> Future[_T]:
        """Start the work; the future has its result or error."""
        ...

    def close(self) -> None:
        """Wait for all work and end."""


@dataclass(frozen=True, slots=True)
class Environment:
    """All of the outside that storage sees."""

    clock: Clock
    random: Random
    files: FileSystem
    executor: Executor
    open_store: OpenStore = LmdbStore.open

    async def run_blocking(self, work: Callable[[], _T]) -> _T:
        """Run blocking work without holding up the event loop; cancelling the caller does not stop it."""
        return await outcome_of(self.executor.submit(work))


class RealClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """Return wall clock time, µs since 1970."""
        return time.time_ns() // 1000

    def mono_s(self) -> float:
        """Return monotonic time in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class RealRandom:
    """The kernel's randomness."""

    def bytes(self, count: int) -> bytes:
        """Return `count` random bytes."""
        return os.urandom(count)


class ThreadExecutor:
    """A few threads of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_BLOCKING_THREADS, thread_name_prefix="headwater-storage")

    def submit(self, work: Callable[[], _T], /) -> Future[_T]:
        """Start the work in a thread."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Wait for all work and end."""
        self._pool.shutdown()


class InlineExecutor:
    """Does the work at once, in the caller's thread: for simulation and command line tools."""

    def submit(self, work: Callable[[], _T], /) -> Future[_T]:
        """Do the work; the returned future is done."""
        future: Future[_T] = Future()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: no work is ever left."""


async def outcome_of(future: Future[_T]) -> _T:
    """Wait for submitted work; cancelling the caller does not stop it."""
    if future.done():
        return future.result()
    return await asyncio.shield(asyncio.wrap_future(future))


def real_environment() -> Environment:
    """Return the machine's clock, randomness, files and threads; whoever makes it closes the executor."""
    return Environment(RealClock(), RealRandom(), RealFileSystem(), ThreadExecutor())
