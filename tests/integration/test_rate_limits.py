"""Rate limits on a real daemon with many clients at once: never more than the limit is let through."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import headwater
import pytest
from headwater_protocol.errors import ApplicationError, HeadwaterError
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("rates"), "--workers", "3", deploy="rates") as found:
        yield found


async def let_through(daemon: RunningDaemon, limit: str, key: str, calls: int) -> list[float]:
    """Call from many clients at once; return what those were told that were refused."""
    refused: list[float] = []
    async with asyncio.TaskGroup() as group:

        async def client(number: int) -> None:
            async with headwater.connect(daemon.url if number % 2 else daemon.tcp_url) as one:
                for _ in range(calls):
                    try:
                        await one.mutation("calls:act", limit=limit, key=key)
                    except ApplicationError as error:
                        told = {"kind": "rate_limited", "name": limit, "retry_after_s": 0} | error.data
                        refused.append(told["retry_after_s"] if told == error.data else 0)

        for number in range(8):
            group.create_task(client(number))
    return refused


@pytest.mark.parametrize(("limit", "most"), [("bucket", 25), ("window", 40)])
async def test_exactly_the_limit_is_let_through_by_many_at_once(
    daemon: RunningDaemon, limit: str, most: int
) -> None:
    refused = await let_through(daemon, limit, "many", 10)
    done = await asyncio.to_thread(daemon.call, "query", "calls:done", limit=limit, key="many")
    assert done == most == 80 - len(refused)
    assert all(wait_s > 0 for wait_s in refused)


async def test_a_divided_limit_lets_no_more_through(daemon: RunningDaemon) -> None:
    refused = await let_through(daemon, "sharded", "many", 12)
    done = await asyncio.to_thread(daemon.call, "query", "calls:done", limit="sharded", key="many")
    assert done == 96 - len(refused)
    assert 30 <= done <= 40


async def test_keys_keep_apart_failures_take_nothing_and_a_reset_gives_all(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        for _ in range(30):
            with pytest.raises(HeadwaterError) as failed:
                await client.mutation("calls:act", limit="bucket", key="fails", fails=True)
            assert failed.value.code == "internal_error"
        await client.mutation("calls:act", limit="bucket", key="other")
        for _ in range(25):
            await client.mutation("calls:act", limit="bucket", key="fails")
        told = await client.query("calls:check", limit="bucket", key="fails")
        assert (told["ok"], told["retry_after_s"] > 3000) == (False, True)
        await client.mutation("calls:reset", limit="bucket", key="fails")
        assert await client.query("calls:check", limit="bucket", key="fails", count=25) == {
            "ok": True,
            "retry_after_s": 0,
        }


async def test_a_check_is_live(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        shown = client.subscribe("calls:check", limit="window", key="live", count=40)
        async with asyncio.timeout(20):
            assert (await anext(shown))["ok"] is True
            await client.mutation("calls:act", limit="window", key="live")
            assert (await anext(shown))["ok"] is False
