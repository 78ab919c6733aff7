"""The ports that a daemon listens on, and what ends them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

from headwater_server.net.admission import Admission, Place
from headwater_server.net.door import HttpDoor, http_refusal
from headwater_server.net.listener import Listener, Service, bound_sockets
from headwater_server.net.tcp import tcp_refusal

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

    from headwater_server.net.admission import Arrival

_STOP_S = 0.3  # for answers on their way, and as long again for handlers that are cancelled
_HANDSHAKE_S = 10.0


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """Bounds of connections over HTTP.

    Attributes:
        connections_max: So many at a time on one port, those of WebSockets left out.
        idle_limit_s: Time until the head of a request is there.
        body_limit_s: Time of a request's body.
        header_limit_bytes: Of a line of its head.
        head_limit_bytes: Of its head.
    """

    connections_max: int
    idle_limit_s: float
    body_limit_s: float
    header_limit_bytes: int
    head_limit_bytes: int


class Listeners:
    """All ports of one daemon.

    Args:
        options: Bounds.
        admission: Lets connections in.

    Attributes:
        tls: With which all of them speak, None: none does. Set before the first is opened.
    """

    def __init__(self, options: DoorOptions, admission: Admission) -> None:
        self._options = options
        self._admission = admission
        self.tls: ssl.SSLContext | None = None
        self._open: list[Listener] = []
        self._runners: list[web.BaseRunner] = []

    async def open_app(
        self, app: web.Application, host: str, port: int, websockets: Callable[[], int]
    ) -> int:
        """Serve an application over HTTP; returns the port.

        Args:
            app: The application.
            host: Address.
            port: 0 takes any.
            websockets: Returns how many of the open connections are WebSockets.
        """
        runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=_STOP_S)
        return await self._open_http(runner, host, port, websockets)

    async def open_handler(
        self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]], host: str, port: int
    ) -> int:
        """Have one function answer all requests over HTTP; returns the port."""
        runner = web.ServerRunner(web.Server(handler), handle_signals=False, shutdown_timeout=_STOP_S)
        return await self._open_http(runner, host, port, lambda: 0)

    async def open_tcp(
        self, protocol: Callable[[Arrival], asyncio.BaseProtocol], host: str, port: int
    ) -> int:
        """Serve a protocol of messages behind their lengths over TCP; returns the port."""
        return await self._listen(Service(Place.SESSION, protocol, tcp_refusal), host, port)

    async def _listen(self, service: Service, host: str, port: int) -> int:
        sockets = await bound_sockets(host, port)
        handshake_s = min(self._options.idle_limit_s, _HANDSHAKE_S)
        listener = Listener(sockets, service, self._admission, self.tls, handshake_s)
        listener.start()
        self._open.append(listener)
        found: int = sockets[0].getsockname()[1]
        return found

    async def _open_http(
        self, runner: web.BaseRunner, host: str, port: int, websockets: Callable[[], int]
    ) -> int:
        options = self._options
        await runner.setup()
        self._runners.append(runner)
        assert runner.server is not None, "it has been set up"
        door = HttpDoor(
            runner.server,
            options.connections_max,
            websockets,
            options.idle_limit_s,
            options.body_limit_s,
            options.header_limit_bytes,
            options.head_limit_bytes,
        )
        return await self._listen(Service(Place.HTTP, door, http_refusal), host, port)

    def refuse_new(self) -> None:
        """Take no new connections."""
        for listener in self._open:
            listener.refuse_new()

    async def close(self) -> None:
        """End what is still open."""
        await asyncio.gather(
            *(runner.cleanup() for runner in self._runners), *(listener.close() for listener in self._open)
        )
