"""The pieces of an action that streams, as its caller takes them."""

from __future__ import annotations

import asyncio
import weakref
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from headwater_protocol.errors import OutcomeUnknown

from headwater.client.subscription import call_later

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import TracebackType

    from headwater_protocol.client_session import ClientSession
    from headwater_protocol.errors import HeadwaterError

T = TypeVar("T")

WINDOW_BYTES = 64 * 1024
"""Pieces of one action that may be on their way."""


class Pieces:
    """Pieces that have arrived and were not taken, bounded by the window; and how the action ended.

    Attributes:
        request: Number of the action, 0 before it is sent for the first time.
    """

    __slots__ = ("_arrived", "_error", "_over", "_waiting", "request")

    def __init__(self) -> None:
        self.request = 0
        self._arrived = asyncio.Event()
        self._waiting: deque[tuple[Any, int]] = deque()
        self._over = False
        self._error: HeadwaterError | None = None  # raised once, behind the last piece

    def put(self, value: Any, size: int) -> None:
        """Add a piece."""
        self._waiting.append((value, size))
        self._arrived.set()

    def end(self, error: HeadwaterError | None) -> None:
        """Let nothing come any more."""
        if not self._over:
            self._over, self._error = True, error
            self._arrived.set()

    async def take(self) -> tuple[Any, int]:
        """Wait for a piece and take it, with its size; raises StopAsyncIteration behind the last one."""
        while not self._waiting and not self._over:
            self._arrived.clear()
            await self._arrived.wait()
        if self._waiting:
            return self._waiting.popleft()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopAsyncIteration


class ActionStream(Generic[T]):
    """The pieces of an action, an asynchronous iterator. Made by `Client.stream`.

    The action begins with the first step of the loop. All pieces come, in order; the server sends no more than
    a window of them ahead, so a slow consumer slows the action down. Leaving the loop, closing this, or losing
    the last reference to it cancels the action. Pieces are the consumer's own to change.
    """

    def __init__(
        self,
        begin: Callable[[Pieces], Awaitable[None]],
        taken: Callable[[int, int], None],
        leave: Callable[[Pieces], None],
    ) -> None:
        self._pieces: Pieces | None = None
        self._begin = begin
        self._taken = taken
        self._leave = leave

    def __aiter__(self) -> ActionStream[T]:
        return self

    async def __anext__(self) -> T:
        if self._pieces is None:
            pieces = self._pieces = Pieces()
            # A loop that is left by `break` drops its stream: that must end the action too.
            loop = asyncio.get_running_loop()
            weakref.finalize(self, call_later, loop, self._leave, pieces).atexit = False
            await self._begin(pieces)
        pieces = self._pieces
        value, size = await pieces.take()
        self._taken(pieces.request, size)
        piece: T = value
        return piece

    async def aclose(self) -> None:
        """Cancel the action, if it is not over. May be called twice."""
        if self._pieces is None:
            self._pieces = Pieces()
        self._leave(self._pieces)

    async def __aenter__(self) -> ActionStream[T]:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Streams:
    """All streams of a client that are not over.

    Args:
        session: The client's.
        room: Held by each request that is in flight.
        require_open: Raises if the client is not open.
        wake: Has sent what the session has to send.
    """

    def __init__(
        self,
        session: ClientSession,
        room: asyncio.Semaphore,
        require_open: Callable[[], None],
        wake: Callable[[], None],
    ) -> None:
        self._session = session
        self._room = room
        self._require_open = require_open
        self._wake = wake
        self._open: dict[int, Pieces] = {}

    def __len__(self) -> int:
        return len(self._open)

    def made(self, name: str, packed: bytes) -> ActionStream[Any]:
        """Return a stream of an action, which begins with the first step of its loop."""
        return ActionStream(lambda pieces: self._begin(pieces, name, packed), self._taken, self._leave)

    def arrived(self, request: int, value: Any, size: int) -> None:
        """Hand on a piece."""
        pieces = self._open.get(request)
        if pieces is not None:
            pieces.put(value, size)

    def resolved(self, request: int, error: HeadwaterError | None) -> bool:
        """End the stream of an action that is over; False if it is none of a stream."""
        pieces = self._open.pop(request, None)
        if pieces is None:
            return False
        pieces.end(error)
        self._room.release()
        return True

    def end(self, problem: str) -> None:
        """End all of them: nothing more comes."""
        for request in list(self._open):
            self.resolved(request, OutcomeUnknown(problem, code="connection_lost"))

    async def _begin(self, pieces: Pieces, name: str, packed: bytes) -> None:
        await self._room.acquire()
        try:
            self._require_open()
            pieces.request = self._session.act(name, packed, WINDOW_BYTES)
        except BaseException:
            self._room.release()
            raise
        self._open[pieces.request] = pieces
        self._wake()

    def _taken(self, request: int, size: int) -> None:
        if request in self._open:
            self._session.take(request, size)
            self._wake()

    def _leave(self, pieces: Pieces) -> None:
        if self._open.get(pieces.request) is pieces:
            self._session.abandon(pieces.request)
            self._wake()
            self.resolved(pieces.request, None)
        pieces.end(None)
