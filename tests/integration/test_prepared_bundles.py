"""Bundles that were prepared beside the active one must not outlast the next that becomes active."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_server.functions.limits import PoolOptions
from support.worker_pool import PoolWorld, until

if TYPE_CHECKING:
    from pathlib import Path


def answering(number: int) -> str:
    return f"from headwater import QueryCtx, query\n@query\ndef answer(ctx: QueryCtx) -> int:\n    return {number}\n"


async def test_a_bundle_that_becomes_active_ends_all_others(tmp_path: Path) -> None:
    async with PoolWorld(tmp_path, PoolOptions(workers=2)) as world:
        assert world.pool.active_bundle is None
        left = await world.pool.prepare(world.packed(app=answering(1)))
        active = await world.deploy(app=answering(2))
        assert world.pool.active_bundle == active
        assert await world.value("app:answer") == 2
        await until(lambda: len(world.pool.process_ids) == 3)
        assert not (world.data / "bundles" / left).exists()
        assert await world.deploy(app=answering(1)) == left
        assert await world.value("app:answer") == 1
