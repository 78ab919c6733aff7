from __future__ import annotations

import asyncio

import pytest
from headwater.client.race import race


async def fail(reason: str) -> None:
    raise ValueError(reason)


async def test_the_first_to_end_ends_the_others() -> None:
    ended: list[str] = []

    async def wait_long() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cleaned up")

    await race(wait_long(), asyncio.sleep(0))
    assert ended == ["cleaned up"]
    with pytest.raises(ValueError, match="first"):
        await race(wait_long(), fail("first"))


async def test_a_cancellation_while_it_ends_is_not_lost() -> None:
    """The client's `close` once waited for ever: its connection was just failing when it was cancelled."""
    ending, may_end = asyncio.Event(), asyncio.Event()

    async def end_slowly() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await may_end.wait()

    task = asyncio.create_task(race(end_slowly(), fail("connection lost")))
    await ending.wait()
    task.cancel()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await task
