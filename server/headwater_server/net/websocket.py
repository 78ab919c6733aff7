"""The WebSocket shell: one binary frame, one message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import WSMsgType, web

from headwater_server.net.handler import Passage
from headwater_server.net.inlet import Inflow
from headwater_server.net.sinks import WebSocketSink, limit_unsent

if TYPE_CHECKING:
    from headwater_server.net.handler import HttpHandler
    from headwater_server.net.hub import Hub


class WebSocketShell:
    """Serves `/sync`.

    Attributes:
        open: How many there are.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.open = 0

    def add_to(self, app: web.Application) -> None:
        """Add the route."""
        app.router.add_get("/sync", self._serve)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        limit = self._hub.limits.wire.frame_limit_bytes
        # The library fixes its limit here, and refuses what reaches it: what is compressed is inflated that far.
        # The smaller limit, until Welcome, is the passage's.
        socket = web.WebSocketResponse(
            max_msg_size=limit + 1, compress=self._hub.frames.deflates, autoping=True
        )
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text="/sync is a WebSocket")
        if self._hub.is_full:
            raise web.HTTPServiceUnavailable(text="the server has as many connections as it may")
        passage = Passage()
        cast("HttpHandler", request.protocol).passage = passage
        await socket.prepare(request)
        transport = cast("asyncio.Transport", request.transport)
        limit_unsent(transport, self._hub.limits.unsent_bytes)
        connection = self._hub.accept(WebSocketSink(socket, transport, self._hub.frames))
        if connection is None:
            return socket
        passage.belong_to(connection)
        self.open += 1
        free = asyncio.Event()
        inflow = Inflow(self._hub.inlet, connection, free.clear, free.set)
        free.set()
        try:
            async for message in socket:
                if message.type is WSMsgType.BINARY:
                    inflow.feed((message.data,))
                    await free.wait()
                elif message.type is WSMsgType.TEXT:
                    connection.refuse("messages are binary frames of msgpack, not text")
        finally:
            self.open -= 1
            inflow.close()
            connection.lost()
        return socket
