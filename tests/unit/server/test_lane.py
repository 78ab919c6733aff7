"""The lane with workers and a committer that do as they are told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import TransientError
from headwater_protocol.server_events import MutationRequested
from headwater_server.functions.contention import Contention, SessionContention
from headwater_server.functions.failures import CallReporter
from headwater_server.functions.lane import LaneLimits
from headwater_server.functions.mutations import Decision, MutationCall, MutationLimits, Mutations
from headwater_server.observe.call_log import CallLog, CallLogOptions
from headwater_server.observe.metrics import Metrics
from headwater_server.worker.messages import Failure, MutationDone, Usage
from headwater_storage.proposal import CommitTs, Proposal

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.errors import HeadwaterError
    from headwater_storage.chain import Chain

PROPOSAL = Proposal(CommitTs(10), [b"row"], [], [])
CONFLICT = TransientError(code="conflict")


class Workers:
    """Keep what they are asked to run: by itself, or as (worker, chain, settled, call)."""

    def __init__(self) -> None:
        self.free = [7, 8]
        self.alone: list[MutationCall] = []
        self.chained: list[tuple[int, int, int, MutationCall]] = []
        self.closed: list[tuple[int, int]] = []
        self.cost_ms = 0.5

    def chain_worker(self) -> int | None:
        return self.free[0] if self.free else None

    def run_chained(
        self, worker: int, call: MutationCall, chain: int, settled: int, settled_ts: int, published_ts: int
    ) -> float | None:
        if worker not in self.free:
            return None
        self.chained.append((worker, chain, settled, call))
        return self.cost_ms

    def estimate_ms(self, name: str) -> float:
        return self.cost_ms

    def end_chain(self, worker: int, chain: int) -> None:
        self.closed.append((worker, chain))

    def run_mutation(self, call: MutationCall) -> None:
        self.alone.append(call)


class Committer:
    """Keeps what it is given."""

    published_ts = 10

    def __init__(self) -> None:
        self.submitted: list[tuple[MutationCall, Chain | None]] = []
        self.ended: list[Chain] = []
        self.touched = True

    def submit(self, proposal: Proposal, owner: Any, chain: Chain | None = None) -> None:
        self.submitted.append((owner, chain))

    def has_touched(self, proposal: Proposal) -> bool:
        return self.touched

    def end_chain(self, chain: Chain) -> None:
        self.ended.append(chain)


class Client:
    """One session and what it hears."""

    session = None

    def __init__(self, world: World, name: int) -> None:
        self.world = world
        self.queue = world.mutations.attach(name.to_bytes(16, "big"), self)
        self.number = 0
        self.codes: list[str] = []

    def end(self, error: HeadwaterError) -> None:
        self.codes.append(error.code)

    def receive_decision(self, call: MutationCall, decision: Decision) -> None:
        self.codes.append(decision.error.code if decision.error else "")

    def ask(self) -> None:
        self.number += 1
        asked = MutationRequested(self.number, "m:hot", b"\x80")
        assert self.world.mutations.request(self.queue, asked, None, internal=False) is None


class World:
    def __init__(self, clients: int, **limits: Any) -> None:
        self.workers = Workers()
        self.committer = Committer()
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.metrics = Metrics()
        self.mutations = Mutations(
            self.workers,
            self.committer,
            self,
            CallReporter(production=True, random_bytes=bytes, log=CallLog(CallLogOptions(), int)),
            self.metrics,
            MutationLimits(lane=LaneLimits(**({"ahead_ms": 2.0} | limits))),
            lambda: 0.0,
            lambda pause_s, action: self.timers.append((pause_s, action)),
            lambda call, failure: PROPOSAL,
        )
        self.clients = [Client(self, number) for number in range(clients)]
        for client in self.clients:
            client.ask()

    def when_published(self, ts: int, action: Callable[[], None]) -> None:
        raise AssertionError("a member of a chain is answered by its commit")

    def ran(self, call: MutationCall, proposal: Proposal | None = PROPOSAL) -> None:
        self.mutations.ran(call, MutationDone(0, 10, b"\xc0", None, proposal, False, Usage(5)))

    def lose(self, *calls: MutationCall) -> None:
        for call in calls:
            self.mutations.refused(call, CONFLICT)

    def commit(self, *calls: MutationCall) -> None:
        decisions = [(call, self.mutations.committed(call, 11)) for call in calls]
        for call, decision in decisions:
            self.mutations.finish(call, decision)

    def members(self) -> list[int]:
        """Which clients' calls were sent to chains since the last time."""
        sent = [
            self.clients.index(client)
            for *_, call in self.workers.chained
            for client in self.clients
            if client.queue is self.mutations.queue_of(call)
        ]
        self.workers.chained.clear()
        return sent


def contended(clients: int, **limits: Any) -> tuple[World, list[MutationCall]]:
    """All of them have lost, and the first of them are in a chain."""
    world = World(clients, **limits)
    calls = list(world.workers.alone)
    world.workers.alone.clear()
    world.lose(*calls)
    return world, calls


def test_who_lost_runs_in_a_chain_in_the_order_of_losing_and_not_more_than_is_sent_ahead() -> None:
    world, _ = contended(6)
    assert [(worker, chain) for worker, chain, *_ in world.workers.chained] == [(7, 1)] * 4  # 2 ms
    assert world.members() == [0, 1, 2, 3]


def test_members_are_submitted_as_they_come_back_and_make_room_for_the_next() -> None:
    world, calls = contended(6)
    world.members()
    world.ran(calls[0])
    assert [owner for owner, chain in world.committer.submitted if chain is not None] == [calls[0]]
    assert world.members() == [4]
    world.ran(calls[1])
    assert world.members() == [5]


def test_the_worker_hears_how_much_of_the_chain_is_settled() -> None:
    world, calls = contended(7)
    world.ran(calls[0])
    world.ran(calls[1])
    chain = world.committer.submitted[0][1]
    assert chain is not None
    chain.settle(2, CommitTs(11))
    world.commit(calls[0], calls[1])
    world.ran(calls[2])
    assert [settled for _, _, settled, _ in world.workers.chained] == [0, 0, 0, 0, 0, 0, 2]


def test_after_a_member_lost_the_next_chain_waits_for_all_of_it_and_keeps_the_order() -> None:
    world, calls = contended(6)
    world.members()
    world.ran(calls[0])
    world.ran(calls[1])
    chain = world.committer.submitted[0][1]
    assert chain is not None
    chain.fail(PROPOSAL)
    world.ran(calls[2])
    world.lose(calls[1], calls[2])
    assert world.members() == [4, 5]  # had been sent before it failed
    for call in calls[3:]:
        world.ran(call)
    world.lose(calls[5], calls[4], calls[3])
    assert world.members() == []
    world.commit(calls[0])
    assert [entry[:2] for entry in world.workers.chained] == [(7, 2)] * 4
    assert world.members() == [1, 2, 3, 4]
    assert world.workers.closed == [(7, 1)]
    assert world.committer.ended == [chain]


def test_a_chain_whose_members_are_all_decided_is_closed() -> None:
    world, calls = contended(1)
    world.ran(calls[0])
    world.commit(calls[0])
    assert world.workers.closed == [(7, 1)]
    assert len(world.committer.ended) == 1


def test_a_member_without_writes_is_not_answered_before_those_it_read() -> None:
    world, calls = contended(2)
    world.ran(calls[0])
    world.ran(calls[1], Proposal(CommitTs(10), [b"row"], [], []))
    assert [owner for owner, _ in world.committer.submitted] == calls
    assert world.clients[1].codes == []


def test_calls_whose_worker_ended_go_back_to_their_places_and_the_culprit_is_told() -> None:
    world, calls = contended(6)
    world.members()
    world.ran(calls[0])
    world.workers.free = [8]
    world.mutations.killed(calls[1], Failure("worker_died", "it died"))
    for call in (calls[4], calls[3], calls[2]):  # the pool hands them back last first
        world.mutations.sent_back(call)
    assert world.members() == [4]  # sent before, when the first came back
    world.commit(calls[0])
    assert world.members() == [2, 3, 4, 5]
    assert [owner for owner, chain in world.committer.submitted if chain is None] == [calls[1]]
    world.commit(calls[1])
    decision = world.mutations.committed(calls[1], 11)
    assert decision.error is not None
    assert decision.error.code == "worker_died"


def test_a_call_that_runs_for_long_is_left_behind_and_still_commits_in_its_chain() -> None:
    world, calls = contended(6)
    world.members()
    world.workers.free = [8]  # the pool takes nothing more to a worker that is stuck
    world.mutations.stuck(calls[0])
    for call in (calls[3], calls[2], calls[1]):
        world.mutations.sent_back(call)
    assert [entry[:2] for entry in world.workers.chained] == [(8, 2)] * 4
    assert world.members() == [1, 2, 3, 4]
    world.ran(calls[0])
    owner, chain = world.committer.submitted[-1]
    assert (owner, chain is calls[0].chain.commits if calls[0].chain else False) == (calls[0], True)
    assert not world.workers.closed
    world.commit(calls[0])
    assert world.workers.closed == [(7, 1)]


def test_a_member_does_not_commit_when_one_before_it_went_back() -> None:
    """On a busy machine the pool took calls for unstarted that had run: their answers were still on the way.

    The one it found running had read what they wrote, and committed it: counters jumped.
    """
    world, calls = contended(4)
    world.members()
    world.workers.free = [8]
    world.mutations.stuck(calls[2])
    for call in (calls[3], calls[1], calls[0]):
        world.mutations.sent_back(call)
    assert world.members() == [0, 1, 3]
    world.ran(calls[2])
    assert not world.committer.submitted
    assert world.members() == [2]


def test_the_lane_waits_for_a_slow_call_that_has_lost_too_often() -> None:
    world, calls = contended(2, patience=1)
    world.members()
    world.mutations.stuck(calls[0])
    world.mutations.sent_back(calls[1])
    assert world.members() == []
    world.ran(calls[0])
    world.commit(calls[0])
    assert world.members() == [1]


def test_a_call_that_costs_more_than_is_sent_ahead_is_sent_alone() -> None:
    world = World(3)
    calls = list(world.workers.alone)
    world.workers.cost_ms = 100.0
    world.lose(*calls)
    assert world.members() == [0]
    world.ran(calls[0])
    assert world.members() == [1]


def test_members_sent_ahead_are_bounded_however_short_they_are() -> None:
    world, _ = contended(6, ahead_max=2)
    assert world.members() == [0, 1]


def test_members_and_bytes_that_are_not_decided_are_bounded() -> None:
    world, calls = contended(4, members_max=2)
    assert world.members() == [0, 1]
    world.ran(calls[0])
    assert world.members() == []
    world.commit(calls[0])
    assert world.members() == [2]
    world, calls = contended(6, bytes_max=10)
    world.members()
    usage = Usage(5, bytes_written=11)
    world.mutations.ran(calls[0], MutationDone(0, 10, b"\xc0", None, PROPOSAL, False, usage))
    assert world.members() == []
    world.commit(calls[0])
    assert world.members() == [4]


def test_the_gate_is_closed_only_for_calls_that_lost_often_and_opens_with_the_last_of_them() -> None:
    world, calls = contended(2, patience=2)
    for call in calls:
        world.ran(call)
    chain = world.committer.submitted[0][1]
    assert chain is not None
    chain.fail(PROPOSAL)
    world.lose(*calls)
    world.committer.submitted.clear()
    outsider = MutationCall("m:cold", b"", None, internal=False, decided=lambda call, decision: None)
    world.mutations.run(outsider)
    world.ran(outsider)
    assert world.committer.submitted == []
    for call in calls:
        world.ran(call)
    world.commit(calls[0])
    assert [owner for owner, _ in world.committer.submitted] == calls
    world.commit(calls[1])
    assert [owner for owner, _ in world.committer.submitted] == [*calls, outsider]
    assert world.metrics.registry.get_sample_value("headwater_gate_wait_seconds_count") == 1


def test_nobody_waits_at_the_gate_for_longer_than_its_time_and_then_it_stays_open_for_as_long() -> None:
    world, calls = contended(2, patience=1)
    outsider = MutationCall("m:cold", b"", None, internal=False, decided=lambda call, decision: None)
    world.mutations.run(outsider)
    world.ran(outsider)
    ((pause_s, time_is_up),) = world.timers
    assert pause_s == MutationLimits().gate_s
    time_is_up()
    assert [owner for owner, _ in world.committer.submitted] == [outsider]
    world.ran(calls[0])
    world.ran(calls[1])
    world.lose(*calls)  # another chain begins
    world.mutations.run(outsider)
    world.ran(outsider)
    assert [owner for owner, _ in world.committer.submitted][-1] is outsider
    world.timers[-1][1]()
    assert len(world.timers) == 2


def test_calls_that_mostly_meet_others_start_in_the_lane_until_they_meet_nobody() -> None:
    world = World(30)
    for call in list(world.workers.alone):
        world.lose(call)
        world.ran(call)
        world.commit(call)
    world.workers.alone.clear()
    client = world.clients[0]
    client.ask()
    assert not world.workers.alone
    assert len(world.workers.chained)
    world.committer.touched = False
    for _ in range(20):
        call = world.workers.chained[-1][3]
        world.ran(call)
        world.commit(call)
        client.ask()
        if world.workers.alone:
            break
    assert world.workers.alone
    others = world.clients[1]
    others.ask()
    assert world.workers.chained[-1][3] is others.queue.running, "one client's evidence is not another's"


def test_a_function_is_forgotten_when_its_contention_has_ended_and_names_are_bounded() -> None:
    contention = Contention()
    for _ in range(40):
        contention.note("hot", met=True)
    assert contention.expects("hot")
    for _ in range(40):
        contention.note("hot", met=False)
    assert not contention.expects("hot")
    for number in range(10_000):
        contention.note(f"m:{number}", met=True)
    assert len(contention._shares) <= 4096


def test_a_session_is_taken_to_be_like_others_until_it_shows_otherwise() -> None:
    session = SessionContention()
    assert session.expected()
    for _ in range(8):
        session.note(met=False)
    assert not session.expected()
    for _ in range(8):
        session.note(met=True)
    assert session.expected()
