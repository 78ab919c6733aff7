"""The page at `/`, for people with a browser: version, functions, tables, and a live log, for those with a key.

The page itself says nothing that `/health` does not. What it shows it asks for with the key that was typed into it.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_FILES = {
    "/": ("index.html", "text/html"),
    "/start/page.js": ("page.js", "text/javascript"),
    "/start/page.css": ("page.css", "text/css"),
}
_HEADERS = {
    # Nothing from elsewhere, nothing inline, in no frame: a key is typed into it.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:;"
    " form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}


class StartPage:
    """Its files; `add_to` puts them into an aiohttp application."""

    def __init__(self) -> None:
        self._folder = files("headwater_server.net") / "start_page_files"

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        for path, (name, kind) in _FILES.items():
            app.router.add_get(path, self._serving(name, kind))

    def _serving(self, name: str, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(_: web.Request) -> web.Response:
            body = (self._folder / name).read_bytes()
            return web.Response(body=body, content_type=kind, charset="utf-8", headers=_HEADERS)

        return serve
