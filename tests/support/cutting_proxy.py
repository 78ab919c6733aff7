"""A proxy between clients and a daemon that cuts connections where the test wants them cut.

Each connection gets a plan: at which of its requests or answers it ends, and how. It understands just
enough of both transports to find where messages begin and end. Its faults are a connection that ends,
and bytes behind the cut that never arrive; it changes, reorders and invents nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from headwater_protocol.messages import Mutation, MutationAnswer

if TYPE_CHECKING:
    from collections.abc import Callable

_READ_BYTES = 64 * 1024
_BINARY = 2
_RESET = struct.pack("ii", 1, 0)  # a socket that lingers for no time is closed by RST


class Point(Enum):
    """Where a connection is cut."""

    BEFORE_REQUEST = "before the request"
    IN_REQUEST = "in the request"
    AFTER_REQUEST = "after the request"
    IN_ANSWER = "in the answer"
    AFTER_ANSWER = "after the answer"


@dataclass(frozen=True)
class Plan:
    """How one connection ends.

    Attributes:
        point: Where.
        count: At which of the connection's mutations, or of their answers.
        part: How much of the message comes through, for cuts inside of one.
        reset: By RST, not by FIN.
        lag_s: How much later the daemon's side ends; for a cut behind a request how long the answer is held.
    """

    point: Point
    count: int
    part: float = 0.5
    reset: bool = False
    lag_s: float = 0.0


class Message(NamedTuple):
    """Where a message lies in its stream, and the number that says what it is."""

    start: int
    end: int
    tag: int


class Messages:
    """Finds the messages in one direction of a connection."""

    def __init__(self, *, websocket: bool) -> None:
        self._websocket = websocket
        self._greeted = not websocket  # a WebSocket begins with a head of HTTP
        self._buffer = bytearray()
        self._position = 0  # of the buffer's first byte in the stream
        self._skip = 0  # bytes of the message at hand that have not come yet

    def feed(self, data: bytes) -> list[Message]:
        """Return the messages whose first bytes are complete with this piece."""
        found: list[Message] = []
        self._buffer += data
        while True:
            gone = min(self._skip, len(self._buffer))
            del self._buffer[:gone]
            self._position += gone
            self._skip -= gone
            if self._skip or not self._find(found):
                return found

    def _find(self, found: list[Message]) -> bool:
        if not self._greeted:
            head = self._buffer.find(b"\r\n\r\n")
            self._greeted = head >= 0
            self._skip = head + 4 if head >= 0 else 0
            return self._greeted
        header = self._websocket_header() if self._websocket else self._tcp_header()
        if header is None:
            return False
        head, length, mask, binary = header
        if len(self._buffer) < head + min(length, 2):
            return False
        if binary and length >= 2:
            tag = self._buffer[head + 1] ^ (mask[1] if mask else 0)
            found.append(Message(self._position, self._position + head + length, tag))
        self._skip = head + length
        return True

    def _tcp_header(self) -> tuple[int, int, bytes, bool] | None:
        return (4, int.from_bytes(self._buffer[:4], "big"), b"", True) if len(self._buffer) >= 4 else None

    def _websocket_header(self) -> tuple[int, int, bytes, bool] | None:
        buffer = self._buffer
        if len(buffer) < 2:
            return None
        length, head = buffer[1] & 127, 2
        extended = {126: 2, 127: 8}.get(length, 0)
        masked = 4 if buffer[1] & 128 else 0
        if len(buffer) < head + extended + masked:
            return None
        if extended:
            length = int.from_bytes(buffer[head : head + extended], "big")
        head += extended + masked
        return head, length, bytes(buffer[head - masked : head]), buffer[0] & 15 == _BINARY


@dataclass
class Figures:
    """What the proxy has seen.

    Attributes:
        cuts: Connections cut as planned, by point.
        requests: Mutations that came by, resends too.
        answers: Their answers.
    """

    cuts: Counter[Point] = field(default_factory=Counter)
    requests: int = 0
    answers: int = 0


class CuttingProxy:
    """Listens on loopback, for one transport.

    Attributes:
        port: Where; stays while the daemon behind it comes and goes.
        cutting: Whether plans are followed; else everything just passes.
    """

    def __init__(
        self, target_port: int, plans: Callable[[], Plan], figures: Figures, *, websocket: bool
    ) -> None:
        self.port = 0
        self.cutting = True
        self._target_port = target_port
        self._plans = plans
        self._figures = figures
        self._websocket = websocket
        self._server: asyncio.Server | None = None
        self._links: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> CuttingProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._links:
            task.cancel()
        await asyncio.gather(*self._links, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._links.add(task)
        with contextlib.suppress(asyncio.CancelledError):  # a stream's server cannot bear cancelled ones
            await self._serve(reader, writer)
        self._links.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.ExitStack() as ends:
            ends.callback(end, writer, reset=True)
            try:
                there, thence = await asyncio.open_connection("127.0.0.1", self._target_port)
            except OSError:
                return
            ends.pop_all()
            link = _Link(self, self._plans(), self._figures)
            ends.callback(end, thence, reset=link.plan.reset)
            try:
                await link.run(
                    (reader, thence, Messages(websocket=self._websocket)),
                    (there, writer, Messages(websocket=self._websocket)),
                )
            finally:
                end(writer, reset=link.plan.reset)
            if link.cut:
                await asyncio.sleep(link.plan.lag_s)


class _CutError(Exception):
    """The plan says that the connection ends here."""


class _Link:
    """One connection on its way through."""

    def __init__(self, proxy: CuttingProxy, plan: Plan, figures: Figures) -> None:
        self.plan = plan
        self.cut = False
        self._proxy = proxy
        self._figures = figures
        self._seen = 0
        self._cut_in = self._cut_at = 0
        self._position = {Mutation.TAG: 0, MutationAnswer.TAG: 0}
        self._silent = (
            False  # the answers are held: the daemon has the request, the client will not hear of it
        )

    async def run(self, up: _Pipe, down: _Pipe) -> None:
        """Pass bytes until one side ends or the plan's place has come."""
        pumps = [
            asyncio.ensure_future(self._pump(*up, Mutation.TAG)),
            asyncio.ensure_future(self._pump(*down, MutationAnswer.TAG)),
        ]
        try:
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            ends = await asyncio.gather(*pumps, return_exceptions=True)
            self.cut = any(isinstance(result, _CutError) for result in ends)
            if self.cut:
                self._figures.cuts[self.plan.point] += 1

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, messages: Messages, tag: int
    ) -> None:
        while True:
            try:
                data = await reader.read(_READ_BYTES)
            except OSError:
                return
            if not data:
                return
            self._look(messages.feed(data), tag)
            begin = self._position[tag]
            self._position[tag] = reached = begin + len(data)
            if self._silent and tag == MutationAnswer.TAG:
                continue
            here = self._cut_in == tag and self._cut_at <= reached
            writer.write(data[: max(0, self._cut_at - begin)] if here else data)
            if here:
                if self.plan.point is Point.AFTER_REQUEST:
                    self._silent = True
                    await asyncio.sleep(self.plan.lag_s)
                raise _CutError
            with contextlib.suppress(OSError):
                await writer.drain()

    def _look(self, found: list[Message], tag: int) -> None:
        """Count messages, and note where in the stream the plan cuts."""
        plan = self.plan
        for message in found:
            if message.tag != tag:
                continue
            if tag == Mutation.TAG:
                self._figures.requests += 1
            else:
                self._figures.answers += 1
            if (plan.point in _IN_ANSWERS) != (tag == MutationAnswer.TAG):
                continue
            self._seen += 1
            if self._seen == plan.count and self._proxy.cutting:
                self._cut_in, self._cut_at = tag, _cut_at(plan, message)


_Pipe = tuple[asyncio.StreamReader, asyncio.StreamWriter, Messages]
_IN_ANSWERS = {Point.IN_ANSWER, Point.AFTER_ANSWER}


def _cut_at(plan: Plan, message: Message) -> int:
    match plan.point:
        case Point.BEFORE_REQUEST:
            return message.start
        case Point.IN_REQUEST | Point.IN_ANSWER:
            return message.start + 1 + int(plan.part * (message.end - message.start - 1))
    return message.end


def end(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """End a connection: by RST, or by FIN behind what was written."""
    raw = writer.get_extra_info("socket")
    if reset and raw is not None:
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
    else:
        writer.close()
