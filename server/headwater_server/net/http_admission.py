"""Requests over HTTP: counted for the address that they come from, before anything is looked at in them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aiohttp import web

from headwater_server.net.http_api import error_response
from headwater_server.net.request_origin import account_of, arrival_of

if TYPE_CHECKING:
    from headwater_server.net.admission import Admission

_ALWAYS = "/health"


def admission_middleware(admission: Admission, elsewhere: str) -> Any:
    """Return a middleware that answers 429 where requests come too fast.

    Args:
        admission: Counts.
        elsewhere: What begins with this is counted where it is answered.
    """

    @web.middleware
    async def admit(request: web.Request, handler: Any) -> web.StreamResponse:
        if request.path != _ALWAYS and not request.path.startswith(elsewhere):
            refusal = admission.ask(account_of(request, admission), None)
            if refusal is not None:
                return refused(request, error_response(refusal))
        response: web.StreamResponse = await handler(request)
        return response

    return admit


def refused(request: web.BaseRequest, response: web.Response) -> web.Response:
    """Return the answer to a request that comes too soon. It ends the connection: who goes on needs new ones, which are few."""
    if not arrival_of(request).forwards:
        response.force_close()
    return response
