"""Environment variables over HTTP, for whoever may deploy: list, set and remove them. A secret one is shown to nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from headwater_server.net.http_api import Bodies, json_response
from headwater_server.net.key_api import decoded
from headwater_server.net.keys import AdminKeys, Right, bearer_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from aiohttp import web

    from headwater_server.functions.variables import ListedVariable


class Variables(Protocol):
    """The variables."""

    def listed(self) -> Sequence[ListedVariable]:
        """Return them by name."""

    async def set(self, name: str, value: str, *, secret: bool) -> bool:
        """Set one; tell whether it is a secret."""

    async def remove(self, name: str) -> None:
        """Remove one."""


class _New(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    value: str
    secret: bool = False


class _Old(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class EnvironmentApi:
    """The routes; `add_to` puts them into an aiohttp application.

    Args:
        variables: The variables.
        keys: Who may.
        begun: Wraps what a stop waits for.
        bodies: Reads requests.
    """

    def __init__(
        self,
        variables: Variables,
        keys: AdminKeys,
        begun: Callable[[], AbstractContextManager[None]],
        bodies: Bodies,
    ) -> None:
        self._variables = variables
        self._keys = keys
        self._begun = begun
        self._bodies = bodies

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/api/admin/environment", self._list)
        app.router.add_post("/api/admin/environment", self._set)
        app.router.add_post("/api/admin/environment/remove", self._remove)

    async def _list(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DEPLOY)
        listed = [
            {
                "name": one.name,
                "secret": one.secret,
                "value": one.value,
                "updated_ms": None if one.updated_us is None else one.updated_us / 1000,
                "kind": one.kind,
                "required": one.required,
            }
            for one in self._variables.listed()
        ]
        return json_response({"status": "success", "variables": listed})

    async def _set(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DEPLOY)
        new = decoded(await self._bodies.read(request), _New)
        with self._begun():
            secret = await self._variables.set(new.name, new.value, secret=new.secret)
        return json_response({"status": "success", "secret": secret})

    async def _remove(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.DEPLOY)
        old = decoded(await self._bodies.read(request), _Old)
        with self._begun():
            await self._variables.remove(old.name)
        return json_response({"status": "success"})
