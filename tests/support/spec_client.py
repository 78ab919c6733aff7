"""A third client, written from `protocol/SPEC.md` and its vectors alone: nothing here imports Headwater.

It speaks TCP and WebSocket with bare streams, and keeps every rule of the page that binds a client; where the
server breaks one that it can see, it fails. Numbers in comments are the sections of the page.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import struct
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import msgpack

CONNECT, MODIFY, MUTATION, ACTION, AUTHENTICATE, PING, PONG = 1, 2, 3, 4, 5, 6, 7
WELCOME, TRANSITION, MUTATION_ANSWER, ACTION_ANSWER, AUTH_ERROR, FATAL = 33, 34, 35, 36, 37, 38
FIRST_FRAME_BYTES = 65_536
WAIT_S = 30.0
_WEBSOCKET_SUFFIX = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE, _WS_PING, _WS_PONG = 2, 8, 9, 10


class Broken(Exception):  # noqa: N818 - what the server did
    """The server broke a rule of the page."""


class Refused(Exception):  # noqa: N818 - what the server said
    """An Error of the server: its code and message."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message


class Cut(Exception):  # noqa: N818 - what happened
    """The connection has ended without a FatalError."""


def need(holds: bool, rule: str) -> None:
    """Fail unless a rule holds."""
    if not holds:
        raise Broken(rule)


# ------------------------------------------------------------------------------------------ 3 values


def pack(value: Any) -> bytes:
    """Return an encoded value."""
    return bytes(msgpack.packb(value, datetime=True))


def unpack(data: bytes) -> Any:
    """Return the value of bytes."""
    return msgpack.unpackb(data, timestamp=3, ext_hook=_extension, strict_map_key=True)


def _extension(code: int, data: bytes) -> int:
    need(code == 1 and len(data) == 8, "an extension is 1, of 8 bytes")
    return int.from_bytes(data, "big", signed=True)


# ------------------------------------------------------------------------------------------ 7 deltas


def changed(old: Any, operations: list[Any]) -> Any:
    """Return the value that operations make out of the last one."""
    kind, *rest = operations
    if kind == 1:
        return _fields(old, *rest)
    need(kind == 0 and type(old) is list, "operations are those of a list or of a dict")
    new: list[Any] = []
    for op, *parts in rest[0]:
        if op == 0:
            start, count = parts
            need(start + count <= len(old), "indexes are those of the last value")
            new += old[start : start + count]
        elif op == 1:
            new += parts[0]
        elif op == 2:
            new.append(_fields(old[parts[0]], *parts[1:]))
        else:
            need(op == 3, "an operation on a list is 0, 1, 2 or 3")
            new.append(changed(old[parts[0]], parts[1]))
    return new


def _fields(old: Any, put: dict[str, Any], removed: list[str], within: dict[str, Any] | None = None) -> Any:
    need(type(old) is dict, "fields are put into a dict")
    need(all(name in old and name not in put for name in removed), "removed fields are there, and not put")
    new = {name: value for name, value in old.items() if name not in removed} | put
    for name, operations in (within or {}).items():
        need(name in old and name not in put and name not in removed, "changed fields are there, and stay")
        new[name] = changed(old[name], operations)
    return new


# --------------------------------------------------------------------------------------- 1 transport


class TcpWire:
    """Messages over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.limit_bytes = 1 << 30
        self._reader, self._writer = reader, writer

    async def send(self, message: bytes) -> None:
        self._writer.write(struct.pack(">I", len(message)) + message)
        await self._writer.drain()

    async def receive(self) -> bytes:
        (length,) = struct.unpack(">I", await self._reader.readexactly(4))
        return await self._reader.readexactly(length)

    def cut(self) -> None:
        self._writer.transport.abort()


class WebSocketWire(TcpWire):
    """Messages over a WebSocket without extensions: masked frames out, plain frames in."""

    close_code: int | None = None

    async def shake_hands(self, host: str) -> None:
        key = base64.b64encode(os.urandom(16)).decode()
        self._writer.write(
            f"GET /sync HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        accept = base64.b64encode(hashlib.sha1((key + _WEBSOCKET_SUFFIX).encode()).digest()).decode()
        need(" 101 " in head.splitlines()[0] and accept in head, f"/sync is a WebSocket: {head}")

    async def send(self, message: bytes) -> None:
        await self._send(_BINARY, message)

    async def _send(self, opcode: int, payload: bytes) -> None:
        size, mask = len(payload), os.urandom(4)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + struct.pack(">H", size & 0xFFFF)
        if size > 0xFFFF:
            length = b"\xff" + struct.pack(">Q", size)
        repeated = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(size, "big")
        self._writer.write(bytes([0x80 | opcode]) + length + mask + masked)
        await self._writer.drain()

    async def receive(self) -> bytes:
        whole = b""
        while True:
            first, second = await self._reader.readexactly(2)
            size = second & 0x7F
            if size > 125:
                width = 2 if size == 126 else 8
                size = int.from_bytes(await self._reader.readexactly(width), "big")
            payload = await self._reader.readexactly(size)
            opcode = first & 0x0F
            if opcode == _CLOSE:
                self.close_code = int.from_bytes(payload[:2], "big")
                raise asyncio.IncompleteReadError(b"", None)
            if opcode == _WS_PING:
                await self._send(_WS_PONG, payload)
            elif opcode != _WS_PONG:
                need(opcode in (0, _BINARY) and not first & 0x70, "a message is one binary message")
                whole += payload
                if first & 0x80:
                    return whole


async def open_wire(url: str) -> TcpWire:
    """Open `tcp://host:port` or `ws://host:port`."""
    address = urlsplit(url)
    streams = await asyncio.open_connection(address.hostname, address.port)
    if address.scheme == "tcp":
        return TcpWire(*streams)
    wire = WebSocketWire(*streams)
    await wire.shake_hands(address.netloc)
    return wire


# ------------------------------------------------------------------------------------------ the client


@dataclass
class Query:
    """A subscription, across connections."""

    name: str
    arguments: bytes
    journal: bytes | None = None
    digest: bytes | None = None
    value: Any = None
    error: Refused | None = None
    held: bool = False  # `value` stands, on this connection
    settled: bool = False  # it has shown something


@dataclass
class Call:
    """A mutation or an action that is not decided."""

    name: str
    arguments: bytes
    outcome: asyncio.Future[Any]
    is_action: bool = False
    sent_ts: int | None = None
    answer: tuple[int, Any] | None = None  # held until a Transition covers it


@dataclass
class SpecClient:
    """One session. `connect` opens a connection; after a cut it is called again.

    Attributes:
        kinds: How many changes of each kind of body have come, over all connections.
        frames: Messages sent and received.
    """

    url: str
    session: bytes = field(default_factory=lambda: os.urandom(16))
    last_ts: int = 0
    incarnation: bytes | None = None
    queries: dict[int, Query] = field(default_factory=dict)
    calls: dict[int, Call] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)
    pings: int = 0
    ended: BaseException | None = None
    identity_asked: int = 0
    auth_errors: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = 0
        self._requests = 0
        self._wire: TcpWire | None = None
        self._reading: asyncio.Task[None] | None = None
        self._moved = asyncio.Condition()

    # -------------------------------------------------------------------------------- 5, 10 connections

    async def connect(self) -> None:
        """Connect, or resume: what was subscribed is again, undecided mutations are sent again."""
        wire = self._wire = await open_wire(self.url)
        self.version, self._set, self.identity_asked, self.ended = (0, 0, 0), 0, 0, None
        await self._send(CONNECT, [1], self.session, self.last_ts, self.incarnation, "spec 1")
        number, *fields = msgpack.unpackb(await wire.receive())
        if number == FATAL:
            raise Refused(*fields[0][:2])
        need(number == WELCOME, "Welcome or FatalError answers Connect")
        version, self.incarnation, self.welcome_ts, self.frame_limit_bytes, self.heartbeat_ms = fields[:5]
        need(version == 1, "the server picks a version that both speak")
        need(self.frame_limit_bytes >= FIRST_FRAME_BYTES, "the frame limit is at least 65,536")
        self._seen_ts = self.welcome_ts
        again = [
            [number, query.name, query.arguments, query.journal, query.digest]
            for number, query in self.queries.items()
        ]
        self._confirmable = {number for number, query in self.queries.items() if query.digest is not None}
        self._first_changes = set(self.queries)
        for query in self.queries.values():
            query.held = False
        await self._modify(again, [])
        self._resumed_at = self._set
        for number in sorted(self.calls):
            if self.calls[number].answer is None:
                await self._ask(number)
        self._reading = asyncio.create_task(self._read())

    async def cut(self) -> None:
        """Cut the connection from this side."""
        assert self._wire is not None
        assert self._reading is not None
        self._reading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reading
        self._wire.cut()
        for number in [number for number, call in self.calls.items() if call.is_action]:
            self.calls.pop(number).outcome.set_exception(Refused("connection_lost", ""))

    async def _send(self, *message: Any) -> None:
        assert self._wire is not None
        await self._wire.send(bytes(msgpack.packb(message)))

    # -------------------------------------------------------------------------------------- 6 queries

    async def subscribe(self, name: str, **arguments: Any) -> int:
        """Subscribe and return the number of the query."""
        self._numbers += 1
        number, packed = self._numbers, pack(arguments)
        self.queries[number] = Query(name, packed)
        self._first_changes.add(number)
        await self._modify([[number, name, packed]], [])
        return number

    async def unsubscribe(self, number: int) -> None:
        """Leave a query."""
        del self.queries[number]
        await self._modify([], [number])

    async def _modify(self, add: list[Any], remove: list[int]) -> None:
        base, self._set = self._set, self._set + 1
        await self._send(MODIFY, base, self._set, add, remove)

    async def shows(self, number: int, wanted: Any) -> None:
        """Return once a query shows a value, given or recognized by a function."""
        fits = wanted if callable(wanted) else lambda value: value == wanted

        def holds() -> bool:
            query = self.queries[number]
            return query.settled and query.error is None and self._resumed() and fits(query.value)

        await self.until(holds)

    async def until(self, holds: Any) -> None:
        """Return once something holds; fails when the connection ends before."""
        async with asyncio.timeout(WAIT_S), self._moved:
            while not holds():
                if self.ended is not None:
                    raise self.ended
                await self._moved.wait()

    def _resumed(self) -> bool:
        return self.version[0] >= self._resumed_at

    # -------------------------------------------------------------------------------- 8 mutations

    async def mutation(self, name: str, **arguments: Any) -> Any:
        """Run a mutation and return its result once all queries show its effect."""
        return await (await self.begin(name, arguments))

    async def action(self, name: str, **arguments: Any) -> Any:
        """Run an action."""
        return await (await self.begin(name, arguments, is_action=True))

    async def begin(self, name: str, arguments: Any, *, is_action: bool = False) -> asyncio.Future[Any]:
        """Send a call and return what will be its outcome."""
        self._requests += 1
        outcome = asyncio.get_running_loop().create_future()
        self.calls[self._requests] = Call(name, pack(arguments), outcome, is_action)
        await self._ask(self._requests)
        return outcome

    async def _ask(self, number: int) -> None:
        call = self.calls[number]
        if call.is_action:
            await self._send(ACTION, number, call.name, call.arguments)
            return
        if call.sent_ts is None:
            call.sent_ts = self._seen_ts
        undecided = (at for at, one in self.calls.items() if one.answer is None and not one.is_action)
        await self._send(MUTATION, number, call.name, call.arguments, min(undecided), call.sent_ts)

    async def sign_in(self, token: str | None) -> None:
        """Ask for another identity."""
        base, self.identity_asked = self.identity_asked, self.identity_asked + 1
        await self._send(AUTHENTICATE, base, token)

    # -------------------------------------------------------------------------------------- receiving

    async def _read(self) -> None:
        assert self._wire is not None
        try:
            while True:
                # 11: whoever has heard nothing for three heartbeats cuts the connection.
                async with asyncio.timeout(3 * self.heartbeat_ms / 1000):
                    data = await self._receive()
                await self._handle(msgpack.unpackb(data, strict_map_key=False))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.ended = Cut()
        except Exception as ended:
            self.ended = ended
        async with self._moved:
            self._moved.notify_all()

    async def _receive(self) -> bytes:
        """Return the next message; what this side has to say of itself is a Ping, now and then."""
        assert self._wire is not None
        receiving = asyncio.ensure_future(self._wire.receive())
        try:
            while True:
                done, _ = await asyncio.wait([receiving], timeout=self.heartbeat_ms / 2000)
                if done:
                    return receiving.result()
                await self._send(PING, self.pings)
        finally:
            receiving.cancel()

    async def _handle(self, message: list[Any]) -> None:
        number, *fields = message
        match number:
            case 34:
                self._transition(*fields[:3])
            case 35:
                request, ts, value, error = fields[:4]
                need(ts > self.version[2] or error or request in self.calls, "an answer is one of a call")
                self._answered(request, ts, value, error)
            case 36:
                self._answered(fields[0], 0, *fields[1:3])
            case 37:
                self.auth_errors.append(fields[1])
            case 38:
                raise Refused(*fields[0][:2])
            case 6:
                await self._send(PONG, fields[0])
            case 7:
                self.pings += 1
            case _:
                raise Broken(f"no message of a server: {number}")
        async with self._moved:
            self._moved.notify_all()

    def _answered(self, number: int, ts: int, value: bytes | None, error: Any) -> None:
        need((value is None) != (error is None), "exactly one of value and error is not nil")
        call = self.calls.get(number)
        if call is None or call.answer is not None:
            raise Broken(f"an answer to {number}, which was not asked")
        if error is not None:
            del self.calls[number]
            call.outcome.set_exception(Refused(*error[:2]))
            return
        assert value is not None
        call.answer = ts, unpack(value)
        self._complete()

    def _complete(self) -> None:
        """8: a success is resolved once the values hold at a ts at or after its own."""
        covered = self.version[2] if self._resumed() else 0
        for number, call in list(self.calls.items()):
            if call.answer is not None and (call.is_action or call.answer[0] <= covered):
                del self.calls[number]
                call.outcome.set_result(call.answer[1])

    def _transition(self, start: list[int], end: list[int], changes: list[Any]) -> None:
        need(tuple(start) == self.version, f"a start {start} that is not the last end {self.version}")
        need(end[2] >= max(self.version[2], self.last_ts if self.version == (0, 0, 0) else 0), "ts decreases")
        numbers = [number for number, *_ in changes]
        need(len(set(numbers)) == len(numbers), "a query is named at most once")
        for number, (kind, *body), *_ in changes:
            self.kinds[kind] = self.kinds.get(kind, 0) + 1
            if number in self.queries:
                self._change(number, self.queries[number], kind, body)
            self._first_changes.discard(number)
        self.version = (end[0], end[1], end[2])
        self._seen_ts = max(self._seen_ts, end[2])
        if self._resumed():
            self.last_ts = end[2]
        self._complete()

    def _change(self, number: int, query: Query, kind: int, body: list[Any]) -> None:
        first = number in self._first_changes
        if kind == 4:
            raise Broken("Removed of a query that is in the query set")
        query.settled, query.error = True, None
        if kind == 3:
            query.error, query.digest, query.held = Refused(*body[0][:2]), None, False
            return
        if kind == 2:
            need(
                first and number in self._confirmable and body[0] == query.digest,
                "Unchanged of another value",
            )
        elif kind == 1:
            need(query.held, "a delta without a value to start from")
            query.value = changed(query.value, unpack(body[0]))
        else:
            need(kind == 0, "a change is one of five")
            query.value = unpack(body[0])
        query.held = True
        query.digest, query.journal = (body[0] if kind == 2 else body[1]), (body[2:] or [None])[0]
        if kind == 2:
            query.journal = (body[1:] or [None])[0]
