"""The loop of a worker of actions: many side by side, each a task, with what it prints and asks for kept apart.

User code runs on this process's event loop and in no other. What keeps the loop from turning is found by a
thread, which tells the daemon whose fault it is; the daemon then ends the process.
"""

from __future__ import annotations

import asyncio
import io
import sys
import threading
import traceback
from contextvars import ContextVar, copy_context
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

import headwater.bundle
import msgspec
from headwater.call_failures import CallFailure
from headwater.http_messages import RequestHead
from headwater.rows import splice
from headwater.values import decode_any, encode
from headwater_protocol.errors import InternalError, RequestError
from headwater_protocol.failures import error_from
from headwater_protocol.ids import is_id, table_number_of
from headwater_protocol.messages import ErrorBody

from headwater_server.worker.exchange import RouteExchange
from headwater_server.worker.messages import (
    ActionDone,
    ActionPiece,
    ActionPrinted,
    CancelJob,
    CreditAction,
    Describe,
    Described,
    Failure,
    FeedBody,
    KnowTables,
    KnowVariables,
    NestedDone,
    RunAction,
    RunNested,
    ScheduleJob,
    StopAction,
    Usage,
)
from headwater_server.worker.output import CallOutput
from headwater_server.worker.token_messages import SignToken, VerifyLogin

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import FrameType

    from headwater.bundle import Bundle
    from headwater_protocol.manifest import FunctionKind

    from headwater_server.functions.limits import WorkerLimits
    from headwater_server.worker.messages import ActionOrder, Asked
    from headwater_server.worker.progress import ProgressPage

_BEAT_S = 0.2
_FAREWELL_S = 0.3  # for actions to clean up when the daemon closes its end
_TRACE_FRAMES_MAX = 12
_OURS = tuple(str(Path(module.__file__ or "").parent) + "/" for module in (asyncio, headwater.bundle))

_running: ContextVar[RunningAction | None] = ContextVar("headwater_action", default=None)


class Sender(Protocol):
    """The way to the daemon."""

    def send(self, message: object) -> None:
        """Send a message, without waiting."""


class World(Protocol):
    """What actions may know of the machine: the real clock and real chance."""

    def now_ms(self) -> float:
        """Return the wall clock in ms since 1970."""
        ...

    def mono_ns(self) -> int:
        """Return the monotonic clock."""
        ...

    def random_bytes(self, size: int) -> bytes:
        """Return unpredictable bytes."""
        ...


class RunningAction:
    """One action in this process; implements `ActionBackend`.

    Attributes:
        order: What the daemon sent.
        output: What it prints.
        tasks: Its tasks, with those that it has started; they end with it.
        started_ns: Monotonic time.
        main: The task that runs the function; None before its first step.
        pieces: Of one that streams to a caller that takes one result; else None.
        exchange: Of a route, its request and answer; else None.
    """

    def __init__(
        self,
        order: RunAction,
        sender: Sender,
        world: World,
        tables: dict[int, str],
        variables: Mapping[str, bytes],
        limits: WorkerLimits,
        *,
        collects: bool,
    ) -> None:
        self.order = order
        self.output = CallOutput(limits.log_lines_max, limits.log_bytes_max)
        self.tasks: set[asyncio.Task[Any]] = set()
        self.started_ns = world.mono_ns()
        self.main: asyncio.Task[None] | None = None  # from its first step on
        self.pieces: list[bytes] | None = [] if collects else None
        self.exchange: RouteExchange | None = None
        if order.request is not None:
            self.exchange = RouteExchange(order.call, order.window, sender, self.emit)
        self._sender = sender
        self._world = world
        self._tables = tables
        self._variables = variables
        self._limits = limits
        self._over = False
        self._stopped = False
        self._room = asyncio.Semaphore(limits.nested_calls_max)
        self._numbers = count(1)
        self._nested: dict[int, asyncio.Future[bytes]] = {}
        self._on_their_way_bytes = 0
        self._kept_bytes = 0
        self._credited = asyncio.Event()

    # ------------------------------------------------------------------ for the ctx

    @property
    def depth_max(self) -> int:
        """How deep actions may be nested."""
        return self._limits.action_depth_max

    def now_ms(self) -> float:
        """Return the wall clock."""
        return self._world.now_ms()

    def random_bytes(self, size: int) -> bytes:
        """Return unpredictable bytes."""
        return self._world.random_bytes(size)

    def table_name(self, document_id: str) -> str | None:
        """Return the table that an id names."""
        return self._tables.get(table_number_of(document_id)) if is_id(document_id) else None

    def variable(self, name: str) -> bytes | None:
        """Return the row of an environment variable."""
        return self._variables.get(name)

    async def run(self, kind: FunctionKind, name: str, arguments: bytes) -> bytes:
        """Have the daemon run a query or mutation; so many of one action at a time, others wait."""
        if kind == "action":
            raise InternalError("actions that are nested run in the same process")
        return await self._ask(lambda number: RunNested(self.order.call, number, kind, name, arguments))

    async def schedule(self, function: str, kind: FunctionKind, arguments: bytes, due_us: int) -> str:
        """Have the daemon schedule a job."""
        assert kind != "query", "nothing schedules a query"
        content = await self._ask(
            lambda number: ScheduleJob(self.order.call, number, function, kind, arguments, due_us)
        )
        return msgspec.msgpack.decode(content, type=str)

    async def cancel_job(self, job_id: str) -> bool:
        """Have the daemon cancel a job."""
        content = await self._ask(lambda number: CancelJob(self.order.call, number, job_id))
        return msgspec.msgpack.decode(content, type=bool)

    async def sign_token(self, claims: bytes, lifetime_s: int) -> str:
        """Have the daemon sign a token."""
        content = await self._ask(lambda number: SignToken(self.order.call, number, claims, lifetime_s))
        return msgspec.msgpack.decode(content, type=str)

    async def verify_login(self, token: str, issuer: str, audience: str) -> bytes:
        """Have the daemon verify a token of a provider."""
        return await self._ask(lambda number: VerifyLogin(self.order.call, number, token, issuer, audience))

    async def _ask(self, make: Callable[[int], Asked]) -> bytes:
        """Have the daemon do what the message says that is made of its number; so many of one action at a time."""
        async with self._room:
            self._require_going()
            number = next(self._numbers)
            future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
            self._nested[number] = future
            self._sender.send(make(number))
            try:
                return await future
            finally:
                del self._nested[number]

    async def emit(self, content: bytes) -> None:
        """Send a piece once the caller has taken enough of those before, or keep it for the one result."""
        self._require_fits("a piece", len(content))
        if self.pieces is not None:
            self._kept_bytes += len(content)
            self._require_fits("all pieces together", self._kept_bytes)
            self.pieces.append(content)
            return
        while self._on_their_way_bytes >= self.order.window:
            self._credited.clear()
            await self._credited.wait()
        self._on_their_way_bytes += len(content)
        self._sender.send(ActionPiece(self.order.call, content))

    # ------------------------------------------------------------------ for the loop

    def enter(self) -> None:
        """Its task takes its first step.

        Raises:
            CancelledError: It was stopped before: a task that is cancelled earlier takes no step, and nobody would
                hear that it is over.
        """
        self.main = asyncio.current_task()
        if self._stopped:
            raise asyncio.CancelledError

    def stop(self) -> None:
        """Cancel it."""
        self._stopped = True
        if self.main is not None:
            self.main.cancel()

    def credit(self, size: int) -> None:
        """The caller has taken pieces of that size."""
        self._on_their_way_bytes -= size
        self._credited.set()

    def nested_done(self, message: NestedDone) -> None:
        """A query or mutation is over."""
        future = self._nested.get(message.number)
        if future is None or future.done():
            return
        failure = message.failure
        if failure is not None:
            body = ErrorBody(failure.code, failure.message, failure.data)
            future.set_exception(error_from(body))
        else:
            future.set_result(message.content or b"")

    def end(self, duration_ns: int, ended: bytes | Failure) -> None:
        """Tell how it ended; whatever of it still goes on is cancelled and can ask for nothing more."""
        self._over = True
        for task in self.tasks:
            task.cancel()
        failure = ended if isinstance(ended, Failure) else None
        content = ended if isinstance(ended, bytes) else None
        if content is not None and self.pieces is not None:
            content = splice(self.pieces)
        usage = Usage(duration_ns // 1000, started_us=self.started_ns // 1000)
        self._sender.send(ActionDone(self.order.call, content, failure, usage, self.output.take()))

    def tell_printed(self) -> None:
        """Send what it has printed, so that it is seen while the action goes on."""
        lines = self.output.take_complete()
        if lines:
            self._sender.send(ActionPrinted(self.order.call, lines))

    def _require_going(self) -> None:
        if self._over:
            raise RequestError(f"{self.order.name} is over; what it has left running can run no functions")

    def _require_fits(self, what: str, size: int) -> None:
        limit = self._limits.result_limit_bytes
        if size > limit:
            message = f"{what} of {self.order.name} has {size} bytes; the limit is {limit}"
            raise RequestError(message, code="too_many_bytes")


class ActionServer:
    """Runs actions on an event loop, at the daemon's word.

    Args:
        loop: The loop, which runs nothing else.
        bundle: Loaded.
        page: Where the daemon sees that the loop turns.
        limits: Bounds of an action.
        world: Clock and chance.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        bundle: Bundle,
        page: ProgressPage,
        limits: WorkerLimits,
        world: World,
    ) -> None:
        self._loop = loop
        self._bundle = bundle
        self._page = page
        self._limits = limits
        self._world = world
        self._sender: Sender | None = None
        self._actions: dict[int, RunningAction] = {}
        self._owners: WeakKeyDictionary[asyncio.Task[Any], RunningAction] = WeakKeyDictionary()
        self._tables: dict[int, str] = {}
        self._variables: dict[str, bytes] = {}
        self._beating: asyncio.TimerHandle | None = None
        self._beat_ns = 0  # of the last beat, while any action runs
        self._thread = threading.get_ident()
        self.ended: asyncio.Future[None] = loop.create_future()
        make_task: Any = self._new_task  # typeshed wants one signature for all versions of Python
        loop.set_task_factory(make_task)

    def serve(self, sender: Sender) -> None:
        """Begin: `receive` may be called from now on."""
        self._sender = sender
        threading.Thread(target=self._watch, name="headwater-watch", daemon=True).start()

    # ------------------------------------------------------------------ from the daemon

    def receive(self, message: ActionOrder) -> None:
        """Handle one message."""
        match message:
            case RunAction():
                self._begin(message)
            case StopAction(call, caller_left):
                action = self._actions.get(call)
                if action is not None and self._stops(action, caller_left):
                    action.stop()
            case CreditAction(call, size):
                if (action := self._actions.get(call)) is not None:
                    action.credit(size)
            case NestedDone(call):
                if (action := self._actions.get(call)) is not None:
                    action.nested_done(message)
            case FeedBody(call):
                action = self._actions.get(call)
                if action is not None and action.exchange is not None:
                    action.exchange.feed(message)
            case KnowTables(tables):
                self._tables = tables
            case KnowVariables(rows):
                self._variables.clear()  # the same dict: what runs sees the change
                self._variables.update(rows)
            case Describe():
                self._send(Described(self._bundle.manifest().to_json(), None))

    def lost(self) -> None:
        """The daemon has closed its end: nothing goes on, and there is a moment to clean up."""
        if not self.ended.done():
            self.ended.set_result(None)

    async def farewell(self) -> None:
        """Cancel everything, and wait a moment for what has to be cleaned up."""
        mine = asyncio.current_task()
        left = {task for task in asyncio.all_tasks() if task is not mine}
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=_FAREWELL_S)

    # ------------------------------------------------------------------ actions

    def _begin(self, order: RunAction) -> None:
        assert self._sender is not None, "it serves"
        self._page.begin(order.call, self._world.mono_ns())
        self._page.end()
        collects = not order.window and self._bundle.streams(order.name)
        action = RunningAction(
            order,
            self._sender,
            self._world,
            self._tables,
            self._variables,
            self._limits,
            collects=collects,
        )
        self._actions[order.call] = action
        context = copy_context()
        context.run(_running.set, action)
        self._loop.create_task(self._run(action), context=context)  # `action.tasks` has it
        if self._beating is None:
            self._beat()

    async def _run(self, action: RunningAction) -> None:
        order = action.order
        ended: bytes | Failure
        try:
            action.enter()
            found = await (self._action(action) if action.exchange is None else self._route(action))
            ended = self._checked(order.name, found)
        except asyncio.CancelledError:
            ended = Failure("cancelled", f"{order.name} was cancelled")
        except MemoryError as error:
            if not self.ended.done():
                self.ended.set_exception(error)
            return
        del self._actions[order.call]
        if action.main is not None:
            action.tasks.discard(action.main)
        try:
            action.end(self._world.mono_ns() - action.started_ns, ended)
        except (ValueError, TypeError, OverflowError) as error:
            failure = Failure(
                "internal_error", f"what the call came to cannot be sent: {type(error).__name__}"
            )
            action.end(0, failure)

    async def _action(self, action: RunningAction) -> bytes | CallFailure:
        order = action.order
        return await self._bundle.call_action(
            order.name,
            order.arguments,
            action,
            action.emit,
            identity=order.identity,
            internal_allowed=order.internal,
            must_stream=order.window > 0,
        )

    async def _route(self, action: RunningAction) -> bytes | CallFailure:
        order = action.order
        request, exchange = order.request, action.exchange
        assert request is not None, "it is a route"
        assert exchange is not None, "it is a route"
        head = RequestHead(
            request.method, request.path, request.query, tuple(request.headers), request.address
        )
        texts = decode_any(order.arguments)
        failure = await self._bundle.call_route(
            order.name, texts, head, action, exchange, identity=order.identity
        )
        return encode(None) if failure is None else failure

    def _checked(self, name: str, found: bytes | CallFailure) -> bytes | Failure:
        limit = self._limits.result_limit_bytes
        what = "result"
        if isinstance(found, CallFailure):
            what = "data of the ApplicationError"
        content = (found.data or b"") if isinstance(found, CallFailure) else found
        if len(content) > limit:
            message = f"the {what} of {name} has {len(content)} bytes; the limit is {limit}"
            return Failure("too_many_bytes", message)
        if isinstance(found, CallFailure):
            return Failure(found.code, found.message, found.data, found.trace)
        return found

    def _stops(self, action: RunningAction, caller_left: bool) -> bool:
        if not caller_left or action.exchange is not None:
            return True
        return self._bundle.cancels_with_caller(action.order.name)

    def _new_task(
        self, loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **options: Any
    ) -> asyncio.Task[Any]:
        """Make a task that belongs to the action in whose context it is made, or is to run."""
        context = options.get("context")
        owner = context.get(_running) if context is not None else _running.get()
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        if owner is not None:
            self._owners[task] = owner
            owner.tasks.add(task)
            task.add_done_callback(owner.tasks.discard)
        return task

    def _send(self, message: object) -> None:
        assert self._sender is not None, "it serves"
        self._sender.send(message)

    # ------------------------------------------------------------------ the loop turns, or does not

    def _beat(self) -> None:
        self._page.beat()
        self._beat_ns = self._world.mono_ns()
        for action in self._actions.values():
            action.tell_printed()
        if self._actions:
            self._beating = self._loop.call_later(_BEAT_S, self._beat)
        else:
            self._beating = None
            self._beat_ns = 0

    def _watch(self) -> None:
        """Look, in a thread, whose code keeps the loop from turning, before the daemon loses patience."""
        patience_ns = self._limits.action_block_limit_s * 1e9 / 2
        pause = threading.Event()
        while not pause.wait(_BEAT_S):
            beat_ns = self._beat_ns
            if beat_ns and self._world.mono_ns() - beat_ns > patience_ns:
                task = asyncio.current_task(self._loop)
                owner = self._owners.get(task) if task is not None else None
                frame = sys._current_frames().get(self._thread)
                self._page.blame(owner.order.call if owner is not None else 0, _user_stack(frame))


def _user_stack(frame: FrameType | None) -> str:
    """Return where user code stands: the innermost frames up to what runs it."""
    found: list[tuple[FrameType, int]] = []
    for inner, line in traceback.walk_stack(frame):
        if inner.f_code.co_filename.startswith(_OURS) or len(found) == _TRACE_FRAMES_MAX:
            break
        found.append((inner, line))
    return "".join(traceback.StackSummary.extract(reversed(found)).format())


class ActionStream(io.TextIOBase):
    """Stands in for `sys.stdout` or `sys.stderr`: what is written goes to the action that writes, or nowhere."""

    def __init__(self, place: int) -> None:
        self._place = place

    def writable(self) -> bool:
        """Say that it can be written to."""
        return True

    def write(self, text: str) -> int:
        """Take text."""
        action = _running.get()
        return len(text) if action is None else action.output.streams[self._place].write(text)


class ActionLog:
    """Takes what is logged: it goes to the action that logs, or nowhere."""

    def add(self, level: str, text: str) -> None:
        """Keep a line."""
        action = _running.get()
        if action is not None:
            action.output.add(level, text)


async def serve(server: ActionServer, connect: Callable[[], Sender]) -> None:
    """Run actions until the daemon closes its end.

    Args:
        server: Made on this loop.
        connect: Returns the way to the daemon, which begins to call `server.receive`.

    Raises:
        MemoryError: The process has used up its memory.
    """
    server.serve(connect())
    await server.ended
    await server.farewell()
