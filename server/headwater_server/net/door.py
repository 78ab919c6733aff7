"""The way in for HTTP: counts connections, and turns away those beyond a limit before they cost anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from headwater_server.net.handler import HttpHandler

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from aiohttp import web

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    b"Content-Type: application/json\r\nContent-Length: 71\r\n\r\n"
    b'{"code":"overloaded","message":"the server has too many connections"}\r\n'
)
_CLOSE_TIMEOUT_S = 2.0
_LINGERING_S = 10.0  # what still comes of a body that is not wanted is read for so long, else a reset overtakes the answer


class HttpDoor:
    """Makes the protocol of each new connection to the HTTP port.

    Args:
        server: aiohttp's.
        limit: Connections at a time, those of WebSockets left out.
        websockets: How many of the open connections are WebSockets; they have a limit of their own.
        idle_limit_s: Time until the head of the first request is there, and of each later one.
        body_limit_s: Time of a request's body.
        header_limit_bytes: Of its first line, and of each header.
    """

    def __init__(
        self,
        server: web.Server,
        limit: int,
        websockets: Callable[[], int],
        idle_limit_s: float,
        body_limit_s: float,
        header_limit_bytes: int,
    ) -> None:
        self._server = server
        self._limit = limit
        self._websockets = websockets
        self._idle_limit_s = idle_limit_s
        self._header_limit_bytes = header_limit_bytes
        self._lingering_s = min(body_limit_s, _LINGERING_S)

    def __call__(self) -> asyncio.BaseProtocol:
        """Return what serves a new connection."""
        if len(self._server.connections) - self._websockets() >= self._limit:
            return _Refusal()
        return HttpHandler(
            self._server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_limit_s,
            lingering_time=self._lingering_s,
            max_line_size=self._header_limit_bytes,
            max_field_size=self._header_limit_bytes,
            access_log=cast("logging.Logger", None),  # so the library says that there is none
        )


class _Refusal(asyncio.Protocol):
    """Answers 503 and ends, whatever is asked; the client's own end closes the socket, or a timer."""

    _cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast("asyncio.Transport", transport)
        stream.write(_FULL)
        if stream.can_write_eof():
            stream.write_eof()
        else:  # TLS, which has an end of its own
            stream.close()
        self._cut = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, stream.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._cut is not None:
            self._cut.cancel()
