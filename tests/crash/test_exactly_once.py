"""A mutation takes effect once: connections cut everywhere, daemons ended in between, requests sent again long after.

Real clients of the SDK work through a proxy that cuts their connections before, in and after requests and
answers, over both transports; raw ones send old requests again as no client should. Every call is
non-idempotent and answers something unique, so that an effect that is there twice, or missing, or another
answer is seen. The truth is the clients' own record.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.codec import encode_message
from headwater_protocol.errors import HeadwaterError
from headwater_protocol.frames import frame
from headwater_protocol.messages import Mutation
from headwater_protocol.values import pack_value, unpack_value
from headwater_storage.catalog import REQUESTS
from headwater_storage.directory import DataDirectory
from headwater_storage.keys import table_range
from headwater_storage.lmdb_store import LmdbStore
from support.cutting_proxy import CuttingProxy, Figures, Plan, Point
from support.daemon import RunningDaemon
from support.eager_client import EagerClient
from support.raw_session import ConnectionEndedError, RawConnection, RawSession

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.client.aio import Client
    from support.runs import LongRun

CLIENTS = 20
TASKS = 4
RAW_SESSIONS = 4
PROGRESS_TIMEOUT_S = 60.0
ADD = "once:add"
OPTIONS = ("--checkpoint-interval-s", "0.5", "--checkpoint-log-bytes", "4194304")
# What a call comes to whose worker was killed, and what is said of one that was refused and overtaken.
WITHOUT_EFFECT = {"worker_died", "unavailable"}


@dataclass
class Writer:
    """One client of the SDK and its own record.

    Attributes:
        name: Its name in the database.
        done: By number of the call, what it answered: place and token.
        failed: Calls that failed as they were asked to.
        refused: Calls that were refused: they must not have happened.
        shared: How many of those done counted in common.
    """

    name: str
    chance: random.Random
    done: dict[int, tuple[int, int]] = field(default_factory=dict)
    failed: dict[int, tuple[int, int]] = field(default_factory=dict)
    refused: set[int] = field(default_factory=set)
    shared: int = 0
    wrong: list[str] = field(default_factory=list)
    stopping: bool = False
    begun: int = 0

    @property
    def decided(self) -> int:
        return len(self.done) + len(self.failed)

    async def run(self, client: Client) -> None:
        """Write until told to stop; every call that was begun is decided then."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(TASKS):
                tasks.create_task(self.write(client))

    async def write(self, client: Client) -> None:
        while not self.stopping:
            number, chance = self.begun, self.chance
            self.begun += 1
            arguments: dict[str, Any] = {"fail": chance.random() < 0.2, "shared": chance.random() < 0.03}
            if chance.random() < 0.05:
                arguments["filler"] = "x" * chance.randrange(100_000)
            try:
                place, token = await client.mutation(ADD, writer=self.name, number=number, **arguments)
                self.done[number] = place, token
                self.shared += arguments["shared"]
            except HeadwaterError as error:
                if error.code == "application_error":
                    self.failed[number] = tuple(error.data)
                elif error.code in WITHOUT_EFFECT:
                    self.refused.add(number)
                else:
                    self.wrong.append(f"{self.name}: {number}: {error.code}: {error.message}")


# ------------------------------------------------------------------------------------------- raw clients


class RawWriter:
    """Does what no client should: sends old requests again, twice at once, changed, out of order."""

    def __init__(self, name: str, session: RawSession, chance: random.Random) -> None:
        self.name = name
        self.raw = session
        self.stopping = False
        self.deeds: Counter[str] = Counter()
        self._chance = chance
        self._next = 1

    async def run(self) -> None:
        often = [self.write, self.cut_short, self.send_again]
        deeds = [*often, *often, self.twice_at_once, self.changed, self.out_of_order]
        while not self.stopping:
            deed = self._chance.choice(deeds)
            try:
                await deed()
                self.deeds[deed.__name__] += 1
            except ConnectionEndedError:
                await asyncio.sleep(0.05)

    def fresh(self, count: int) -> list[Mutation]:
        """Make mutations that were never sent before."""
        lost = [number for number in self.raw.sent if number not in self.raw.outcomes]
        lo = min(lost, default=self._next) if self._chance.random() < 0.7 else 0
        numbers = range(self._next, self._next + count)
        self._next += count
        return [self.raw.mutation(n, ADD, self.arguments(n), forget_below=min(lo, n)) for n in numbers]

    def arguments(self, number: int) -> bytes:
        return pack_value({"writer": self.name, "number": number, "fail": self._chance.random() < 0.2})

    async def write(self) -> None:
        connection = await self.raw.open()
        try:
            await self.write_on(connection, self._chance.randrange(1, 20))
            self.raw.told_ts = max(self.raw.told_ts, connection.told_ts)
        finally:
            connection.end()

    async def write_on(self, connection: RawConnection, count: int) -> None:
        """Send what is new on a connection: the server must run it, whatever it has forgotten."""
        mutations = self.fresh(count)
        connection.send(*mutations)
        found = await connection.answers(mutation.request for mutation in mutations)
        self.raw.note(found)
        lost = [number for number, outcome in found.items() if outcome.code == "outcome_unknown"]
        self.raw.wrong += [f"{number} was new, and is not known" for number in lost]

    async def cut_short(self) -> None:
        """Send some and go, the last one perhaps unfinished; read some of the answers or none."""
        connection = await self.raw.open()
        try:
            mutations = self.fresh(self._chance.randrange(1, 10))
            data = b"".join(frame(encode_message(mutation)) for mutation in mutations)
            connection.send_bytes(data[: len(data) - self._chance.choice((0, 1, 20))])
            await asyncio.sleep(self._chance.uniform(0, 0.02))
        finally:
            connection.end(reset=self._chance.random() < 0.5)
        await self.ask_for_all()

    async def ask_for_all(self) -> None:
        """Send again what has no answer, as every client does."""
        below = self.raw.forget_below
        numbers = [n for n in self.raw.sent if n not in self.raw.outcomes and n >= below]
        for first in range(0, len(numbers), 500):
            await self.again(numbers[first : first + 500])

    async def send_again(self) -> None:
        """Send old requests again, however old, answered or not."""
        old = list(self.raw.sent)
        chosen = self._chance.sample(old, min(len(old), self._chance.randrange(1, 12)))
        await self.again(sorted(chosen))

    async def again(self, numbers: list[int]) -> None:
        connection = await self.raw.open()
        try:
            self.raw.resent += len(numbers)
            connection.send(*[self.raw.sent[number] for number in numbers])
            self.raw.note(await connection.answers(numbers))
        finally:
            connection.end()

    async def twice_at_once(self) -> None:
        """Send the same on two connections; the later one ends the earlier."""
        async with contextlib.AsyncExitStack() as ends:
            first = await self.raw.open()
            ends.callback(first.end)
            mutations = self.fresh(self._chance.randrange(1, 6))
            first.send(*mutations)
            await asyncio.sleep(self._chance.choice((0, 0, 0.003)))
            second = await self.raw.open()
            ends.callback(second.end)
            second.send(*mutations)
            numbers = [mutation.request for mutation in mutations]
            both = first.answers(numbers), second.answers(numbers)
            for found in await asyncio.gather(*both, return_exceptions=True):
                if isinstance(found, dict):
                    self.raw.note(found)
        await self.ask_for_all()

    async def changed(self) -> None:
        """Send something else under an old number: that is another client, and it is told so."""
        decided = [n for n, outcome in self.raw.outcomes.items() if outcome.code != "unavailable"]
        if not decided:
            await self.write()
            return
        number = self._chance.choice(decided)
        connection = await self.raw.open()
        try:
            connection.send(Mutation(number, ADD, pack_value({"writer": self.name, "number": -number}), 0, 0))
            found = (await connection.answers([number]))[number]
            if found.code != "outcome_unknown" or number >= self.raw.forget_below:
                self.raw.wrong.append(f"{number} was changed and answered {found}")
        except ConnectionEndedError as ended:
            if ended.code not in {"session_in_use", "unavailable", ""}:
                self.raw.wrong.append(f"{number} was changed: {ended.code}")
        finally:
            connection.end()

    async def out_of_order(self) -> None:
        """Send a later number first, on a connection of its own: the earlier ones are never run."""
        mutations: list[Mutation] = []
        for batch in (slice(3, None), slice(3)):
            connection = await self.raw.open()
            mutations = mutations or self.fresh(5)
            try:
                connection.send(*mutations[batch])
                self.raw.note(await connection.answers(mutation.request for mutation in mutations[batch]))
            finally:
                connection.end()

    async def finish(self) -> None:
        """Learn how everything ended, while nothing is cut any more."""
        await self.ask_for_all()
        await self.again(sorted(self.raw.sent)[-200:])

    def record(self) -> tuple[dict[int, tuple[int, int]], set[int]]:
        """Return what must be there, by number, and what may be: its client let go of it unanswered."""
        done = {n: tuple(unpack_value(o.value)) for n, o in self.raw.outcomes.items() if o.value is not None}
        return done, {n for n in self.raw.sent if n not in self.raw.outcomes}


# --------------------------------------------------------------------------------------------- the trial


@dataclass
class Trial:
    """One daemon, its clients, and the proxies between them."""

    daemon: RunningDaemon
    seed: int
    figures: Figures = field(default_factory=Figures)
    restarts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.writers = [Writer(f"w{n}", random.Random(self.chance.getrandbits(64))) for n in range(CLIENTS)]
        self.raw = [
            RawWriter(
                f"raw{n}",
                RawSession(self.daemon.tcp_port, self.chance.randbytes(16)),
                random.Random(self.chance.getrandbits(64)),
            )
            for n in range(RAW_SESSIONS)
        ]

    @property
    def decided(self) -> int:
        return sum(w.decided for w in self.writers) + sum(len(raw.raw.outcomes) for raw in self.raw)

    @property
    def cuts(self) -> int:
        return self.figures.cuts.total()

    def plan(self) -> Plan:
        chance = self.chance
        return Plan(
            point=chance.choice(list(Point)),
            count=chance.choice((1, 2, 3, 5, 8, 12, 20, 30)),
            part=chance.random(),
            reset=chance.random() < 0.5,
            lag_s=chance.choice((0.0, 0.0, 0.002, 0.02)),
        )

    async def run(self, cuts: int, restart_every_s: float) -> None:
        """Write and cut until there were so many cuts; then let everything come to rest."""
        ports = (self.daemon.port, True), (self.daemon.tcp_port, False)
        async with asyncio.TaskGroup() as tasks:
            proxies = [
                CuttingProxy(port, self.plan, self.figures, websocket=websocket) for port, websocket in ports
            ]
            async with proxies[0], proxies[1]:
                clients = [self.client(proxies, number) for number in range(CLIENTS)]
                for client in clients:
                    await client.__aenter__()
                running = [
                    tasks.create_task(writer.run(client))
                    for writer, client in zip(self.writers, clients, strict=True)
                ] + [tasks.create_task(raw.run()) for raw in self.raw]
                restarting = tasks.create_task(self.restart(restart_every_s))
                await self.until(lambda: self.cuts >= cuts)
                restarting.cancel()
                await asyncio.gather(restarting, return_exceptions=True)
                await asyncio.to_thread(self.up_again)
                for proxy in proxies:
                    proxy.cutting = False
                for writer in (*self.writers, *self.raw):
                    writer.stopping = True
                async with asyncio.timeout(PROGRESS_TIMEOUT_S):
                    await asyncio.gather(*running)
                    for raw in self.raw:
                        await raw.finish()
                for client in clients:
                    await client.close()

    def client(self, proxies: list[CuttingProxy], number: int) -> Client:
        url = f"ws://127.0.0.1:{proxies[0].port}" if number % 2 else f"tcp://127.0.0.1:{proxies[1].port}"
        return EagerClient(url, self.chance)

    async def until(self, reached: Any) -> None:
        """Wait while there is progress."""
        while not reached():
            before = self.decided
            async with asyncio.timeout(PROGRESS_TIMEOUT_S):
                while self.decided == before and not reached():
                    await asyncio.sleep(0.02)

    async def restart(self, every_s: float) -> None:
        """End the daemon now this way, now that, and a worker in between."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.7, 1.3) * every_s)
            match self.chance.randrange(3):
                case 0:
                    await asyncio.to_thread(self.daemon.kill)
                    self.restarts["killed"] += 1
                case 1:
                    await asyncio.to_thread(self.daemon.terminate)
                    self.restarts["stopped"] += 1
                case _:
                    self.restarts["workers"] += self.daemon.kill_worker(self.chance)
                    continue
            self.daemon.launch()
            await asyncio.to_thread(self.daemon.wait_ready)
            before = self.decided
            await self.until(lambda before=before: self.decided > before)

    def up_again(self) -> None:
        if self.daemon.process is None:
            self.daemon.launch()
        self.daemon.wait_ready()

    # ------------------------------------------------------------------ what must hold

    def check(self) -> None:
        """Compare the database with the clients' records."""
        wrong = [line for writer in self.writers for line in writer.wrong]
        wrong += [f"{raw.name}: {line}" for raw in self.raw for line in raw.raw.wrong]
        assert not wrong, wrong[:20]
        totals = self.daemon.call("query", "once:counters")
        for writer in self.writers:
            self.check_entries(writer.name, totals.get(writer.name, 0), writer.done, set())
        assert totals.get("shared", 0) == sum(writer.shared for writer in self.writers)
        for raw in self.raw:
            self.check_entries(raw.name, totals.get(raw.name, 0), *raw.record())

    def check_entries(
        self, name: str, total: int, done: dict[int, tuple[int, int]], unsure: set[int]
    ) -> None:
        found: dict[int, tuple[int, int]] = {}
        places = 0
        while rows := self.daemon.call("query", "once:entries", writer=name, after=places):
            for place, number, token in rows:
                assert number not in found, f"{name}: {number} took effect twice"
                assert place == places + 1, f"{name}: place {place} comes behind {places}"
                found[number] = place, token
                places = place
        missing = done.keys() - found.keys()
        assert not missing, f"{name}: no effect of {sorted(missing)[:9]}"
        extra = found.keys() - done.keys() - unsure
        assert not extra, f"{name}: {sorted(extra)[:9]} took effect, and were answered otherwise"
        other = [number for number, answer in done.items() if found[number] != answer]
        assert not other, f"{name}: {other[:9]} were answered otherwise than they took effect"
        assert total == places, f"{name}: {total} counted, {places} appended"
        assert list(found) == sorted(found), f"{name}: out of order"

    def request_rows(self) -> int:
        """Count the request rows in the data directory of a daemon that has ended."""
        store = LmdbStore.open(DataDirectory(self.daemon.data).store_folder, create=False)
        try:
            with store.snapshot() as snapshot:
                return sum(1 for _ in snapshot.documents(*table_range(REQUESTS)))
        finally:
            store.close()


def once_trial(folder: Path, seed: int, cuts: int, restart_every_s: float) -> Trial:
    print(f"seed {seed}")
    daemon = RunningDaemon(folder, OPTIONS)
    trial = Trial(daemon, seed)
    try:
        daemon.start()
        daemon.must_deploy("once")
        asyncio.run(trial.run(cuts, restart_every_s))
        trial.check()
        assert daemon.terminate() == 0
        # An SDK client lets go of all it has the answers of; a raw one sometimes of nothing.
        kept = trial.request_rows()
        raw = sum(len(raw.raw.sent) for raw in trial.raw)
        assert kept <= CLIENTS * (TASKS + 1) + raw, f"{kept} outcomes are kept"
        assert daemon.doctor() == []
    finally:
        daemon.end()
    assert set(trial.figures.cuts) == set(Point) or cuts < 50
    print(trial.decided, trial.cuts, trial.restarts, [raw.deeds for raw in trial.raw][:1])
    return trial


@pytest.mark.timeout(180)
def test_mutations_take_effect_once_over_cut_connections(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    trial = once_trial(tmp_path, seed, cuts=60, restart_every_s=1.5)
    assert sum(raw.raw.resent for raw in trial.raw) > 50


@pytest.mark.slow
def test_mutations_take_effect_once_over_ten_thousand_cuts(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        trial = once_trial(tmp_path / str(seed), seed, cuts=1_000, restart_every_s=8.0)
        begun = sum(writer.begun for writer in trial.writers)
        long_run.record(
            "once",
            seed,
            mutations=trial.decided,
            cuts=trial.cuts,
            sent_again_by_clients=trial.figures.requests - begun,
            sent_again_long_after=sum(raw.raw.resent for raw in trial.raw),
            restarts=trial.restarts["killed"] + trial.restarts["stopped"],
            workers_killed=trial.restarts["workers"],
            twice=0,
            missing=0,
        )


# ------------------------------------------------------------------------------------------- the horizon


async def come_back_late(raw: RawWriter) -> None:
    """Write, be away for longer than the daemon remembers, and send everything again."""
    session = raw.raw
    for _ in range(3):
        await raw.write()
        await raw.cut_short()
    idle = await session.open()
    await asyncio.sleep(RETENTION_S * 2.5)
    await raw.write_on(idle, 3)
    idle.end()
    await raw.again(sorted(session.sent))


async def all_come_back_late(daemon: RunningDaemon, seed: int) -> list[RawWriter]:
    chance = random.Random(seed)
    raws = [
        RawWriter(
            f"late{n}",
            RawSession(daemon.tcp_port, chance.randbytes(16), may_be_forgotten=True),
            random.Random(chance.getrandbits(64)),
        )
        for n in range(8)
    ]
    await asyncio.gather(*map(come_back_late, raws[:4]))
    await asyncio.gather(*[raw.write() for raw in raws[4:]])  # sessions that are new behind the horizon
    return raws


RETENTION_S = 1
FORGETFUL = (
    "--request-retention-s",
    "1",
    "--request-trim-interval-s",
    "0.2",
    "--request-trim-limit-rows",
    "7",
)


def horizon_trial(folder: Path, seed: int) -> None:
    print(f"seed {seed}")
    daemon = RunningDaemon(folder, FORGETFUL)
    try:
        daemon.start()
        daemon.must_deploy("once")
        raws = asyncio.run(all_come_back_late(daemon, seed))
        trial = Trial(daemon, seed)
        trial.writers, trial.raw = [], raws
        trial.check()
        assert all(raw.raw.unknown for raw in raws[:4]), "nothing was forgotten"
        assert daemon.metric("headwater_request_rows_dropped_total") > 0
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()


@pytest.mark.timeout(120)
def test_what_is_forgotten_is_not_run_again(tmp_path: Path) -> None:
    horizon_trial(tmp_path, random.SystemRandom().randrange(2**32))


# ---------------------------------------------------------------------------------------- broken daemons

BROKEN = {
    "rows are not written": """
RequestMemory.keep = lambda *_: None
""",
    "rows are not looked at": """
RequestMemory._recall = lambda self: None
""",
    "failures are not written": """
keep = RequestMemory.keep
RequestMemory.keep = lambda self, outcome, failure: None if failure else keep(self, outcome, failure)
""",
    "the newest row is dropped": """
keep = RequestMemory.keep
def keep_and_drop(self, outcome, failure):
    keep(self, outcome, failure)
    self._transaction.put_row(request_row.REQUESTS, self._request.row, None)
RequestMemory.keep = keep_and_drop
""",
}
NO_HORIZON = """
RequestMemory._is_behind_horizon = lambda self: False
"""
"""Source that is run in the daemon and in its workers when they start."""


def break_daemon(folder: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every Python that is started from here on run some source first."""
    head = "from headwater_server.worker import request_row\nRequestMemory = request_row.RequestMemory\n"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(head + source)
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN)
def test_once_is_not_taken_for_granted(tmp_path: Path, broken: str, monkeypatch: pytest.MonkeyPatch) -> None:
    break_daemon(tmp_path / "broken", BROKEN[broken], monkeypatch)
    with pytest.raises(AssertionError, match=r"twice|answered|refused|out of order"):
        once_trial(tmp_path / "trial", 1, cuts=200, restart_every_s=3.0)


@pytest.mark.slow
def test_once_needs_the_horizon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_daemon(tmp_path / "broken", NO_HORIZON, monkeypatch)
    with pytest.raises(AssertionError, match=r"twice|answered"):
        horizon_trial(tmp_path / "trial", 1)
