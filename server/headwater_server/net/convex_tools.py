"""Addresses that Convex's command line asks for beside functions: the log of calls, environment variables, and those that are not served.

Of the latter each says what to use instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec
from headwater_protocol.errors import RequestError

from headwater_server.convex.failures import instead_of
from headwater_server.convex.log_entries import entries_of
from headwater_server.net.convex_system import SECRET
from headwater_server.net.http_api import json_response
from headwater_server.net.key_api import decoded
from headwater_server.net.keys import AdminKeys, Right, bearer_key
from headwater_server.observe.call_log import EventFilter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from contextlib import AbstractContextManager

    from aiohttp import web

    from headwater_server.functions.variables import ListedVariable
    from headwater_server.net.http_api import Bodies
    from headwater_server.observe.call_log import CallEvent, CallLog, Dropped

_NOT_SERVED = (
    "/api/run_test_function",
    "/api/get_config_hashes",
    "/api/perform_import",
    "/api/{area:deploy2|export|import|app_metrics|streaming_import|v1}/{rest:.+}",
    "/api/shapes2",
    "/api/delete_tables",
    "/api/current_deployment",
)
_POLL_S = 10.0
_LOOK_S = 0.5
_AT_ONCE = 1_000
_EVERYTHING = EventFilter()
_CURSOR_MAX = 1 << 53


class Variables(Protocol):
    """The environment variables."""

    def listed(self) -> Sequence[ListedVariable]:
        """Return them by name."""

    async def change(
        self, changes: Mapping[str, str | None], *, secret: Collection[str] = ()
    ) -> frozenset[str]:
        """Set some and remove some, all or none."""


class _Change(msgspec.Struct):
    name: str
    value: str | None


class _Changes(msgspec.Struct):
    changes: list[_Change]


class ConvexTools:
    """The routes; `add_to` puts them into an aiohttp application.

    Args:
        log: The log of calls.
        variables: The environment variables.
        keys: Who may.
        begun: Wraps what a stop waits for.
        bodies: Reads requests.
    """

    def __init__(
        self,
        log: CallLog,
        variables: Variables,
        keys: AdminKeys,
        begun: Callable[[], AbstractContextManager[None]],
        bodies: Bodies,
    ) -> None:
        self._log = log
        self._variables = variables
        self._keys = keys
        self._begun = begun
        self._bodies = bodies

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/api/stream_function_logs", self._stream_logs)
        app.router.add_post("/api/update_environment_variables", self._change_variables)
        for path in _NOT_SERVED:
            app.router.add_route("*", path, self._refuse)

    async def _stream_logs(self, request: web.Request) -> web.Response:
        """Events after a cursor, which is the number of one: at once if there are any, or if it is 0; else as soon as there are."""
        try:
            self._keys.require(bearer_key(request), Right.READ)
        except RequestError as refusal:  # after any other status it asks again, for ever
            raise RequestError(refusal.message, code="forbidden") from None
        cursor = _cursor(request.query.get("cursor", "0"))
        if cursor == 0 or self._log.newest > cursor:
            return self._entries(self._log.kept(_EVERYTHING, after=cursor or None))
        follower = self._log.follow(_EVERYTHING)
        try:
            for _ in range(round(_POLL_S / _LOOK_S)):
                found = await follower.take(_AT_ONCE, _LOOK_S)
                gone = request.transport is None or request.transport.is_closing()
                if found or follower.closed or gone:
                    break
        finally:
            self._log.leave(follower)
        return self._entries(self._log.kept(_EVERYTHING, after=cursor))

    def _entries(self, found: Sequence[CallEvent | Dropped]) -> web.Response:
        return json_response({"entries": entries_of(found), "newCursor": self._log.newest})

    async def _change_variables(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DEPLOY)
        wanted = {one.name: one.value for one in decoded(await self._bodies.read(request), _Changes).changes}
        if SECRET in wanted.values():
            raise RequestError(
                f"the value {SECRET} stands for a secret in a list of variables: a secret is shown to nobody"
            )
        # A secret stays one: there is no word for it here.
        secret = [one.name for one in self._variables.listed() if one.secret]
        with self._begun():
            await self._variables.change(wanted, secret=secret)
        return json_response({"status": "success"})

    async def _refuse(self, request: web.Request) -> web.Response:
        # 403 is the one status after which no request is repeated and the message is shown.
        message = f"{request.path} is not served. {instead_of(request.path)}"
        raise RequestError(message, code="forbidden")


def _cursor(text: str) -> int:
    number = text.removesuffix(".0")
    if not (number.isascii() and number.isdecimal() and len(number) <= 16 and int(number) <= _CURSOR_MAX):
        raise RequestError(f"`cursor` is a number that an answer had, or 0, not {text[:100]!r}")
    return int(number)
