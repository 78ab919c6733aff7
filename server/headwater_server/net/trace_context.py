"""The span that an HTTP request belongs to, as its header `traceparent` says."""

from __future__ import annotations

from functools import wraps
from typing import TYPE_CHECKING, Any

from aiohttp import web

from headwater_server.observe.traces import calling_span, span_context

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_HEADER = "traceparent"


@web.middleware
async def trace_middleware(request: web.Request, handler: Any) -> web.StreamResponse:
    """Let what answers a request know the span that it belongs to."""
    _enter(request)
    response: web.StreamResponse = await handler(request)
    return response


def with_calling_span(
    handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
) -> Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]:
    """Return the same for a function that answers all requests of a port."""

    @wraps(handler)
    async def handle(request: web.BaseRequest) -> web.StreamResponse:
        _enter(request)
        return await handler(request)

    return handle


def _enter(request: web.BaseRequest) -> None:
    """Set the span that a request names, or none."""
    calling_span.set(span_context(request.headers.get(_HEADER, "")))
