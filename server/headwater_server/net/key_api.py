"""What administrators do with the keys beside their own: list, make and revoke them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, TypeVar

import msgspec
from headwater_protocol.errors import RequestError

from headwater_server.net.http_api import Bodies, json_response
from headwater_server.net.keys import AdminKeys, Right, bearer_key

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    from aiohttp import web

    from headwater_server.functions.access_keys import ListedKey

_T = TypeVar("_T")


class AccessKeys(Protocol):
    """The keys."""

    def listed(self) -> Sequence[ListedKey]:
        """Return them by name."""

    async def create(self, name: str, role: str) -> str:
        """Make one and return it."""

    async def revoke(self, name: str) -> None:
        """Make one void."""


class _New(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    role: str


class _Old(msgspec.Struct, forbid_unknown_fields=True):
    name: str


class KeyApi:
    """The routes; `add_to` puts them into an aiohttp application.

    Args:
        access_keys: The keys.
        keys: Who may.
        begun: Wraps what a stop waits for.
        bodies: Reads requests.
    """

    def __init__(
        self,
        access_keys: AccessKeys,
        keys: AdminKeys,
        begun: Callable[[], AbstractContextManager[None]],
        bodies: Bodies,
    ) -> None:
        self._access_keys = access_keys
        self._keys = keys
        self._begun = begun
        self._bodies = bodies

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/api/admin/keys", self._list)
        app.router.add_post("/api/admin/keys", self._create)
        app.router.add_post("/api/admin/keys/revoke", self._revoke)

    async def _list(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.ADMINISTER)
        listed = [
            {
                "name": one.key.name,
                "role": one.key.role,
                "created_ms": one.key.created_us / 1000,
                "used_ms": None if one.used_us is None else one.used_us / 1000,
            }
            for one in self._access_keys.listed()
        ]
        return json_response({"status": "success", "keys": listed})

    async def _create(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.ADMINISTER)
        new = decoded(await self._bodies.read(request), _New)
        with self._begun():
            return json_response(
                {"status": "success", "key": await self._access_keys.create(new.name, new.role)}
            )

    async def _revoke(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.ADMINISTER)
        old = decoded(await self._bodies.read(request), _Old)
        with self._begun():
            await self._access_keys.revoke(old.name)
        return json_response({"status": "success"})


def decoded(body: bytes, kind: type[_T]) -> _T:
    """Return what a request's JSON says; raises RequestError, without the text of the body, if it is another form."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RequestError(f"the body: {error}") from None
