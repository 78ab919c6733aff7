"""The tables and their documents as they are stored, for those with a key that may look at them."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import RequestError

from headwater_server.net.http_api import json_response
from headwater_server.net.json_values import to_json
from headwater_server.net.keys import AdminKeys, Right, bearer_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiohttp import web

    from headwater_server.functions.table_browser import BrowsedPage, BrowsedTable

_PAGE_SIZE = "50"


class Browser(Protocol):
    """Looks at tables."""

    async def tables(self) -> Sequence[BrowsedTable]:
        """Return them by name."""

    async def page(
        self, table: str, *, index: str | None, descending: bool, size: int, cursor: str | None
    ) -> BrowsedPage:
        """Return documents of a table."""


class DataApi:
    """The routes; `add_to` puts them into an aiohttp application."""

    def __init__(self, browser: Browser, keys: AdminKeys) -> None:
        self._browser = browser
        self._keys = keys

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/api/admin/tables", self._get_tables)
        app.router.add_get("/api/admin/documents", self._get_documents)

    async def _get_tables(self, request: web.Request) -> web.Response:
        self._keys.require(bearer_key(request), Right.BROWSE)
        tables = [asdict(table) for table in await self._browser.tables()]
        return json_response({"status": "success", "tables": tables})

    async def _get_documents(self, request: web.Request) -> web.Response:
        """Documents of `table`, in the order of `index` or of creation; `order`, `limit` and `cursor` say which."""
        self._keys.require(bearer_key(request), Right.BROWSE)
        asked = request.query
        order = asked.get("order", "desc")
        if order not in ("asc", "desc"):
            raise RequestError(f"`order` is asc or desc, not {order[:100]!r}")
        limit = asked.get("limit", _PAGE_SIZE)
        if not (limit.isascii() and limit.isdigit() and len(limit) < 10):
            raise RequestError(f"`limit` is a number of documents, not {limit[:100]!r}")
        page = await self._browser.page(
            asked.get("table", ""),
            index=asked.get("index"),
            descending=order == "desc",
            size=int(limit),
            cursor=asked.get("cursor"),
        )
        documents = [to_json(document, "json") for document in page.documents]
        return json_response({"status": "success", "documents": documents, "cursor": page.cursor})
