"""Exactly once over any network: real sessions of the protocol, real request rows, everything else simulated.

Clients send mutations over connections that are cut anywhere; the server decides, refuses, forgets and
trims; years pass; whoever kept a copy of an old frame sends it again. A seed decides everything.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.client_events import MutationResolved
from headwater_protocol.client_session import ClientSession
from headwater_protocol.codec import decode_client_message
from headwater_protocol.errors import OutcomeUnknown
from headwater_protocol.limits import ServerLimits
from headwater_protocol.messages import ErrorBody, Mutation
from headwater_protocol.server_events import Connected, MutationRequested
from headwater_protocol.server_session import ServerSession
from headwater_protocol.values import pack_value, unpack_value
from headwater_server.worker import request_row
from headwater_server.worker.messages import Failure, Request
from headwater_server.worker.request_row import RequestMemory, trim_requests
from headwater_storage.catalog import FIRST_USER_TABLE, REQUESTS
from headwater_storage.keys import table_range
from support.memory_store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Callable

HOUR_US = 3600 * 10**6
RETENTION_US = 14 * 24 * HOUR_US
CLIENTS = 3
STEPS = 3_000
SEEDS = 6
EFFECTS = FIRST_USER_TABLE


@dataclass
class Wire:
    """One connection: what each side has sent and the other has not read."""

    server: ServerSession
    up: list[bytes] = field(default_factory=list)
    down: list[bytes] = field(default_factory=list)
    waiting: list[MutationRequested] = field(default_factory=list)
    open: bool = False


@dataclass
class Record:
    """The truth about one client.

    Attributes:
        frames: Every mutation it sent, by number: first frame and how often one was sent.
        ran: What each number came to when it took effect.
        resolved: What the client was told.
    """

    frames: dict[int, bytes] = field(default_factory=dict)
    sent: Counter[int] = field(default_factory=Counter)
    ran: dict[int, Any] = field(default_factory=dict)
    resolved: dict[int, Any] = field(default_factory=dict)
    newest: int = 0


class World:
    """Some clients, one server, a clock."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.store = MemoryStore()
        self.now_us = 1_700_000_000 * 10**6
        self.clients = [ClientSession(bytes([n]) * 16, "sim") for n in range(CLIENTS)]
        self.records = [Record() for _ in self.clients]
        self.wires: list[Wire | None] = [None] * CLIENTS
        self.unknown = self.dropped = self.resent = 0
        self.trim_at: bytes | None = None

    def run(self, steps: int) -> None:
        actions: list[tuple[int, Callable[[int], None]]] = [
            (40, self.mutate),
            (60, self.read_up),
            (80, self.read_down),
            (60, self.decide),
            (3, self.cut),
            (12, self.connect),
            (3, self.replay),
            (4, self.others_commit),
            (6, self.trim),
            (1, self.time_passes),
        ]
        weights, functions = zip(*actions, strict=True)
        for _ in range(steps):
            self.chance.choices(functions, weights)[0](self.chance.randrange(CLIENTS))

    # ------------------------------------------------------------------ clients

    def mutate(self, n: int) -> None:
        if self.clients[n].in_flight < 6:
            self.clients[n].mutate("m:append", pack_value({}))
            self.flush(n)

    def flush(self, n: int) -> None:
        wire = self.wires[n]
        for frame in self.clients[n].take_frames():
            message = decode_client_message(frame)
            if isinstance(message, Mutation):
                self.records[n].frames.setdefault(message.request, frame)
                self.records[n].sent[message.request] += 1
            if wire is not None:
                wire.up.append(frame)

    def connect(self, n: int) -> None:
        if self.wires[n] is None:
            self.wires[n] = Wire(ServerSession(ServerLimits()))
            self.clients[n].connect()
            self.flush(n)

    def cut(self, n: int) -> None:
        if self.wires[n] is not None:
            self.wires[n] = None
            self.note(n, self.clients[n].disconnected())

    def read_down(self, n: int) -> None:
        wire = self.wires[n]
        if wire is not None and wire.down:
            self.note(n, self.clients[n].receive(wire.down.pop(0)))
            self.flush(n)

    def note(self, n: int, events: list[Any]) -> None:
        record = self.records[n]
        for event in events:
            if not isinstance(event, MutationResolved):
                continue
            number, error = event.request, event.error
            if isinstance(error, OutcomeUnknown):
                assert record.sent[number] > 1, f"client {n}: {number} was sent once and is not known"
                self.unknown += 1
            elif error is not None and error.code in {"unavailable", "disk_full"}:
                assert number not in record.ran, f"client {n}: {number} was said not to have run"
            else:
                assert number in record.ran, f"client {n}: {number} was answered and never ran"
                told = error.data if error is not None else event.value
                assert record.ran[number] == told, f"client {n}: {number} was answered {told}"
            record.resolved[number] = event

    # ------------------------------------------------------------------ server

    def read_up(self, n: int) -> None:
        wire = self.wires[n]
        if wire is None or not wire.up:
            return
        for event in wire.server.receive(wire.up.pop(0)):
            if isinstance(event, Connected):
                wire.down.append(wire.server.welcome(b"i" * 16, self.store.state.ts))
                wire.open = True
            elif isinstance(event, MutationRequested):
                wire.waiting.append(event)

    def decide(self, n: int) -> None:
        wire = self.wires[n]
        if wire is None or not wire.waiting:
            return
        asked = wire.waiting.pop(0)
        value, error = self.handle(n, asked)
        wire.down.append(wire.server.mutation_answer(asked.request, self.store.state.ts, value, error))
        wire.down.append(wire.server.transition(self.store.state.ts, []))

    def handle(self, n: int, asked: MutationRequested) -> tuple[bytes | None, ErrorBody | None]:
        """Run a mutation as worker and committer do."""
        session, record, number = self.clients[n].session, self.records[n], asked.request
        request = Request(session, number, b"same", asked.forget_below, asked.sent_ts)
        transaction = self.store.transaction(now_us=self.now_us)
        memory = RequestMemory(transaction, request)
        if memory.answer is not None:
            return _answer(memory.answer.outcome, memory.answer.failure)
        if self.chance.random() < 0.1:
            return None, ErrorBody("disk_full", "refused")
        assert number not in record.ran, f"client {n}: {number} ran twice"
        assert number > record.newest, f"client {n}: {number} ran behind {record.newest}"
        record.newest = number
        record.ran[number] = told = f"{n}:{number} is {self.store.state.ts}"
        failure = None
        if self.chance.random() < 0.3:
            failure = Failure("application_error", "no", pack_value(told))
        else:
            transaction.put_row(EFFECTS, session + bytes([number >> 8, number & 255]), b"effect")
        memory.keep(pack_value(told), failure)
        self.store.commit(transaction.proposal())
        return _answer(pack_value(told), failure)

    def replay(self, n: int) -> None:
        """Somebody sends an old frame again, on a connection of its own, which ends the client's."""
        record = self.records[n]
        if not record.frames:
            return
        self.cut(n)
        number = self.chance.choice(list(record.frames))
        message = decode_client_message(record.frames[number])
        assert isinstance(message, Mutation)
        if number not in record.ran and self.store.state.ts == message.sent_ts:
            return  # it may run, and a client that has given its frames to somebody else is told of it
        asked = MutationRequested(number, message.name, message.arguments, 0, message.sent_ts)
        if number not in record.ran and number > record.newest:
            return
        value, error = self.handle(n, asked)
        self.resent += 1
        code = error.code if error is not None else ""
        if code == "outcome_unknown":
            return
        if code in {"unavailable", "disk_full"}:
            assert number not in record.ran, f"client {n}: {number} was said not to have run"
            return
        told = unpack_value(value if value is not None else error.data or b"")  # type: ignore[union-attr]
        assert told == record.ran[number], f"client {n}: {number} was answered {told} the second time"

    def others_commit(self, n: int) -> None:
        transaction = self.store.transaction(now_us=self.now_us)
        transaction.put_row(EFFECTS, b"other", bytes([n]))
        self.store.commit(transaction.proposal())

    def trim(self, n: int) -> None:
        transaction = self.store.transaction(now_us=self.now_us)
        trimmed = trim_requests(transaction, self.trim_at, RETENTION_US, rows_max=3, bytes_max=1 << 20)
        proposal = transaction.proposal()
        if proposal.writes:
            self.store.commit(proposal)
        self.trim_at = trimmed.next
        self.dropped += trimmed.dropped

    def time_passes(self, n: int) -> None:
        self.now_us += int(RETENTION_US * self.chance.choice((0.01, 0.1, 0.6, 1.1)))

    # ------------------------------------------------------------------ the end

    def settle(self) -> None:
        """Let every client come back and get its answers."""
        for n, client in enumerate(self.clients):
            self.connect(n)
            for _ in range(2_000):
                self.read_up(n)
                self.decide(n)
                self.read_down(n)
            assert not client.in_flight, f"client {n} waits for {client.in_flight}"
            assert set(self.records[n].resolved) == set(self.records[n].frames)

    def rows(self) -> int:
        lo, hi = table_range(REQUESTS)
        return sum(lo <= key < hi for key in self.store.document_values)


def _answer(outcome: bytes | None, failure: Failure | None) -> tuple[bytes | None, ErrorBody | None]:
    if failure is None:
        return outcome, None
    return None, ErrorBody(failure.code, failure.message, failure.data)


def run(seeds: int) -> list[World]:
    worlds = []
    for seed in range(seeds):
        worlds.append(World(seed))
        try:
            worlds[-1].run(STEPS)
            worlds[-1].settle()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from None
    return worlds


def test_mutations_run_once_over_any_network() -> None:
    worlds = run(SEEDS)
    assert sum(sum(len(record.ran) for record in world.records) for world in worlds) > 100 * SEEDS
    assert sum(world.resent for world in worlds) > 10 * SEEDS
    assert sum(world.dropped for world in worlds) > SEEDS
    assert sum(world.unknown for world in worlds), "the horizon was never met"
    for world in worlds:
        # Each client is left with what it had in flight when it last said what it needs no more.
        assert world.rows() <= CLIENTS * 8


class NoHorizon(RequestMemory):
    def _is_behind_horizon(self) -> bool:
        return False


class HorizonForStrangersOnly(RequestMemory):
    """Rows of a session need not go in order: the clock may have been ahead when an older one was written."""

    def _is_behind_horizon(self) -> bool:
        lo, hi = self._request.session, self._request.session + b"\xff" * 8
        return super()._is_behind_horizon() and not list(self._transaction.read_rows(REQUESTS, lo, hi))


class EverythingBehindHorizon(RequestMemory):
    def _is_behind_horizon(self) -> bool:
        return request_row.read_horizon(self._transaction).ts > 0


class ForgetsItself(RequestMemory):
    def keep(self, outcome: bytes | None, failure: Failure | None) -> None:
        super().keep(outcome, failure)
        if self._request.forget_below == self._request.number:
            self._transaction.put_row(REQUESTS, self._request.row, None)


class ForgetsWhatItForgot(RequestMemory):
    def _recall(self) -> Any:
        answer = super()._recall()
        return answer if answer is None or answer.failure is not request_row._FORGOTTEN else _OVERTAKEN_ANSWER


_OVERTAKEN_ANSWER = request_row.Answer(None, request_row._OVERTAKEN)


class KeepsNoFailures(RequestMemory):
    def keep(self, outcome: bytes | None, failure: Failure | None) -> None:
        if failure is None:
            super().keep(outcome, failure)


class KeepsNothing(RequestMemory):
    def keep(self, outcome: bytes | None, failure: Failure | None) -> None:
        pass


@pytest.mark.parametrize(
    "broken",
    [
        NoHorizon,
        HorizonForStrangersOnly,
        EverythingBehindHorizon,
        ForgetsItself,
        ForgetsWhatItForgot,
        KeepsNoFailures,
        KeepsNothing,
    ],
)
def test_each_rule_left_out_is_found(broken: type[RequestMemory], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "RequestMemory", broken)
    with pytest.raises(AssertionError, match="seed"):
        run(SEEDS)
