"""A sync server small enough to be wrong on purpose: real sockets, the real protocol, a list for a database.

Faults it may produce, each switched by an attribute or a method: a connection cut at any
moment, also between a mutation's effect and its answer; no answer at all; frames of
garbage; a fatal error; silence. Everything else it does as the protocol says, so any other
failure in a test is the client's.
"""

from __future__ import annotations

import asyncio
import contextlib
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, assert_never

from aiohttp import WSMsgType, web
from headwater_protocol import server_events as server
from headwater_protocol.codec import encode_change_body
from headwater_protocol.errors import ApplicationError, HeadwaterError, ProtocolError, RequestError
from headwater_protocol.failures import error_body
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.limits import ServerLimits
from headwater_protocol.messages import AddQuery, Delta, ErrorBody, Failed, Unchanged, Value
from headwater_protocol.server_session import ServerSession
from headwater_protocol.values import pack_value, unpack_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

INCARNATION = b"i" * 16
HEARTBEAT_MS = 200


@dataclass
class Outcome:
    """What the server remembers of a decided mutation."""

    ts: int
    value: bytes | None
    error: ErrorBody | None


@dataclass
class Connection:
    """One client's connection: its protocol state, its subscriptions, its way out."""

    session: ServerSession
    write: Callable[[bytes], Awaitable[None]]
    abort: Callable[[], None]
    session_id: bytes = b""
    queries: dict[int, AddQuery] = field(default_factory=dict)
    shown: dict[int, Any] = field(default_factory=dict)  # absent until something was sent


class ToyServer:
    """Functions: `messages:list(channel)`, `messages:send(channel, body)`, `messages:refuse()`.

    Attributes:
        rows: The database.
        effects: How often `messages:send` took effect, by body.
        requests: `(session, request number, name)` of every mutation that arrived.
        connects: Session ids in the order in which connections were accepted.
        cut_before_answers: That many mutations take effect, then the connection is cut.
        mute: While set, mutations take effect and are never answered.
        silent: While set, nothing at all is sent, heartbeats included.
        fatal_next: Error that the next connection gets instead of a welcome.
        query_error: While set, queries fail with it.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []
        self.effects: dict[str, int] = {}
        self.requests: list[tuple[bytes, int, str]] = []
        self.connects: list[bytes] = []
        self.deltas = 0
        self.cut_before_answers = 0
        self.mute = False
        self.silent = False
        self.fatal_next: HeadwaterError | None = None
        self.query_error: HeadwaterError | None = None
        self.ws_url = ""
        self.tcp_url = ""
        self._ts = 100
        self._outcomes: dict[tuple[bytes, int], Outcome] = {}
        self._connections: list[Connection] = []

    # ------------------------------------------------------------------------------- what tests do to it

    @property
    def connected(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    @property
    def subscriptions(self) -> int:
        """How many queries are subscribed on all connections."""
        return sum(len(connection.queries) for connection in self._connections)

    def cut(self) -> None:
        """End every connection at once, without a word."""
        for connection in list(self._connections):
            connection.abort()

    async def send_raw(self, data: bytes) -> None:
        """Send a frame of anything to every client."""
        for connection in list(self._connections):
            await connection.write(data)

    async def end_all(self, error: HeadwaterError) -> None:
        """End every connection with a fatal error."""
        for connection in list(self._connections):
            await self._end(connection, error)

    async def insert(self, channel: str, body: str) -> None:
        """Write from outside of any client."""
        self._ts += 1
        self.rows.append({"channel": channel, "body": body, "tags": [body]})
        await self.push_all()

    async def push_all(self) -> None:
        """Send every client what changed for it."""
        for connection in list(self._connections):
            if connection.session_id:
                await self._push(connection)

    # ------------------------------------------------------------------------------------------- serving

    async def handle_websocket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse(compress=False)
        await socket.prepare(request)
        transport = request.transport
        assert transport is not None
        connection = self._connection(socket.send_bytes, transport.abort)
        try:
            async for message in socket:
                assert message.type is WSMsgType.BINARY
                if not await self._receive(connection, message.data):
                    break
        finally:
            self._forget(connection)
        return socket

    async def handle_tcp(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def write(data: bytes) -> None:
            with contextlib.suppress(OSError):
                writer.write(frame(data))
                await writer.drain()

        connection = self._connection(write, writer.transport.abort)
        decoder = FrameDecoder(1 << 24)
        try:
            while data := await reader.read(1 << 16):
                for received in decoder.feed(data):
                    if not await self._receive(connection, received):
                        return
        except OSError:
            pass
        finally:
            self._forget(connection)
            writer.close()

    def _connection(self, write: Callable[[bytes], Awaitable[None]], abort: Callable[[], None]) -> Connection:
        async def send(data: bytes) -> None:
            if not self.silent:
                with contextlib.suppress(OSError):
                    await write(data)

        session = ServerSession(ServerLimits(heartbeat_ms=HEARTBEAT_MS))
        connection = Connection(session, send, abort)
        self._connections.append(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        with contextlib.suppress(ValueError):
            self._connections.remove(connection)

    async def _end(self, connection: Connection, error: HeadwaterError) -> None:
        await connection.write(connection.session.fatal(error))
        self._forget(connection)

    async def _receive(self, connection: Connection, data: bytes) -> bool:
        try:
            for event in connection.session.receive(data):
                if not await self._handle(connection, event):
                    return False
        except ProtocolError as error:
            await self._end(connection, error)
            return False
        return True

    async def _handle(self, connection: Connection, event: server.ServerEvent) -> bool:
        match event:
            case server.Connected(connect):
                if self.fatal_next is not None:
                    error, self.fatal_next = self.fatal_next, None
                    await self._end(connection, error)
                    return False
                self.connects.append(connect.session)
                connection.session_id = connect.session
                await connection.write(connection.session.welcome(INCARNATION, self._ts))
            case server.QuerySetModified(add, remove):
                connection.queries |= {query.query: query for query in add}
                for number in remove:
                    del connection.queries[number]
                    connection.shown.pop(number, None)
                await self._push(connection)
            case server.MutationRequested(request, name, arguments):
                return await self._mutate(connection, request, name, unpack_value(arguments))
            case server.SendFrame(data):
                await connection.write(data)
            case server.PongReceived() | server.PeerSilent():
                pass
            case (
                server.ActionRequested()
                | server.ActionCredited()
                | server.ActionCancelled()
                | server.AuthenticateRequested()
            ):
                raise AssertionError("the toy has none of these")
            case _:
                assert_never(event)
        return True

    # ----------------------------------------------------------------------------------------- functions

    async def _mutate(
        self, connection: Connection, request: int, name: str, arguments: dict[str, Any]
    ) -> bool:
        self.requests.append((connection.session_id, request, name))
        key = (connection.session_id, request)
        if key not in self._outcomes:
            self._ts += 1
            self._outcomes[key] = self._run(name, arguments)
        if self.mute:
            return True
        if self.cut_before_answers:
            self.cut_before_answers -= 1
            connection.abort()
            return False
        outcome = self._outcomes[key]
        await connection.write(
            connection.session.mutation_answer(request, outcome.ts, outcome.value, outcome.error)
        )
        await self.push_all()
        return True

    def _run(self, name: str, arguments: dict[str, Any]) -> Outcome:
        if name == "messages:send":
            body = arguments["body"]
            self.effects[body] = self.effects.get(body, 0) + 1
            self.rows.append({"channel": arguments["channel"], "body": body, "tags": [body]})
            return Outcome(self._ts, pack_value(len(self.rows)), None)
        error: HeadwaterError = RequestError(f"there is no mutation {name}", code="unknown_function")
        if name == "messages:refuse":
            error = ApplicationError({"why": "closed"}, message="no more messages")
        return Outcome(self._ts, None, error_body(error))

    async def _push(self, connection: Connection) -> None:
        changes = []
        for number, query in connection.queries.items():
            body = self._change(connection, number, query)
            if body is not None:
                changes.append((number, body))
        await connection.write(connection.session.transition(self._ts, changes))

    def _change(self, connection: Connection, number: int, query: AddQuery) -> bytes | None:
        if query.name != "messages:list":
            error: HeadwaterError | None = RequestError(
                f"there is no query {query.name}", code="unknown_function"
            )
        else:
            error = self.query_error
        if error is not None:
            if connection.shown.get(number) == error.code:
                return None
            connection.shown[number] = error.code
            return encode_change_body(Failed(error_body(error)))
        channel = unpack_value(query.arguments)["channel"]
        value = [row for row in self.rows if row["channel"] == channel]
        content = pack_value(value)
        digest = blake2b(content, digest_size=16).digest()
        first, old = number not in connection.shown, connection.shown.get(number)
        if not first and old == value:
            return None
        connection.shown[number] = value
        if first and query.digest == digest:
            return encode_change_body(Unchanged(digest))
        if isinstance(old, list) and value[: len(old)] == old:
            self.deltas += 1
            operations = [0, [[0, 0, len(old)], [1, value[len(old) :]]]]
            return encode_change_body(Delta(pack_value(operations), digest))
        return encode_change_body(Value(content, digest))


@asynccontextmanager
async def toy_server(toy: ToyServer, *, port: int = 0) -> AsyncIterator[ToyServer]:
    """Serve WebSocket (and TCP beside it) on loopback until the block ends; sets the toy's URLs."""
    app = web.Application()
    app.router.add_get("/sync", toy.handle_websocket)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    tcp = await asyncio.start_server(toy.handle_tcp, "127.0.0.1", 0)
    try:
        site = web.TCPSite(runner, "127.0.0.1", port)
        await site.start()
        toy.ws_url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
        toy.tcp_url = f"tcp://127.0.0.1:{tcp.sockets[0].getsockname()[1]}"
        yield toy
    finally:
        tcp.close()
        toy.cut()
        await runner.cleanup()
        await tcp.wait_closed()
