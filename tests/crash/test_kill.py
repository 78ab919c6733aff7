"""kill -9 at random moments while clients write: what was acknowledged is there, once and in order.

The truth is the clients' own record. `--seed` repeats the choices of a run, though not its timing.
"""

from __future__ import annotations

import asyncio
import random
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon
from support.eager_client import EagerClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater.client.aio import Client
    from support.runs import LongRun

TRANSFERS_AT_ONCE = 3
BALANCE = 1_000
PROGRESS_TIMEOUT_S = 120.0
# Small segments, frequent checkpoints: kills then also meet rotations, trims and half-made checkpoints.
OPTIONS = (
    "--log-segment-bytes",
    "1048576",
    "--checkpoint-interval-s",
    "0.2",
    "--checkpoint-log-bytes",
    "1048576",
)
# What a daemon without the rule has lost must not have been saved by a checkpoint.
NO_CHECKPOINTS = ("--checkpoint-interval-s", "3600", "--checkpoint-log-bytes", "1073741824")
# A worker that is killed takes the call it was running with it; the client is told, and nothing of it happened.
REFUSED_WITHOUT_EFFECT = {"worker_died"}


@dataclass(frozen=True)
class Scale:
    """How much of it.

    Attributes:
        kills: How often the daemon is killed.
        writers: Clients that write, each four calls at a time.
        accounts: Between which they move money: few are fought over.
        acknowledged: Calls that are acknowledged in each life that gets ready, at least.
    """

    kills: int
    writers: int
    accounts: int
    acknowledged: int


SHORT = Scale(kills=10, writers=8, accounts=6, acknowledged=1)
LONG = Scale(kills=60, writers=32, accounts=60, acknowledged=600)
ONE_KILL = Scale(kills=1, writers=4, accounts=6, acknowledged=50)


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
    accounts: int
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
            source, target = self.chance.sample(range(self.accounts), 2)
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
    return EagerClient(daemon.url if chance.random() < 0.5 else daemon.tcp_url, chance)


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
    """What was killed, and how long each start took that was waited for."""

    daemons: int = 0
    starting: int = 0
    workers: int = 0
    zygotes: int = 0
    ready_s: list[float] = field(default_factory=list)


async def kill_again_and_again(
    daemon: RunningDaemon, writers: list[Writer], chance: random.Random, scale: Scale
) -> Deeds:
    """Kill the daemon as often as asked, each time at another moment, workers and zygotes in between."""
    deeds = Deeds()
    while deeds.daemons < scale.kills:
        if deeds.daemons % 3 == 2:
            # While it starts: recovery is cut off as well, sometimes several times in a row.
            await asyncio.sleep(chance.uniform(0.1, 0.7))
            deeds.starting += not daemon.is_ready()
        else:
            deeds.ready_s.append(await asyncio.to_thread(daemon.wait_ready))
            await progress(writers, scale.acknowledged)
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
    deeds.ready_s.append(await asyncio.to_thread(daemon.wait_ready))
    return deeds


async def progress(writers: list[Writer], count: int) -> None:
    """Wait until clients have come back and so many calls more have been acknowledged."""
    enough = count + sum(writer.acknowledged for writer in writers)
    async with asyncio.timeout(PROGRESS_TIMEOUT_S):
        while sum(writer.acknowledged for writer in writers) < enough:
            await asyncio.sleep(0.005)


async def write_and_kill(
    daemon: RunningDaemon, seed: int, scale: Scale
) -> tuple[list[Writer], list[int], Deeds]:
    chance = random.Random(seed)
    writers = [
        Writer(number, random.Random(chance.getrandbits(64)), scale.accounts)
        for number in range(scale.writers)
    ]
    totals: list[int] = []
    async with asyncio.TaskGroup() as tasks, make_client(daemon, chance) as watching:
        watcher = tasks.create_task(watch_total(watching, totals))
        clients = [make_client(daemon, chance) for _ in writers]
        for client in clients:
            await client.__aenter__()
        running = [
            tasks.create_task(writer.run(client)) for writer, client in zip(writers, clients, strict=True)
        ]
        deeds = await kill_again_and_again(daemon, writers, chance, scale)
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


def kill_trial(folder: Path, seed: int, scale: Scale, broken: str | None = None) -> dict[str, float]:
    """Run one trial; return its figures. With `broken`, that rule is taken out once the accounts are open."""
    daemon = RunningDaemon(folder, OPTIONS)
    try:
        daemon.start()
        daemon.must_deploy("bank")
        daemon.call("mutation", "bank:open_accounts", count=scale.accounts, balance=BALANCE)
        if broken is not None:
            assert daemon.terminate() == 0
            daemon.break_rule(broken)
            daemon.options = NO_CHECKPOINTS
            daemon.start()
        writers, totals, deeds = asyncio.run(write_and_kill(daemon, seed, scale))
        acknowledged = sum(writer.acknowledged for writer in writers)
        ready_ms = [round(ready_s * 1000) for ready_s in deeds.ready_s]
        print(
            f"killed: {deeds.daemons} daemons ({deeds.starting} while they started), {deeds.workers} workers,"
            f" {deeds.zygotes} zygotes; {acknowledged} acknowledged, {sum(w.refusals for w in writers)} refused;"
            f" ready after {statistics.median(ready_ms)} ms, at most {max(ready_ms)} ms"
        )

        assert not [line for writer in writers for line in writer.wrong]
        moves = [move for writer in writers for move in check_record(daemon, writer)]
        balances = dict.fromkeys(range(scale.accounts), BALANCE)
        for source, target, amount in moves:
            balances[source] -= amount
            balances[target] += amount
        assert daemon.call("query", "bank:balances") == {str(n): value for n, value in balances.items()}
        assert set(totals) == {scale.accounts * BALANCE}, "a screen showed money made or lost"

        # The trial is worth something only if enough went on between the kills.
        assert deeds.daemons == scale.kills
        assert deeds.workers
        assert deeds.zygotes
        assert acknowledged > 5 * scale.kills
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
        return {"kills": deeds.daemons, "acknowledged": acknowledged, "max_ready_ms": max(ready_ms)}
    finally:
        daemon.end()


@pytest.mark.timeout(240)
def test_acknowledged_mutations_outlive_kills(
    tmp_path: Path, seeds: Callable[[list[int]], list[int]]
) -> None:
    for seed in seeds([random.SystemRandom().randrange(2**32)]):
        print(f"seed {seed}")
        kill_trial(tmp_path, seed, SHORT)


def test_the_trial_finds_answers_given_before_the_log_is_written(tmp_path: Path) -> None:
    """A kill leaves the page cache, so it tells only whether a record was written, not whether it was synced."""
    with pytest.raises(AssertionError, match=r"was put behind|differs? from what was acknowledged"):
        kill_trial(tmp_path, random.SystemRandom().randrange(2**32), ONE_KILL, broken="log_first")


@pytest.mark.slow
def test_kills_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        long_run.record("kills", seed, **kill_trial(tmp_path / str(seed), seed, LONG))
