"""The ports that a daemon listens on, and what ends them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING

from aiohttp import web

from headwater_server.net.door import HttpDoor

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable

_STOP_S = 0.3  # for answers on their way, and as long again for handlers that are cancelled
_HANDSHAKE_S = 10.0
_SHUTDOWN_S = 2.0  # for a client to say that it has closed as well
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class DoorOptions:
    """Bounds of connections over HTTP.

    Attributes:
        connections_max: So many at a time on one port, those of WebSockets left out.
        idle_limit_s: Time until the head of a request is there.
        body_limit_s: Time of a request's body.
        header_limit_bytes: Of a line of its head.
    """

    connections_max: int
    idle_limit_s: float
    body_limit_s: float
    header_limit_bytes: int


class Listeners:
    """All ports of one daemon.

    Args:
        options: Bounds.

    Attributes:
        tls: With which all of them speak, None: none does. Set before the first is opened.
    """

    def __init__(self, options: DoorOptions) -> None:
        self._options = options
        self.tls: ssl.SSLContext | None = None
        self._servers: list[asyncio.Server] = []
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

    async def open_tcp(self, protocol: Callable[[], asyncio.BaseProtocol], host: str, port: int) -> int:
        """Serve a protocol over TCP; returns the port."""
        limit_s = None if self.tls is None else min(self._options.idle_limit_s, _HANDSHAKE_S)
        server = await asyncio.get_running_loop().create_server(
            protocol,
            host,
            port,
            backlog=_BACKLOG,
            ssl=self.tls,
            ssl_handshake_timeout=limit_s,
            ssl_shutdown_timeout=None if self.tls is None else _SHUTDOWN_S,
        )
        self._servers.append(server)
        found: int = server.sockets[0].getsockname()[1]
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
        )
        return await self.open_tcp(door, host, port)

    def refuse_new(self) -> None:
        """Take no new connections."""
        for server in self._servers:
            server.close()

    async def close(self) -> None:
        """End what is still open."""
        await asyncio.gather(*(runner.cleanup() for runner in self._runners))


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
