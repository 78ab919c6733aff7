"""The WebSocket shells: one frame, one message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from aiohttp import WSMsgType, web
from headwater_protocol.errors import TransientError

from headwater_server.convex.session import ENVELOPE_BYTES
from headwater_server.net.admission import Place
from headwater_server.net.handler import Passage
from headwater_server.net.inlet import Inflow
from headwater_server.net.request_origin import account_of, arrival_of
from headwater_server.net.sinks import WebSocketSink, limit_unsent

if TYPE_CHECKING:
    from headwater_server.net.admission import Account
    from headwater_server.net.handler import HttpHandler
    from headwater_server.net.hub import Hub


class WebSocketShell:
    """Serves `/sync`, binary frames of our own protocol, and `/api/sync`, text frames of Convex's clients.

    Attributes:
        open: How many there are.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self.open = 0

    def add_to(self, app: web.Application) -> None:
        """Add the routes."""
        app.router.add_get("/sync", self._serve)
        app.router.add_get("/api/sync", self._serve_text)
        app.router.add_get("/api/{version}/sync", self._serve_text)  # theirs, whichever it is

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        limit = self._hub.limits.wire.frame_limit_bytes
        # The library fixes its limit here, and refuses what reaches it: what is compressed is inflated that far.
        # The smaller limit, until Welcome, is the passage's.
        socket = web.WebSocketResponse(
            max_msg_size=limit + 1, compress=self._hub.frames.deflates, autoping=True
        )
        return await self._serve_on(request, socket, Passage(), text=False)

    async def _serve_text(self, request: web.Request) -> web.StreamResponse:
        limits = self._hub.limits.wire
        limit = limits.frame_limit_bytes + ENVELOPE_BYTES
        # These clients answer pings of WebSocket alone. One that is silent is given up as late as others.
        socket = web.WebSocketResponse(
            max_msg_size=limit + 1,
            compress=self._hub.frames.deflates,
            autoping=True,
            decode_text=False,
            heartbeat=2 * limits.heartbeat_ms / 1000,
        )
        return await self._serve_on(request, socket, Passage(limit), text=True)

    async def _serve_on(
        self, request: web.Request, socket: web.WebSocketResponse, passage: Passage, *, text: bool
    ) -> web.StreamResponse:
        hub = self._hub
        if not socket.can_prepare(request):
            raise web.HTTPUpgradeRequired(text=f"{request.path} is a WebSocket")
        if hub.is_full:
            raise web.HTTPServiceUnavailable(text="the server has as many connections as it may")
        account = account_of(request, hub.admission)
        seat = hub.admission.sit(account, Place.SESSION)
        if isinstance(seat, TransientError):
            raise seat
        arrival_of(request).seat.leave()  # it is one of a client from now on
        try:
            return await self._converse(request, socket, passage, account, text=text)
        finally:
            seat.leave()

    async def _converse(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        passage: Passage,
        account: Account | None,
        *,
        text: bool,
    ) -> web.StreamResponse:
        hub = self._hub
        cast("HttpHandler", request.protocol).passage = passage
        await socket.prepare(request)
        transport = cast("asyncio.Transport", request.transport)
        limit_unsent(transport, hub.limits.unsent_bytes)
        sink = WebSocketSink(socket, transport, hub.frames, text=text)
        connection = hub.accept(sink, hub.convex if text else hub.own, account)
        if connection is None:
            return socket
        connection.origin = f"{request.scheme}://{request.host}"
        passage.belong_to(connection)
        self.open += 1
        free = asyncio.Event()
        inflow = Inflow(hub.inlet, connection, free.clear, free.set)
        free.set()
        expected = WSMsgType.TEXT if text else WSMsgType.BINARY
        try:
            async for message in socket:
                if message.type is expected:
                    inflow.feed((message.data,))
                    await free.wait()
                elif message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
                    connection.refuse(
                        "messages are text frames of JSON, not binary"
                        if text
                        else "messages are binary frames of msgpack, not text"
                    )
        finally:
            self.open -= 1
            inflow.close()
            connection.lost()
        return socket
