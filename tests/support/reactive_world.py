"""A world around the reactive core: commits, workers, clients and deploys in virtual time, and a checker.

Faults it may produce: a snapshot is visible before it is published; workers die at any
point of a round, while they run a query or before; a query is killed by its time limit;
clients are blocked, cut off and come back with what they held; identities switch; the
active bundle switches while workers of the old one go on.

The truth is a dict of plain states by commit ts and the queries written in Python below.
After every transition each value its client holds is compared with it.
"""

from __future__ import annotations

import heapq
import random
from bisect import insort
from dataclasses import dataclass, field
from itertools import count
from math import inf
from typing import TYPE_CHECKING, Any

from headwater_protocol.messages import AddQuery, ErrorBody
from headwater_server.reactive.core import ReactiveCore, ReactiveOptions
from headwater_server.reactive.rounds import RoundLimits
from headwater_server.reactive.sessions import QueryKey, QueryResult, Session

from support.plain_results import apply_operations, content_of, decode, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_server.reactive.moves import Moved

KEYS = 10
BUNDLE = "B"
POISON = 5
COST_MS = {"slow": 40.0, "poison": 2.0}
LIMIT_MS = 30.0
KINDS = ["sum", "ptr", "own", "page", "page", "slow", "hot", "rows", "map", "poison"]

POPULAR = [("page", 2), ("rows", 1), ("own", 3)]
"""What half of all subscriptions are to, so that clients look at the same."""

State = dict[Any, int]


class RuleBrokenError(AssertionError):
    """The core broke a rule that clients rely on."""


def point(key: Any) -> bytes:
    return f"docs{key}".encode()


@dataclass
class Answer:
    """What a query gives in one state, and what it read of it."""

    value: Any
    reads: set[Any]
    identity_read: bool = False
    journal: bytes | None = None
    ranges: list[tuple[bytes, bytes]] = field(default_factory=list)


def ask(name: str, argument: int, journal: bytes | None, identity: bytes | None, state: State) -> Answer:
    """Run a query over a state: the model of all functions of all bundles."""
    a = argument
    bundle = state[BUNDLE]
    if name == "sum":
        b = (a + 1) % KEYS
        return Answer([bundle, (state[a] + state[b]) % 4], {a, b})
    if name == "ptr":
        p = state[a] % KEYS
        return Answer([bundle, state[p] % 3], {a, p})
    if name == "own":
        if state[a] % 2 == 0:
            return Answer([bundle, "public"], {a})
        k = (a + sum(identity or b"")) % KEYS
        return Answer([bundle, identity, state[k] % 3], {a, k}, identity_read=True)
    if name == "page":
        return _page(a, journal, state)
    if name == "slow":
        return Answer([bundle, state[0] + state[a]], {0, 1, a})
    if name == "hot":
        return Answer([bundle, state[0] % 5 + state[a]], {0, a})
    if name == "rows":
        rows = [
            {"_id": f"id{(state[k] * 7 + k) % 12:030}", "k": k, "v": state[k] % 4, "t": "x" * 20}
            for k in range(KEYS)
            if state[k] % 3 != a % 3
        ]
        return Answer(rows[a % 3 :], set(), ranges=[(point(0), point(KEYS - 1) + b"\0")])
    if name == "map":
        fields = {f"f{k}": state[k] for k in range(KEYS) if state[k] != a % 6}
        return Answer(fields | {"bundle": bundle, "long": "y" * 40}, set(range(KEYS)))
    assert name == "poison"
    return Answer([bundle, state[a]], {a})


def _page(first: int, journal: bytes | None, state: State) -> Answer:
    """Three keys that are not divisible by three; the journal fixes where the page ends."""
    fixed = journal[0] if journal is not None else None
    rows: list[Any] = []
    last = first
    for k in range(first, KEYS):
        if fixed is not None and k > fixed:
            break
        last = k
        if state[k] % 3:
            rows.append([k, state[k] % 3])
        if fixed is None and len(rows) == 3:
            break
    end = fixed if fixed is not None else last
    ranges = [(point(first), point(last) + b"\0")] if first <= last else []
    return Answer([state[BUNDLE], rows], set(), journal=bytes([end]), ranges=ranges)


class WorldWindow:
    """Conflict keys of recent commits; refuses to answer about what it was allowed to forget."""

    def __init__(self) -> None:
        self.batches: list[tuple[int, list[bytes]]] = []
        self.floor = 0

    def first_touch(self, after_ts: int, points: Any, ranges: Any) -> Any:
        if after_ts < self.floor:
            raise RuleBrokenError("the core asks about a time it no longer needed")
        for ts, keys in self.batches:
            if ts > after_ts:
                for key in keys:
                    if key in points or any(lo <= key < hi for lo, hi in ranges):
                        return ts
        return None

    def trim(self, oldest_ts: int) -> None:
        self.floor = max(self.floor, oldest_ts)
        self.batches = [batch for batch in self.batches if batch[0] > oldest_ts]


@dataclass
class Held:
    """What a client holds of one query."""

    name: str
    argument: int
    journal: bytes | None = None
    digest: bytes | None = None
    value: Any = None
    failed: str | None = None
    here: bool = False


@dataclass(eq=False)
class Client:
    """A client with its own idea of what it was told."""

    number: int
    identity: bytes | None
    session: Session | None = None
    queries: dict[int, Held] = field(default_factory=dict)
    removed: set[int] = field(default_factory=set)
    ts: int = 0
    owed_ts: int | None = None
    modified: bool = False
    asked: int = 0
    answered: int = 0
    mutations: list[str] = field(default_factory=list)
    busy: bool = False
    moves: int = 0


@dataclass
class Call:
    number: int
    round: int
    key: QueryKey
    identity: bytes | None


@dataclass
class Worker:
    number: int
    bundle: int
    ts: int | None = None
    round: int = 0
    queue: list[Call] = field(default_factory=list)
    running: bool = False
    alive: bool = True


@dataclass(frozen=True)
class Setup:
    """What happens in a world, and how much of it."""

    workers: int = 2
    clients: int = 5
    end: float = 150.0
    write_gap: float = 3.0
    client_gap: float = 4.0
    deploys: int = 1
    death: float = 0.02
    churn: bool = True
    poison: bool = True
    check_every: int = 7
    subscriptions: dict[int, list[tuple[str, int]]] | None = None
    poisoned: frozenset[int] = frozenset()
    lag_limit: float = inf


class World:
    """One run, decided by its seed."""

    def __init__(
        self, seed: int, setup: Setup | None = None, core: type[ReactiveCore] = ReactiveCore
    ) -> None:
        self.setup = setup or Setup()
        self.random = random.Random(seed)
        self.now = 0.0
        self._events: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self._order = count()
        state: State = {k: self.random.randrange(6) for k in range(KEYS)}
        state.update(dict.fromkeys(self.setup.poisoned, POISON))
        state[BUNDLE] = 0
        self.states: dict[int, State] = {1: state}
        self.head = self.visible = self.published = 1
        self.shared_moves = 0
        self.early_results = 0
        self.publish_at = 0.0
        self.window = WorldWindow()
        self.kills: set[tuple[str, int]] = set()
        self.deaths: dict[tuple[str, int], int] = {}
        self.workers: dict[int, Worker] = {}
        self.members: dict[int, list[Session]] = {}
        self.runs = 0
        self.steps = 0
        self.lags: dict[int, float] = {}
        self.changes = dict.fromkeys(range(5), 0)
        options = ReactiveOptions(
            bundle_key=point(BUNDLE), rounds=RoundLimits(fast_round_ms=8.0, slow_round_ms=60.0),
            delta_ring_bytes=self.random.choice([0, 2_000, 1 << 20]), parked_bytes=self.random.choice([0, 1 << 20]),
            body_memo_bytes=self.random.choice([0, 1 << 20]), retry_first_ms=20.0, retry_longest_ms=100.0,
            killed_cost_ms=LIMIT_MS,
        )  # fmt: skip
        self.core = core(self, self.window, lambda: self.now, options, 1)
        for _ in range(self.setup.workers):
            self.start_worker(0)
        self.clients = [
            Client(i, self.random.choice([None, b"x", b"y", b"z"])) for i in range(self.setup.clients)
        ]
        for client in self.clients:
            self.connect(client)
            for name, argument in (self.setup.subscriptions or {}).get(client.number, []):
                self.subscribe(client, name, argument)
            if self.setup.subscriptions is None:
                for _ in range(self.random.randrange(1, 5)):
                    self.subscribe(client)
        self.at(1, self.write)
        self.at(5, self.act)
        self.at(self.setup.end + 20, self.calm)
        for _ in range(self.setup.deploys):
            self.at(self.random.uniform(0.1, 0.9) * self.setup.end, self.deploy)

    # ------------------------------------------------------------------------ time

    def at(self, delay: float, event: Any, *arguments: Any) -> None:
        heapq.heappush(self._events, (self.now + delay, next(self._order), event, arguments))

    def run(self) -> World:
        """Run to the end of the activity and then until nothing happens any more; check what is left."""
        while self._events:
            self.now, _, event, arguments = heapq.heappop(self._events)
            event(*arguments)
            self.steps += 1
            if self.setup.check_every and self.steps % self.setup.check_every == 0:
                self.core.check()
                self.window.trim(min(self.core.oldest_ts() or self.published, self.published))
            self._measure()
            if self.steps > 100_000 or self.now > self.setup.end + 2_000:
                raise RuleBrokenError("the core never comes to rest")
        self.check_rest()
        return self

    def calm(self) -> None:
        """End all trouble: sockets take data, no query is poisoned, pauses run out."""
        for client in self.clients:
            assert client.session is not None
            self.core.unblock(client.session)
        self.commit(dict.fromkeys(range(KEYS), 1))
        for delay in range(0, 400, 10):
            self.at(delay, self.core.tick)

    def _measure(self) -> None:
        for session in [c.session for c in self.clients if c.session is not None]:
            view = session.view
            if view is not None and view.since_ms is not None and self.now < self.setup.end:
                number = session.handle.number
                self.lags[number] = max(self.lags.get(number, 0.0), self.now - view.since_ms)
                if self.lags[number] > self.setup.lag_limit:
                    raise RuleBrokenError("a session stands still")

    def check_rest(self) -> None:
        if self.setup.check_every:
            self.core.check()
        if self.core.oldest_ts() is not None:
            raise RuleBrokenError("a round is open at rest")
        for client in self.clients:
            if client.owed_ts is not None or client.modified:
                raise RuleBrokenError("an answer or modification was never covered")
            if client.asked != client.answered:
                raise RuleBrokenError("an answer is missing")
            for held in client.queries.values():
                if (
                    not held.here
                    or held.failed is not None
                    or held.value != self.truth(client, held, self.published)
                ):
                    raise RuleBrokenError("stale at rest")

    # ------------------------------------------------------------------------ commits

    def write(self) -> None:
        if self.now < self.setup.end:
            keys = [key for key in (0, 0, 0, *range(KEYS)) if key not in self.setup.poisoned]
            self.commit(
                {
                    self.random.choice(keys): self.random.randrange(6)
                    for _ in range(self.random.randrange(1, 4))
                }
            )
            self.at(self.random.expovariate(1 / self.setup.write_gap), self.write)

    def commit(self, writes: State, answers: tuple[tuple[Session, Any], ...] = ()) -> int:
        state = {**self.states[self.head], **writes}
        self.head += self.random.randrange(1, 4)
        ts = self.head
        self.states[ts] = state
        keys: list[bytes] = []
        for key in writes:
            insort(keys, point(key))
        self.window.batches.append((ts, keys))  # before anybody can see it
        self.publish_at = max(self.publish_at, self.now) + self.random.uniform(0.1, 0.8)
        lead = self.random.choice((0.0, 0.05, 0.09, 3.0))  # now and then longer than most queries run
        self.at(max(self.publish_at - lead - self.now, 0.0), self.show, ts)
        self.at(self.publish_at - self.now, self.publish, ts, keys, answers)
        return ts

    def show(self, ts: int) -> None:
        self.visible = max(self.visible, ts)

    def publish(self, ts: int, keys: list[bytes], answers: tuple[tuple[Session, Any], ...]) -> None:
        self.visible = max(self.visible, ts)
        self.published = ts
        self.core.publish(ts, keys, [(session, (number, ts, True), ts) for session, number in answers])

    def deploy(self) -> None:
        bundle = self.states[self.head][BUNDLE] + 1
        old = [worker for worker in self.workers.values() if worker.alive]
        for _ in range(self.setup.workers):
            self.at(self.random.uniform(0, 3), self.start_worker, bundle)
        self.commit({BUNDLE: bundle})
        for worker in old:
            self.at(self.random.uniform(2, 20), self.end_worker, worker)

    # ------------------------------------------------------------------------ clients

    def act(self) -> None:
        if self.now > self.setup.end:
            return
        self.at(self.random.expovariate(1 / self.setup.client_gap), self.act)
        client = self.random.choice(self.clients)
        assert client.session is not None
        if client.session.closed:
            return
        chance = self.random.random()
        if not self.setup.churn:
            chance = 0.3
        if chance < 0.15:
            self.subscribe(client)
        elif chance < 0.25:
            self.unsubscribe(client)
        elif chance < 0.6:
            client.mutations.append(self.random.choice(["write", "write", "fail", "read"]))
            self.next_mutation(client)
        elif chance < 0.68:
            client.identity = self.random.choice([None, b"x", b"y", b"z"])
            client.modified = True
            self.core.identify(client.session, client.identity)
        elif chance < 0.82:
            (self.core.unblock if client.session.blocked else self.core.block)(client.session)
        elif chance < 0.9:
            self.core.disconnect(client.session)
            self.at(self.random.uniform(0, 3), self.connect, client)
            client.session = Session(client, None)  # what is sent to nobody
            client.session.closed = True

    def connect(self, client: Client) -> None:
        client.session = self.core.connect(client, client.identity)
        client.ts = 0
        client.owed_ts = None
        client.asked = client.answered = 0
        client.busy = False
        client.removed.clear()
        client.modified = bool(client.queries)
        for held in client.queries.values():
            held.here = False
        if client.queries:
            add = [
                AddQuery(number, held.name, encode([held.argument]), held.journal, held.digest)
                for number, held in client.queries.items()
            ]
            self.core.modify(client.session, add, [])

    def subscribe(self, client: Client, name: str | None = None, argument: int | None = None) -> None:
        taken = client.queries.keys() | client.removed
        number = next(number for number in count(1) if number not in taken)  # as other clients number theirs
        if name is None and self.random.random() < 0.5:
            name, argument = POPULAR[number % len(POPULAR)]
        kinds = KINDS if self.setup.poison else KINDS[:-1]
        held = Held(
            name or self.random.choice(kinds), self.random.randrange(KEYS) if argument is None else argument
        )
        client.queries[number] = held
        client.modified = True
        assert client.session is not None
        self.core.modify(client.session, [AddQuery(number, held.name, encode([held.argument]))], [])

    def unsubscribe(self, client: Client) -> None:
        if client.queries and client.session is not None and not client.session.closed:
            number = self.random.choice(list(client.queries))
            del client.queries[number]
            client.removed.add(number)
            client.modified = True
            self.core.modify(client.session, [], [number])

    def next_mutation(self, client: Client) -> None:
        if not client.busy and client.mutations and client.session is not None and not client.session.closed:
            client.busy = True
            client.asked += 1
            self.at(self.random.uniform(0.2, 2), self.mutate, client, client.session, client.mutations.pop(0))

    def mutate(self, client: Client, session: Session, kind: str) -> None:
        if client.session is not session or session.closed:
            return
        if kind == "write":
            value = self.random.randrange(6) if self.now < self.setup.end else 1
            key = self.random.choice([key for key in range(KEYS) if key not in self.setup.poisoned])
            self.commit({key: value}, ((session, client.asked),))
        else:
            self.core.answer(session, (client.asked, self.visible, False), self.visible)

    # ------------------------------------------------------------------------ workers

    def start_worker(self, bundle: int) -> None:
        number = len(self.workers) + 1
        self.workers[number] = Worker(number, bundle)
        self.core.add_worker(number)

    def end_worker(self, worker: Worker, retired: bool = True) -> None:
        if worker.alive:
            worker.alive = False
            self.core.remove_worker(worker.number, retired=retired)

    def die(self, worker: Worker) -> None:
        for call in worker.queue[:1]:
            ran = (call.key.name, decode(call.key.arguments)[0])
            self.deaths[ran] = self.deaths.get(ran, 0) + 1
        self.end_worker(worker, retired=False)
        self.at(self.random.uniform(0.5, 5), self.start_worker, self.states[self.head][BUNDLE])

    def open_round(self, worker: int, round: int) -> None:  # noqa: A002
        self.members[round] = []
        self.at(self.random.uniform(0.05, 0.6), self.opened, self.workers[worker], round)

    def opened(self, worker: Worker, round: int) -> None:  # noqa: A002
        if not worker.alive:
            return
        if self.now < self.setup.end and self.random.random() < self.setup.death:
            self.die(worker)
            return
        ts = self.visible
        current = self.states[ts][BUNDLE] == worker.bundle
        if current:
            worker.ts, worker.round = ts, round
        else:
            worker.queue.clear()
        self.core.round_opened(round, ts, current)
        if worker.alive and not worker.running:
            self.next_call(worker)

    def run_query(
        self, worker: int, round: int, call: int, key: QueryKey, identity: bytes | None  # noqa: A002
    ) -> None:  # fmt: skip
        self.runs += 1
        place = self.workers[worker]
        if place.ts is not None and place.ts > self.published:
            raise RuleBrokenError("a query is sent into a snapshot that is not published")
        place.queue.append(Call(call, round, key, identity))
        if not place.running:
            self.next_call(place)

    def next_call(self, worker: Worker) -> None:
        if not worker.queue or worker.ts is None:
            worker.running = False
            return
        worker.running = True
        call = worker.queue[0]
        cost = COST_MS.get(call.key.name) or self.random.uniform(0.3, 1)
        if call.key.name == "poison" and self.truth_of(worker, call).value[1] == POISON:
            self.at(LIMIT_MS, self.kill, worker, call)
        else:
            self.at(cost, self.done, worker, call, cost)

    def truth_of(self, worker: Worker, call: Call) -> Answer:
        assert worker.ts is not None
        argument = decode(call.key.arguments)[0]
        return ask(call.key.name, argument, call.key.journal, call.identity, self.states[worker.ts])

    def done(self, worker: Worker, call: Call, cost: float) -> None:
        if not worker.alive:
            return
        if self.now < self.setup.end and self.random.random() < self.setup.death:
            self.die(worker)
            return
        worker.queue.pop(0)
        answer = self.truth_of(worker, call)
        result = QueryResult(
            content=content_of(answer.value),
            points=[point(key) for key in sorted(answer.reads, key=str)] + [point(BUNDLE)],
            ranges=answer.ranges,
            identity_read=answer.identity_read,
            journal=answer.journal,
            duration_ms=cost,
        )
        self.early_results += worker.ts is not None and worker.ts > self.published
        self.core.query_done(call.round, call.number, result)
        if worker.alive:
            self.next_call(worker)

    def kill(self, worker: Worker, call: Call) -> None:
        if not worker.alive:
            return
        self.kills.add((call.key.name, decode(call.key.arguments)[0]))
        worker.alive = False
        self.core.query_killed(call.round, call.number, ErrorBody("time_limit", "too slow"))
        self.core.remove_worker(worker.number)
        self.at(self.random.uniform(0.5, 3), self.start_worker, self.states[self.head][BUNDLE])
        self.at(25, self.core.tick)
        self.at(200, self.core.tick)

    def close_round(self, worker: int, round: int) -> None:  # noqa: A002
        place = self.workers[worker]
        assert place.ts is not None
        opened = self.core._rounds[round]
        for view in opened.views:
            if view.round is opened and any(session.may_move_to(place.ts) for session in view.sessions):
                raise RuleBrokenError("a round ends and has not moved its session")
        place.ts = None

    # ------------------------------------------------------------------------ what clients see

    def deliver(self, session: Session, answers: Sequence[Any], moved: Moved | None) -> None:
        client: Client = session.handle
        if client.session is not session and client.session is not None:
            raise RuleBrokenError("delivered to a session that is gone")
        for number, ts, committed in answers:
            client.answered += 1
            if number != client.answered:
                raise RuleBrokenError("answers out of order")
            if ts > self.published:
                raise RuleBrokenError("an answer from what is not published")
            if committed and ts <= client.ts:
                raise RuleBrokenError("an answer after a transition at its ts")
            client.owed_ts = max(ts, client.owed_ts or 0)
            client.busy = False
            self.at(0, self.next_mutation, client)
        if moved is not None:
            self.shared_moves += moved.made is not None
            moved.made = True
            self.move(client, moved)
        if self.setup.churn and self.now < self.setup.end and self.random.random() < 0.02:
            self.core.block(session)

    def move(self, client: Client, moved: Moved) -> None:
        if moved.ts < client.ts or moved.ts > self.published or moved.ts not in self.states:
            raise RuleBrokenError("a transition to where no session can be")
        client.ts = moved.ts
        client.moves += 1
        client.modified = False
        if client.owed_ts is not None and moved.ts >= client.owed_ts:
            client.owed_ts = None
        for number, body in moved.changes:
            self.apply(client, number, decode(body))
        if client.removed:
            raise RuleBrokenError("a removal was not told")
        for held in client.queries.values():
            if not held.here:
                raise RuleBrokenError("a transition without a query's value")
            if held.failed is not None:
                ran = (held.name, held.argument)
                if ran not in self.kills and (held.failed != "worker_died" or self.deaths.get(ran, 0) < 2):
                    raise RuleBrokenError(f"a failure out of nothing: {held} {self.deaths} {self.kills}")
            elif held.value != self.truth(client, held, moved.ts):
                raise RuleBrokenError(f"wrong value of {held}, truth {self.truth(client, held, moved.ts)}")

    def truth(self, client: Client, held: Held, ts: int) -> Any:
        return ask(held.name, held.argument, held.journal, client.identity, self.states[ts]).value

    def apply(self, client: Client, number: int, body: list[Any]) -> None:
        kind = body[0]
        self.changes[kind] += 1
        if kind == 4:
            client.removed.remove(number)
            return
        held = client.queries[number]
        if kind == 3:
            held.here, held.failed, held.value, held.digest = True, body[1][0], None, None
            return
        if kind == 0:
            held.value = decode(body[1])
        elif kind == 1:
            if not held.here or held.failed:
                raise RuleBrokenError("a delta against nothing")
            held.value = apply_operations(held.value, body[1])
        elif held.digest != body[1]:
            raise RuleBrokenError("unchanged, but the client holds something else")
        held.here, held.failed, held.digest, held.journal = True, None, body[-2], body[-1]
