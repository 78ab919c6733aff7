"""Slow queries, and hot ones under writes that never stop, hold nobody up.

Counted in updates and commits, or measured by how long the slow ones run, since seconds say how busy the machine is.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import Client, connect
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

PATIENCE_S = 60.0
SLOW_S = 2.1
SLOW_QUERIES = 3
"""More than there are workers."""
SLOW_UPDATES = 1
"""Of each, while writes go on: they do not starve."""
COLD_WRITES = 10
HOT_COMMITS_MAX = 300
"""While a cold write is on its way to its screen."""


@dataclass
class Screen:
    """What a client shows, and how often that has changed."""

    shown: Any = None
    updates: int = 0

    async def follow(self, client: Client, name: str, **arguments: Any) -> None:
        async for value in client.subscribe(name, **arguments):
            self.shown = value
            self.updates += 1

    async def shows(self, value: Any) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while self.shown != value:
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def at_once(*bodies: Any) -> AsyncIterator[None]:
    """Have coroutines go on for the length of a block."""
    tasks = [asyncio.create_task(body) for body in bodies]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    assert not [end for end in ends if isinstance(end, Exception)], ends


async def slow_beside_fast(daemon: RunningDaemon) -> list[float]:
    """Write what slow queries and a fast one look at, again and again.

    Returns:
        How long each write took to the screen of the fast one, as a part of what a slow one runs.
    """
    waits: list[float] = []
    slow, fast = [Screen() for _ in range(SLOW_QUERIES)], Screen()
    async with AsyncExitStack() as ends:
        writer, for_fast, *for_slow = [
            await ends.enter_async_context(connect(daemon.url, connect_timeout_s=PATIENCE_S))
            for _ in range(SLOW_QUERIES + 2)
        ]
        following = [
            screen.follow(client, "probe:count_slowly", text="beside", seconds=SLOW_S + number / 1000)
            for number, (screen, client) in enumerate(zip(slow, for_slow, strict=True))
        ]
        await ends.enter_async_context(at_once(fast.follow(for_fast, "probe:value_of", key="k"), *following))
        for screen in slow:
            await screen.shows(0)
            screen.updates = 0
        number = 0
        while min(screen.updates for screen in slow) < SLOW_UPDATES:
            number += 1
            await writer.mutation("probe:keep", text="beside")
            began_s = time.monotonic()
            await writer.mutation("probe:keep_value", key="k", value=number)
            await fast.shows(number)
            waits.append((time.monotonic() - began_s) / SLOW_S)
        for screen in slow:
            await screen.shows(number)
    return waits


def fairness_trial(folder: Path, broken: str | None = None) -> None:
    daemon = RunningDaemon(folder, ("--call-time-limit-s", "4"))
    try:
        if broken is not None:
            daemon.break_rule(broken)
        daemon.start()
        daemon.must_deploy("probe")
        waits = asyncio.run(slow_beside_fast(daemon))
        print(f"{len(waits)} updates of a fast query waited for at most {max(waits):.2f} of a slow one")
        assert max(waits) < 1, "the fast query waits for slow ones"
    finally:
        daemon.end()


def test_a_slow_query_neither_holds_up_a_fast_one_nor_starves(tmp_path: Path) -> None:
    fairness_trial(tmp_path)


def test_without_rounds_of_their_own_slow_queries_hold_up_others(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="waits for slow ones"):
        fairness_trial(tmp_path, "slow_rounds")


async def cold_beside_hot(daemon: RunningDaemon) -> tuple[list[int], Screen, int]:
    """Write one document without a pause and another now and then.

    Returns:
        How many commits of the first came while each write of the second was on its way to its screen;
        the first one's screen; how often it was written.
    """
    hot, cold = Screen(), Screen()
    commits = 0

    async def write(client: Client) -> None:
        nonlocal commits
        while True:
            await client.mutation("probe:keep_value", key="hot", value=commits)
            commits += 1

    meanwhile: list[int] = []
    async with AsyncExitStack() as ends:
        clients = [
            await ends.enter_async_context(connect(daemon.url, connect_timeout_s=PATIENCE_S))
            for _ in range(6)
        ]
        *writers, for_hot, for_cold = clients
        await ends.enter_async_context(
            at_once(
                hot.follow(for_hot, "probe:value_of", key="hot"),
                cold.follow(for_cold, "probe:value_of", key="cold"),
            )
        )
        await cold.shows(None)
        async with at_once(*[write(client) for client in writers for _ in range(4)]):
            for number in range(COLD_WRITES):
                await asyncio.sleep(0.02)
                before = commits
                await for_cold.mutation("probe:keep_value", key="cold", value=number)
                await cold.shows(number)
                meanwhile.append(commits - before)
        written = commits
        await writers[0].mutation("probe:keep_value", key="hot", value="last")
        await hot.shows("last")
    return meanwhile, hot, written


def test_a_hot_query_neither_holds_up_a_cold_one_nor_starves(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path)
    try:
        daemon.start()
        daemon.must_deploy("probe")
        meanwhile, hot, written = asyncio.run(cold_beside_hot(daemon))
        print(
            f"{written} hot commits, shown {hot.updates} times; while a cold write was on its way: {meanwhile}"
        )
        assert sum(meanwhile) > COLD_WRITES, "nothing was hot"
        assert max(meanwhile) <= HOT_COMMITS_MAX, "a write waits for those on another document"
        assert hot.updates > COLD_WRITES, "writes starve the hot query"
    finally:
        daemon.end()
