"""An action's pieces over HTTP as server-sent events.

    data: "a piece, as JSON"

    event: done
    data: null

Or at last `event: error` with what a JSON answer says of an error. What fails before the first piece is
answered as any other call: then the answer is JSON, which its content type tells.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import orjson
from aiohttp import web
from headwater_protocol.errors import HeadwaterError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

CONTENT_TYPE = "text/event-stream"
_LOOK_S = 0.5  # whether the caller is still there
_LOOKS_PER_COMMENT = 30
_COMMENT = b": still there\n\n"  # so that nothing on the way takes the silence for an end


def wants_events(request: web.Request) -> bool:
    """Tell whether a caller asks for server-sent events."""
    return CONTENT_TYPE in request.headers.get("Accept", "")


async def send_events(
    request: web.Request,
    pieces: AsyncIterator[bytes],
    encoded: Callable[[bytes], Any],
    told: Callable[[HeadwaterError], dict[str, Any]],
    headers: Mapping[str, str],
) -> web.StreamResponse:
    """Send pieces as they come, and how they end.

    Args:
        request: What is answered.
        pieces: Encoded values.
        encoded: Returns one as JSON has it.
        told: Returns what is said of an error.
        headers: Of the answer, besides those of the stream.

    Raises:
        HeadwaterError: The action failed before its first piece; nothing was sent.
    """
    stream = {"Content-Type": CONTENT_TYPE, "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers={**headers, **stream})
    waiting = asyncio.ensure_future(anext(pieces, None))
    try:
        await _while_silent(request, response, waiting)
        piece = await waiting
        await response.prepare(request)
        try:
            while piece is not None:
                await response.write(_event("", encoded(piece)))
                waiting = asyncio.ensure_future(anext(pieces, None))
                await _while_silent(request, response, waiting)
                piece = await waiting
            last = _event("done", None)
        except HeadwaterError as error:
            last = _event("error", told(error))
        await response.write(last)
        await response.write_eof()
    except ConnectionError:  # the caller is gone
        return response
    finally:
        waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError, HeadwaterError):
            await waiting
    return response


async def _while_silent(
    request: web.Request, response: web.StreamResponse, waiting: asyncio.Future[Any]
) -> None:
    """Wait for the next piece; raises ConnectionResetError if the caller goes away meanwhile."""
    looks = 0
    while not (await asyncio.wait([waiting], timeout=_LOOK_S))[0]:
        if request.transport is None or request.transport.is_closing():
            raise ConnectionResetError
        looks += 1
        if response.prepared and looks % _LOOKS_PER_COMMENT == 0:
            await response.write(_COMMENT)


def _event(name: str, data: Any) -> bytes:
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(data) + b"\n\n"
