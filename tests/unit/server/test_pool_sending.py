"""What the pool sends to a worker ahead of time, with a link that keeps what it is given."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from headwater_server.functions.limits import PoolOptions
from headwater_server.functions.mutations import MutationCall
from headwater_server.functions.pool import WorkerPool
from headwater_server.functions.roster import Roster, Worker
from headwater_server.worker.messages import QueryDone, RoundOpened, RunMutation, Usage

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_protocol.errors import HeadwaterError


class Link:
    """Keeps what is sent."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.at_once: list[bool] = []

    def send(self, message: Any, *, at_once: bool = False) -> None:
        self.sent.append(message)
        self.at_once.append(at_once)


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
    options = PoolOptions(workers=1)
    roster = Roster(options, folder, None, time.monotonic)  # type: ignore[arg-type]
    pool = WorkerPool(options, roster, mono_s=time.monotonic, next_us=lambda: 1)
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


def test_only_what_nobody_runs_anything_beside_is_sent_before_the_turn_ends(tmp_path: Path) -> None:
    pool, worker, _ = world(tmp_path)
    for _ in range(3):
        pool.run_mutation(a_call())
    worker.in_flight.clear()
    pool.run_mutation(a_call())
    assert worker.link.at_once == [True, False, False, True]  # type: ignore[attr-defined]


class Rounds:
    """Orders another round, with a query, in the step in which it hears that one is over, as the core does."""

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.ran = 0

    def next(self) -> None:
        self.ran += 1
        self.pool.open_round(1, self.ran)
        self.pool.run_round_query(1, self.ran, self.ran, "m:q", b"\x80", None, None)

    def round_opened(self, worker: int, message: RoundOpened) -> None:
        """Nothing more is needed."""

    def round_query_done(self, worker: int, round_number: int, call: int, name: str, done: QueryDone) -> None:
        self.pool.close_round(1, round_number)
        self.next()


def test_a_mutation_that_waits_gets_in_between_two_rounds(tmp_path: Path) -> None:
    """A round's queries go along with the order to open it: the worker is never seen without a call."""
    pool, worker, _ = world(tmp_path)
    pool._active = SimpleNamespace(bundle="b")  # type: ignore[assignment]
    pool._watch = lambda: None  # type: ignore[method-assign]
    pool._costs.ran("m:q", 4.0)
    rounds = pool._listener = Rounds(pool)  # type: ignore[assignment]
    link: Any = worker.link
    rounds.next()
    pool.run_mutation(a_call())
    assert pool._waiting, "the worker has enough to do"
    while not any(isinstance(message, RunMutation) for message in link.sent):
        assert rounds.ran < 3, "rounds keep it out"
        opened, query = link.sent[-2:]
        pool.worker_message(worker, RoundOpened(opened.round, 1, True))
        usage = Usage(4000)
        done = QueryDone(query.call, 1, b"\xc0", None, None, None, [], [], False, None, usage)
        pool.worker_message(worker, done)


def test_a_worker_is_blamed_on_no_call_that_it_never_began(tmp_path: Path) -> None:
    pool, worker, _ = world(tmp_path)
    page: Any = SimpleNamespace(running=lambda: (0, 0), begun=lambda: 1)
    worker.progress = page
    pool._listener = Rounds(pool)  # type: ignore[assignment]
    pool._watch = lambda: None  # type: ignore[method-assign]
    pool.run_round_query(1, 1, 1, "m:q", b"\x80", None, None)
    pool.run_round_query(1, 1, 2, "m:r", b"\x80", None, None)
    culprit = pool._culprit(worker)
    assert culprit is not None
    assert culprit.name == "m:q"
    page.begun = lambda: 0
    assert pool._culprit(worker) is None
