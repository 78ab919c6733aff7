"""The network of the simulated world, between the real client and the daemon's real connections.

Faults it may have: frames take their time, in order for each direction; a connection ends at any
moment, for one side or both, with frames under way lost; it goes on for one side while the other
hears nothing (half open); nobody can be reached for a while; a client reads slowly.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from headwater.client.transport import CannotConnectError, TransportClosedError

from support.world.timeline import TICK_S

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from headwater_server.net.connection import Connection

    from support.world.life import Life
    from support.world.timeline import Timeline, VirtualLoop


class Wire:
    """One connection: the client's transport, and the daemon's sink.

    Attributes:
        cut_for: Ends that have been told that it has ended.
    """

    def __init__(self, network: Network, life: Life, name: str) -> None:
        self.name = name
        self.life = life
        self.lost_to_server = False  # what is sent to it does not arrive
        self.lost_to_client = False
        self.connection: Connection | None = None
        self._network = network
        self._random = network.random
        self._outside = network.loop
        self._received: deque[bytes] = deque()
        self._arrived = asyncio.Event()
        self._ended = ""
        self._server_open = True
        self._last_to_server = self._last_to_client = 0.0
        self._unsent = 0
        self._slow_until = 0.0

    def _delay(self) -> float:
        return self._random.choice(self._network.delays_s)

    # ---------------------------------------------------------------------------- the client's transport

    async def send(self, frame: bytes) -> None:
        if self._ended:
            raise TransportClosedError(self._ended)
        self._to_server(self._receive_frame, frame)

    def _to_server(self, action: Any, *arguments: Any) -> None:
        when = max(self._last_to_server + TICK_S, self._outside.time() + self._delay())
        self._last_to_server = when
        self.life.loop.at(when, action, *arguments)

    def _receive_frame(self, frame: bytes) -> None:
        if self._server_open and not self.lost_to_server and self.connection is not None:
            self.connection.receive(frame)

    async def receive(self) -> bytes:
        while not self._received:
            if self._ended:
                raise TransportClosedError(self._ended)
            self._arrived.clear()
            await self._arrived.wait()
        return self._received.popleft()

    async def close(self) -> None:
        self._end("closed here")
        self._to_server(self._server_lost)

    def _server_lost(self) -> None:
        if self._server_open and not self.lost_to_server and self.connection is not None:
            self._server_open = False
            self.connection.lost()

    def _end(self, reason: str) -> None:
        if not self._ended:
            self._ended = reason
            self._network.wires.discard_wire(self)
            self._arrived.set()

    # -------------------------------------------------------------------------------- the daemon's sink

    def send_all(self, messages: Sequence[bytes]) -> None:
        if self._server_open and not self.life.loop.dead:
            size = sum(map(len, messages))
            self._unsent += size
            self._to_client(self._take, list(messages), size)

    def _to_client(self, action: Any, *arguments: Any) -> None:
        when = max(self._last_to_client + TICK_S, self._outside.time() + self._delay(), self._slow_until)
        self._last_to_client = when
        self._outside.at(when, action, *arguments)

    def _take(self, messages: list[bytes], size: int) -> None:
        self._unsent -= size
        if not self._ended and not self.lost_to_client:
            self._received += messages
            self._arrived.set()

    def unsent_bytes(self) -> int:
        return self._unsent

    def close_from_server(self, reason: str) -> None:
        self._server_open = False
        self._to_client(self._client_told, reason)

    def abort(self) -> None:
        self._server_open = False
        self._outside.at(self._outside.time() + self._delay(), self._client_told, "reset")

    def _client_told(self, reason: str) -> None:
        if not self.lost_to_client:
            self._end(reason)

    # ------------------------------------------------------------------------------------------- faults

    def cut(self) -> None:
        """End it: each side hears of it, or loses what is under way, or hears nothing."""
        kind = self._random.choice(("both", "client", "server", "half to server", "half to client"))
        self._network.timeline.note(f"{self.name} is cut: {kind}")
        match kind:
            case "both":
                self._end("cut")
                self.life.loop.at(self._outside.time() + self._delay(), self._server_lost)
                self.lost_to_client = True
            case "client":
                self._end("cut")
                self.lost_to_server = self.lost_to_client = True
            case "server":
                self.life.loop.at(self._outside.time(), self._server_lost)
                self.lost_to_client = True
            case "half to server":
                self.lost_to_server = True
            case "half to client":
                self.lost_to_client = True

    def stall(self, seconds: float) -> None:
        """Let the client read nothing for a while."""
        self._slow_until = self._outside.time() + seconds

    def server_died(self, *, tells: bool) -> None:
        """The daemon's machine says that nobody is there, or nothing if it is gone as well."""
        self._server_open = False
        if tells:
            self._to_client(self._client_told, "connection reset")


class _Sink:
    """Implements `Sink`."""

    def __init__(self, wire: Wire) -> None:
        self.send = wire.send_all
        self.unsent_bytes = wire.unsent_bytes
        self.abort = wire.abort
        self._wire = wire

    def close(self, code: int, reason: str) -> None:
        self._wire.close_from_server(f"closed with code {code}")


class _Wires(dict[Wire, None]):
    def discard_wire(self, wire: Wire) -> None:
        self.pop(wire, None)


class Network:
    """All connections. `open` is what clients connect with.

    Attributes:
        life: The daemon that answers now; None while there is none.
        is_down: Nobody can be reached.
        delays_s: What a frame may take.
    """

    def __init__(self, timeline: Timeline, loop: VirtualLoop, random: Random) -> None:
        self.timeline = timeline
        self.loop = loop
        self.random = random
        self.life: Life | None = None
        self.is_down = False
        self.delays_s: tuple[float, ...] = (0.0001, 0.0003, 0.002, 0.01)
        self.wires = _Wires()
        self._count = 0

    async def open(self, _address: object, /, *, frame_limit_bytes: int) -> Wire:
        await asyncio.sleep(self.random.choice(self.delays_s))
        life = self.life
        if life is None or self.is_down or not life.serves:
            raise CannotConnectError("connection refused")
        self._count += 1
        wire = Wire(self, life, f"wire {self._count}")
        self.wires[wire] = None
        accepted = self.loop.create_future()
        life.loop.at(self.loop.time(), self._accept, wire, accepted)
        try:
            async with asyncio.timeout(1.0):
                await accepted
        except TimeoutError:
            wire._end("nobody answers")
            raise CannotConnectError("nobody answers") from None
        return wire

    def _accept(self, wire: Wire, accepted: asyncio.Future[None]) -> None:
        wire.connection = wire.life.daemon.hub.accept(_Sink(wire))
        self.loop.at(self.loop.time() + self.random.choice(self.delays_s), _resolve, accepted)

    def daemon_ended(self, life: Life, *, tells: bool) -> None:
        """All connections of a daemon end with it."""
        for wire in [wire for wire in self.wires if wire.life is life]:
            wire.server_died(tells=tells)


def _resolve(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
