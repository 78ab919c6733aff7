"""What the pool sends to a worker ahead of time, with a link that keeps what it is given."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from headwater_server.functions.limits import PoolOptions
from headwater_server.functions.mutations import MutationCall
from headwater_server.functions.pool import WorkerPool
from headwater_server.functions.roster import Worker

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_protocol.errors import HeadwaterError


class Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


class Receiver:
    """Keeps what comes back."""

    def __init__(self) -> None:
        self.back: list[MutationCall] = []
        self.long: list[MutationCall] = []

    def sent_back(self, call: MutationCall) -> None:
        self.back.append(call)

    def refused(self, call: MutationCall, error: HeadwaterError) -> None:
        """There is no bundle for those that would have to wait."""

    def stuck(self, call: MutationCall) -> None:
        self.long.append(call)


def world(folder: Path) -> tuple[WorkerPool, Worker, Receiver]:
    """A pool with one worker."""
    pool = WorkerPool(
        PoolOptions(workers=1),
        data=folder,
        start_processes=None,  # type: ignore[arg-type]
        mono_s=time.monotonic,
        next_us=lambda: 1,
    )
    receiver = Receiver()
    pool._mutations = receiver  # type: ignore[assignment]
    worker = Worker(1, None, Link(), None, 0.0, ready=True, announced=True)  # type: ignore[arg-type]
    pool._roster.workers[1] = worker
    pool._ready.append(worker)
    return pool, worker, receiver


def a_call() -> MutationCall:
    return MutationCall("m:f", b"\x80", None, internal=False, decided=lambda call, decision: None)


def test_members_of_a_chain_do_not_keep_others_out_of_the_only_worker(tmp_path: Path) -> None:
    pool, worker, _ = world(tmp_path)
    for _ in range(8):
        assert pool.run_chained(1, a_call(), 1, 0, 0, 0) == 1.0
    for _ in range(5):
        pool.run_mutation(a_call())
    assert [message.chain for message in worker.link.sent] == [1] * 8 + [0] * 3  # type: ignore[attr-defined]


def test_only_those_behind_a_call_that_runs_for_long_go_back(tmp_path: Path) -> None:
    """On a busy machine answers were still on the way, and calls were taken for unstarted that had run."""
    pool, worker, receiver = world(tmp_path)
    calls = [a_call() for _ in range(4)]
    for call in calls:
        pool.run_chained(1, call, 1, 0, 0, 0)
    running = [number for number, (work, _) in worker.in_flight.items() if work and work.call is calls[1]]  # type: ignore[attr-defined]
    pool._move_away(worker, running[0])
    assert receiver.long == [calls[1]]
    assert receiver.back == [calls[3], calls[2]]
