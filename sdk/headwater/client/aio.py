"""The client: live queries and mutations over one connection that mends itself.

    async with headwater.connect("ws://localhost:4510") as client:
        async for messages in client.subscribe("messages:list", channel=channel):
            ...

The protocol is `headwater_protocol.client_session`; this module gives it a socket, a clock
and tasks. A client belongs to the event loop that opened it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, assert_never

from headwater_protocol.backoff import backoff_s
from headwater_protocol.client_events import (
    ActionResolved,
    AuthenticationFailed,
    Fatal,
    IdentityChanged,
    Moved,
    MutationResolved,
    Opened,
    PeerSilent,
    QueryFailed,
    UpdateFailed,
    ValueChanged,
)
from headwater_protocol.client_session import ClientSession
from headwater_protocol.errors import (
    HeadwaterError,
    InternalError,
    OutcomeUnknown,
    ProtocolError,
    RequestError,
    TransientError,
    error_for,
)
from headwater_protocol.limits import SESSION_BYTES
from headwater_protocol.values import canonical_bytes, pack_value

from headwater.client.function_names import FunctionName, function_name
from headwater.client.local_results import LocalResults, copied
from headwater.client.race import ended, race
from headwater.client.transport import CannotConnectError, TransportClosedError, open_transport, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from headwater_protocol.client_events import ClientEvent

    from headwater.client.transport import Address, OpenTransport, Transport

log = logging.getLogger("headwater.client")

CLIENT_NAME = "headwater-python"
IN_FLIGHT_MAX = 1_000
FRAME_LIMIT_BYTES = 64 * 1024 * 1024
_OPEN_TIMEOUT_S = 10.0
_TICKS_PER_HEARTBEAT = 4


@dataclass(frozen=True, slots=True)
class ClientState:
    """A look at a client.

    Attributes:
        connected: The server has accepted the present connection.
        closed: It was closed, or the server told that connecting again is of no use.
        queries: Subscriptions, and queries that wait for their value.
        mutations: Mutations that are not decided.
        problem: Why there is no connection, as far as known; None while there is one.
    """

    connected: bool
    closed: bool
    queries: int
    mutations: int
    problem: str | None


def connect(
    url: str,
    *,
    connect_timeout_s: float | None = 10.0,
    in_flight_max: int = IN_FLIGHT_MAX,
    frame_limit_bytes: int = FRAME_LIMIT_BYTES,
) -> Client:
    """Return a client for `async with`.

    Args:
        url: `ws://host:port`, `wss://host` or `tcp://host:port`.
        connect_timeout_s: How long entering the block tries to reach the server before it
            raises. None: enter at once and connect in the background. Once connected, the
            client reconnects for as long as it is open.
        in_flight_max: Mutations without an answer at a time; a call beyond them waits.
        frame_limit_bytes: Largest message taken from the server.

    Raises:
        RequestError: `url` is not an address.
    """
    source = random.SystemRandom()
    return Client(
        parse_address(url),
        source,
        connect_timeout_s=connect_timeout_s,
        in_flight_max=in_flight_max,
        frame_limit_bytes=frame_limit_bytes,
    )


class Client:
    """A connection to a server that outlives its sockets. Made by `connect`.

    After a lost connection it connects again, waiting longer each time (0.1 to 16 s, with
    chance in it), and goes on where it was: subscriptions get what they missed, mutations
    without an answer are sent again and take effect once.
    """

    def __init__(
        self,
        address: Address,
        source: random.Random,
        *,
        connect_timeout_s: float | None,
        in_flight_max: int,
        frame_limit_bytes: int,
        open_transport: OpenTransport = open_transport,
    ) -> None:
        if not 0 < in_flight_max <= IN_FLIGHT_MAX:
            raise RequestError(f"in_flight_max must be 1 to {IN_FLIGHT_MAX}, not {in_flight_max}")
        self._address = address
        self._random = source
        self._connect_timeout_s = connect_timeout_s
        self._frame_limit_bytes = frame_limit_bytes
        self._open_transport = open_transport
        self._session = ClientSession(source.randbytes(SESSION_BYTES), CLIENT_NAME)
        self._room = asyncio.Semaphore(in_flight_max)
        self._slots: dict[int, _Slot] = {}
        self._mutations: dict[int, asyncio.Future[Any]] = {}
        self._wake = asyncio.Event()  # the session may have frames to send
        self._opened = asyncio.Event()  # there is a connection, or there will be none any more
        self._attempt = 0  # connections tried since one last brought everything back
        self._problem: str | None = "not connected yet"
        self._task: asyncio.Task[None] | None = None  # set by `__aenter__`, for good
        self._ended: HeadwaterError | None = None  # set when the client is over: why

    async def __aenter__(self) -> Client:
        if self._task is not None:
            raise RequestError("a client is opened once; make another one with connect()")
        self._task = asyncio.create_task(self._run(), name="headwater-client")
        if self._connect_timeout_s is not None:
            try:
                await self.wait_connected(self._connect_timeout_s)
            except BaseException:
                await self.close()
                raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # --------------------------------------------------------------------------------------- the caller

    @property
    def state(self) -> ClientState:
        """Whether the client is connected and what is in flight."""
        return ClientState(
            connected=self._session.is_open,
            closed=self._ended is not None,
            queries=len(self._slots),
            mutations=len(self._mutations),
            problem=None if self._session.is_open else self._problem,
        )

    def subscribe(self, function: FunctionName, /, **arguments: Any) -> Subscription:
        """Follow a query: `async for value in client.subscribe("messages:list", channel=channel)`.

        The first value comes as soon as the server has run the query, further ones whenever
        it changes. A consumer that is slower than the changes skips to the newest value.

        Raises:
            RequestError: The arguments are no values.
            TransientError: The client is not open, or has too many queries.
        """
        number, slot = self._follow(function, arguments)
        subscription = Subscription(slot, self._unfollow, number)
        # A loop that is left by `break` drops its subscription: that must end it at the server too.
        loop = asyncio.get_running_loop()
        weakref.finalize(subscription, _call_later, loop, self._unfollow, number).atexit = False
        return subscription

    async def query(self, function: FunctionName, /, **arguments: Any) -> Any:
        """Return a query's result, at one moment not before this call. Waits for a connection if need be.

        It is the server's: optimistic updates do not show in it.

        Raises:
            HeadwaterError: It failed; `code` says how.
        """
        number, slot = self._follow(function, arguments, confirmed=True)
        try:
            return await slot.take()
        except StopAsyncIteration:
            raise TransientError("the client was closed during the query") from None
        finally:
            self._unfollow(number)

    async def mutation(
        self,
        function: FunctionName,
        update: Callable[[LocalResults], None] | None = None,
        /,
        **arguments: Any,
    ) -> Any:
        """Run a mutation and return its result. It is committed and seen by this client's queries then.

        Args:
            function: Which.
            update: Optimistic update: shows the change in this client's subscriptions until the server's
                results show it, or the mutation fails. It is run again whenever new results
                arrive, so it depends on nothing but the results it gets; what its first run raises
                comes from this call, and nothing is sent.
            **arguments: Of the function.

        Mutations of a client run in the order of their calls. One whose answer is lost with
        the connection is sent again and takes effect once. A call that is cancelled may or
        may not take effect.

        Raises:
            OutcomeUnknown: The client was closed before the answer came, or was away for so long
                that the server has forgotten it. It is not sent again.
            HeadwaterError: It failed and has had no effect; `code` says how.
        """
        name = function_name(function)
        packed = pack_value(arguments)
        async with self._room:
            self._require_open()
            applied = None if update is None else LocalResults.update(update)
            request = self._session.mutate(name, packed, applied)
            self._wake.set()
            future = self._mutations[request] = asyncio.get_running_loop().create_future()
            self._dispatch(self._session.take_events())
            try:
                return await future
            finally:
                if self._mutations.pop(request, None) is not None:
                    self._session.abandon(request)
                    self._dispatch(self._session.take_events())

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until there is a connection.

        Raises:
            CannotConnectError: There is none after `timeout_s`; the message says why.
            HeadwaterError: There will be none: the client is closed, or the server refuses it.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._opened.wait()
        except TimeoutError:
            url, problem = self._address.url, self._problem or "no answer"
            text = problem if url in problem else f"cannot connect to {url}: {problem}"
            raise CannotConnectError(text) from None
        self._require_open()

    async def close(self) -> None:
        """End the connection and everything that waits on it. May be called twice."""
        try:
            if self._task is not None and not await ended(self._task):
                log.error("the connection to %s does not end; it is left behind", self._address.url)
        finally:
            self._end(TransientError("the client is closed"), quietly=True)

    # ------------------------------------------------------------------------------------------ queries

    def _follow(
        self, function: FunctionName, arguments: dict[str, Any], *, confirmed: bool = False
    ) -> tuple[int, _Slot]:
        self._require_open()
        name, packed = function_name(function), canonical_bytes(arguments)
        number = self._session.subscribe(name, packed, confirmed=confirmed)
        self._wake.set()
        slot = self._slots[number] = _Slot()
        self._dispatch(self._session.take_events())
        return number, slot

    def _unfollow(self, number: int) -> None:
        slot = self._slots.pop(number, None)
        if slot is not None:
            slot.end(None)
            self._session.unsubscribe(number)
            self._wake.set()

    def _require_open(self) -> None:
        if self._ended is not None:
            raise _again(self._ended)
        if self._task is None:
            raise TransientError("the client is not open; use it inside `async with`")

    # --------------------------------------------------------------------------------------- connection

    async def _run(self) -> None:
        """Body of the client's task: stay connected until it is of no use any more."""
        try:
            while True:
                final = await self._live_once()
                if final is not None:
                    break
                await asyncio.sleep(backoff_s(self._attempt, self._random.random()))
                self._attempt += 1
        except Exception:
            log.exception("the client failed")
            final = InternalError("the client failed; its log says why")
        self._end(final)

    async def _live_once(self) -> HeadwaterError | None:
        """Connect and serve one connection to its end; return the error if there shall be no other."""
        try:
            async with asyncio.timeout(_OPEN_TIMEOUT_S):
                transport = await self._open_transport(
                    self._address, frame_limit_bytes=self._frame_limit_bytes
                )
        except TimeoutError:
            self._lost(f"no answer within {_OPEN_TIMEOUT_S:.0f} s")
            return None
        except CannotConnectError as error:
            self._lost(error.message)
            return None
        self._session.connect()
        ended: Fatal | None = None
        try:
            await self._converse(transport)
        except TransportClosedError as error:
            self._lost(error.reason)
        except ProtocolError as error:
            self._lost(f"the server broke the protocol: {error.message}")
            ended = Fatal(error, reconnect=error.code != "unsupported_version")
        except _ServerEndedError as error:
            self._lost(f"the server ended it: {error.fatal.error.message}")
            ended = error.fatal
        finally:
            self._dispatch(self._session.disconnected())
            await transport.close()
        if ended is None or ended.reconnect:
            if ended is not None and ended.error.code == "session_in_use":
                self._dispatch(self._session.renew(self._random.randbytes(SESSION_BYTES)))
            return None
        return ended.error

    async def _converse(self, transport: Transport) -> None:
        """Serve a connection until it ends, which raises the reason."""
        self._wake.set()
        await race(self._read(transport), self._write(transport), self._beat())

    async def _read(self, transport: Transport) -> None:
        while True:
            self._dispatch(self._session.receive(await transport.receive()))
            self._wake.set()
            if self._attempt and self._session.settled:
                self._attempt = 0

    async def _write(self, transport: Transport) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for frame in self._session.take_frames():
                await transport.send(frame)

    async def _beat(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            self._dispatch(self._session.tick(loop.time()))
            self._wake.set()
            await asyncio.sleep(self._session.heartbeat_s / _TICKS_PER_HEARTBEAT)

    def _lost(self, problem: str) -> None:
        """Remember and tell why there is no connection; of a row of failures the first is told aloud."""
        level = logging.WARNING if self._session.is_open or self._attempt == 0 else logging.DEBUG
        log.log(level, "no connection to %s: %s", self._address.url, problem)
        self._problem = problem
        self._opened.clear()

    # ------------------------------------------------------------------------------------------- events

    def _dispatch(self, events: Sequence[ClientEvent]) -> None:
        for event in events:
            match event:
                case ValueChanged(number, value):
                    self._slots[number].put(value, None)
                case QueryFailed(number, error):
                    self._slots[number].put(None, error)
                case UpdateFailed(_, raised):
                    log.error("an optimistic update failed on new results", exc_info=raised)
                case MutationResolved(request, value, failure):
                    self._resolve(request, value, failure)
                case Opened():
                    log.info("connected to %s", self._address.url)
                    self._opened.set()
                case Fatal():
                    raise _ServerEndedError(event)
                case PeerSilent():
                    raise TransportClosedError("the server has gone silent")
                case Moved() | IdentityChanged() | AuthenticationFailed() | ActionResolved():
                    pass
                case _:
                    assert_never(event)

    def _resolve(self, request: int, value: Any, failure: HeadwaterError | None) -> None:
        future = self._mutations.pop(request, None)
        if future is None or future.done():
            return
        if failure is None:
            future.set_result(value)
        else:
            future.set_exception(failure)

    def _end(self, reason: HeadwaterError, *, quietly: bool = False) -> None:
        """Be over, once: everything that waits is told; subscriptions end without an error if `quietly`."""
        if self._ended is not None:
            return
        self._ended = reason
        self._opened.set()
        for slot in self._slots.values():
            slot.end(None if quietly else _again(reason))
        self._slots.clear()
        for request in list(self._mutations):
            unknown = OutcomeUnknown(f"{reason.message} before the answer came", code="connection_lost")
            self._resolve(request, None, unknown)


class Subscription:
    """The results of a live query, an asynchronous iterator. Made by `Client.subscribe`.

    Holds one value: the newest that was not taken. It ends when it is closed, when nothing
    refers to it any more, or with the client. A failure of the query is raised once; the
    query stays alive, and iterating on waits for its next result. Values are the
    consumer's own to change.
    """

    def __init__(self, slot: _Slot, unfollow: Callable[[int], None], number: int) -> None:
        self._slot = slot
        self._unfollow = unfollow
        self._number = number

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Any:
        return await self._slot.take()

    async def aclose(self) -> None:
        """Unsubscribe. May be called twice."""
        self._unfollow(self._number)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class _Slot:
    """Room for the newest outcome of a query.

    Attributes:
        outcome: Value and error, set when one arrives, cleared when it is taken.
        over: Set for good when no outcome will come any more.
        last_error: Raised once at the end, then cleared.
    """

    __slots__ = ("arrived", "last_error", "outcome", "over")

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.outcome: tuple[Any, HeadwaterError | None] | None = None
        self.over = False
        self.last_error: HeadwaterError | None = None

    def put(self, value: Any, error: HeadwaterError | None) -> None:
        self.outcome = (value, error)
        self.arrived.set()

    def end(self, error: HeadwaterError | None) -> None:
        self.over = True
        self.last_error = error
        self.arrived.set()

    async def take(self) -> Any:
        """Wait for an outcome and take it; raises StopAsyncIteration behind the last one."""
        while self.outcome is None and not self.over:
            self.arrived.clear()
            await self.arrived.wait()
        if self.outcome is not None:
            (value, error), self.outcome = self.outcome, None
            if error is not None:
                raise error
            return copied(value)
        if self.last_error is not None:
            error, self.last_error = self.last_error, None
            raise error
        raise StopAsyncIteration


class _ServerEndedError(Exception):
    """The server has said that it ends the connection."""

    def __init__(self, fatal: Fatal) -> None:
        super().__init__(fatal.error.message)
        self.fatal = fatal


def _again(error: HeadwaterError) -> HeadwaterError:
    """Return an equal error, so that each of many raises has a traceback of its own."""
    return error_for(error.code, error.message, error.data)


def _call_later(loop: asyncio.AbstractEventLoop, call: Callable[[int], None], number: int) -> None:
    # Finalizers run in whichever thread drops the last reference, also after the loop has ended.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(call, number)
