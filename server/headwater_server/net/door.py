"""The way in for HTTP: counts connections, and turns away those beyond a limit before they cost anything."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

import orjson

from headwater_server.net.handler import HttpHandler
from headwater_server.net.http_api import retry_after
from headwater_server.net.listener import LastWords

if TYPE_CHECKING:
    import logging
    from collections.abc import Callable

    from aiohttp import web
    from headwater_protocol.errors import HeadwaterError

    from headwater_server.net.admission import Arrival

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
        head_limit_bytes: Of all of them together.
    """

    def __init__(
        self,
        server: web.Server,
        limit: int,
        websockets: Callable[[], int],
        idle_limit_s: float,
        body_limit_s: float,
        header_limit_bytes: int,
        head_limit_bytes: int,
    ) -> None:
        self._server = server
        self._limit = limit
        self._websockets = websockets
        self._idle_limit_s = idle_limit_s
        self._header_limit_bytes = header_limit_bytes
        self._head_limit_bytes = head_limit_bytes
        self._lingering_s = min(body_limit_s, _LINGERING_S)

    def __call__(self, arrival: Arrival) -> asyncio.BaseProtocol:
        """Return what serves a connection that is on its way."""
        return _Entrance(self, arrival)

    def protocol_of(self, arrival: Arrival) -> asyncio.Protocol:
        """Return what serves a connection that is there, with its TLS if it has one."""
        if len(self._server.connections) - self._websockets() >= self._limit:
            return _Refusal(arrival)
        handler = HttpHandler(
            self._server,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=self._idle_limit_s,
            lingering_time=self._lingering_s,
            max_line_size=self._header_limit_bytes,
            max_field_size=self._header_limit_bytes,
            access_log=cast("logging.Logger", None),  # so the library says that there is none
        )
        handler.arrival = arrival
        handler.bound_heads(self._head_limit_bytes)
        return handler


class _Entrance(asyncio.Protocol):
    """Decides once a connection is there: by then all before it are counted."""

    def __init__(self, door: HttpDoor, arrival: Arrival) -> None:
        self._door = door
        self._arrival = arrival

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        protocol = self._door.protocol_of(self._arrival)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)


class _Refusal(LastWords):
    """Answers 503; the client's own end closes the socket, or a timer."""

    def __init__(self, arrival: Arrival) -> None:
        super().__init__(_FULL, arrival.seat.leave)
        self._cut: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cut = cast("asyncio.Transport", transport).abort
        self._cut = asyncio.get_running_loop().call_later(_CLOSE_TIMEOUT_S, cut)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._cut is not None:
            self._cut.cancel()


def http_refusal(error: HeadwaterError) -> bytes:
    """Return what a connection is answered, whatever it asks, that is refused for now."""
    body = orjson.dumps({"code": error.code, "message": error.message})
    return (
        b"HTTP/1.1 %d Refused\r\nRetry-After: %s\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
        % (
            error.entry.http_status,
            retry_after(error).encode(),
            len(body),
            body,
        )
    )
