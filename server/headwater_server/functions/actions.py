"""Actions from their request to their end: counted, reported, and what they ask for run as calls of its own.

On the event loop, without awaits. Nothing of an action is a transaction: each query and mutation that it asks
for is one, in the workers of the bundle that is active then.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import TransientError

from headwater_server.functions.action_pool import Action, ActionPool
from headwater_server.functions.mutations import Decision, MutationCall
from headwater_server.observe.call_log import SUCCESS, CallEvent
from headwater_server.observe.traces import UNFOLLOWED, calling_span
from headwater_server.worker.messages import Failure, RunNested
from headwater_server.worker.token_messages import SignToken, VerifyLogin

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.messages import ErrorBody

    from headwater_server.functions.failures import CallReporter
    from headwater_server.functions.mutations import Mutations, Publication
    from headwater_server.functions.pool import WorkerPool
    from headwater_server.observe.call_log import CallKind, Origin
    from headwater_server.observe.metrics import Metrics
    from headwater_server.observe.traces import SpanContext, Tracer
    from headwater_server.worker.messages import (
        AnswerHead,
        Asked,
        CancelJob,
        QueryDone,
        RouteRequest,
        ScheduleJob,
        WantBody,
    )


class ActionCaller(Protocol):
    """Who called an action. No method may wait."""

    def action_piece(self, content: bytes) -> None:
        """It sends a piece, encoded."""

    def action_over(self, content: bytes | None, error: ErrorBody | None) -> None:
        """It has ended, with an encoded result or with an error."""


class RouteCaller(ActionCaller, Protocol):
    """Who asks a route. No method may wait."""

    def route_exchanged(self, message: AnswerHead | WantBody) -> None:
        """It answers, or wants more of the request's body."""


class ActionHandle:
    """An action or a route that was begun, for who called it."""

    def __init__(self, actions: Actions, caller: ActionCaller, started_s: float) -> None:
        self._actions = actions
        self._caller = caller
        self._started_s = started_s
        self._action: Action | None = None  # set once, before anything is told

    def begin(self, action: Action) -> None:
        """Run it."""
        self._action = action
        self._actions.submit(action)

    def leave(self) -> None:
        """Nobody waits for it any more: it ends if that is what its author wants. No pieces follow, but its end does."""
        assert self._action is not None
        self._actions.pool.leave(self._action)

    @property
    def lines(self) -> Sequence[tuple[str, str]]:
        """What it has printed, once it has ended, as far as its caller may be shown that: level and text."""
        assert self._action is not None
        return self._actions.shown(self._action)

    def credit(self, size: int) -> None:
        """The caller has taken pieces of that size."""
        assert self._action is not None
        self._actions.pool.credit(self._action, size)

    def piece(self, action: Action, content: bytes) -> None:
        """It sends a piece."""
        self._caller.action_piece(content)

    def exchanged(self, action: Action, message: AnswerHead | WantBody) -> None:
        """It is a route, and answers or wants more; what is none says so in vain."""

    def over(self, action: Action, content: bytes | None, failure: Failure | None) -> None:
        """It has ended."""
        error = self._actions.ended(action, failure, self._started_s)
        self._caller.action_over(None if error is not None else content, error)


class RouteHandle(ActionHandle):
    """A route that was asked."""

    def __init__(self, actions: Actions, caller: RouteCaller, started_s: float) -> None:
        super().__init__(actions, caller, started_s)
        self._route_caller = caller

    def exchanged(self, action: Action, message: AnswerHead | WantBody) -> None:
        """It answers, or wants more of the request's body."""
        self._route_caller.route_exchanged(message)

    def feed(self, content: bytes, *, is_last: bool, failure: Failure | None = None) -> None:
        """More of the body has come, which it has asked for; or nothing more can be had."""
        assert self._action is not None
        self._actions.pool.feed(self._action, content, is_last=is_last, failure=failure)


class UnaskedAction:
    """An action that nobody waits for; implements `ActionReceiver`."""

    def __init__(self, actions: Actions, told: Callable[[Failure | None], None], started_s: float) -> None:
        self._actions = actions
        self._told = told
        self._started_s = started_s

    def piece(self, action: Action, content: bytes) -> None:
        """None comes: it is to have one result."""

    def exchanged(self, action: Action, message: AnswerHead | WantBody) -> None:
        """None comes: it is no route."""

    def over(self, action: Action, content: bytes | None, failure: Failure | None) -> None:
        """It has ended."""
        self._actions.ended(action, failure, self._started_s)
        self._told(failure)


class JobAnswers(Protocol):
    """Schedules and cancels jobs for actions."""

    def asked(
        self,
        message: ScheduleJob | CancelJob,
        tell: Callable[[bytes | None, Failure | None], None],
        parent: str,
    ) -> None:
        """Schedule or cancel a job, and tell how that went; `parent` is the job that the action is itself."""


class TokenAnswers(Protocol):
    """Signs and verifies tokens for actions."""

    def asked(
        self, message: SignToken | VerifyLogin, tell: Callable[[bytes | None, Failure | None], None]
    ) -> None:
        """Do it, and tell what came of it."""


class Actions:
    """All actions in flight.

    Args:
        pool: Where they run.
        transactions: Where their queries run.
        mutations: Where their mutations run.
        publication: Knows what is published.
        reporter: Told of all that have ended; tells what a caller may know of a failure.
        metrics: The daemon's.
        mono_s: Monotonic clock.

    Attributes:
        jobs: Schedules and cancels jobs; set before anything runs.
        tokens: Signs and verifies tokens; likewise.
        tracer: Follows calls; None: none is followed.
    """

    jobs: JobAnswers
    tokens: TokenAnswers
    tracer: Tracer | None = None

    def __init__(
        self,
        pool: ActionPool,
        transactions: WorkerPool,
        mutations: Mutations,
        publication: Publication,
        reporter: CallReporter,
        metrics: Metrics,
        mono_s: Callable[[], float],
    ) -> None:
        self.pool = pool
        self._transactions = transactions
        self._mutations = mutations
        self._publication = publication
        self._reporter = reporter
        self._metrics = metrics
        self._mono_s = mono_s
        self._unfinished = 0
        self._numbers = count(1)
        metrics.actions.running.set_function(lambda: pool.running)
        metrics.actions.waiting.set_function(lambda: pool.waiting)

    def begin(
        self,
        name: str,
        arguments: bytes,
        caller: ActionCaller,
        *,
        identity: bytes | None = None,
        internal: bool = False,
        window: int = 0,
        session: bytes | None = None,
        parent: SpanContext | None = None,
    ) -> ActionHandle:
        """Begin an action; the caller may hear of its end before this returns.

        Args:
            name: Function.
            arguments: Encoded map.
            caller: Hears what becomes of it.
            identity: Encoded identity of the caller.
            internal: Whether internal functions may be called.
            window: Bytes of pieces that may be on their way to the caller; 0: it takes one result.
            session: The caller's name across connections, None over HTTP.
            parent: The span in which a session calls it, None if it did not say one.
        """
        handle = ActionHandle(self, caller, self._mono_s())
        origin: Origin = "http" if session is None else "session"
        action = Action(name, arguments, identity, internal, window, handle, origin=origin, session=session)
        self._run(handle, action, calling_span.get() if session is None else parent)
        return handle

    def begin_route(
        self,
        name: str,
        parameters: bytes,
        request: RouteRequest,
        caller: RouteCaller,
        *,
        identity: bytes | None,
        window: int,
    ) -> RouteHandle:
        """Have a route answer; the caller may hear of its end before this returns.

        Args:
            name: Of its function.
            parameters: Of its path, an encoded map of texts.
            request: What it is asked.
            caller: Gets the answer.
            identity: Encoded identity of the caller.
            window: Bytes of the answer that may be on their way to the caller; also of the body to the route.
        """
        handle = RouteHandle(self, caller, self._mono_s())
        action = Action(name, parameters, identity, False, window, handle, request)
        self._run(handle, action, calling_span.get())
        return handle

    def _run(self, handle: ActionHandle, action: Action, parent: SpanContext | None) -> None:
        self._count(action, parent)
        handle.begin(action)

    def _count(self, action: Action, parent: SpanContext | None = None) -> None:
        self._unfinished += 1
        action.logged = next(self._numbers)
        if self.tracer is not None:
            action.trace = self.tracer.begin(_kind_of(action), action.name, action.origin, parent)

    def submit(self, action: Action) -> None:
        """Run an action, or fail it before the first deploy."""
        if self._transactions.active_bundle is None:
            failure = Failure("no_bundle", TransientError(code="no_bundle").message)
            action.receiver.over(action, None, failure)
        else:
            self.pool.submit(action)

    def begin_unasked(
        self, name: str, arguments: bytes, over: Callable[[Failure | None], None], job: str
    ) -> Callable[[], None]:
        """Begin an action that nobody waits for, internal or not, without an identity.

        Args:
            name: Function.
            arguments: Encoded map.
            over: Told how it ended; before this returns if it cannot be begun.
            job: Id of the scheduled job that it is.

        Returns:
            Has it end where its author wants that of one whose caller has gone, or where it has not begun.
        """
        receiver = UnaskedAction(self, over, self._mono_s())
        action = Action(name, arguments, None, internal=True, window=0, receiver=receiver, origin="job")
        action.job = job
        self._count(action)
        self.submit(action)

        def leave() -> None:
            if action.seat is None:
                self.pool.stop(action)
            else:
                self.pool.leave(action)

        return leave

    @property
    def unfinished(self) -> int:
        """How many were accepted and are not over."""
        return self._unfinished

    def ended(self, action: Action, failure: Failure | None, started_s: float) -> ErrorBody | None:
        """Count and log an action that has ended, and return what its caller may know of its failure."""
        self._unfinished -= 1
        outcome = SUCCESS if failure is None else failure.code
        total_s = self._mono_s() - started_s
        self._metrics.calls.labels(_kind_of(action), outcome).inc()
        self._metrics.actions.seconds.observe(total_s)
        if action.trace is not None:
            action.trace.ran(action.usage, "" if failure is None else failure.code)
            action.trace.end(outcome)
        event = _event_of(action, SUCCESS, action.lines)
        event.usage, event.total_s = action.usage, total_s
        return self._reporter.ended(event, failure)

    # ------------------------------------------------------------------ from the pool

    def worker_died(self) -> None:
        """A worker has ended without being told to."""
        self._metrics.worker_deaths.inc()

    def printed(self, action: Action, lines: Sequence[tuple[str, str]]) -> None:
        """Log what an action has printed that goes on."""
        self._reporter.log(_event_of(action, "", lines))
        if action.session is not None:  # no more than one call may print
            action.printed.extend(self._reporter.shown(lines))

    def shown(self, action: Action) -> Sequence[tuple[str, str]]:
        """Return what its caller may be shown of what an action printed that has ended."""
        return [*action.printed, *self._reporter.shown(action.lines)]

    def asked(self, action: Action, message: Asked) -> None:
        """Do what an action asks for: run a query or mutation, with its identity and internal ones too, see to a job or a token."""

        def tell(content: bytes | None, failure: Failure | None) -> None:
            self.pool.nested_done(action, message.number, content, failure)

        if isinstance(message, SignToken | VerifyLogin):
            self.tokens.asked(message, tell)
        elif not isinstance(message, RunNested):
            self.jobs.asked(message, tell, action.job)
        elif message.kind == "query":
            self._query(action, message)
        else:
            self._mutation(action, message)

    def _query(self, action: Action, message: RunNested) -> None:
        started_s = self._mono_s()
        trace = None
        if self.tracer is not None:
            trace = self.tracer.begin("query", message.name, "action", _span_of(action))

        def tell(done: QueryDone, error: ErrorBody | None) -> None:
            failure = None if error is None else Failure(error.code, error.message, error.data)
            if trace is not None:
                trace.ran(done.usage, "" if failure is None else failure.code)
                trace.end(SUCCESS if failure is None else failure.code)
            self.pool.nested_done(action, message.number, done.content, failure)

        def done(result: QueryDone) -> None:
            outcome = result.failure.code if result.failure else SUCCESS
            self._metrics.calls.labels("query", outcome).inc()
            error = self._reporter.query_ended(
                message.name,
                result,
                "action",
                total_s=self._mono_s() - started_s,
                identity=action.identity,
                action=action.logged,
            )
            self._publication.when_published(result.ts, lambda: tell(result, error))

        self._transactions.run_query(
            message.name, message.arguments, done, identity=action.identity, internal=True
        )

    def _mutation(self, action: Action, message: RunNested) -> None:
        def decided(call: MutationCall, decision: Decision) -> None:
            error = decision.error
            failure = None if error is None else Failure(error.code, error.message, error.data)
            self.pool.nested_done(action, message.number, decision.value, failure)

        call = MutationCall(
            message.name,
            message.arguments,
            action.identity,
            internal=True,
            decided=decided,
            action=action.logged,
            parent=_span_of(action),
        )
        try:
            self._mutations.run(call)
        except TransientError as error:
            self.pool.nested_done(action, message.number, None, Failure(error.code, error.message))


def _kind_of(action: Action) -> CallKind:
    return "action" if action.request is None else "route"


def _span_of(action: Action) -> SpanContext:
    """Return the span in which an action calls others: they are followed if it is."""
    return UNFOLLOWED if action.trace is None else action.trace.context


def _event_of(action: Action, outcome: str, lines: Sequence[tuple[str, str]]) -> CallEvent:
    return CallEvent(
        _kind_of(action),
        action.name,
        action.origin,
        outcome,
        session=action.session,
        identity=action.identity,
        action=action.logged,
        lines=lines,
    )
