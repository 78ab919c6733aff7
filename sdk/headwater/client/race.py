"""Run several coroutines until the first of them ends, and end a task for certain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

_CANCELLATIONS_MAX = 5
_CANCEL_AGAIN_S = 2.0  # longer than a transport takes to close, which a second cancellation would cut short


async def race(*runners: Coroutine[Any, Any, Any]) -> None:
    """Run all until one ends, cancel and await the others, and raise the error of the one if it failed.

    A `TaskGroup` would do, but on Python 3.11 and 3.12 it loses a cancellation that comes
    while it ends because of a failure: the caller's `close` would then wait for ever.
    """
    tasks = [asyncio.ensure_future(runner) for runner in runners]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if task in done:
            task.result()


async def ended(task: asyncio.Task[Any]) -> bool:
    """Cancel a task until it has ended, a bounded number of times; return whether it has.

    Once is not enough: code below may lose a cancellation, as `asyncio.wait_for` does on Python 3.11
    when what it waits for is there in the same moment.
    """
    for _ in range(_CANCELLATIONS_MAX):
        if task.done():
            break
        task.cancel()
        await asyncio.wait({task}, timeout=_CANCEL_AGAIN_S)
    return task.done()
