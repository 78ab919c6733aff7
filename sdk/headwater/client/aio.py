"""The client: live queries, mutations and actions over one connection that mends itself.

    async with headwater.connect("ws://localhost:4510") as client:
        async for messages in client.subscribe("messages:list", channel=channel):
            ...

The protocol is `headwater_protocol.client_session`; this module gives it a socket, a clock
and tasks. A client belongs to the event loop that opened it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, assert_never, overload

from headwater_protocol.client_events import (
    ActionResolved,
    AuthenticationFailed,
    Fatal,
    IdentityChanged,
    IdentityLost,
    Moved,
    MutationResolved,
    Opened,
    PeerSilent,
    PieceArrived,
    QueryFailed,
    UpdateFailed,
    ValueChanged,
)
from headwater_protocol.client_session import ClientSession
from headwater_protocol.errors import (
    HeadwaterError,
    OutcomeUnknown,
    RequestError,
    TransientError,
    error_for,
)
from headwater_protocol.limits import SESSION_BYTES
from headwater_protocol.values import canonical_bytes, pack_value

from headwater.client.action_stream import ActionStream, Streams
from headwater.client.authentication import Authentication, not_accepted
from headwater.client.connection import Connection
from headwater.client.function_names import (
    AnyFunction,
    FunctionName,
    check_named,
    function_name,
    page_argument,
)
from headwater.client.local_results import LocalResults
from headwater.client.pages import PageChain, Pages, PageSlot
from headwater.client.race import ended
from headwater.client.states import ClientState, States, Waiting
from headwater.client.subscription import Slot, Subscription
from headwater.client.transport import CannotConnectError, open_transport, parse_address

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from headwater_protocol.client_events import ClientEvent

    from headwater.client.authentication import TokenSource
    from headwater.client.references import (
        ActionReference,
        MutationReference,
        PagedReference,
        QueryReference,
        StreamReference,
    )
    from headwater.client.transport import Address, OpenTransport

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")

log = logging.getLogger("headwater.client")

CLIENT_NAME = "headwater-python"
IN_FLIGHT_MAX = 1_000
FRAME_LIMIT_BYTES = 64 * 1024 * 1024


def connect(
    url: str,
    *,
    auth: TokenSource | None = None,
    connect_timeout_s: float | None = 10.0,
    in_flight_max: int = IN_FLIGHT_MAX,
    frame_limit_bytes: int = FRAME_LIMIT_BYTES,
    tls: ssl.SSLContext | None = None,
    traceparent: Callable[[], str] = str,
) -> Client:
    """Return a client for `async with`.

    Args:
        url: `ws://host:port`, `wss://host`, `tcp://host:port` or `tcp+tls://host:port`.
        auth: Signs the client in as it opens; see `Client.sign_in`. What is called before the server has accepted
            the token waits for that.
        connect_timeout_s: How long entering the block tries to reach the server before it raises. None: enter at
            once and connect in the background. Once connected, the client reconnects for as long as it is open.
        in_flight_max: Mutations and actions without an answer at a time; a call beyond them waits.
        frame_limit_bytes: Largest message taken from the server.
        tls: Which certificates count, as `ssl.create_default_context(cafile=…)` for one of your own authority. None:
            those of the authorities that the system knows.
        traceparent: Returns the span that a mutation or action is called in, as W3C Trace Context writes it; "": none.

    Raises:
        RequestError: `url` is not an address.
    """
    source = random.SystemRandom()
    client = Client(
        parse_address(url),
        source,
        auth=auth,
        wall_s=time.time,
        connect_timeout_s=connect_timeout_s,
        in_flight_max=in_flight_max,
        frame_limit_bytes=frame_limit_bytes,
        open_transport=partial(open_transport, tls=tls),
    )
    client._session.calling_span = traceparent
    return client


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
        auth: TokenSource | None = None,
        wall_s: Callable[[], float],
        connect_timeout_s: float | None,
        in_flight_max: int,
        frame_limit_bytes: int,
        open_transport: OpenTransport = open_transport,
    ) -> None:
        if not 0 < in_flight_max <= IN_FLIGHT_MAX:
            raise RequestError(f"in_flight_max must be 1 to {IN_FLIGHT_MAX}, not {in_flight_max}")
        self._address = address
        self._connect_timeout_s = connect_timeout_s
        self._session = ClientSession(source.randbytes(SESSION_BYTES), CLIENT_NAME)
        self._auth = auth
        self._authentication = Authentication(self._ask, self._changed, wall_s)
        self._room = asyncio.Semaphore(in_flight_max)
        self._slots: dict[int, Slot | PageSlot] = {}
        self._unsettled: dict[PageChain, None] = {}  # pages of these have changed in the present step
        self._mutations: dict[int, asyncio.Future[Any]] = {}
        self._actions: dict[int, asyncio.Future[Any]] = {}
        self._streams = Streams(
            self._session, self._room, self._require_open, lambda: self._connection.wake.set()
        )
        self._waiting = Waiting(self._changed)
        self._watching: weakref.WeakSet[States] = weakref.WeakSet()
        self._opened = asyncio.Event()  # there is a connection, or there will be none any more
        self._connection = Connection(
            address,
            self._session,
            source,
            frame_limit_bytes=frame_limit_bytes,
            open_transport=open_transport,
            dispatch=self._dispatch,
            changed=self._changed,
        )
        self._task: asyncio.Task[None] | None = None  # set by `__aenter__`, for good
        self._ended: HeadwaterError | None = None  # set when the client is over: why

    async def __aenter__(self) -> Client:
        if self._task is not None:
            raise RequestError("a client is opened once; make another one with connect()")
        self._task = asyncio.create_task(self._stay_connected(), name="headwater-client")
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
        """Whether the client is connected and what it waits for."""
        connection = self._connection
        return ClientState(
            phase=connection.phase,
            since_mono=connection.since_mono,
            connections=connection.opened,
            retries=connection.attempt,
            queries=len(self._slots),
            mutations=len(self._mutations),
            requests=self._waiting.count,
            oldest_request_mono=self._waiting.oldest_mono,
            last_problem=connection.problem,
            auth=self._authentication.state,
            actions=len(self._actions) + len(self._streams),
        )

    def states(self) -> States:
        """Follow the client's state: `async for state in client.states()`, for as long as it is open."""
        states = States(lambda: self.state)
        self._watching.add(states)
        return states

    @overload
    def subscribe(
        self, function: QueryReference[P, R], /, *args: P.args, **arguments: P.kwargs
    ) -> Subscription[R]: ...
    @overload
    def subscribe(self, function: FunctionName, /, **arguments: Any) -> Subscription[Any]: ...
    def subscribe(self, function: AnyFunction, /, *_placed: Any, **arguments: Any) -> Subscription[Any]:
        """Follow a query: `async for value in client.subscribe("messages:list", channel=channel)`.

        The first value comes as soon as the server has run the query, further ones whenever
        it changes. A consumer that is slower than the changes skips to the newest value.

        Raises:
            RequestError: The arguments are no values.
            TransientError: The client is not open, or has too many queries.
        """
        check_named(_placed)
        slot = Slot()
        return Subscription(slot, self._unfollow, self._follow(function, arguments, slot))

    @overload
    def paginate(
        self,
        function: PagedReference[P, R, Q, T],
        page_size: int,
        argument: None = None,
        /,
        *args: Q.args,
        **arguments: Q.kwargs,
    ) -> Pages[T]: ...
    @overload
    def paginate(
        self, function: FunctionName, page_size: int, argument: str | None = None, /, **arguments: Any
    ) -> Pages[Any]: ...
    def paginate(
        self,
        function: AnyFunction,
        page_size: int,
        argument: str | None = None,
        /,
        *_placed: Any,
        **arguments: Any,
    ) -> Pages[Any]:
        """Follow a query page by page: `async for paged in client.paginate("messages:pages", 20, channel=channel)`.

        All loaded pages are live and shown as one list, without gaps and doubles while rows come
        and go; `load_more()` adds a page. One that has grown too large is split.

        Args:
            function: A query that returns a `Page` and takes `PageOptions`.
            page_size: How many rows a new page gets.
            argument: Name of its argument of type `PageOptions`. None: what the function itself or its
                generated stub tells; for a function given by its name, `options`.
            **arguments: Its other ones.

        Raises:
            RequestError: The arguments are no values.
            TransientError: The client is not open, or has too many queries.
        """
        check_named(_placed)
        options = page_argument(function) if argument is None else argument

        def follow(asked: dict[str, Any], slot: PageSlot) -> int:
            return self._follow(function, arguments | {options: asked}, slot)

        chain = PageChain(
            page_size, follow, self._unfollow, lambda chain: self._unsettled.update({chain: None})
        )
        chain.load()
        return Pages(chain)

    @overload
    async def query(self, function: QueryReference[P, R], /, *args: P.args, **arguments: P.kwargs) -> R: ...
    @overload
    async def query(self, function: FunctionName, /, **arguments: Any) -> Any: ...
    async def query(self, function: AnyFunction, /, *_placed: Any, **arguments: Any) -> Any:
        """Return a query's result, at one moment not before this call. Waits for a connection if need be.

        It is the server's: optimistic updates do not show in it.

        Raises:
            HeadwaterError: It failed; `code` says how.
        """
        check_named(_placed)
        slot = Slot()
        number = self._follow(function, arguments, slot, confirmed=True)
        with self._waiting.one():
            try:
                return await slot.take()
            except StopAsyncIteration:
                raise TransientError("the client was closed during the query") from None
            finally:
                self._unfollow(number)

    @overload
    async def mutation(
        self,
        function: MutationReference[P, R],
        update: Callable[[LocalResults], None] | None = None,
        /,
        *args: P.args,
        **arguments: P.kwargs,
    ) -> R: ...
    @overload
    async def mutation(
        self,
        function: FunctionName,
        update: Callable[[LocalResults], None] | None = None,
        /,
        **arguments: Any,
    ) -> Any: ...
    async def mutation(
        self,
        function: AnyFunction,
        update: Callable[[LocalResults], None] | None = None,
        /,
        *_placed: Any,
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
        check_named(_placed)
        name = function_name(function)
        packed = pack_value(arguments)
        with self._waiting.one():
            async with self._room:
                return await self._mutate(name, packed, update)

    @overload
    async def action(self, function: ActionReference[P, R], /, *args: P.args, **arguments: P.kwargs) -> R: ...
    @overload
    async def action(self, function: FunctionName, /, **arguments: Any) -> Any: ...
    async def action(self, function: AnyFunction, /, *_placed: Any, **arguments: Any) -> Any:
        """Run an action and return its result; of one that streams, the list of its pieces.

        Actions run side by side. They are never sent twice. A call that is cancelled tells the server that
        nobody waits any more; whether the action goes on is for its author to say.

        Raises:
            OutcomeUnknown: The connection ended before the answer came; `code` is `connection_lost`.
            HeadwaterError: It failed; `code` says how.
        """
        check_named(_placed)
        name = function_name(function)
        packed = pack_value(arguments)
        with self._waiting.one():
            async with self._room:
                self._require_open()
                return await self._request(self._actions, self._session.act(name, packed))

    @overload
    def stream(
        self, function: StreamReference[P, T], /, *args: P.args, **arguments: P.kwargs
    ) -> ActionStream[T]: ...
    @overload
    def stream(self, function: FunctionName, /, **arguments: Any) -> ActionStream[Any]: ...
    def stream(self, function: AnyFunction, /, *_placed: Any, **arguments: Any) -> ActionStream[Any]:
        """Take the pieces of an action that streams: `async for word in client.stream("answers:words", text=text)`.

        The loop raises what the action fails with behind the pieces that came before; `connection_lost` if the
        connection ends meanwhile. Leaving the loop cancels the action.

        Raises:
            RequestError: The arguments are no values.
        """
        check_named(_placed)
        name, packed = function_name(function), pack_value(arguments)
        return self._streams.made(name, packed)

    async def sign_in(self, source: TokenSource) -> None:
        """Be a user from now on, and return once the server has accepted a token of theirs.

        Calls that are made once a token is there are that user's; calls of the user before that were never sent
        end as `unauthenticated`. Queries show what the new user sees.

        Args:
            source: A token, or a function, plain or async, that returns one; None for nobody. It is called with
                whether a fresh one is needed: when the server refuses one, and ahead of the end of each.

        Raises:
            RequestError: `unauthenticated`: there is no token that the server accepts; the client is nobody then.
        """
        self._require_open()
        if not await self._authentication.begin(source):
            raise not_accepted()

    def sign_out(self) -> None:
        """Be nobody from now on."""
        self._authentication.end()

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
            url, problem = self._address.url, self._connection.problem or "no answer"
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
        self,
        function: AnyFunction,
        arguments: dict[str, Any],
        slot: Slot | PageSlot,
        *,
        confirmed: bool = False,
    ) -> int:
        self._require_open()
        name, packed = function_name(function), canonical_bytes(arguments)
        number = self._session.subscribe(name, packed, confirmed=confirmed)
        self._connection.wake.set()
        self._slots[number] = slot
        self._changed()
        self._dispatch(self._session.take_events())
        return number

    def _unfollow(self, number: int) -> None:
        slot = self._slots.pop(number, None)
        if slot is not None:
            slot.end(None)
            self._session.unsubscribe(number)
            self._connection.wake.set()
            self._changed()

    async def _mutate(self, name: str, packed: bytes, update: Callable[[LocalResults], None] | None) -> Any:
        self._require_open()
        applied = None if update is None else LocalResults.update(update)
        return await self._request(self._mutations, self._session.mutate(name, packed, applied))

    async def _request(self, waiting: dict[int, asyncio.Future[Any]], request: int) -> Any:
        """Wait for what a request that was just made comes to."""
        self._connection.wake.set()
        future = waiting[request] = asyncio.get_running_loop().create_future()
        self._dispatch(self._session.take_events())
        try:
            return await future
        finally:
            if waiting.pop(request, None) is not None:
                self._session.abandon(request)
                self._connection.wake.set()
                self._dispatch(self._session.take_events())

    def _require_open(self) -> None:
        if self._ended is not None:
            raise _again(self._ended)
        if self._task is None:
            raise TransientError("the client is not open; use it inside `async with`")

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
                    _resolve(self._mutations, request, value, failure)
                case ActionResolved(request, value, failure):
                    if not self._streams.resolved(request, failure):
                        _resolve(self._actions, request, value, failure)
                case PieceArrived(request, value, size):
                    self._streams.arrived(request, value, size)
                case Opened() | Fatal() | PeerSilent():
                    pass  # the connection sees to them
                case Moved():
                    pass
                case IdentityChanged():
                    if self._session.signed_in:  # else it was the user before, or nobody
                        self._authentication.accepted()
                case AuthenticationFailed():
                    self._authentication.refused()
                case IdentityLost():
                    self._authentication.lost()
                case _:
                    assert_never(event)
        while self._unsettled:
            chain, _ = self._unsettled.popitem()
            try:
                chain.settle()
            except HeadwaterError as error:
                chain.out.put(None, error)

    def _end(self, reason: HeadwaterError, *, quietly: bool = False) -> None:
        """Be over, once: everything that waits is told; subscriptions end without an error if `quietly`."""
        if self._ended is not None:
            return
        self._ended = reason
        for slot in self._slots.values():
            slot.end(None if quietly else _again(reason))
        self._slots.clear()
        for waiting in (self._mutations, self._actions):
            for request in list(waiting):
                unknown = OutcomeUnknown(f"{reason.message} before the answer came", code="connection_lost")
                _resolve(waiting, request, None, unknown)
        self._streams.end(f"{reason.message} before it was over")
        self._connection.move("closed")

    def _changed(self) -> None:
        """Tell those who follow the state, and those who wait for a connection."""
        (self._opened.set if self._connection.phase in ("open", "closed") else self._opened.clear)()
        for states in self._watching:
            states.changed()

    async def _stay_connected(self) -> None:
        """Body of the client's task."""
        if self._auth is not None:
            self._authentication.begin(self._auth)
            await self._authentication.first_token()
        try:
            self._end(await self._connection.run())
        finally:
            self._authentication.close()

    def _ask(self, token: str | None, refresh: bool) -> None:
        self._session.authenticate(token, refresh=refresh)
        self._connection.wake.set()
        self._dispatch(self._session.take_events())


def _resolve(
    waiting: dict[int, asyncio.Future[Any]], request: int, value: Any, failure: HeadwaterError | None
) -> None:
    future = waiting.pop(request, None)
    if future is None or future.done():
        return
    if failure is None:
        future.set_result(value)
    else:
        future.set_exception(failure)


def _again(error: HeadwaterError) -> HeadwaterError:
    """Return an equal error, so that each of many raises has a traceback of its own."""
    return error_for(error.code, error.message, error.data)
