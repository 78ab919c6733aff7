"""The client for programs without asyncio: the same one, on a loop of its own in a thread.

    with headwater.connect_blocking("ws://localhost:4510") as client:
        client.mutation("messages:send", channel=channel, author="ada", body="hi")
        for messages in client.subscribe("messages:list", channel=channel):
            ...

Safe to use from several threads at once.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypeVar, overload

from headwater_protocol.errors import TransientError

from headwater.client.aio import Client, connect
from headwater.client.pages import Paged

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
    from types import TracebackType

    from headwater.client.action_stream import ActionStream
    from headwater.client.authentication import TokenSource
    from headwater.client.function_names import AnyFunction, FunctionName
    from headwater.client.local_results import LocalResults
    from headwater.client.pages import Pages, Status
    from headwater.client.references import (
        ActionReference,
        MutationReference,
        PagedReference,
        QueryReference,
        StreamReference,
    )
    from headwater.client.states import ClientState, States
    from headwater.client.subscription import Subscription

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")
T = TypeVar("T")


def connect_blocking(
    url: str,
    *,
    auth: TokenSource | None = None,
    connect_timeout_s: float | None = 10.0,
    in_flight_max: int = 1000,
    tls: ssl.SSLContext | None = None,
    traceparent: Callable[[], str] = str,
) -> BlockingClient:
    """Return a client for `with`; the arguments are those of `headwater.connect`.

    A plain function given as `auth` is called in a thread of its own; `traceparent` in that of the client, with the
    context variables of the call.
    """
    client = connect(
        url,
        auth=None if auth is None else _elsewhere(auth),
        connect_timeout_s=connect_timeout_s,
        in_flight_max=in_flight_max,
        tls=tls,
        traceparent=traceparent,
    )
    return BlockingClient(client)


def _elsewhere(source: TokenSource) -> TokenSource:
    """Return a source that does not hold up the client's thread while it fetches."""
    if isinstance(source, str) or inspect.iscoroutinefunction(source):
        return source

    async def fetch(force_refresh: bool) -> str | None:
        found = await asyncio.to_thread(source, force_refresh)
        return await found if inspect.isawaitable(found) else found

    return fetch


class BlockingClient:
    """A `Client` whose calls wait for their results.

    `__enter__` starts the thread and connects; `close` ends both, and every call that still
    waits in another thread fails. Ctrl-C in a waiting call cancels that call.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # Set by `__enter__`, cleared by `close`.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> BlockingClient:
        started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._thread = threading.Thread(
            target=self._serve, args=(started,), name="headwater-client", daemon=True
        )
        self._thread.start()
        try:
            started.result()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def state(self) -> ClientState:
        """Whether the client is connected and what it waits for."""
        return self._client.state

    def states(self) -> BlockingStates:
        """Follow the client's state. See `Client.states`."""
        return BlockingStates(self, self._wait(self._states()))

    def sign_in(self, source: TokenSource) -> None:
        """Be a user from now on. See `Client.sign_in`; a plain function is called in a thread of its own."""
        self._wait(self._client.sign_in(_elsewhere(source)))

    def sign_out(self) -> None:
        """Be nobody from now on."""
        self._wait(self._sign_out())

    async def _sign_out(self) -> None:
        self._client.sign_out()

    @overload
    def query(self, function: QueryReference[P, R], /, *args: P.args, **arguments: P.kwargs) -> R: ...
    @overload
    def query(self, function: FunctionName, /, **arguments: Any) -> Any: ...
    def query(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Return a query's result at this moment. See `Client.query`."""
        return self._wait(self._client.query(function, *args, **arguments))

    @overload
    def mutation(
        self,
        function: MutationReference[P, R],
        update: Callable[[LocalResults], None] | None = None,
        /,
        *args: P.args,
        **arguments: P.kwargs,
    ) -> R: ...
    @overload
    def mutation(
        self,
        function: FunctionName,
        update: Callable[[LocalResults], None] | None = None,
        /,
        **arguments: Any,
    ) -> Any: ...
    def mutation(
        self,
        function: Any,
        update: Callable[[LocalResults], None] | None = None,
        /,
        *args: Any,
        **arguments: Any,
    ) -> Any:
        """Run a mutation and return its result. See `Client.mutation`; an update runs in the client's thread."""
        return self._wait(self._client.mutation(function, update, *args, **arguments))

    @overload
    def action(self, function: ActionReference[P, R], /, *args: P.args, **arguments: P.kwargs) -> R: ...
    @overload
    def action(self, function: FunctionName, /, **arguments: Any) -> Any: ...
    def action(self, function: Any, /, *args: Any, **arguments: Any) -> Any:
        """Run an action and return its result. See `Client.action`."""
        return self._wait(self._client.action(function, *args, **arguments))

    @overload
    def stream(
        self, function: StreamReference[P, T], /, *args: P.args, **arguments: P.kwargs
    ) -> BlockingStream[T]: ...
    @overload
    def stream(self, function: FunctionName, /, **arguments: Any) -> BlockingStream[Any]: ...
    def stream(self, function: AnyFunction, /, *args: Any, **arguments: Any) -> BlockingStream[Any]:
        """Take the pieces of an action that streams: an iterator over them. See `Client.stream`."""
        return BlockingStream(self, self._wait(self._stream(function, args, arguments)))

    @overload
    def subscribe(
        self, function: QueryReference[P, R], /, *args: P.args, **arguments: P.kwargs
    ) -> BlockingSubscription[R]: ...
    @overload
    def subscribe(self, function: FunctionName, /, **arguments: Any) -> BlockingSubscription[Any]: ...
    def subscribe(self, function: AnyFunction, /, *args: Any, **arguments: Any) -> BlockingSubscription[Any]:
        """Follow a query: an iterator over its results. See `Client.subscribe`."""
        return BlockingSubscription(self, self._wait(self._subscribe(function, args, arguments)))

    @overload
    def paginate(
        self,
        function: PagedReference[P, R, Q, T],
        page_size: int,
        argument: None = None,
        /,
        *args: Q.args,
        **arguments: Q.kwargs,
    ) -> BlockingPages[T]: ...
    @overload
    def paginate(
        self, function: FunctionName, page_size: int, argument: str | None = None, /, **arguments: Any
    ) -> BlockingPages[Any]: ...
    def paginate(
        self,
        function: AnyFunction,
        page_size: int,
        argument: str | None = None,
        /,
        *args: Any,
        **arguments: Any,
    ) -> BlockingPages[Any]:
        """Follow a query page by page. See `Client.paginate`."""
        return BlockingPages(self, self._wait(self._paginate(function, page_size, argument, args, arguments)))

    def wait_connected(self, timeout_s: float | None = None) -> None:
        """Wait until there is a connection. See `Client.wait_connected`."""
        self._wait(self._client.wait_connected(timeout_s))

    def close(self) -> None:
        """End the connection and the thread. May be called twice, and from any thread but the client's own."""
        loop, stop, thread = self._loop, self._stop, self._thread
        self._loop = self._stop = self._thread = None
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # the loop may have ended by itself
                loop.call_soon_threadsafe(stop.set)
        if thread is not None:
            thread.join()

    def _serve(self, started: concurrent.futures.Future[None]) -> None:
        """Body of the thread."""
        try:
            asyncio.run(self._main(started))
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(error)

    async def _main(self, started: concurrent.futures.Future[None]) -> None:
        self._stop = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        async with self._client:
            started.set_result(None)
            await self._stop.wait()

    async def _subscribe(
        self, function: Any, args: tuple[Any, ...], arguments: dict[str, Any]
    ) -> Subscription[Any]:
        return self._client.subscribe(function, *args, **arguments)

    async def _paginate(
        self,
        function: Any,
        page_size: int,
        argument: Any,
        args: tuple[Any, ...],
        arguments: dict[str, Any],
    ) -> Pages[Any]:
        return self._client.paginate(function, page_size, argument, *args, **arguments)

    async def _stream(
        self, function: Any, args: tuple[Any, ...], arguments: dict[str, Any]
    ) -> ActionStream[Any]:
        return self._client.stream(function, *args, **arguments)

    async def _states(self) -> States:
        return self._client.states()

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        loop = self._loop
        if loop is None:
            work.close()
            raise TransientError("the client is not open")
        try:
            future = asyncio.run_coroutine_threadsafe(work, loop)
        except RuntimeError:
            work.close()
            raise TransientError("the client is not open") from None
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise TransientError("the client was closed during the call") from None
        except BaseException:
            future.cancel()
            raise


class BlockingUpdates(Generic[T]):
    """What an asynchronous iterator of the client brings, for callers that wait."""

    def __init__(self, client: BlockingClient, updates: AsyncIterator[T]) -> None:
        self._client = client
        self._updates = updates

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        return self.next()

    def next(self, timeout_s: float | None = None) -> T:
        """Wait for the next one.

        Raises:
            StopIteration: There will be none, as it was closed or the client was.
            TimeoutError: None came in time.
            HeadwaterError: The query failed; a later change may bring a result.
        """
        found = self._client._wait(self._next(timeout_s))
        if not found:
            raise StopIteration
        return found[0]

    async def _next(self, timeout_s: float | None) -> tuple[T] | tuple[()]:
        # The end travels as a value: StopIteration cannot pass through a future.
        try:
            async with asyncio.timeout(timeout_s):
                return (await anext(self._updates),)
        except StopAsyncIteration:
            return ()


class BlockingStates(BlockingUpdates["ClientState"]):
    """The states of a client: the present one, and the newest after every change."""


class _Closable(BlockingUpdates[T]):
    def __init__(self, client: BlockingClient, updates: Any) -> None:
        super().__init__(client, updates)
        self._closing = updates.aclose

    def close(self) -> None:
        """Let nothing come any more. May be called twice."""
        self._client._wait(self._closing())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class BlockingSubscription(_Closable[T]):
    """Results of a query, newest first come; see `Subscription` for what may be skipped."""


class BlockingStream(_Closable[T]):
    """The pieces of an action, all of them in order; closing it cancels the action. See `ActionStream`."""


class BlockingPages(_Closable[Paged[T]]):
    """The pages of a live query as one list; see `Pages`."""

    def __init__(self, client: BlockingClient, pages: Pages[T]) -> None:
        super().__init__(client, pages)
        self._pages = pages

    @property
    def status(self) -> Status:
        """Whether there is more, and whether it is on its way."""
        return self._pages.status

    def load_more(self, page_size: int | None = None) -> bool:
        """Ask for the next page. See `Pages.load_more`."""
        return self._client._wait(self._load_more(page_size))

    async def _load_more(self, page_size: int | None) -> bool:
        return self._pages.load_more(page_size)
