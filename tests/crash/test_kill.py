"""kill -9 at random moments while clients write: what was acknowledged is there, once and in order.

The truth is the clients' own record. `HEADWATER_SEED` (or `--seed`) repeats the choices of a run, though
not its timing; `HEADWATER_KILLS` sets how often it kills.
"""

from __future__ import annotations

import asyncio
import os
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import FRAME_LIMIT_BYTES, IN_FLIGHT_MAX, Client
from headwater.client.transport import parse_address
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from pathlib import Path

WRITERS = 8
TRANSFERS_AT_ONCE = 3
ACCOUNTS = 6
BALANCE = 1_000
KILLS = 50
KILLS_LONG = 1_000
PROGRESS_TIMEOUT_S = 30.0
# Small segments, frequent checkpoints: kills then also meet rotations, trims and half-made checkpoints.
OPTIONS = (
    "--log-segment-bytes",
    "1048576",
    "--checkpoint-interval-s",
    "0.2",
    "--checkpoint-log-bytes",
    "1048576",
)
# A worker that is killed takes the call it was running with it; the client is told, and nothing of it happened.
REFUSED_WITHOUT_EFFECT = {"worker_died"}


class Eager(random.Random):
    """Chance for a client: real for its session id, always the shortest pause for its reconnects."""

    def random(self) -> float:
        return -0.96


@dataclass
class Writer:
    """One client and its own record.

    Attributes:
        number: Its name in the database.
        appended: Numbers that were acknowledged, in order.
        transferred: Acknowledged transfers by number: source, target, amount.
        given_up: Numbers of transfers that were refused: they must not have happened.
        refusals: Calls that were refused.
        wrong: What it saw and should not have seen.
    """

    number: int
    chance: random.Random
    appended: list[int] = field(default_factory=list)
    transferred: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    given_up: set[int] = field(default_factory=set)
    refusals: int = 0
    wrong: list[str] = field(default_factory=list)
    stopping: bool = False
    next_transfer: int = 0

    @property
    def acknowledged(self) -> int:
        return len(self.appended) + len(self.transferred)

    async def run(self, client: Client) -> None:
        """Write until told to stop; every call that was begun is decided then."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self.append(client))
            for _ in range(TRANSFERS_AT_ONCE):
                tasks.create_task(self.transfer(client))

    async def append(self, client: Client) -> None:
        while not self.stopping:
            number = len(self.appended)
            previous = await self.decided(client, "bank:append", number=number)
            if previous is REFUSED:
                continue
            if previous != (number - 1 if number else None):
                self.wrong.append(f"writer {self.number}: {number} was put behind {previous}")
            self.appended.append(number)

    async def transfer(self, client: Client) -> None:
        while not self.stopping:
            number = self.next_transfer
            self.next_transfer += 1
            source, target = self.chance.sample(range(ACCOUNTS), 2)
            amount = self.chance.randrange(1, 50)
            done = await self.decided(
                client, "bank:transfer", number=number, source=source, target=target, amount=amount
            )
            if done is REFUSED:
                self.given_up.add(number)
            else:
                self.transferred[number] = source, target, amount

    async def decided(self, client: Client, name: str, **arguments: Any) -> Any:
        """Return the result of a mutation, or `REFUSED` if it was refused without effect."""
        try:
            return await client.mutation(name, writer=self.number, **arguments)
        except HeadwaterError as error:
            if error.code not in REFUSED_WITHOUT_EFFECT:
                self.wrong.append(f"writer {self.number}: {name} {arguments}: {error.code}: {error.message}")
            self.refusals += 1
            return REFUSED


REFUSED = object()


def make_client(daemon: RunningDaemon, chance: random.Random) -> Client:
    return Client(
        parse_address(daemon.url if chance.random() < 0.5 else daemon.tcp_url),
        Eager(chance.getrandbits(64)),
        connect_timeout_s=None,
        in_flight_max=IN_FLIGHT_MAX,
        frame_limit_bytes=FRAME_LIMIT_BYTES,
    )


async def watch_total(client: Client, seen: list[int]) -> None:
    """Note what a screen shows as the sum of all accounts: it may never be seen out of balance."""
    updates = client.subscribe("bank:total")
    while True:
        try:
            seen.append(await anext(updates))
        except HeadwaterError as error:
            if error.code not in REFUSED_WITHOUT_EFFECT:
                raise


@dataclass
class Deeds:
    """What was killed."""

    daemons: int = 0
    starting: int = 0
    workers: int = 0
    zygotes: int = 0


async def kill_again_and_again(
    daemon: RunningDaemon, writers: list[Writer], chance: random.Random, kills: int
) -> Deeds:
    """Kill the daemon as often as asked, each time at another moment, workers and zygotes in between."""
    deeds = Deeds()
    while deeds.daemons < kills:
        if deeds.daemons % 3 == 2:
            # While it starts: recovery is cut off as well, sometimes several times in a row.
            await asyncio.sleep(chance.uniform(0.1, 0.7))
            deeds.starting += not daemon.is_ready()
        else:
            await asyncio.to_thread(daemon.wait_ready)
            await progress(writers, sum(writer.acknowledged for writer in writers))
            await asyncio.sleep(chance.uniform(0.0, 0.2))
            match deeds.daemons % 9:
                case 1:
                    deeds.workers += daemon.kill_worker(chance)
                    await asyncio.sleep(chance.uniform(0.0, 0.05))
                case 4:
                    deeds.zygotes += daemon.kill_zygote()
                    await asyncio.sleep(chance.uniform(0.0, 0.05))
        await asyncio.to_thread(daemon.kill)
        deeds.daemons += 1
        daemon.launch()
    await asyncio.to_thread(daemon.wait_ready)
    return deeds


async def progress(writers: list[Writer], before: int) -> None:
    """Wait until clients have come back and something new was acknowledged."""
    async with asyncio.timeout(PROGRESS_TIMEOUT_S):
        while sum(writer.acknowledged for writer in writers) == before:
            await asyncio.sleep(0.005)


async def write_and_kill(
    daemon: RunningDaemon, seed: int, kills: int
) -> tuple[list[Writer], list[int], Deeds]:
    chance = random.Random(seed)
    writers = [Writer(number, random.Random(chance.getrandbits(64))) for number in range(WRITERS)]
    totals: list[int] = []
    async with asyncio.TaskGroup() as tasks, make_client(daemon, chance) as watching:
        watcher = tasks.create_task(watch_total(watching, totals))
        clients = [make_client(daemon, chance) for _ in writers]
        for client in clients:
            await client.__aenter__()
        running = [
            tasks.create_task(writer.run(client)) for writer, client in zip(writers, clients, strict=True)
        ]
        deeds = await kill_again_and_again(daemon, writers, chance, kills)
        for writer in writers:
            writer.stopping = True
        async with asyncio.timeout(PROGRESS_TIMEOUT_S):
            await asyncio.wait(running)
        watcher.cancel()
        for client in clients:
            await client.close()
    return writers, totals, deeds


def check_record(daemon: RunningDaemon, writer: Writer) -> list[tuple[int, int, int]]:
    """Compare the database with a client's record; return the transfers that are in the database."""
    entries = daemon.call("query", "bank:entries", writer=writer.number)
    found = [(entry["number"], entry["previous"]) for entry in entries]
    expected = [(number, number - 1 if number else None) for number in writer.appended]
    assert found == expected, f"writer {writer.number}: the sequence differs from what was acknowledged"
    created = [entry["_creationTime"] for entry in entries]
    assert created == sorted(created), f"writer {writer.number}: the clock went back over a restart"

    transfers = daemon.call("query", "bank:transfers", writer=writer.number)
    moved = {row["number"]: (row["source"], row["target"], row["amount"]) for row in transfers}
    assert len(moved) == len(transfers), f"writer {writer.number}: a transfer took effect twice"
    assert moved == writer.transferred, f"writer {writer.number}: transfers differ from what was acknowledged"
    assert not writer.given_up & moved.keys(), f"writer {writer.number}: a refused transfer took effect"
    return list(moved.values())


def kill_trial(folder: Path, seed: int, kills: int) -> None:
    print(f"HEADWATER_SEED={seed}")
    daemon = RunningDaemon(folder, OPTIONS)
    try:
        daemon.start()
        daemon.must_deploy("bank")
        daemon.call("mutation", "bank:open_accounts", count=ACCOUNTS, balance=BALANCE)
        writers, totals, deeds = asyncio.run(write_and_kill(daemon, seed, kills))
        acknowledged = sum(writer.acknowledged for writer in writers)
        print(f"{deeds}, {acknowledged} acknowledged, {sum(w.refusals for w in writers)} refused")

        assert not [line for writer in writers for line in writer.wrong]
        moves = [move for writer in writers for move in check_record(daemon, writer)]
        balances = dict.fromkeys(range(ACCOUNTS), BALANCE)
        for source, target, amount in moves:
            balances[source] -= amount
            balances[target] += amount
        assert daemon.call("query", "bank:balances") == {str(n): value for n, value in balances.items()}
        assert set(totals) == {ACCOUNTS * BALANCE}, "a screen showed money made or lost"

        # The trial is worth something only if enough went on between the kills.
        assert deeds.daemons == kills
        assert deeds.workers
        assert deeds.zygotes
        assert acknowledged > 5 * kills
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    chosen = request.config.getoption("--seed") or os.environ.get("HEADWATER_SEED")
    return int(chosen) if chosen else random.SystemRandom().randrange(2**32)


@pytest.mark.timeout(240)
def test_acknowledged_mutations_outlive_fifty_kills(tmp_path: Path, seed: int) -> None:
    kill_trial(tmp_path, seed, int(os.environ.get("HEADWATER_KILLS", KILLS)))


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_acknowledged_mutations_outlive_many_kills(tmp_path: Path, seed: int) -> None:
    kill_trial(tmp_path, seed, int(os.environ.get("HEADWATER_KILLS", KILLS_LONG)))
