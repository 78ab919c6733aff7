"""The time of a call comes from the daemon: a worker has no wall clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from headwater_server.functions.limits import PoolOptions
from support.worker_pool import PoolWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

decode = msgspec.msgpack.decode

CLOCK = """
from headwater import MutationCtx, QueryCtx, mutation, query

@mutation
def change(ctx: MutationCtx) -> float:
    return ctx.now_ms

@query
def look(ctx: QueryCtx) -> float:
    return ctx.now_ms
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PoolWorld]:
    async with PoolWorld(tmp_path, PoolOptions(workers=1)) as world:
        await world.deploy(clock=CLOCK)
        yield world


async def test_a_call_has_the_time_that_it_is_told(world: PoolWorld) -> None:
    worker = await world.some_worker()
    for now_us in (1, 4_000_000_000_000_000, 1_000_000):
        world.now_us = now_us
        assert decode((await world.mutate("clock:change")).outcome) == now_us / 1000
        assert await world.value("clock:look") == now_us / 1000
        world.pool.open_round(worker, now_us)
        await world.told.rounds.get()
        world.pool.run_round_query(worker, now_us, 1, "clock:look", b"\x80", None, None)
        assert decode((await world.told.round_queries.get())[3].content) == now_us / 1000
        world.pool.close_round(worker, now_us)


async def test_a_call_that_waited_is_not_dated_before_what_it_sees(world: PoolWorld) -> None:
    world.now_us = 1_000
    world.state = world.state._replace(wall_us=2_500)
    world.apply({}, {})
    assert decode((await world.mutate("clock:change")).outcome) == 2.5
    assert await world.value("clock:look") == 2.5
