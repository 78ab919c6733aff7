"""Which worker runs which action, with workers that say and do what a test wants; the clock stands."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from headwater_server.functions.action_pool import Action, ActionPool
from headwater_server.functions.limits import ActionOptions
from headwater_server.functions.roster import Worker
from headwater_server.worker.messages import (
    ActionDone,
    ActionPiece,
    AnswerHead,
    Failure,
    KnowTables,
    RunAction,
    StopAction,
    Usage,
    WantBody,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class Link:
    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)


class Progress:
    newest = 0

    def begun(self) -> int:
        return self.newest


class Receiver:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ended: list[tuple[bytes | None, str]] = []

    def piece(self, action: Action, content: bytes) -> None:
        self.pieces.append(content)

    def exchanged(self, action: Action, message: AnswerHead | WantBody) -> None:
        raise AssertionError("no route was asked")

    def over(self, action: Action, content: bytes | None, failure: Failure | None) -> None:
        self.ended.append((content, failure.code if failure else ""))


class Place:
    """A pool whose active bundle has so many workers."""

    def __init__(self, workers: int = 1, **options: Any) -> None:
        self.generation: Any = SimpleNamespace(bundle="one", workers=[])
        self.let_go: list[int] = []
        roster: Any = SimpleNamespace(
            workers_of=lambda role: self.generation.workers,
            let_go_if_idle=lambda worker: self.let_go.append(worker.number),
        )
        self.pool = ActionPool(ActionOptions(**options), roster, lambda: 0.0, lambda: {32: "items"}, dict)
        self.pool._watch = lambda: None  # type: ignore[method-assign]
        self.pool._active = self.generation  # type: ignore[assignment]
        self.workers = [self.worker(number + 1) for number in range(workers)]

    def worker(self, number: int) -> Worker:
        worker = Worker(number, self.generation, Link(), Progress(), 0.0, ready=True)  # type: ignore[arg-type]
        self.generation.workers.append(worker)
        self.pool.worker_ready(worker)
        return worker

    def call(self, name: str = "m:act") -> tuple[Action, Receiver]:
        receiver = Receiver()
        action = Action(name, b"\x80", None, internal=False, window=0, receiver=receiver)
        self.pool.submit(action)
        return action, receiver


def sent(worker: Worker, kind: type) -> Sequence[Any]:
    link: Any = worker.link
    return [message for message in link.sent if isinstance(message, kind)]


def done(action: Action, content: bytes = b"\xc0") -> ActionDone:
    return ActionDone(action.number, content, None, Usage(1))


def test_each_goes_to_the_worker_with_the_fewest_and_tables_are_told_once() -> None:
    place = Place(workers=2)
    for _ in range(4):
        place.call()
    assert [len(sent(worker, RunAction)) for worker in place.workers] == [2, 2]
    assert [sent(worker, KnowTables) for worker in place.workers] == [[KnowTables({32: "items"})]] * 2


def test_more_than_there_are_places_wait_for_their_turn() -> None:
    place = Place(worker_actions_max=1, waiting_max=1)
    (first, told), (_, waits), (_, refused) = place.call(), place.call(), place.call()
    assert refused.ended == [(None, "overloaded")]
    assert (place.pool.running, place.pool.waiting) == (1, 1)
    place.pool.worker_message(place.workers[0], done(first, b"\x07"))
    assert told.ended == [(b"\x07", "")]
    assert (place.pool.running, place.pool.waiting, waits.ended) == (1, 0, [])


def test_what_a_dead_worker_had_begun_has_failed_and_the_rest_runs_elsewhere() -> None:
    place = Place()
    worker = place.workers[0]
    (first, begun), (second, waited) = place.call(), place.call()
    worker.progress.newest = first.number  # type: ignore[attr-defined]
    place.generation.workers.remove(worker)
    place.pool.worker_ended(worker, "it was killed", planned=False)
    assert begun.ended == [(None, "worker_died")]
    assert waited.ended == []
    other = place.worker(2)
    assert [message.call for message in sent(other, RunAction)] == [second.number]
    place.pool.worker_message(other, done(second))
    assert waited.ended == [(b"\xc0", "")]


def test_an_action_that_ends_worker_after_worker_before_it_begins_is_given_up() -> None:
    place = Place(reruns_max=2)
    _, told = place.call()
    for number in range(3):
        worker = place.generation.workers.pop()
        place.pool.worker_ended(worker, "it was killed", planned=False)
        if not told.ended:
            place.worker(number + 2)
    assert told.ended == [(None, "worker_died")]


def test_bytes_of_all_are_bounded_and_come_back() -> None:
    place = Place(held_bytes_max=len("m:act") + 1)
    (first, _), (_, refused) = place.call(), place.call()
    assert refused.ended == [(None, "overloaded")]
    place.pool.worker_message(place.workers[0], done(first))
    assert place.call()[1].ended == []


def test_a_caller_that_left_gets_no_pieces_and_one_that_left_before_its_turn_is_told_of() -> None:
    place = Place(worker_actions_max=1)
    (first, told), (second, _) = place.call(), place.call()
    place.pool.worker_message(place.workers[0], ActionPiece(first.number, b"\x01"))
    place.pool.leave(first)
    place.pool.worker_message(place.workers[0], ActionPiece(first.number, b"\x02"))
    assert told.pieces == [b"\x01"]
    place.pool.leave(second)
    place.pool.worker_message(place.workers[0], done(first))
    assert sent(place.workers[0], StopAction)[-1] == StopAction(second.number, caller_left=True)
