"""Addresses that Convex's command line asks for and that are not served: each says what to use instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError

from headwater_server.convex.failures import instead_of

if TYPE_CHECKING:
    from aiohttp import web

_PATHS = (
    "/api/stream_function_logs",
    "/api/update_environment_variables",
    "/api/run_test_function",
    "/api/deploy2/{rest:.+}",
    "/api/push_config",
)


class ConvexTools:
    """The routes; `add_to` puts them into an aiohttp application."""

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        for path in _PATHS:
            app.router.add_route("*", path, self._refuse)

    async def _refuse(self, request: web.Request) -> web.Response:
        message = f"there is nothing at {request.path}. {instead_of(request.path)}"
        raise RequestError(message, code="unknown_function")
