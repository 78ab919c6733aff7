"""What every pool bounds in its workers, whatever runs in them: how long a start takes, and how much memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_server.functions.memory import private_bytes
from headwater_server.worker.messages import Failure

if TYPE_CHECKING:
    from headwater_server.functions.roster import Roster, Worker


class WorkerBounds:
    """Ends workers that are over a bound. A pool looks often; memory is read more rarely, since it is a file for each.

    Args:
        roster: Ends them.
        start_limit_s: Time that a worker may take to import its bundle.
        memory_limit_bytes: Memory that a worker may have for itself.
        memory_watch_s: Time between two looks at memory.
    """

    def __init__(
        self, roster: Roster, start_limit_s: float, memory_limit_bytes: int, memory_watch_s: float
    ) -> None:
        self._roster = roster
        self._start_limit_s = start_limit_s
        self._memory_limit_bytes = memory_limit_bytes
        self._memory_watch_s = memory_watch_s
        self._memory_seen_s = 0.0
        self._reads_memory = False

    def begin(self, now_s: float) -> None:
        """Begin a look at all workers of a pool."""
        self._reads_memory = now_s - self._memory_seen_s >= self._memory_watch_s
        if self._reads_memory:
            self._memory_seen_s = now_s

    def look_at_start(self, worker: Worker, now_s: float) -> None:
        """End a worker that does not become ready."""
        if now_s - worker.started_mono_s > self._start_limit_s:
            limit = f"the bundle did not import within {self._start_limit_s:g} s"
            self._roster.kill(worker, Failure("invalid_bundle", limit))

    def look_at_memory(self, worker: Worker, call: int = 0) -> None:
        """End a worker that is too large, if memory is due in this look; `call` is blamed for it."""
        if not self._reads_memory:
            return
        used = private_bytes(worker.pid)
        if used > self._memory_limit_bytes:
            why = f"the worker used {used} bytes of memory; the limit is {self._memory_limit_bytes}"
            self._roster.kill(worker, Failure("worker_died", why), call)
