"""What a call reads, what made a live query stale and who lost to whom, for those with a key that may know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from headwater_protocol.errors import RequestError

from headwater_server.functions.explainer import explainable
from headwater_server.net.http_api import json_response, parse_call
from headwater_server.net.keys import Right, bearer_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from aiohttp import web

    from headwater_server.functions.explainer import Explainer
    from headwater_server.identity.sign_ins import SignIns
    from headwater_server.net.http_api import AskedCall, Bodies
    from headwater_server.net.keys import AdminKeys


class Functions(Protocol):
    """Knows the functions of the active bundle."""

    def kind(self, name: str, *, internal: bool) -> str:
        """Return the kind of a function; raises `unknown_function`."""
        ...

    def arguments_schema(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of a function's arguments; {} if there is no such function."""
        ...


class ExplainApi:
    """The routes; `add_to` puts them into an aiohttp application.

    Args:
        explainer: Explains.
        functions: Tells kinds of functions.
        keys: Who may.
        sign_ins: Makes somebody a user for a call.
        bodies: Reads requests.
        begun: Wraps what a stop waits for.
    """

    def __init__(
        self,
        explainer: Explainer,
        functions: Functions,
        keys: AdminKeys,
        sign_ins: SignIns,
        bodies: Bodies,
        begun: Callable[[], AbstractContextManager[None]],
    ) -> None:
        self._explainer = explainer
        self._functions = functions
        self._keys = keys
        self._sign_ins = sign_ins
        self._bodies = bodies
        self._begun = begun

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_post("/api/admin/explain", self._explain)
        app.router.add_post("/api/admin/reruns", self._reruns)
        app.router.add_get("/api/admin/conflicts", self._conflicts)

    async def _explain(self, request: web.Request) -> web.Response:
        """Run what `path` and `args` say, as `actAs` if it is said, and tell of it. A mutation is not committed."""
        key = bearer_key(request)
        self._keys.require(key, Right.READ)
        call = parse_call(await self._bodies.fields(request), request, self._functions.arguments_schema)
        kind = explainable(self._functions.kind(call.name, internal=True), call.name)
        if kind == "mutation":
            self._keys.require(key, Right.RUN)
        identity = self._identity(key, call)
        with self._begun():
            told = await self._explainer.explain(kind, call.name, call.arguments, identity)
        if kind == "query":
            told["live"] = await self._explainer.live(call.name, call.arguments, identity)
        else:
            told["conflicts"] = self._explainer.conflicts(call.name)
        return json_response({"status": "success", "function": call.name, "kind": kind, **told})

    async def _reruns(self, request: web.Request) -> web.Response:
        """How the live queries of `path` and `args` get on; of causes those after `after`."""
        key = bearer_key(request)
        self._keys.require(key, Right.READ)
        fields = await self._bodies.fields(request)
        call = parse_call(fields, request, self._functions.arguments_schema)
        after = fields.get("after", 0)
        if isinstance(after, bool) or not isinstance(after, int) or after < 0:
            raise RequestError("`after` is the number of a cause, from 0")
        live = await self._explainer.live(call.name, call.arguments, self._identity(key, call), after)
        return json_response({"status": "success", "live": live})

    async def _conflicts(self, request: web.Request) -> web.Response:
        """Which mutations have lost to which others; of `function` if it is said."""
        self._keys.require(bearer_key(request), Right.READ)
        conflicts: list[dict[str, Any]] = self._explainer.conflicts(request.query.get("function", ""))
        return json_response({"status": "success", "conflicts": conflicts})

    def _identity(self, key: str | None, call: AskedCall) -> bytes | None:
        if call.act_as is None:
            return None
        name = self._keys.require(key, Right.ACT_AS)
        return self._sign_ins.acting_as(call.act_as, name).identity
