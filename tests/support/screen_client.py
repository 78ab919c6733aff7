"""A client that notes everything it is shown, with the commit ts at which it was shown.

It drives the pure session of `headwater_protocol` over sockets of its own, TCP or WebSocket, and looks at every
frame itself: what the protocol promises about the order of messages is checked here, on each of them.
Faults it may produce: it cuts its own connection (`cut`) and then connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp
from headwater_protocol.client_events import (
    AuthenticationFailed,
    Fatal,
    IdentityLost,
    Moved,
    MutationResolved,
    QueryFailed,
    ValueChanged,
)
from headwater_protocol.client_session import ClientSession
from headwater_protocol.codec import decode_client_message, decode_server_message
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.messages import (
    Authenticate,
    AuthError,
    ModifyQuerySet,
    Mutation,
    MutationAnswer,
    Transition,
    Version,
)
from headwater_protocol.values import pack_value

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.client_events import ClientEvent
    from headwater_protocol.errors import HeadwaterError

FRAME_LIMIT_BYTES = 1 << 24
NO_VERSION = Version(0, 0, 0)
RETRY_S = 0.02
_REFUSALS_MAX = 2  # tokens of one user in a row


@dataclass(frozen=True)
class Failure:
    """What a query showed instead of a value: only what does not depend on wording."""

    code: str
    data: Any = None


@dataclass(frozen=True)
class Shown:
    """What a client held after one transition.

    Attributes:
        ts: End of the transition.
        whole: Whether every query of the session is in `values`; else only those that the transition changed.
        user: Whose they are: the token identifier, None for nobody.
        values: Value or `Failure` by the number of the query.
    """

    ts: int
    whole: bool
    user: str | None
    values: dict[int, Any]


@dataclass(frozen=True)
class Subscribed:
    """A query that the client has or had."""

    name: str
    arguments: dict[str, Any]


class Values:
    """Keeps one object of each value, however many clients hold it and however often it comes."""

    def __init__(self) -> None:
        self._by_content: dict[bytes, Any] = {}

    def kept(self, value: Any) -> Any:
        """Return the object that stands for a value."""
        return self._by_content.setdefault(pack_value(value), value)


class Wire(Protocol):
    """One connection.

    Attributes:
        close_code: How the server ended it; None over TCP, and while it has not.
    """

    @property
    def close_code(self) -> int | None: ...

    async def send(self, message: bytes) -> None: ...
    async def receive(self) -> list[bytes]: ...
    async def close(self) -> None: ...
    def cut(self) -> None: ...


class ScreenClient:
    """One session across its connections. `run` it as a task.

    Attributes:
        queries: Every query that was ever subscribed to, by number.
        shown: What was shown, in order.
        answers: ts of each mutation that was answered with a success.
        user: Who it is meant to be from now on.
        counts: How often which kind of message and change came, for a test to see that it was tried.
    """

    def __init__(
        self, url: str, session: bytes, values: Values, token_of: Callable[[str], str] | None = None
    ) -> None:
        """Prepare it.

        Args:
            url: Where to connect.
            session: 16 bytes.
            values: Shared by clients.
            token_of: Makes a token of a user, given by the token identifier.
        """
        self._url = url
        self._token_of = token_of
        self._users: dict[str, str] = {}  # by the tokens that were made
        self._asked_as: dict[int, str | None] = {}  # on this connection, by number
        self._shown_as: str | None = None
        self._refused_in_row = 0
        self.user: str | None = None
        self._kept = values.kept
        self._session = ClientSession(session, "screens")
        self._wire: Wire | None = None
        self._wake = asyncio.Event()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._subscribed: set[int] = set()
        self._values: dict[int, Any] = {}
        self._expected: set[int] = set()  # queries that the last transition covers
        self._sent: dict[int, ModifyQuerySet] = {}  # of this connection, not yet covered
        self._carried_before: set[int] = set()  # mutations that an earlier connection carried
        self._carried: set[int] = set()
        self._version = NO_VERSION
        self._newest_ts = 0
        self._owed_ts = 0
        self.queries: dict[int, Subscribed] = {}
        self.shown: list[Shown] = []
        self.answers: list[int] = []
        self.counts: Counter[str] = Counter()

    # ------------------------------------------------------------------ use

    def subscribe(self, name: str, /, **arguments: Any) -> int:
        number = self._session.subscribe(name, pack_value(arguments))
        self.queries[number] = Subscribed(name, arguments)
        self._subscribed.add(number)
        self._wake.set()
        return number

    def unsubscribe(self, number: int) -> None:
        self._session.unsubscribe(number)
        self._subscribed.remove(number)
        self._values.pop(number, None)
        self._expected.discard(number)
        self._wake.set()

    async def mutation(self, name: str, /, **arguments: Any) -> Any:
        """Return the result once a transition covers it, or raise its error."""
        number = self._session.mutate(name, pack_value(arguments))
        self._waiting[number] = asyncio.get_running_loop().create_future()
        self._wake.set()
        return await self._waiting[number]

    def sign_in(self, user: str | None) -> None:
        """Be another user, or nobody."""
        self.user = user
        self._session.authenticate(None if user is None else self._token())
        self._take(self._session.take_events())
        self._wake.set()

    def refresh(self) -> None:
        """Bring another token of the same user."""
        if self.user is not None:
            self._session.authenticate(self._token(), refresh=True)
            self._wake.set()

    def _token(self) -> str:
        assert self._token_of is not None, "it has no tokens"
        assert self.user is not None
        token = self._token_of(self.user)
        self._users[token] = self.user
        return token

    def cut(self) -> None:
        """Cut the connection without a word."""
        if self._wire is not None:
            self._wire.cut()

    async def run(self) -> None:
        """Stay connected until cancelled."""
        while True:
            try:
                self._wire = await open_wire(self._url)
            except (OSError, aiohttp.ClientError):
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._converse(self._wire)
            finally:
                await self._wire.close()
                self._wire = None
                self._take(self._session.disconnected())
                self.counts["connections"] += 1

    async def _converse(self, wire: Wire) -> None:
        self._version, self._owed_ts = NO_VERSION, 0
        self._shown_as = None
        self._asked_as.clear()
        self._expected.clear()
        self._sent.clear()
        self._carried_before |= self._carried
        self._session.connect()
        self._wake.set()
        sending = asyncio.create_task(self._send(wire))
        try:
            while frames := await wire.receive():
                for message in frames:
                    self._receive(message)
                self._wake.set()
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, OSError, aiohttp.ClientError):
                await sending

    async def _send(self, wire: Wire) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for data in self._session.take_frames():
                match decode_client_message(data):
                    case ModifyQuerySet() as modify:
                        self._sent[modify.new] = modify
                    case Mutation(request):
                        self._carried.add(request)
                    case Authenticate(base, token):
                        self._asked_as[base] = None if token is None else self._users[token]
                await wire.send(data)

    # ------------------------------------------------------------------ what the server says

    def _receive(self, data: bytes) -> None:
        message = decode_server_message(data)
        match message:
            case Transition():
                self._check_transition(message)
                self._take_transition(message, self._session.receive(data))
            case MutationAnswer():
                self._check_answer(message)
                self._take(self._session.receive(data))
            case AuthError(base):
                self._note_auth_error(base)
                self._take(self._session.receive(data))
            case _:
                self._take(self._session.receive(data))

    def _note_auth_error(self, base: int) -> None:
        self._asked_as[base] = None  # so that a transition which tells its number shows what nobody sees
        if base + 1 == self._version.identity:
            self._shown_as = None
            self.counts["lost"] += 1
        else:
            self.counts["refused"] += 1

    def _check_transition(self, message: Transition) -> None:
        assert message.start == self._version, "a transition does not begin where the last one ended"
        assert message.end.ts >= self._newest_ts, "ts went back"
        if message.end.identity > self._version.identity:
            self._shown_as = self._asked_as[message.end.identity - 1]
            self._refused_in_row = 0
            self.counts["identities"] += 1
        self._version = message.end
        self._newest_ts = message.end.ts

    def _check_answer(self, answer: MutationAnswer) -> None:
        decided = answer.error is None or answer.error.code == "application_error"
        if decided and answer.request not in self._carried_before:
            assert answer.ts > self._version.ts, "a transition at or after the ts of an answer came before it"
            self.answers.append(answer.ts)
        self._owed_ts = max(self._owed_ts, answer.ts)

    def _take_transition(self, message: Transition, events: Sequence[ClientEvent]) -> None:
        self._take(events)
        for number in [number for number in self._sent if number <= message.end.query_set]:
            self._expected |= {added.query for added in self._sent.pop(number).add} & self._subscribed
        for change in message.changes:
            self.counts[type(change.body).__name__] += 1
        whole = any(isinstance(event, Moved) for event in events)
        missing = self._expected - self._values.keys()
        assert not missing, f"a transition covers queries {missing} and says nothing of them"
        numbers = self._expected if whole else {change.query for change in message.changes} & self._expected
        values = {number: self._values[number] for number in numbers}
        self.shown.append(Shown(message.end.ts, whole, self._shown_as, values))

    def _take(self, events: Sequence[ClientEvent]) -> None:
        for event in events:
            match event:
                case ValueChanged(number, value):
                    self._values[number] = self._kept(value)
                case QueryFailed(number, error):
                    self._values[number] = Failure(error.code, error.data)
                case MutationResolved(request, value, error):
                    resolve(self._waiting.pop(request), value, error)
                case AuthenticationFailed() | IdentityLost():
                    self._bring_another_token()
                case Fatal(error):
                    raise AssertionError(f"the server ended the connection: {error.code}: {error.message}")

    def _bring_another_token(self) -> None:
        """The token was refused, or has ended; a user whose tokens are never taken is signed out."""
        self._refused_in_row += 1
        if self.user is not None and self._refused_in_row <= _REFUSALS_MAX:
            self.refresh()
        elif self.user is not None:
            self.sign_in(None)

    def check_covered(self) -> None:
        """Fail if an answer was not followed by a transition that covers it."""
        assert self._version.ts >= self._owed_ts, "no transition covers the last answer"


def resolve(future: asyncio.Future[Any], value: Any, error: HeadwaterError | None) -> None:
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)


async def open_wire(url: str) -> Wire:
    """Connect to `tcp://host:port` or `ws://host:port`."""
    scheme, _, host_port = url.partition("://")
    if scheme == "tcp":
        host, _, port = host_port.partition(":")
        return _TcpWire(*await asyncio.open_connection(host, int(port)))
    http = aiohttp.ClientSession()
    try:
        connected = await http.ws_connect(f"{url}/sync", max_msg_size=FRAME_LIMIT_BYTES, compress=15)
    except BaseException:
        await http.close()
        raise
    return _WebSocketWire(http, connected)


class _TcpWire:
    close_code = None

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._decoder = FrameDecoder(FRAME_LIMIT_BYTES)

    async def send(self, message: bytes) -> None:
        self._writer.write(frame(message))
        await self._writer.drain()

    async def receive(self) -> list[bytes]:
        """Return the next messages, none at the end."""
        messages: list[bytes] = []
        while not messages:
            try:
                data = await self._reader.read(1 << 16)
            except OSError:
                return []
            if not data:
                return []
            messages = self._decoder.feed(data)
        return messages

    def cut(self) -> None:
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


class _WebSocketWire:
    def __init__(self, http: aiohttp.ClientSession, connected: aiohttp.ClientWebSocketResponse) -> None:
        self._http = http
        self._socket = connected
        self._raw: socket.socket = connected.get_extra_info("socket")

    @property
    def close_code(self) -> int | None:
        return self._socket.close_code

    async def send(self, message: bytes) -> None:
        await self._socket.send_bytes(message)

    async def receive(self) -> list[bytes]:
        message = await self._socket.receive()
        return [message.data] if message.type is aiohttp.WSMsgType.BINARY else []

    def cut(self) -> None:
        with contextlib.suppress(OSError):  # it may have ended by itself
            self._raw.shutdown(socket.SHUT_RDWR)

    async def close(self) -> None:
        await self._socket.close()
        await self._http.close()
