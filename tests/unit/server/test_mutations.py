from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import HeadwaterError, RequestError, TransientError
from headwater_protocol.server_events import MutationRequested
from headwater_server.functions.failures import CallReporter
from headwater_server.functions.mutations import (
    Decision,
    MutationCall,
    MutationLimits,
    Mutations,
    SessionQueue,
    fingerprint,
)
from headwater_server.observe.call_log import LEVELS, CallEvent, CallLog, CallLogOptions, EventFilter
from headwater_server.observe.metrics import Metrics
from headwater_server.worker.messages import Failure, MutationDone, Usage
from headwater_storage.proposal import CommitTs, Proposal

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_server.reactive.sessions import Session

SESSION = b"s" * 16
USAGE = Usage(5)


class Runner:
    """Keeps what it was asked to run; has no worker for chains. Loses nothing, runs nothing by itself."""

    def __init__(self) -> None:
        self.started: list[MutationCall] = []

    def run_mutation(self, call: MutationCall) -> None:
        self.started.append(call)

    def chain_worker(self) -> None:
        return None

    def run_chained(self, *_: object) -> None:
        return None

    def end_chain(self, worker: int, chain: int) -> None:
        raise AssertionError("there is none")

    def estimate_ms(self, name: str) -> float:
        return 1.0


class Committer:
    """Keeps what it was given."""

    def __init__(self) -> None:
        self.published_ts = 10
        self.submitted: list[tuple[Proposal, Any]] = []

    def submit(self, proposal: Proposal, owner: object, chain: object = None) -> None:
        self.submitted.append((proposal, owner))

    def has_touched(self, proposal: Proposal) -> bool:
        return False

    def end_chain(self, chain: object) -> None:
        raise AssertionError("there is none")


class Publication:
    """Publishes when it is told to."""

    def __init__(self, committer: Committer) -> None:
        self._committer = committer
        self._held: list[tuple[int, Callable[[], None]]] = []

    def when_published(self, ts: int, action: Callable[[], None]) -> None:
        self._held.append((ts, action))
        self.publish(self._committer.published_ts)

    def publish(self, ts: int) -> None:
        self._committer.published_ts = ts
        for held in [held for held in self._held if held[0] <= ts]:
            self._held.remove(held)
            held[1]()


class Receiver:
    """A connection that keeps its answers."""

    session: Session | None = None

    def __init__(self) -> None:
        self.decisions: list[tuple[int, Decision]] = []
        self.ended = ""

    def end(self, error: HeadwaterError) -> None:
        self.ended = error.code

    def receive_decision(self, call: MutationCall, decision: Decision) -> None:
        self.decisions.append((call.number, decision))


class World:
    def __init__(self, **limits: int) -> None:
        self.runner = Runner()
        self.committer = Committer()
        self.publication = Publication(self.committer)
        self.timers: list[Callable[[], None]] = []
        self.log = CallLog(CallLogOptions(), int)
        self.mutations = Mutations(
            self.runner,
            self.committer,
            self.publication,
            CallReporter(production=True, random_bytes=bytes, log=self.log),
            Metrics(),
            MutationLimits(**limits),
            lambda: 0.0,
            lambda pause_s, action: self.timers.append(action),
            lambda call, failure: Proposal(CommitTs(10), [b"row"], [], []),
        )
        self.receiver = Receiver()
        self.queue = self.mutations.attach(SESSION, self.receiver)

    def request(
        self,
        number: int,
        queue: SessionQueue | None = None,
        name: str = "m:f",
        sent_ts: int | None = None,
    ) -> str:
        asked = MutationRequested(number, name, b"\x80", 0, sent_ts)
        refusal = self.mutations.request(queue or self.queue, asked, None, internal=False)
        return refusal.code if refusal else ""

    def ran(self, call: MutationCall, **changes: Any) -> None:
        fields: dict[str, Any] = {"outcome": b"\xc0", "failure": None, "proposal": None, "duplicate": False}
        self.mutations.ran(call, MutationDone(0, changes.pop("ts", 10), usage=USAGE, **(fields | changes)))

    def commit(self, call: MutationCall, ts: int = 11) -> Decision:
        decision = self.mutations.committed(call, ts)
        self.committer.published_ts = ts
        self.mutations.finish(call, decision)
        return decision


PROPOSAL = Proposal(CommitTs(10), [], [], [])


def test_mutations_of_one_session_run_one_after_another_in_order() -> None:
    world = World()
    for number in (1, 2, 3):
        assert not world.request(number)
    assert [call.number for call in world.runner.started] == [1]
    world.ran(world.runner.started[0], proposal=PROPOSAL)
    assert [call.number for call in world.runner.started] == [1]
    assert world.commit(world.runner.started[0]) == Decision(11, b"\xc0", None, committed=True)
    assert [call.number for call in world.runner.started] == [1, 2]
    assert world.mutations.unfinished == 2


def test_sessions_do_not_wait_for_each_other() -> None:
    world = World()
    other = world.mutations.attach(b"o" * 16, Receiver())
    world.request(1)
    world.request(1, other)
    assert len(world.runner.started) == 2


def test_a_conflict_is_rerun_and_nobody_hears_of_it() -> None:
    world = World()
    world.request(1)
    (call,) = world.runner.started
    world.ran(call, proposal=PROPOSAL)
    world.mutations.refused(call, TransientError(code="conflict"))
    assert world.runner.started == [call, call]
    assert call.attempts == 2
    assert not world.receiver.decisions


def test_only_the_run_that_counts_is_logged_with_how_many_there_were() -> None:
    world = World()
    world.request(1)
    (call,) = world.runner.started
    world.ran(call, proposal=PROPOSAL, logs=[("info", "the first run")])
    world.mutations.refused(call, TransientError(code="conflict"))
    assert not world.log.kept(EventFilter())
    world.ran(call, proposal=PROPOSAL, logs=[("info", "the second run")])
    world.commit(call)
    (event,) = world.log.kept(EventFilter())
    assert isinstance(event, CallEvent)
    assert (event.outcome, event.runs, event.session) == ("success", 2, SESSION)
    assert event.lines == [("info", "the second run")]


def test_a_call_that_is_answered_from_memory_has_not_run() -> None:
    world = World()
    world.request(1)
    world.ran(world.runner.started[0], duplicate=True)
    world.publication.publish(10)
    (event,) = world.log.kept(EventFilter())
    assert isinstance(event, CallEvent)
    assert (event.outcome, event.runs) == ("success", 0)


def test_of_a_call_that_was_ended_by_force_no_lines_of_an_earlier_run_are_logged() -> None:
    world = World()
    world.request(1)
    (call,) = world.runner.started
    world.ran(call, proposal=PROPOSAL, logs=[("info", "the first run")])
    world.mutations.refused(call, TransientError(code="conflict"))
    world.mutations.killed(call, Failure("time_limit", "too long"))
    world.commit(call)
    (event,) = world.log.kept(EventFilter(level=LEVELS["error"]))
    assert isinstance(event, CallEvent)
    assert (event.outcome, event.lines, event.usage) == ("time_limit", (), None)


def test_conflicts_without_end_become_an_answer() -> None:
    world = World(attempts_max=3)
    world.request(1)
    call = world.runner.started[0]
    for _ in range(3):
        world.mutations.refused(call, TransientError(code="conflict"))
    ((number, decision),) = world.receiver.decisions
    assert (number, decision.error.code if decision.error else "") == (1, "conflict")


def test_an_answer_waits_until_the_snapshot_it_saw_is_published() -> None:
    world = World()
    world.request(1)
    world.ran(world.runner.started[0], ts=12, failure=Failure("application_error", "no"), outcome=None)
    assert not world.receiver.decisions
    world.publication.publish(12)
    ((_, decision),) = world.receiver.decisions
    assert decision.ts == 12
    assert decision.error is not None


def test_a_killed_call_is_recorded_before_it_is_answered() -> None:
    world = World()
    world.request(1)
    (call,) = world.runner.started
    world.mutations.killed(call, Failure("time_limit", "m:f ran longer than 1 s"))
    assert [owner for _, owner in world.committer.submitted] == [call]
    assert not world.receiver.decisions
    decision = world.commit(call)
    assert decision.error is not None
    assert decision.error.code == "time_limit"


def test_a_reconnecting_client_joins_its_running_call_and_resends_the_rest() -> None:
    world = World()
    world.request(1)
    world.request(2)
    world.mutations.detach(world.queue, world.receiver)
    again = Receiver()
    queue = world.mutations.attach(SESSION, again)
    assert queue is world.queue
    assert not world.request(1, queue)
    assert not world.request(2, queue)
    (call,) = world.runner.started
    world.ran(call, failure=Failure("application_error", "no"), outcome=None)
    assert [number for number, _ in again.decisions] == [1]
    assert not world.receiver.decisions
    assert [call.number for call in world.runner.started] == [1, 2]


def test_the_old_connection_going_after_the_new_one_came_takes_nothing_away() -> None:
    world = World()
    world.request(1)
    again = Receiver()
    world.mutations.attach(SESSION, again)
    world.mutations.detach(world.queue, world.receiver)
    world.ran(world.runner.started[0])
    assert [number for number, _ in again.decisions] == [1]


def codes(receiver: Receiver) -> list[tuple[int, str]]:
    return [
        (number, decision.error.code if decision.error else "") for number, decision in receiver.decisions
    ]


@pytest.mark.parametrize(
    "limits",
    [
        {"waiting_max": 2},
        {"waiting_bytes_max": 8},  # each has 3 bytes of name and 1 of arguments
        {"undecided_max": 3},
        {"undecided_bytes_max": 12},
    ],
)
def test_what_is_too_much_is_refused_at_once_and_room_comes_back(limits: dict[str, int]) -> None:
    world = World(**limits)
    assert [world.request(number) for number in range(5)] == [""] * 5
    assert codes(world.receiver) == [(3, "overloaded"), (4, "overloaded")]
    for number in range(3):
        world.ran(world.runner.started[number])
    assert codes(world.receiver)[2:] == [(0, ""), (1, ""), (2, "")]
    assert [call.number for call in world.runner.started] == [0, 1, 2]
    assert world.mutations.unfinished == 0
    for number in range(5, 8):
        world.request(number)
        world.ran(world.runner.started[-1])
    assert codes(world.receiver)[5:] == [(5, ""), (6, ""), (7, "")]


@pytest.mark.parametrize("limits", [{"undecided_max": 3}, {"undecided_bytes_max": 12}])
def test_all_sessions_and_http_share_what_there_is(limits: dict[str, int]) -> None:
    def over_http() -> MutationCall:
        return MutationCall("m:f", b"\x80", None, internal=False, decided=lambda call, decision: None)

    world = World(**limits)
    other = world.mutations.attach(bytes(16), world.receiver)
    world.request(0)
    world.request(1, other)
    world.mutations.run(over_http())
    world.request(2, other)
    assert codes(world.receiver) == [(2, "overloaded")]
    with pytest.raises(TransientError, match="too many"):
        world.mutations.run(over_http())
    world.mutations.detach(world.queue, world.receiver)
    world.ran(world.runner.started[0])  # nobody is there to be told, but there is room again
    world.request(3, other)
    assert codes(world.receiver) == [(2, "overloaded")]
    assert world.mutations.unfinished == 3


def test_a_client_with_nothing_else_is_let_in_beside_those_with_much_and_within_bounds() -> None:
    world = World(undecided_max=3)
    for number in range(5):
        world.request(number)
    assert codes(world.receiver) == [(3, "overloaded"), (4, "overloaded")]
    for number in range(4):
        modest = world.mutations.attach(bytes([number]) * 16, world.receiver)
        world.request(100 + number, modest)
    assert codes(world.receiver)[2:] == [(103, "overloaded")]
    assert world.mutations.is_full


@pytest.mark.parametrize(
    ("limits", "let_in"),
    [
        ({"waiting_max": 2}, 3),
        ({"waiting_bytes_max": 8}, 3),
        ({"undecided_max": 3}, 6),
        ({"undecided_bytes_max": 12}, 6),
    ],
)
def test_what_may_have_taken_effect_is_never_told_that_it_has_not(
    limits: dict[str, int], let_in: int
) -> None:
    world = World(**limits)
    refusals = [world.request(number, sent_ts=1) for number in range(8)]
    assert refusals == [""] * let_in + ["overloaded"] * (8 - let_in), "these end their connection"
    assert codes(world.receiver) == []


def test_nothing_is_begun_for_a_client_that_does_not_read() -> None:
    world = World()
    for number in range(3):
        world.request(number)
    world.mutations.pause(world.queue)
    world.ran(world.runner.started[0])
    world.request(3)
    assert [call.number for call in world.runner.started] == [0]
    assert world.mutations.unfinished == 0, "nobody waits for what it does not take"
    world.mutations.resume(world.queue)
    assert [call.number for call in world.runner.started] == [0, 1]
    assert world.mutations.unfinished == 3
    world.mutations.pause(world.queue)
    world.mutations.detach(world.queue, world.receiver)
    queue = world.mutations.attach(SESSION, world.receiver)
    world.ran(world.runner.started[1])
    world.request(2, queue)
    assert [call.number for call in world.runner.started] == [0, 1, 2], "a new connection begins anew"


def test_calls_that_lose_while_no_worker_takes_a_chain_need_no_deep_stack() -> None:
    world = World()
    for number in range(2000):
        world.request(1, world.mutations.attach(number.to_bytes(16, "big"), Receiver()))
    losers = list(world.runner.started)

    def refuse(call: MutationCall) -> None:
        world.mutations.refused(call, TransientError(code="no_bundle"))

    world.runner.run_mutation = refuse  # type: ignore[method-assign]
    for call in losers:
        world.mutations.refused(call, TransientError(code="conflict"))
    assert world.mutations.unfinished == 0


def test_the_window_reaches_back_to_the_oldest_running_call() -> None:
    world = World()
    assert world.mutations.oldest_ts() is None
    world.request(1)
    world.committer.published_ts = 20
    other = world.mutations.attach(b"o" * 16, Receiver())
    world.request(1, other)
    assert world.mutations.oldest_ts() == 10
    world.mutations.refused(world.runner.started[0], TransientError(code="conflict"))
    assert world.mutations.oldest_ts() == 20


@pytest.mark.parametrize("error", [TransientError(code="disk_full"), RequestError(code="too_many_bytes")])
def test_other_refusals_are_the_answer(error: HeadwaterError) -> None:
    world = World()
    world.request(1)
    world.mutations.refused(world.runner.started[0], error)
    ((_, decision),) = world.receiver.decisions
    assert decision.error is not None
    assert decision.error.code == error.code


def test_a_fingerprint_tells_function_arguments_and_identity_apart() -> None:
    prints = {
        fingerprint("a", b"b", ""),
        fingerprint("ab", b"", ""),
        fingerprint("a", b"", "b"),
        fingerprint("a", b"b", "b"),
    }
    assert len(prints) == 4


def test_a_resend_that_joins_the_running_call_must_be_the_same_call() -> None:
    world = World()
    world.request(1)
    assert world.request(1, name="m:other") == "session_in_use"
    assert len(world.runner.started) == 1


def test_that_the_stored_outcome_is_another_calls_is_the_receivers_to_tell() -> None:
    world = World()
    world.request(1)
    world.ran(
        world.runner.started[0], failure=Failure("session_in_use", "taken"), outcome=None, duplicate=True
    )
    ((number, decision),) = world.receiver.decisions
    assert number == 1
    assert decision.error is not None
    assert decision.error.code == "session_in_use"


def test_a_queue_of_calls_that_are_refused_at_once_needs_no_deep_stack() -> None:
    world = World(waiting_max=5000)
    world.request(0)

    def refuse(call: MutationCall) -> None:
        world.mutations.refused(call, TransientError(code="overloaded"))

    for number in range(1, 5000):
        world.request(number)
    first = world.runner.started[0]
    world.runner.run_mutation = refuse  # type: ignore[method-assign]
    world.ran(first)
    assert [number for number, _ in world.receiver.decisions] == [*range(5000)]


def test_what_was_accepted_is_counted_until_it_is_decided() -> None:
    """So that a daemon that stops knows what it waits for; what its client will send again is not waited for."""
    world = World()
    for number in range(1, 4):
        world.request(number)
    world.mutations.run(MutationCall("m:f", b"", None, internal=False, decided=lambda call, decision: None))
    assert world.mutations.unfinished == 4
    world.ran(world.runner.started[0])
    assert [call.number for call in world.runner.started] == [1, 0, 2]
    assert world.mutations.unfinished == 3
    world.mutations.detach(world.queue, world.receiver)
    assert world.mutations.unfinished == 2, "the one that runs, and that of nobody's session"
    for call in world.runner.started[1:]:
        world.ran(call)
    assert world.mutations.unfinished == 0
