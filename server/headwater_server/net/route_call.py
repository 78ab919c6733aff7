"""One request to a route, between the socket of its client and the worker that answers it.

The body goes to the worker as far as that has asked for it, the answer to the client as fast as that reads. Where
either waits for the other, nothing more than a window is held.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from aiohttp import web
from headwater.http_fields import header_problem
from headwater_protocol.errors import InternalError, error_for

from headwater_server.functions.calls import StreamingCaller
from headwater_server.worker.messages import AnswerHead, Failure, WantBody

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_READ_BYTES = 64 * 1024


class Body(Protocol):
    """What is read of a request's body."""

    async def read(self, n: int = -1) -> bytes:
        """Return up to so many bytes that have come, waiting for some; empty at the end."""


class BodyFeeder(Protocol):
    """Where the body goes."""

    def feed(self, content: bytes, *, is_last: bool, failure: Failure | None = None) -> None:
        """Hand on what has come, or why nothing more does."""


class RouteCall(StreamingCaller):
    """The answer of a route, as it comes; implements `RouteCaller`."""

    def __init__(self) -> None:
        super().__init__()
        self._head: AnswerHead | None = None
        self._wanted_bytes = 0
        self._wants = asyncio.Event()

    def route_exchanged(self, message: AnswerHead | WantBody) -> None:
        """It answers, or wants more of the request's body."""
        if isinstance(message, AnswerHead):
            self._head = message
            self._moved.set()
        else:
            self._wanted_bytes += message.size
            self._wants.set()

    async def head(self) -> AnswerHead:
        """Return the head of the answer once it is there.

        Raises:
            HeadwaterError: The route failed before it answered.
        """
        while self._head is None and not self._over:
            self._moved.clear()
            await self._moved.wait()
        if self._head is not None:
            return self._head
        if self._error is not None:
            raise error_for(self._error.code, self._error.message, self._error.data)
        raise InternalError("the route ended without an answer")

    async def wanted(self, most_bytes: int) -> int:
        """Return how much of the body the route wants now, once it wants any; it counts as sent."""
        while self._wanted_bytes <= 0:
            self._wants.clear()
            await self._wants.wait()
        return min(self._wanted_bytes, most_bytes)

    def sent(self, size: int) -> None:
        """So much of the body was handed on."""
        self._wanted_bytes -= size


async def feed_body(
    body: Body,
    call: RouteCall,
    feeder: BodyFeeder,
    *,
    limit_bytes: int,
    idle_s: float,
    whole_s: float,
    mono_s: Callable[[], float],
) -> None:
    """Hand on a request's body as far as it is wanted, until its end.

    Args:
        body: Of the request.
        call: Says how much is wanted.
        feeder: Where it goes.
        limit_bytes: Of the whole.
        idle_s: How long the client may send nothing.
        whole_s: How long it may be waited for in all; waiting for the route does not count.
        mono_s: Monotonic clock.
    """
    received = 0
    left_s = whole_s
    while True:
        size = await call.wanted(_READ_BYTES)
        began_s = mono_s()
        try:
            async with asyncio.timeout(min(idle_s, left_s)):
                content = await body.read(size)
        except TimeoutError:
            feeder.feed(
                b"", is_last=True, failure=Failure("invalid_request", "the body did not come in time")
            )
            return
        except (web.RequestPayloadError, ConnectionError):
            why = "the body is cut short, or not compressed as its Content-Encoding says"
            feeder.feed(b"", is_last=True, failure=Failure("invalid_request", why))
            return
        left_s = max(left_s - (mono_s() - began_s), 0.0)
        received += len(content)
        if received > limit_bytes:
            feeder.feed(b"", is_last=True, failure=too_large(limit_bytes))
            return
        call.sent(len(content))
        feeder.feed(content, is_last=not content)
        if not content:
            return


async def send_answer(
    request: web.BaseRequest, call: RouteCall, headers: Mapping[str, str], *, stall_s: float
) -> web.StreamResponse:
    """Send a route's answer as it comes.

    An answer that does not come to its end is cut off, so that the client does not take it for whole.

    Args:
        request: What is answered.
        call: Its route.
        headers: Of the answer, besides the route's own.
        stall_s: How long the client may take nothing of it.

    Raises:
        HeadwaterError: The route failed before it answered; nothing was sent.
    """
    head = await call.head()
    problem = header_problem(head.headers)
    if problem is not None or not 200 <= head.status <= 599:
        raise InternalError(f"the worker sent no answer that can be sent on: {problem or head.status}")
    response = web.StreamResponse(status=head.status)
    for name, value in [*head.headers, *headers.items()]:
        response.headers.add(name, value)
    if head.size is not None:
        response.content_length = head.size
    try:
        await response.prepare(request)
        if request.method != "HEAD":
            async for piece in call:
                async with asyncio.timeout(stall_s):
                    await response.write(piece)
        async with asyncio.timeout(stall_s):
            await response.write_eof()
    except BaseException as error:
        cut_off(request)
        if not isinstance(error, Exception):
            raise
    return response


def cut_off(request: web.BaseRequest) -> None:
    """End the connection of a request without a word."""
    if request.transport is not None:
        request.transport.abort()


def too_large(limit_bytes: int) -> Failure:
    """Return the failure of a body beyond the limit."""
    return Failure("frame_too_large", f"the body has more than {limit_bytes} bytes")
