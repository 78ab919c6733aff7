"""Calls of those who have no session: HTTP and the command line."""

from __future__ import annotations

import asyncio
from collections import deque
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import HeadwaterError, RequestError, TransientError, error_for

from headwater_server.functions.mutations import Decision, MutationCall
from headwater_server.functions.timed_reads import Ran, TimedReads
from headwater_server.observe.call_log import SUCCESS
from headwater_server.observe.traces import calling_span

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from headwater_protocol.manifest import Manifest
    from headwater_protocol.messages import ErrorBody

    from headwater_server.functions.actions import ActionHandle, Actions
    from headwater_server.functions.failures import CallReporter
    from headwater_server.functions.mutations import Mutations, Publication
    from headwater_server.functions.pool import WorkerPool
    from headwater_server.observe.metrics import Metrics
    from headwater_server.observe.traces import Tracer


_GONE_LOOK_S = 0.5


class WaitingCaller:
    """Waits for an action's one result; implements `ActionCaller`."""

    def __init__(self) -> None:
        self._ended: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def action_piece(self, content: bytes) -> None:
        """None comes: it has asked for one result."""

    def action_over(self, content: bytes | None, error: ErrorBody | None) -> None:
        """Note how it ended."""
        if self._ended.done():
            return
        if error is not None:
            self._ended.set_exception(error_for(error.code, error.message, error.data))
        else:
            self._ended.set_result(content or b"")

    async def is_over(self, wait_s: float) -> bool:
        """Wait for a moment; tell whether it has ended."""
        done, _ = await asyncio.wait([self._ended], timeout=wait_s)
        return bool(done)

    async def result(self) -> bytes:
        """Return its encoded result; raises its error."""
        return await self._ended


class StreamingCaller:
    """The pieces of an action, an asynchronous iterator; implements `ActionCaller`. Close it when the loop is left.

    Raises what the action fails with behind the pieces that came before.
    """

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._moved = asyncio.Event()
        self._over = False
        self._error: ErrorBody | None = None
        self._taken_bytes = 0
        self.handle: ActionHandle | None = None  # set in the step that begins it
        self.result: bytes | None = None
        """Encoded result of an action that has ended; null for one that streams."""

    def action_piece(self, content: bytes) -> None:
        """Keep it until it is taken; the window bounds how much is kept."""
        self._pieces.append(content)
        self._moved.set()

    def action_over(self, content: bytes | None, error: ErrorBody | None) -> None:
        """Note how it ended."""
        self._over, self.result, self._error = True, content, error
        self._moved.set()

    def __aiter__(self) -> StreamingCaller:
        return self

    async def __anext__(self) -> bytes:
        self._credit()
        while not self._pieces and not self._over:
            self._moved.clear()
            await self._moved.wait()
        if self._pieces:
            piece = self._pieces.popleft()
            self._taken_bytes = len(piece)
            return piece
        if self._error is not None:
            error = self._error
            raise error_for(error.code, error.message, error.data)
        raise StopAsyncIteration

    def _credit(self) -> None:
        """Let as much come as was taken before: whoever asks for the next piece is done with the last one."""
        if self._taken_bytes and self.handle is not None:
            self.handle.credit(self._taken_bytes)
            self._taken_bytes = 0

    async def aclose(self) -> None:
        """Let the action go, if it is not over."""
        if not self._over and self.handle is not None:
            self.handle.leave()


class Calls:
    """Runs one function and waits for how it ends.

    Args:
        pool: Runs queries.
        actions: Runs actions.
        mutations: Runs mutations.
        publication: Knows what is published.
        reporter: Told of queries that have run; tells what a caller may know of a failure.
        metrics: The daemon's.
        window_bytes: Pieces of one action that may wait for its caller.
        mono_s: Monotonic clock.
        reads: Knows what holds at which ts.

    Attributes:
        manifest: What the active bundle declares; None before the first deploy.
        stopping: No call is begun any more.
        running: How many are not over.
        tracer: Follows calls; None: none is followed.
    """

    tracer: Tracer | None = None

    def __init__(
        self,
        pool: WorkerPool,
        actions: Actions,
        mutations: Mutations,
        publication: Publication,
        reporter: CallReporter,
        metrics: Metrics,
        window_bytes: int,
        mono_s: Callable[[], float],
        reads: TimedReads,
    ) -> None:
        self._reads = reads
        self._pool = pool
        self._actions = actions
        self._window_bytes = window_bytes
        self._mutations = mutations
        self._publication = publication
        self._reporter = reporter
        self._metrics = metrics
        self._mono_s = mono_s
        self.manifest: Manifest | None = None
        self.stopping = False
        self.running = 0

    def kind(self, name: str, *, internal: bool) -> str:
        """Return the kind of a function; raises `unknown_function`, or `no_bundle` before the first deploy.

        An internal function looks like an unknown one to whoever may not call it.
        """
        if self.manifest is None:
            raise TransientError(code="no_bundle")
        known = {item.name: item.kind for item in self.manifest.functions if internal or not item.internal}
        if name not in known:
            raise RequestError(
                f"there is no function {name!r}; there are {', '.join(sorted(known)[:20])}",
                code="unknown_function",
            )
        return known[name]

    def arguments_schema(self, name: str) -> dict[str, Any]:
        """Return the JSON schema of a function's arguments; {} if there is no such function."""
        functions = self.manifest.functions if self.manifest is not None else ()
        return next((item.arguments for item in functions if item.name == name), {})

    async def query(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> bytes:
        """Return the encoded result of a query at a published snapshot."""
        with self._begun():
            return await self._query(name, arguments, identity, internal=internal)

    def read_ts(self) -> int:
        """Return the newest published ts; for half a minute `query_at` may be asked for it."""
        return self._reads.hand_out()

    async def query_at(
        self, name: str, arguments: bytes, ts: int, *, identity: bytes | None = None, internal: bool = False
    ) -> bytes:
        """Return the encoded result that a query had at a ts; raises `conflict` where that is not known any more."""
        with self._begun():
            ran = await self._ran(name, arguments, identity, internal=internal)
            self._reads.require(ran, ts)
            return self._result(ran)

    async def queries(
        self, asked: Sequence[tuple[str, bytes]], *, identity: bytes | None = None, internal: bool = False
    ) -> list[bytes | HeadwaterError]:
        """Return the encoded results of several queries, all at one ts, or how they fail."""
        with self._begun():
            run = [partial(self._ran, *each, identity, internal=internal) for each in asked]
            results: list[bytes | HeadwaterError] = []
            for ran in await self._reads.together(run):
                try:
                    results.append(self._result(ran))
                except HeadwaterError as error:
                    results.append(error)
            return results

    async def mutation(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> bytes:
        """Return the encoded result of a mutation that is committed."""
        with self._begun():
            return await self._mutation(name, arguments, identity, internal=internal)

    async def action(
        self,
        name: str,
        arguments: bytes,
        gone: Callable[[], bool],
        *,
        identity: bytes | None = None,
        internal: bool = False,
    ) -> bytes:
        """Return the encoded result of an action.

        Args:
            name: Function.
            arguments: Encoded map.
            gone: Tells whether the caller has gone away; asked now and then.
            identity: Encoded identity of the caller, None if there is none.
            internal: Whether internal functions may be called.
        """
        with self._begun():
            caller = WaitingCaller()
            action = self._actions.begin(name, arguments, caller, identity=identity, internal=internal)
            while not await caller.is_over(_GONE_LOOK_S):
                if gone():
                    action.leave()
                    break
            return await caller.result()

    @asynccontextmanager
    async def stream(
        self, name: str, arguments: bytes, *, identity: bytes | None = None, internal: bool = False
    ) -> AsyncIterator[StreamingCaller]:
        """Return the pieces of an action that streams, for the length of the block; it is cancelled with that."""
        with self._begun():
            caller = StreamingCaller()
            caller.handle = self._actions.begin(
                name,
                arguments,
                caller,
                identity=identity,
                internal=internal,
                window=self._window_bytes,
            )
            try:
                yield caller
            finally:
                await caller.aclose()

    @contextmanager
    def _begun(self) -> Iterator[None]:
        if self.stopping:
            raise TransientError("the server is stopping; try again in a moment")
        self.running += 1
        self._metrics.calls_running.set(self.running)
        try:
            yield
        finally:
            self.running -= 1
            self._metrics.calls_running.set(self.running)

    async def _query(self, name: str, arguments: bytes, identity: bytes | None, *, internal: bool) -> bytes:
        return self._result(await self._ran(name, arguments, identity, internal=internal))

    async def _ran(self, name: str, arguments: bytes, identity: bytes | None, *, internal: bool) -> Ran:
        """Run a query and wait until what it saw is published."""
        started_s = self._mono_s()
        trace = (
            self.tracer.begin("query", name, "http", calling_span.get()) if self.tracer is not None else None
        )
        done = await self._pool.query(name, arguments, identity=identity, internal=internal)
        self._metrics.calls.labels("query", done.failure.code if done.failure else "success").inc()
        total_s = self._mono_s() - started_s
        error = self._reporter.query_ended(name, done, "http", total_s=total_s, identity=identity)
        published = asyncio.Event()
        self._publication.when_published(done.ts, published.set)
        await published.wait()
        if trace is not None:
            outcome = error.code if error is not None else SUCCESS
            trace.ran(done.usage, "" if error is None else outcome)
            trace.end(outcome)
        return Ran(done.ts, done.points, done.ranges, done.content, error)

    def _result(self, ran: Ran) -> bytes:
        if ran.error is not None:
            raise error_for(ran.error.code, ran.error.message, ran.error.data)
        assert ran.content is not None, "else there is an error"
        return ran.content

    async def _mutation(
        self, name: str, arguments: bytes, identity: bytes | None, *, internal: bool
    ) -> bytes:
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

        def receive(call: MutationCall, decision: Decision) -> None:
            if not decided.done():
                decided.set_result(decision)

        self._mutations.run(
            MutationCall(name, arguments, identity, internal, receive, parent=calling_span.get())
        )
        decision = await decided
        if decision.error is not None:
            raise error_for(decision.error.code, decision.error.message, decision.error.data)
        assert decision.value is not None, "a decision has a value or an error"
        return decision.value
