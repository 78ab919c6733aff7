"""The log of calls over HTTP, for whoever has a key to the deployment: what is kept, and then what comes.

    GET /api/admin/logs?follow=true&function=messages:send&level=warning&limit=100

One line of JSON for each event. An empty line says now and then that there is nothing; one of the type `dropped`
stands for events that whoever reads was too slow for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web
from headwater_protocol.errors import RequestError

from headwater_server.net.keys import AdminKeys, Right, bearer_key
from headwater_server.observe.call_log import LEVELS, EventFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_server.observe.call_log import CallEvent, CallLog, Dropped, EventText, Follower

_LOOK_S = 0.5
_LOOKS_PER_SIGN = 20
_AT_ONCE = 100
_KNOWN = {"follow", "function", "level", "request", "quiet", "after", "limit"}
_HEADERS = {
    "Content-Type": "application/x-ndjson",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class LogApi:
    """The route; `add_to` puts it into an aiohttp application.

    Args:
        log: The log of calls.
        text: Makes its events readable.
        keys: Who may.
    """

    def __init__(self, log: CallLog, text: EventText, keys: AdminKeys) -> None:
        self._log = log
        self._text = text
        self._keys = keys

    def add_to(self, app: web.Application) -> None:
        """Add the route."""
        app.router.add_get("/api/admin/logs", self._logs)

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        self._keys.require(bearer_key(request), Right.READ)
        query = request.query
        unknown = set(query) - _KNOWN
        if unknown:
            known = ", ".join(sorted(_KNOWN))
            raise RequestError(f"there is no parameter {min(unknown)[:100]!r}; there are {known}")
        wanted = EventFilter(
            function=query.get("function", ""),
            level=_level(query.get("level", "debug")),
            request_id=query.get("request", ""),
            quiet=_yes_or_no(request, "quiet"),
        )
        after, limit = _number(request, "after"), _number(request, "limit")
        if not _yes_or_no(request, "follow"):
            kept = self._log.kept(wanted, after=after, limit=limit)
            return web.Response(body=self._lines(kept), headers=_HEADERS)
        follower = self._log.follow(wanted)
        try:
            # In one step with `follow`: nothing is missing between the two, and nothing twice.
            kept = self._log.kept(wanted, after=after, limit=limit)
            return await self._follow(request, follower, kept)
        finally:
            self._log.leave(follower)

    async def _follow(
        self, request: web.Request, follower: Follower, kept: Sequence[CallEvent | Dropped]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers=_HEADERS)
        looks = 0
        try:
            await response.prepare(request)
            await response.write(b"\n")  # who follows knows that it has begun
            for begin in range(0, len(kept), _AT_ONCE):
                await response.write(self._lines(kept[begin : begin + _AT_ONCE]))
            while not follower.closed:
                taken = await follower.take(_AT_ONCE, _LOOK_S)
                if request.transport is None or request.transport.is_closing():
                    break
                looks = 0 if taken else looks + 1
                if taken or looks % _LOOKS_PER_SIGN == 0:
                    await response.write(self._lines(taken) or b"\n")
            await response.write_eof()
        except ConnectionError:  # the reader is gone
            pass
        return response

    def _lines(self, items: Sequence[CallEvent | Dropped]) -> bytes:
        return b"".join(map(self._text.line, items))


def _level(name: str) -> int:
    if name not in LEVELS:
        raise RequestError(f"`level` is one of {', '.join(LEVELS)}, not {name[:100]!r}")
    return LEVELS[name]


def _yes_or_no(request: web.Request, name: str) -> bool:
    text = request.query.get(name, "false")
    if text not in ("true", "false"):
        raise RequestError(f"`{name}` is true or false, not {text[:100]!r}")
    return text == "true"


def _number(request: web.Request, name: str) -> int | None:
    text = request.query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise RequestError(f"`{name}` is a number of 16 digits at most, not {text[:100]!r}")
    return int(text)
