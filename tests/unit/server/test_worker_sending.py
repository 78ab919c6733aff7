"""When a worker sends what it has finished: not each result by itself, and none long after it is there."""

from __future__ import annotations

from typing import Any

import pytest
from headwater_server.worker.messages import OpenRound, RunQuery
from headwater_server.worker.serve import RESULTS_TOGETHER_NS, SLOW_NS, UNSENT_BYTES_MAX, Server, Surroundings


class Worker(Server):
    """Real but for the calls, which take as long as their name says and come to so many bytes."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.sent: list[list[int]] = []
        self.unsent: list[int] = []
        self.unsent_bytes = 0
        nothing: Any = None
        surroundings = Surroundings(lambda: self.now_ns, bytes)
        super().__init__(
            self, nothing, nothing, "", nothing, nothing, nothing, nothing, nothing, surroundings
        )

    def receive(self) -> None:
        """Not asked."""

    def add(self, message: Any) -> None:
        self.unsent.append(message.call)
        self.unsent_bytes += len(message.arguments)

    def flush(self) -> None:
        if self.unsent:
            self.sent.append(self.unsent)
        self.unsent, self.unsent_bytes = [], 0

    def _run(self, message: Any, started_ns: int) -> None:
        took_ns = int(message.name)
        self.now_ns += took_ns
        self._durations_ns[message.name] = (took_ns, took_ns)
        self.add(message)


def calls(*took_ns: int, size: int = 1) -> list[Any]:
    return [RunQuery(number, 0, 0, f"{each}", bytes(size), None, None) for number, each in enumerate(took_ns)]


@pytest.fixture
def worker() -> Worker:
    worker = Worker()
    for took_ns in (1_000, 100_000, 2 * SLOW_NS):
        worker.answer(calls(took_ns))  # a function is slow until it is known
    worker.sent.clear()
    return worker


def test_short_calls_that_came_together_are_answered_together(worker: Worker) -> None:
    worker.answer(calls(*[1_000] * 50))
    assert worker.sent == [list(range(50))]


def test_no_result_waits_for_many_calls_after_it(worker: Worker) -> None:
    worker.answer(calls(*[100_000] * 12))
    assert worker.sent == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    assert 2 * 100_000 < RESULTS_TOGETHER_NS < 3 * 100_000


def test_a_slow_call_is_not_waited_for(worker: Worker) -> None:
    worker.answer(calls(1_000, 1_000, 2 * SLOW_NS, 1_000))
    assert worker.sent == [[0, 1], [2], [3]]


def test_much_is_sent_at_once(worker: Worker) -> None:
    worker.answer(calls(*[1_000] * 4, size=UNSENT_BYTES_MAX // 2 + 1))
    assert worker.sent == [[0, 1], [2, 3]]


def test_a_round_that_opens_is_told_of_with_what_it_runs_first(worker: Worker) -> None:
    worker.now_ns += 10 * RESULTS_TOGETHER_NS
    worker._open_round = lambda number: worker.add(calls(0)[0])  # type: ignore[method-assign]
    worker.answer([OpenRound(1), *calls(1_000, 1_000)])
    assert worker.sent == [[0, 0, 1]]


def test_what_sending_takes_is_no_call_s(worker: Worker) -> None:
    began: list[int] = []
    flush, run = worker.flush, worker._run

    def slow_flush() -> None:
        worker.now_ns += 50_000_000
        flush()

    def noted(message: Any, started_ns: int) -> None:
        began.append(worker.now_ns - started_ns)
        run(message, started_ns)

    worker.flush, worker._run = slow_flush, noted  # type: ignore[method-assign]
    worker.answer(calls(1_000, 2 * SLOW_NS, 1_000))
    assert began == [0, 0, 0]
