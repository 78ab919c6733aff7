"""Thousands of clients in one process: the protocol's own session over bare sockets, as little around it as there can be.

Like the SDK's client each connects again after a pause with chance in it, sends its heartbeats, and resumes.
A client can be told to stop reading. Faults it may produce: none but that.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from typing import TYPE_CHECKING, Any, cast

from headwater_protocol.backoff import backoff_s
from headwater_protocol.client_events import Fatal, MutationResolved, PeerSilent, ValueChanged
from headwater_protocol.client_session import ClientSession
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.values import pack_value

from benchmarks.websockets import FrameReader
from support.wire_client import UPGRADE, masked_frame

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

FRAME_LIMIT_BYTES = 1 << 24
_TICKS_PER_HEARTBEAT = 4
_OPEN_TIMEOUT_S = 10.0  # that of the SDK's client


def allow_sockets(count: int) -> None:
    """Raise this process's limit on open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, count)), hard))


class Member:
    """One client. `run` it as a task.

    Attributes:
        values: What each of its queries shows.
        ended: How often the server has said why it ends the connection, by code.
        connections: How many it has had.
        on_value: Called with each value that comes.
        receive_buffer_bytes: What the system keeps for it unread; 0 leaves that to the system.
    """

    def __init__(self, port: int, chance: random.Random, *, websocket: bool) -> None:
        self._port = port
        self._chance = chance
        self._websocket = websocket
        self._link: _Link | None = None
        self._attempt = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.session = ClientSession(chance.randbytes(16), "crowd")
        self.values: dict[int, Any] = {}
        self.ended: list[str] = []
        self.connections = 0
        self.receive_buffer_bytes = 0
        self.on_value: Callable[[Any], None] = lambda value: None

    def subscribe(self, name: str, /, **arguments: Any) -> int:
        """Follow a query."""
        number = self.session.subscribe(name, pack_value(arguments))
        self._flush()
        return number

    async def mutation(self, name: str, /, **arguments: Any) -> Any:
        """Return a mutation's result, or raise its error."""
        request = self.session.mutate(name, pack_value(arguments))
        future = self._waiting[request] = asyncio.get_running_loop().create_future()
        self._flush()
        return await future

    def stop_reading(self) -> None:
        """Take nothing any more from the present connection."""
        self._transport().pause_reading()

    def read_on(self) -> None:
        """Read again, if the connection is still there."""
        if self._link is not None:
            self._transport().resume_reading()

    def _transport(self) -> asyncio.Transport:
        assert self._link is not None
        assert self._link.transport is not None
        return self._link.transport

    @property
    def is_open(self) -> bool:
        """Whether the server has accepted the present connection."""
        return self.session.is_open

    async def run(self) -> None:
        """Stay connected until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            link = _Link(self)
            try:
                async with asyncio.timeout(_OPEN_TIMEOUT_S):
                    await loop.create_connection(lambda link=link: link, "127.0.0.1", self._port)  # type: ignore[misc]
            except (OSError, TimeoutError):
                pass
            else:
                self._link = link
                try:
                    await self._serve(link)
                finally:
                    self._link = None
                    link.cut()
                    self.session.disconnected()
            await asyncio.sleep(backoff_s(self._attempt, self._chance.random()))
            self._attempt += 1

    async def _serve(self, link: _Link) -> None:
        self.connections += 1
        self.session.connect()
        if self.receive_buffer_bytes:
            raw = self._transport().get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.receive_buffer_bytes)
        link.greet(websocket=self._websocket)
        self._flush()
        loop = asyncio.get_running_loop()
        while not link.over.is_set():
            self.take(self.session.tick(loop.time()))
            self._flush()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.session.heartbeat_s / _TICKS_PER_HEARTBEAT):
                    await link.over.wait()

    def received(self, message: bytes) -> None:
        """Take one message of the server."""
        self.take(self.session.receive(message))
        if self._attempt and self.session.settled:
            self._attempt = 0
        self._flush()

    def take(self, events: Any) -> None:
        for event in events:
            match event:
                case ValueChanged(number, value):
                    self.values[number] = value
                    self.on_value(value)
                case MutationResolved(request, value, error):
                    future = self._waiting.pop(request)
                    if future.done():
                        continue
                    if error is None:
                        future.set_result(value)
                    else:
                        future.set_exception(error)
                case Fatal(error):
                    self.ended.append(error.code)
                    if self._link is not None:
                        self._link.cut()
                case PeerSilent():
                    if self._link is not None:
                        self._link.cut()

    def _flush(self) -> None:
        if self._link is not None:
            for message in self.session.take_frames():
                self._link.send(message, websocket=self._websocket)


class _Link(asyncio.Protocol):
    def __init__(self, member: Member) -> None:
        self._member = member
        self._head: bytes | None = None
        self._frames = FrameReader()
        self._decoder = FrameDecoder(FRAME_LIMIT_BYTES)
        self.transport: asyncio.Transport | None = None
        self.over = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def greet(self, *, websocket: bool) -> None:
        if websocket and self.transport is not None:
            self._head = b""
            self.transport.write(UPGRADE.encode())

    def send(self, message: bytes, *, websocket: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(masked_frame(message) if websocket else frame(message))

    def data_received(self, data: bytes) -> None:
        if self.over.is_set():
            return
        if not self._member._websocket:
            for message in self._decoder.feed(data):
                self._member.received(message)
            return
        if self._head is not None:
            self._head += data
            head, found, data = self._head.partition(b"\r\n\r\n")
            if not found:
                return
            if b" 101 " not in head.split(b"\r\n", 1)[0]:
                self.cut()
                return
            self._head = None
        for payload in self._frames.feed(data):
            self._member.received(bytes(payload))

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()

    def cut(self) -> None:
        self.over.set()
        if self.transport is not None:
            self.transport.abort()
