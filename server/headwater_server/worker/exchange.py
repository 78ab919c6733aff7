"""A request and its answer in the worker that runs the route: the body as it comes, the answer as it may go.

Pure but for futures of the loop. Both ways are bounded: what has come and was not taken by a window, what was
sent by what the client has taken.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import InternalError
from headwater_protocol.failures import error_from
from headwater_protocol.messages import ErrorBody

from headwater_server.worker.messages import AnswerHead, WantBody

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from headwater_server.worker.messages import Failure, FeedBody


class Sender(Protocol):
    """The way to the daemon."""

    def send(self, message: object) -> None:
        """Send a message, without waiting."""


class RouteExchange:
    """Implements `headwater.routes.Exchange`.

    Args:
        call: Number of the call.
        window_bytes: Bytes of the body that may wait here.
        sender: The way to the daemon.
        emit: Sends a piece of the answer once there is room for it.
    """

    def __init__(
        self, call: int, window_bytes: int, sender: Sender, emit: Callable[[bytes], Awaitable[None]]
    ) -> None:
        self._call = call
        self._window_bytes = window_bytes
        self._sender = sender
        self._emit = emit
        self._pieces: deque[bytes] = deque()
        self._came = asyncio.Event()
        self._asked = False
        self._ended = False
        self._failure: Failure | None = None
        self._answered = False

    async def next(self) -> bytes | None:
        """Return what comes next of the body, None at its end."""
        if not self._asked:
            self._asked = True
            self._sender.send(WantBody(self._call, self._window_bytes))
        while not self._pieces and not self._ended:
            self._came.clear()
            await self._came.wait()
        if self._pieces:
            piece = self._pieces.popleft()
            if not self._ended:
                self._sender.send(WantBody(self._call, len(piece)))
            return piece
        if self._failure is not None:
            raise error_from(ErrorBody(self._failure.code, self._failure.message, None))
        return None

    def feed(self, message: FeedBody) -> None:
        """Take what has come of the body."""
        if message.content:
            self._pieces.append(message.content)
        if message.failure is not None:
            self._failure = message.failure
        self._ended = self._ended or message.is_last or message.failure is not None
        self._came.set()

    async def begin(self, status: int, headers: Sequence[tuple[str, str]], size: int | None) -> None:
        """Send the head of the answer."""
        if self._answered:
            raise InternalError("the request is answered already")
        self._answered = True
        self._sender.send(AnswerHead(self._call, status, list(headers), size))

    async def send(self, content: bytes) -> None:
        """Send a piece of its body; returns when the next one may be made."""
        await self._emit(content)
