"""What sends batches to an HTTP server has in common: a task that wakes up when something waits, and ends in a moment."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from ipaddress import ip_address

import aiohttp

_FAREWELL_S = 0.5


class SendingTask(ABC):
    """A task on the event loop that sends what waits.

    Args:
        name: Of the task.
        wait_s: How long what has come waits for others to be sent together with.
        limit_s: Time for one request.

    Attributes:
        closing: It is to end: nothing is tried again.
    """

    def __init__(self, name: str, wait_s: float, limit_s: float) -> None:
        self._task_name = name
        self._wait_s = wait_s
        self._limit_s = limit_s
        self._moved = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.closing = False

    @abstractmethod
    async def send_waiting(self, session: aiohttp.ClientSession) -> None:
        """Send until nothing waits."""

    def start(self) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._run(), name=self._task_name)

    def wake(self) -> None:
        """Something waits."""
        self._moved.set()

    async def close(self) -> None:
        """Send what waits, as far as that takes no longer than a moment."""
        if self._task is None:
            return
        self.closing = True
        self._moved.set()
        await asyncio.wait([self._task], timeout=_FAREWELL_S)
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=self._limit_s)
        async with aiohttp.ClientSession(
            timeout=timeout, cookie_jar=aiohttp.DummyCookieJar(), trust_env=False
        ) as session:
            while True:
                await self._moved.wait()
                if not self.closing:
                    await asyncio.sleep(self._wait_s)
                self._moved.clear()
                await self.send_waiting(session)
                if self.closing:
                    return


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
