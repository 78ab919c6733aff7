"""Hot documents on a real daemon: everybody is answered right, in chains, and nobody else is held up."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from headwater.client.aio import connect
from headwater.packing import pack
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon, running
from support.screen_client import ScreenClient, Values

if TYPE_CHECKING:
    from pathlib import Path

FUNCTIONS = """
import os
from headwater import ApplicationError, Index, MutationCtx, QueryCtx, Table, mutation, query

class Counter(Table, name="counters"):
    key: str
    value: int
    by_key = Index("key", unique=True)

def counter(ctx, key):
    found = ctx.db.query(Counter.by_key, key=key).unique()
    return found or ctx.db.get(ctx.db.insert(Counter(key=key, value=0)))

@mutation
def add(ctx: MutationCtx, key: str) -> int:
    found = counter(ctx, key)
    ctx.db.patch(found.id, value=found.value + 1)
    return found.value + 1

@mutation
def add_and(ctx: MutationCtx, key: str, then: str) -> int:
    value = add(ctx, key)
    if then == "fail":
        raise ApplicationError("it was not to be")
    if then == "die":
        os._exit(3)
    while then == "spin":
        pass
    return value

@mutation
def peek(ctx: MutationCtx, key: str) -> int:
    return counter(ctx, key).value

@query
def value(ctx: QueryCtx, key: str) -> int:
    return sum(found.value for found in ctx.db.query(Counter.by_key, key=key))
"""
VERSION_TWO = FUNCTIONS + "\n# another version\n"
CLIENTS = 12
EACH = 30


@pytest.fixture
def bundles(tmp_path: Path) -> list[bytes]:
    packed = []
    for number, source in enumerate((FUNCTIONS, VERSION_TWO)):
        folder = tmp_path / str(number) / "hot"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("")
        (folder / "f.py").write_text(source)
        packed.append(pack(folder))
    return packed


async def add_often(daemon: RunningDaemon, key: str, values: list[int], count: int = EACH) -> None:
    """Add, several at a time, and keep what comes back."""
    async with connect(daemon.url) as client:
        values += await asyncio.gather(*(client.mutation("f:add", key=key) for _ in range(count)))


async def disturb(daemon: RunningDaemon, values: list[int], bundle: bytes, kills: int) -> None:
    """Kill workers while the counter rises, and deploy in between."""
    for number in range(kills):
        while len(values) < EACH * (number + 1):
            await asyncio.sleep(0.01)
        daemon.kill_worker(random.Random(number))
        if number == 1:
            await asyncio.to_thread(daemon.must_deploy, bundle)


def test_a_hot_counter_counts_right_while_workers_die_and_a_bundle_is_deployed(
    tmp_path: Path, bundles: list[bytes]
) -> None:
    values: list[int] = []

    async def play(daemon: RunningDaemon) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(add_one_by_one(daemon, values))
            tasks.create_task(disturb(daemon, values, bundles[1], 3))

    with running(tmp_path / "daemon", "--workers", "2") as daemon:
        daemon.must_deploy(bundles[0])
        asyncio.run(play(daemon))
        assert sorted(values) == [*range(1, CLIENTS * EACH + 1)], "each value was given to one client"
        assert daemon.call("query", "f:value", key="hot") == CLIENTS * EACH
        assert daemon.metric("headwater_lane_members_total") > CLIENTS * EACH / 4
        assert daemon.terminate() == 0
        assert daemon.doctor() == []


async def add_one_by_one(daemon: RunningDaemon, values: list[int]) -> None:
    """Add one after another; a call that a killed worker had begun is told so, and asked for again."""
    async with connect(daemon.url) as client:
        for _ in range(EACH):
            while True:
                try:
                    values.append(await client.mutation("f:add", key="hot"))
                    break
                except HeadwaterError as error:
                    if error.code != "worker_died":
                        raise


def test_a_client_on_documents_of_its_own_gets_on_beside_a_hot_one(
    tmp_path: Path, bundles: list[bytes]
) -> None:
    hot: list[int] = []
    own: list[int] = []

    async def play(daemon: RunningDaemon) -> int:
        async with asyncio.TaskGroup() as tasks, connect(daemon.url) as bystander:
            load = [tasks.create_task(add_often(daemon, "hot", hot)) for _ in range(CLIENTS)]
            while not all(task.done() for task in load):
                own.append(await bystander.mutation("f:add", key="own"))
        return len(own)

    with running(tmp_path / "daemon", "--workers", "1") as daemon:
        daemon.must_deploy(bundles[0])
        mine = asyncio.run(play(daemon))
        assert own == [*range(1, mine + 1)]
        assert sorted(hot) == [*range(1, CLIENTS * EACH + 1)]
        print(f"{mine} beside {len(hot)}")
        assert mine >= EACH / CLIENTS, "the lane kept it out of the only worker"
        assert daemon.metric("headwater_lane_members_total") > 0


def test_a_member_that_fails_dies_or_is_ended_takes_nobody_with_it(
    tmp_path: Path, bundles: list[bytes]
) -> None:
    codes = {"fail": "application_error", "die": "worker_died", "spin": "time_limit"}
    values: list[int] = []
    seen: list[str] = []

    async def spoil(daemon: RunningDaemon) -> None:
        async with connect(daemon.url) as client:
            for then in [*codes, *codes]:
                with pytest.raises(HeadwaterError) as error:
                    await client.mutation("f:add_and", key="hot", then=then)
                seen.append(error.value.code)

    async def peek(daemon: RunningDaemon) -> None:
        last = 0
        while len(values) < CLIENTS * EACH:
            value = await asyncio.to_thread(daemon.call, "mutation", "f:peek", key="hot")
            assert value >= last, "an answer came before what it had read was committed"
            last = value

    async def play(daemon: RunningDaemon) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(add_often(daemon, "hot", values))
            tasks.create_task(spoil(daemon))
            tasks.create_task(peek(daemon))

    with running(tmp_path / "daemon", "--workers", "2", "--call-time-limit-s", "0.3") as daemon:
        daemon.must_deploy(bundles[0])
        asyncio.run(play(daemon))
        assert seen == [*codes.values(), *codes.values()]
        assert sorted(values) == [*range(1, CLIENTS * EACH + 1)]
        assert daemon.call("query", "f:value", key="hot") == CLIENTS * EACH


def test_a_call_of_the_lane_that_is_sent_again_takes_effect_once(
    tmp_path: Path, bundles: list[bytes]
) -> None:
    values: list[int] = []
    chance = random.Random(7)

    async def cut_often(daemon: RunningDaemon) -> None:
        client = ScreenClient(daemon.tcp_url, chance.randbytes(16), Values())
        running_client = asyncio.create_task(client.run())
        for number in range(EACH):
            call = asyncio.create_task(client.mutation("f:add", key="hot"))
            if number % 5 == 4:
                await asyncio.sleep(chance.uniform(0, 0.02))
                client.cut()
            values.append(await call)
        running_client.cancel()
        await asyncio.wait([running_client])

    async def play(daemon: RunningDaemon) -> None:
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(cut_often(daemon))

    with running(tmp_path / "daemon", "--workers", "2") as daemon:
        daemon.must_deploy(bundles[0])
        asyncio.run(play(daemon))
        assert sorted(values) == [*range(1, CLIENTS * EACH + 1)]
        assert daemon.metric("headwater_lane_members_total") > 0
