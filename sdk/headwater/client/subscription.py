"""The results of a live query, as its consumer takes them."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headwater.client.local_results import copied

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from headwater_protocol.errors import HeadwaterError

R = TypeVar("R")


class Subscription(Generic[R]):
    """The results of a live query, an asynchronous iterator. Made by `Client.subscribe`.

    Holds one value: the newest that was not taken. It ends when it is closed, when nothing
    refers to it any more, or with the client. A failure of the query is raised once; the
    query stays alive, and iterating on waits for its next result. Values are the
    consumer's own to change.
    """

    def __init__(self, slot: Slot, unfollow: Callable[[int], None], number: int) -> None:
        self._slot = slot
        self._unfollow = unfollow
        self._number = number
        # A loop that is left by `break` drops its subscription: that must end it at the server too.
        loop = asyncio.get_running_loop()
        weakref.finalize(self, call_later, loop, unfollow, number).atexit = False

    def __aiter__(self) -> Subscription[R]:
        return self

    async def __anext__(self) -> R:
        value: R = await self._slot.take()
        return value

    async def aclose(self) -> None:
        """Unsubscribe. May be called twice."""
        self._unfollow(self._number)

    async def __aenter__(self) -> Subscription[R]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Slot:
    """Room for the newest outcome of a query.

    Attributes:
        outcome: Value and error, set when one arrives, cleared when it is taken.
        over: Set for good when no outcome will come any more.
        last_error: Raised once at the end, then cleared.
    """

    __slots__ = ("arrived", "last_error", "outcome", "over")

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.outcome: tuple[Any, HeadwaterError | None] | None = None
        self.over = False
        self.last_error: HeadwaterError | None = None

    def put(self, value: Any, error: HeadwaterError | None) -> None:
        """Replace what was not taken."""
        self.outcome = (value, error)
        self.arrived.set()

    def end(self, error: HeadwaterError | None) -> None:
        """Let nothing come any more; the error is raised behind what was not taken."""
        self.over = True
        self.last_error = error
        self.arrived.set()

    async def take(self) -> Any:
        """Wait for an outcome and take it; raises StopAsyncIteration behind the last one."""
        while self.outcome is None and not self.over:
            self.arrived.clear()
            await self.arrived.wait()
        if self.outcome is not None:
            (value, error), self.outcome = self.outcome, None
            if error is not None:
                raise error
            return copied(value)
        if self.last_error is not None:
            error, self.last_error = self.last_error, None
            raise error
        raise StopAsyncIteration


def call_later(loop: asyncio.AbstractEventLoop, call: Callable[..., None], *arguments: Any) -> None:
    """Have a finalizer's work done in the loop: it runs in whichever thread drops the last reference."""
    with contextlib.suppress(RuntimeError):  # the loop may have ended
        loop.call_soon_threadsafe(call, *arguments)
