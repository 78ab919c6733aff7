"""One daemon process in the simulated world, from its start to its end; the disk outlives it.

Everything of it is the real thing: recovery, engine, committer, log, checkpoints, pool, reactive
core, connections. Clock, randomness, files, threads, the store's file, worker processes and sockets
come from the world.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import HeadwaterError
from headwater_server.app import Daemon
from headwater_server.lifecycle import ExitCode, run, stop_signals
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.committer import CommitterOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.recovery import StorageOptions

from support.memory_files import Crashed, MemoryFiles
from support.world.paged_store import PagedStore
from support.world.timeline import SeededExecutor, SeededRandom
from support.world.workers import SeededProcesses

if TYPE_CHECKING:
    import asyncio
    from pathlib import Path
    from random import Random

    from headwater_config.settings import Settings
    from headwater_server.functions.roster import ProcessEvents

    from support.world.timeline import Timeline, WallClock

KILLED = -9


@dataclass
class Faults:
    """What goes slowly or wrong in a daemon's life without a moment of its own.

    Attributes:
        disk_slow_s: Longest time that blocking work takes.
        call_costs_s: What calls cost, chosen from.
        lock_refusals: How often orphaned workers are found at the next start.
    """

    disk_slow_s: float = 0.004
    call_costs_s: tuple[float, ...] = (0.0001, 0.0004, 0.001, 0.005)
    lock_refusals: int = 0


class Disk(MemoryFiles):
    """The machine's files. Says when the operation comes at which the machine stops."""


class LifeFiles:
    """The disk as one process sees it: nothing of what a dead one does reaches it.

    Attributes:
        dead: Set by the end of the process.
        operations_left: Changing operations until the process is killed in the middle of one; None: it is not.
    """

    _CHANGING = frozenset({"open", "pwrite", "truncate", "fdatasync", "sync_folder", "rename", "remove"})

    def __init__(self, disk: Disk, on_crash: Any, faults: Faults) -> None:
        self.disk = disk
        self.dead = False
        self.operations_left: int | None = None
        self._on_crash = on_crash
        self._faults = faults
        for name in ("open", "close", "pread", "pwrite", "truncate", "fdatasync", "sync_folder", "rename", "remove", "names",
                     "size", "free_bytes", "make_folder", "exists", "inode", "kind"):  # fmt: skip
            setattr(self, name, partial(self._do, getattr(disk, name), name in self._CHANGING))

    def _do(self, operation: Any, changing: bool, *arguments: Any) -> Any:
        if self.dead:
            raise Crashed
        if changing and self.operations_left is not None:
            self.operations_left -= 1
            if self.operations_left <= 0:
                self.dead = True
                self._on_crash()
                raise Crashed
        return operation(*arguments)

    def try_lock(self, descriptor: int, *, shared: bool) -> bool:
        if self._faults.lock_refusals and self.disk.open_files[descriptor][0].name == "workers.lock":
            self._faults.lock_refusals -= 1
            return False
        return self.disk.try_lock(descriptor, shared=shared)


def storage_options() -> StorageOptions:
    """Small files, so that a short history rotates segments and makes checkpoints."""
    return StorageOptions(
        log=FileLogOptions(segment_bytes=1 << 14, first_segment_bytes=1 << 13),
        checkpoint=CheckpointOptions(log_bytes=6_000, growth_bytes=1 << 20, interval_s=3.0),
    )


class SeededDaemon(Daemon):
    """The daemon, which clients reach over the network of the world instead of over sockets."""

    def __init__(self, life: Life, *parts: Any) -> None:
        super().__init__(*parts)
        self._life = life

    async def listen(self) -> None:
        self._life.serves = True
        self._life.timeline.note(f"daemon {self._life.number} serves")


class Life:
    """One process of the daemon.

    Attributes:
        serves: Clients can connect.
        ended: How it ended, None while it lives; `KILLED` if by force.
        error: Why its storage failed, if so.
        store: The store, as workers open it.
    """

    def __init__(
        self,
        timeline: Timeline,
        random: Random,
        disk: Disk,
        clock: WallClock,
        settings: Settings,
        faults: Faults,
        number: int,
    ) -> None:
        self.timeline = timeline
        self.random = random
        self.clock = clock
        self.faults = faults
        self.number = number
        self.loop = timeline.new_loop(f"daemon {number}")
        self.files = LifeFiles(disk, self._stopped_by_disk, faults)
        self.serves = False
        self.ended: int | None = None
        self.error: BaseException | None = None
        self.store: Any = None
        self.daemon: Any = None
        self.processes: list[SeededProcesses] = []
        self.executor = SeededExecutor(self.loop, random)
        self._settings = settings
        self._main: asyncio.Task[None] | None = None

    def options(self) -> EngineOptions:
        committer = CommitterOptions(
            free_bytes_min=4_096,
            retry_s=0.2,
            batch_count_max=8,
            quick_append_s=self.random.choice(
                (0.0, 0.001)
            ),  # no time passes on the loop: the disk is quick there
        )
        return EngineOptions(storage=storage_options(), committer=committer)

    def environment(self) -> Environment:
        return Environment(
            self.clock,
            SeededRandom(self.random),
            self.files,
            self.executor,
            self._open_store,
        )

    def _open_store(self, path: Path, **options: Any) -> PagedStore:
        self.store = PagedStore.open(self.files, path, **options)
        return self.store

    def _start_processes(self, events: ProcessEvents) -> SeededProcesses:
        made = SeededProcesses(self, self.random, events)
        self.processes.append(made)
        return made

    # -------------------------------------------------------------------------------------------- life

    def start(self) -> None:
        """Recover and begin to serve.

        Raises:
            HeadwaterError: The directory cannot be opened; the process is over.
            Crashed: The machine stopped in the middle.
        """
        self.timeline.note(f"daemon {self.number} starts")
        environment = self.environment()
        engine = Engine.open(self._settings.data, self.options(), environment)
        self.timeline.note(f"daemon {self.number} has recovered to {engine.published_ts}")
        self.daemon = self._daemon(environment, engine)
        self._main = self.loop.create_task(self._serve())

    def _daemon(self, environment: Environment, engine: Engine) -> SeededDaemon:
        return SeededDaemon(self, self._settings, environment, engine, self._start_processes)

    async def _serve(self) -> None:
        try:
            self.ended = await run(self.daemon, stop_signals(), drain_limit_s=1.0)
        except HeadwaterError as error:
            self.error, self.ended = error, ExitCode.CANNOT_START
        else:
            self.error = self.daemon.failure
        self.serves = False
        why = repr(self.error).replace(str(self._settings.data), "")  # equal seeds, equal traces
        self.timeline.note(f"daemon {self.number} ends with {self.ended}: {why}")

    def stop(self) -> None:
        """Ask it to stop, as a signal does."""
        if signal.SIGTERM in self.loop.signals:
            self.loop.at(self.loop.time(), self.loop.signals[signal.SIGTERM])

    def kill(self) -> None:
        """End it at once, with everything it has in memory."""
        self.timeline.note(f"daemon {self.number} is killed")
        self._stopped()

    def _stopped_by_disk(self) -> None:
        self.timeline.note(f"daemon {self.number} is killed in the middle of writing")
        self._stopped()

    def _stopped(self) -> None:
        self.files.dead = True
        self.loop.dead = True
        self.serves = False
        self.ended = KILLED

    def failure(self) -> BaseException | None:
        """Return what its main task failed of, None if it did not."""
        if self._main is not None and self._main.done() and not self._main.cancelled():
            return self._main.exception()
        return None
