"""The deployment as an issuer, over HTTP: its public keys for everybody, and a new key at an administrator's word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from headwater_protocol.errors import RequestError

from headwater_server.net.http_api import Bodies, json_response
from headwater_server.net.key_api import decoded
from headwater_server.net.keys import AdminKeys, Right, bearer_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from aiohttp import web

_KEYS_PATH = "/.well-known/jwks.json"
_DISCOVERY_PATH = "/.well-known/openid-configuration"
_PUBLIC = {"Access-Control-Allow-Origin": "*", "Cache-Control": "public, max-age=300"}


class Issuer(Protocol):
    """Who signs."""

    enabled: bool
    issuer: str

    def jwks(self) -> dict[str, Any]:
        """Return the public keys."""

    async def rotate(self, *, revoke: bool) -> str:
        """Sign with a new key, and return its name."""


class _Rotation(msgspec.Struct, forbid_unknown_fields=True):
    revoke: bool = False


class IssuerApi:
    """The routes; `add_to` puts them into an aiohttp application.

    Args:
        issuer: Who signs.
        keys: Who may have the key changed.
        begun: Wraps what a stop waits for.
        bodies: Reads requests.
    """

    def __init__(
        self,
        issuer: Issuer,
        keys: AdminKeys,
        begun: Callable[[], AbstractContextManager[None]],
        bodies: Bodies,
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._begun = begun
        self._bodies = bodies

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get(_KEYS_PATH, self._get_keys)
        app.router.add_get(_DISCOVERY_PATH, self._get_discovery)
        app.router.add_post("/api/admin/signing-key/rotate", self._rotate)

    async def _get_keys(self, request: web.Request) -> web.Response:
        self._require_accounts()
        return _public(self._issuer.jwks())

    async def _get_discovery(self, request: web.Request) -> web.Response:
        """Tell what whoever verifies tokens asks for; there is nothing to sign in at for others."""
        self._require_accounts()
        issuer = self._issuer.issuer
        return _public(
            {
                "issuer": issuer,
                "jwks_uri": issuer.rstrip("/") + _KEYS_PATH,
                "response_types_supported": [],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["ES256"],
            }
        )

    async def _rotate(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.ADMINISTER)
        asked = decoded(await self._bodies.read(request), _Rotation)
        with self._begun():
            key_id = await self._issuer.rotate(revoke=asked.revoke)
        return json_response({"status": "success", "key_id": key_id})

    def _require_accounts(self) -> None:
        if not self._issuer.enabled:
            raise RequestError(
                "this deployment signs no tokens: its bundle has no accounts", code="unknown_function"
            )


def _public(fields: dict[str, Any]) -> web.Response:
    response = json_response(fields)
    response.headers.update(_PUBLIC)
    return response
