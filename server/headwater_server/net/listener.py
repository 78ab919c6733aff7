"""One port that is listened on: connections are counted as they come, before anything is allocated for them.

Those that are let in get their TLS here, if there is any, and then the protocol that serves them.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from headwater_protocol.errors import TransientError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Sequence

    from headwater_server.net.admission import Admission, Arrival, Place

logger = logging.getLogger("headwater.listener")

_BACKLOG = 1024
_ACCEPTED_MAX = 128  # in one turn of the event loop
_REST_S = 0.2  # without room for another file
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_TURNED_AWAY_MAX = 64  # are told why at one time; more are cut off without a word
_TURNED_AWAY_S = 2.0
_SHUTDOWN_S = 2.0  # for a client to say that it has closed as well


@dataclass(frozen=True, slots=True)
class Service:
    """What is served on a port.

    Attributes:
        place: What its connections count as.
        serve: Makes the protocol of a connection that is let in.
        refuse: Returns what one is told that is not.
    """

    place: Place
    serve: Callable[[Arrival], asyncio.BaseProtocol]
    refuse: Callable[[TransientError], bytes]


class Listener:
    """Accepts connections on some sockets, until it is closed.

    Args:
        sockets: Bound, of one port.
        service: What is served.
        admission: Lets connections in.
        tls: With which it is served, None: without.
        handshake_s: How long a handshake may take.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        service: Service,
        admission: Admission,
        tls: ssl.SSLContext | None,
        handshake_s: float,
    ) -> None:
        self._sockets = sockets
        self._service = service
        self._admission = admission
        self._tls = tls
        self._handshake_s = handshake_s
        self._tasks: set[asyncio.Task[None]] = set()
        self._turned_away = 0
        self._rest: asyncio.TimerHandle | None = None  # while there is no room for another file
        self._closed = False

    def start(self) -> None:
        """Listen."""
        for each in self._sockets:
            each.setblocking(False)
            each.listen(_BACKLOG)
        self._read()

    def refuse_new(self) -> None:
        """Accept nothing more; the port is free."""
        if self._closed:
            return
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.remove_reader(each)
            each.close()

    async def close(self) -> None:
        """End the handshakes that are under way."""
        self.refuse_new()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _read(self) -> None:
        self._rest = None
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.add_reader(each, self._accept, each)

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPTED_MAX):
            try:
                connection, peer = listening.accept()
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionAbortedError:  # it has gone away again
                continue
            except OSError as error:
                if error.errno not in _NO_ROOM:
                    raise
                self._wait_for_room(error)
                return
            connection.setblocking(False)
            self._take(connection, str(peer[0]))

    def _wait_for_room(self, error: OSError) -> None:
        """Let connections wait in the system's queue: to try at once would take all of the time."""
        logger.error("no_room_for_connections", extra={"fields": {"error": error.strerror}})
        loop = asyncio.get_running_loop()
        for each in self._sockets:
            loop.remove_reader(each)
        self._rest = loop.call_later(_REST_S, self._read)

    def _take(self, connection: socket.socket, peer: str) -> None:
        arrival = self._admission.arrive(peer, self._service.place)
        if isinstance(arrival, TransientError):
            self._turn_away(connection, arrival)
        elif self._tls is None:
            self._begin(self._serve(connection, arrival))
        elif self._admission.begin_handshake(arrival.account):
            self._begin(self._serve_securely(connection, arrival))
        else:
            arrival.seat.leave()
            connection.close()

    def _begin(self, serving: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(serving)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket, arrival: Arrival) -> None:
        loop, serve = asyncio.get_running_loop(), self._service.serve
        try:
            await loop.connect_accepted_socket(lambda: serve(arrival), connection)
        except BaseException as error:
            arrival.seat.leave()
            if not isinstance(error, OSError):
                raise

    async def _serve_securely(self, connection: socket.socket, arrival: Arrival) -> None:
        loop, serve = asyncio.get_running_loop(), self._service.serve
        try:
            await loop.connect_accepted_socket(
                lambda: serve(arrival),
                connection,
                ssl=self._tls,
                ssl_handshake_timeout=self._handshake_s,
                ssl_shutdown_timeout=_SHUTDOWN_S,
            )
        except BaseException as error:
            arrival.seat.leave()
            if not isinstance(error, OSError):  # else the client has gone, is too slow, or speaks no TLS
                raise
        finally:
            self._admission.end_handshake(arrival.account)

    def _turn_away(self, connection: socket.socket, error: TransientError) -> None:
        """Say why, where that takes no handshake and not too many are being told."""
        if self._tls is not None or self._turned_away >= _TURNED_AWAY_MAX:
            connection.close()
            return
        self._turned_away += 1
        self._begin(self._say(connection, self._service.refuse(error)))

    async def _say(self, connection: socket.socket, last_words: bytes) -> None:
        ended = asyncio.Event()
        try:
            async with asyncio.timeout(_TURNED_AWAY_S):
                transport, _ = await asyncio.get_running_loop().connect_accepted_socket(
                    lambda: LastWords(last_words, ended.set), connection
                )
                try:
                    await ended.wait()
                finally:
                    transport.abort()
        except (OSError, TimeoutError):
            pass
        finally:
            self._turned_away -= 1


class LastWords(asyncio.Protocol):
    """Says something to whoever has connected, and ends, whatever is asked.

    Args:
        content: What is said.
        ended: Called at the end.
    """

    def __init__(self, content: bytes, ended: Callable[[], None]) -> None:
        self._content = content
        self._ended = ended

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say it."""
        stream = cast("asyncio.Transport", transport)
        stream.write(self._content)
        if stream.can_write_eof():
            stream.write_eof()
        else:  # TLS, which has an end of its own
            stream.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client has gone."""
        self._ended()


async def bound_sockets(host: str, port: int) -> list[socket.socket]:
    """Return sockets bound to all addresses of a host, on one port.

    Args:
        host: Address or name; "" is any address.
        port: 0: any that is free.

    Raises:
        OSError: It cannot be had; says which.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            sockets.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            place = (address[0], port or sockets[0].getsockname()[1], *address[2:])
            each.bind(place)
    except OSError as error:
        for each in sockets:
            each.close()
        raise OSError(error.errno, f"{host}:{port} cannot be listened on: {error.strerror}") from None
    return sockets
