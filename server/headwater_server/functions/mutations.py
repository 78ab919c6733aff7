"""From a mutation's request to its answer: in order for each session, once, rerun on conflict.

Runs on the event loop, without awaits: the pool runs the function, the engine commits what
it proposes, and every step comes back here as a call. Calls that keep meeting each other on
the same documents run in the lane.

A session's queue belongs to the session id, not to a connection: a client that reconnects
finds its running call, and whatever it had queued it sends again. Every decided call is
recorded in its request row in the same commit as its writes, so a resend is answered from
the row and never runs twice.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import HeadwaterError, RequestError, TransientError
from headwater_protocol.messages import ErrorBody
from headwater_storage.proposal import Proposal

from headwater_server.functions.contention import Contention, SessionContention
from headwater_server.functions.gate import Gate
from headwater_server.functions.lane import ChainCommitter, ChainRunner, Lane, LaneLimits
from headwater_server.observe.call_log import SUCCESS, CallEvent
from headwater_server.observe.traces import span_context
from headwater_server.worker.messages import Failure, MutationDone, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from headwater_protocol.server_events import MutationRequested

    from headwater_server.functions.failures import CallReporter
    from headwater_server.functions.lane import LaneChain
    from headwater_server.observe.call_log import Origin
    from headwater_server.observe.metrics import Metrics
    from headwater_server.observe.traces import CallTrace, SpanContext, Tracer
    from headwater_server.reactive.sessions import Session
    from headwater_server.worker.messages import Usage
    from headwater_server.worker.request_row import Answer

logger = logging.getLogger("headwater.mutations")

_MODEST_FACTOR = 2  # so many times as many may be undecided for those sessions that have no other


@dataclass(frozen=True, slots=True)
class Decision:
    """How a mutation ended.

    Attributes:
        ts: Commit ts, or the snapshot that a read-only success or a failure saw.
        value: Encoded result; None when it failed.
        error: What failed; None on success.
        committed: Whether it was committed now, at `ts`.
        lines: What its run printed, as far as its caller may be shown that: level and text.
    """

    ts: int
    value: bytes | None
    error: ErrorBody | None
    committed: bool = False
    lines: Sequence[tuple[str, str]] = ()


@dataclass(slots=True, eq=False)
class MutationCall:
    """One mutation on its way.

    Attributes:
        name: Function.
        arguments: Encoded map.
        identity: Encoded identity, None if there is none.
        internal: Whether the caller may call internal functions.
        decided: Called once, when the outcome is certain and published.
        request: What it is remembered by; None over HTTP, where nothing is remembered.
        attempts: How often it has run.
        started_s: Monotonic time of the request.
        outcome: Result of the last run, which the committer has or the answer carries.
        failure: Failure of the last run.
        ticket: Its place in the lane, from when it first came there; 0 before.
        chain: The chain it is a member of, from when it is sent until it is decided or goes back.
        sent_back: How often it went back to the lane because its worker had ended.
        job: Id of the scheduled job that it is; "" if it is none.
        first_due_us: When the first of the jobs is due that its last run scheduled; None if it scheduled none.
        action: Number, in the log of calls, of the action that called it; 0: none.
        usage: What its last run cost, None if nobody could tell.
        lines: What its last run printed.
        remembered: It did not run: its answer is what is remembered of its request.
        request_id: What its caller was told in place of its failure; "" for all else.
        parent: The span in which it is called, None if nobody said one.
        trace: Its spans, None if it is not followed.
    """

    name: str
    arguments: bytes
    identity: bytes | None
    internal: bool
    decided: Callable[[MutationCall, Decision], None]
    request: Request | None = None
    attempts: int = 0
    started_s: float = 0.0
    outcome: bytes | None = None
    failure: Failure | None = None
    ticket: int = 0
    chain: LaneChain | None = None
    sent_back: int = 0
    job: str = ""
    first_due_us: int | None = None
    action: int = 0
    usage: Usage | None = None
    lines: Sequence[tuple[str, str]] = ()
    remembered: bool = False
    request_id: str = ""
    parent: SpanContext | None = None
    trace: CallTrace | None = None

    @property
    def size_bytes(self) -> int:
        """What it is counted as."""
        return len(self.name) + len(self.arguments)

    @property
    def number(self) -> int:
        """The client's number for it, 0 over HTTP."""
        return self.request.number if self.request is not None else 0


class Committer(ChainCommitter, Protocol):
    """What commits proposals: the engine. `Mutations.committed` or `Mutations.refused` follows."""

    def has_touched(self, proposal: Proposal) -> bool:
        """Tell whether anybody has written, since a proposal's snapshot, what it read."""


class Publication(Protocol):
    """Knows what is published: the switchboard."""

    def when_published(self, ts: int, action: Callable[[], None]) -> None:
        """Do something once `ts` is published; at once if it is."""


class KnownUser(Protocol):
    """Whoever a session is of: what has verified its token, or as whom the holder of a key acts."""

    @property
    def identity(self) -> bytes:
        """As calls are given it."""

    @property
    def token_identifier(self) -> str:
        """One person, whichever token."""


class Receiver(Protocol):
    """The connection that a session's answers go to."""

    @property
    def session(self) -> Session | None:
        """Its session in the reactive core; None once the connection has ended."""

    def receive_decision(self, call: MutationCall, decision: Decision) -> None:
        """A call was decided without a commit of its own at this moment."""

    def end(self, error: HeadwaterError) -> None:
        """End the connection; the client comes back and sends again what is undecided."""


@dataclass(slots=True, eq=False)
class SessionQueue:
    """The mutations of one session, in order. It outlives connections while a call runs.

    Attributes:
        session: The client's name across connections.
        waiting: What has not begun.
        waiting_bytes: Bytes of their names and arguments.
        paused: Its client does not read its answers: nothing is begun.
        running: What has begun and is not decided.
        starting: Set while waiting calls are begun; one that is refused at once must not
            begin the next one from within.
        receiver: Where answers go, None while the client is away.
        contention: Whether its calls meet those of others.
    """

    session: bytes
    waiting: deque[MutationCall] = field(default_factory=deque)
    waiting_bytes: int = 0
    paused: bool = False
    running: MutationCall | None = None
    starting: bool = False
    receiver: Receiver | None = None
    contention: SessionContention = field(default_factory=SessionContention)


@dataclass(frozen=True, slots=True)
class MutationLimits:
    """Bounds of the queues.

    Attributes:
        waiting_max: Mutations that one session may have waiting.
        waiting_bytes_max: Bytes of their names and arguments.
        undecided_max: Mutations of all sessions and over HTTP, with those that run. Twice as many for
            sessions that have no other.
        undecided_bytes_max: Bytes of their names and arguments.
        attempts_max: Runs of one mutation before it fails with `conflict`.
        gate_s: How long other proposals wait at most for a call that keeps losing.
        lane: Bounds of the lane.
    """

    waiting_max: int = 1000
    waiting_bytes_max: int = 32 * 1024 * 1024
    undecided_max: int = 5_000
    undecided_bytes_max: int = 128 * 1024 * 1024
    attempts_max: int = 100
    gate_s: float = 0.05
    lane: LaneLimits = field(default_factory=LaneLimits)


class Mutations:
    """All mutations in flight.

    Attributes:
        tracer: Follows calls; None: none is followed.
    """

    tracer: Tracer | None = None

    def __init__(
        self,
        runner: ChainRunner,
        committer: Committer,
        publication: Publication,
        reporter: CallReporter,
        metrics: Metrics,
        limits: MutationLimits,
        mono_s: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        record_failure: Callable[[Request, Failure], Proposal | Answer],
    ) -> None:
        self._runner = runner
        self._committer = committer
        self._publication = publication
        self._reporter = reporter
        self._metrics = metrics
        self._limits = limits
        self._mono_s = mono_s
        self._record_failure = record_failure
        self._queues: dict[bytes, SessionQueue] = {}
        self._running_since: dict[MutationCall, int] = {}
        self._gate = Gate(
            committer.submit, later, limits.gate_s, mono_s, metrics.lane.gate_wait_seconds.observe
        )
        self._lane = Lane(runner, committer, self._gate, metrics.lane, limits.lane)
        self._contention = Contention()
        self._waiting = 0
        self._held_bytes = 0
        self._paused: dict[SessionQueue, None] = {}

    # ------------------------------------------------------------------ sessions

    def attach(self, session: bytes, receiver: Receiver) -> SessionQueue:
        """Give a session's answers to a new connection; what the old one had queued is dropped (it is resent)."""
        queue = self._queues.setdefault(session, SessionQueue(session))
        self._drop_waiting(queue)
        queue.receiver = receiver
        self.resume(queue)
        return queue

    def detach(self, queue: SessionQueue, receiver: Receiver) -> None:
        """The connection is gone; its running call goes on, the queued ones are dropped."""
        if queue.receiver is not receiver:
            return
        queue.receiver = None
        self._drop_waiting(queue)
        self.resume(queue)
        if queue.running is None:
            self._queues.pop(queue.session, None)

    def request(
        self, queue: SessionQueue, asked: MutationRequested, user: KnownUser | None, *, internal: bool
    ) -> HeadwaterError | None:
        """Queue one mutation of a session.

        A resend of the call that is running joins it: the answer goes to the connection of now.

        Args:
            queue: The session's.
            asked: What the client sent.
            user: Who it is, None if nobody. A resend must be of the same user, with whatever token.
            internal: Whether internal functions may be called.

        Returns:
            Why the connection must end instead, None if it need not.
        """
        name, arguments, number = asked.name, asked.arguments, asked.request
        identity = None if user is None else user.identity
        proof = fingerprint(name, arguments, "" if user is None else user.token_identifier)
        running = queue.running.request if queue.running is not None else None
        if running is not None and running.number == number:
            return None if running.fingerprint == proof else RequestError(code="session_in_use")
        call = MutationCall(
            name=name,
            arguments=arguments,
            identity=identity,
            internal=internal,
            decided=self._answer_session,
            request=Request(queue.session, number, proof, asked.forget_below, asked.sent_ts),
            started_s=self._mono_s(),
            parent=span_context(asked.traceparent),
        )
        resent = asked.sent_ts is not None
        refusal = self._refusal(call.size_bytes, queue, resent=resent)
        if refusal is not None:
            if (
                resent
            ):  # it may have taken effect: told that it has not, its caller would have it run once more
                return refusal
            # At once, before those that wait have their answers: what is refused must not take room either.
            self._metrics.calls.labels("mutation", refusal.code).inc()
            error = ErrorBody(refusal.code, refusal.message)
            self._answer_session(call, Decision(self._committer.published_ts, None, error))
            return None
        self._follow(call)
        queue.waiting.append(call)
        queue.waiting_bytes += call.size_bytes
        self._held_bytes += call.size_bytes
        self._waiting += 1
        self._start_next(queue)
        return None

    def pause(self, queue: SessionQueue) -> None:
        """Begin none of a session's mutations: its client does not read its answers."""
        queue.paused = True
        self._paused[queue] = None

    def resume(self, queue: SessionQueue) -> None:
        """Go on with a session's mutations."""
        if queue.paused:
            queue.paused = False
            del self._paused[queue]
            self._start_next(queue)

    def run(self, call: MutationCall) -> None:
        """Run a call that belongs to no session.

        Raises:
            TransientError: `overloaded`.
        """
        refusal = self._refusal(call.size_bytes)
        if refusal is not None:
            raise refusal
        self._held_bytes += call.size_bytes
        call.started_s = self._mono_s()
        self._follow(call)
        self._start(call)

    @property
    def unfinished(self) -> int:
        """How many calls were accepted and are not decided, without those of clients that do not read."""
        return self._undecided - sum(len(queue.waiting) for queue in self._paused)

    @property
    def is_full(self) -> bool:
        """Whether as many are undecided as may be: what comes is refused."""
        limits = self._limits
        return self._undecided >= limits.undecided_max or self._held_bytes >= limits.undecided_bytes_max

    @property
    def _undecided(self) -> int:
        return self._waiting + len(self._running_since)

    # ------------------------------------------------------------------ what comes back

    def ran(self, call: MutationCall, done: MutationDone) -> None:
        """The function has run: commit what it proposes, or answer once its snapshot is published."""
        call.outcome, call.failure, call.first_due_us = done.outcome, done.failure, done.first_due_us
        call.usage, call.lines, call.remembered = done.usage, done.logs, done.duplicate
        if call.trace is not None:
            call.trace.ran(done.usage, done.failure.code if done.failure else "")
        if done.proposal is not None:
            if call.chain is None:
                self._gate.enter(done.proposal, call)
                return
            if call.attempts == 1:
                self._note(call, met=self._committer.has_touched(done.proposal))
            self._lane.ran(call, done.proposal, done.usage.bytes_written)
            return
        self._publication.when_published(done.ts, lambda: self._decide(call, done.ts))

    def killed(self, call: MutationCall, failure: Failure) -> None:
        """The function was ended by a limit or took its worker with it: that is its outcome, recorded like any other."""
        call.outcome, call.failure = None, failure
        call.usage, call.lines = None, ()
        if call.trace is not None:
            call.trace.ran(None, failure.code)
        if call.chain is not None:
            self._lane.left(call)
        if call.request is None:
            self._decide(call, self._committer.published_ts)
            return
        recorded = self._record_failure(call.request, failure)
        if isinstance(recorded, Proposal):
            self._gate.enter(recorded, call)
        else:  # a resend of a call that must not run any more
            call.outcome, call.failure = recorded.outcome, recorded.failure
            self._decide(call, self._committer.published_ts)

    def sent_back(self, call: MutationCall) -> None:
        """A member of a chain has not run: its worker ended, or is held up."""
        self._lane.sent_back(call)

    def stuck(self, call: MutationCall) -> None:
        """A member of a chain runs for long."""
        self._lane.stuck(call)

    def unchained(self, call: MutationCall) -> None:
        """A member of a chain runs by itself from now on."""
        self._lane.left(call)

    def committed(self, call: MutationCall, ts: int) -> Decision:
        """The committer published the call's proposal; the caller hands the decision on in the same step."""
        if call.attempts == 1 and not call.ticket:
            self._note(call, met=False)
        return Decision(ts, *self._result(call), committed=True, lines=self._reporter.shown(call.lines))

    def refused(self, call: MutationCall, error: HeadwaterError) -> None:
        """The committer did not take the proposal: a conflict is rerun, anything else is the answer."""
        if call.trace is not None:
            call.trace.lost(error.code)
        if error.code == "conflict" and call.attempts < self._limits.attempts_max:
            self._metrics.conflicts.inc()
            if call.attempts == 1 and not call.ticket:
                self._note(call, met=True)
            self._start(call)
            return
        call.outcome, call.failure = None, Failure(error.code, error.message)
        self._decide(call, self._committer.published_ts)

    def finish(self, call: MutationCall, decision: Decision) -> None:
        """Account for a decided call and let the next of its session begin."""
        self._running_since.pop(call, None)
        self._held_bytes -= call.size_bytes
        outcome = decision.error.code if decision.error else SUCCESS
        total_s = self._mono_s() - call.started_s
        self._metrics.calls.labels("mutation", outcome).inc()
        self._metrics.mutation_seconds.observe(total_s)
        self._log(call, outcome, total_s)
        if call.trace is not None:
            call.trace.end(outcome)
        if call.ticket:
            self._lane.decided(call)
        queue = self.queue_of(call)
        if queue is not None:
            queue.running = None
            self._start_next(queue)

    def _log(self, call: MutationCall, outcome: str, total_s: float) -> None:
        session = None if call.request is None else call.request.session
        self._reporter.log(
            CallEvent(
                "mutation",
                call.name,
                _origin_of(call),
                outcome,
                call.usage,
                total_s,
                0 if call.remembered else call.attempts,
                call.failure,
                call.request_id,
                session,
                call.identity,
                call.action,
                call.lines,
            )
        )

    def queue_of(self, call: MutationCall) -> SessionQueue | None:
        """Return the queue that a session's call belongs to."""
        return None if call.request is None else self._queues.get(call.request.session)

    def session_of(self, call: MutationCall) -> Session | None:
        """Return the session that now waits for a call's answer, None if nobody does."""
        queue = self.queue_of(call)
        return queue.receiver.session if queue is not None and queue.receiver is not None else None

    def hold_back(self) -> None:
        """Let what wants to commit wait for a moment, so that a deploy can: as long as for calls that keep losing."""
        self._gate.hold_back()

    def oldest_ts(self) -> int | None:
        """Return a ts that no running call has begun before; None if none runs."""
        return next(iter(self._running_since.values()), None)

    # ------------------------------------------------------------------ inside

    def _start_next(self, queue: SessionQueue) -> None:
        if queue.starting:
            return
        queue.starting = True
        while queue.running is None and queue.waiting and not queue.paused:
            queue.running = call = queue.waiting.popleft()
            queue.waiting_bytes -= call.size_bytes
            self._waiting -= 1
            self._start(call)
        queue.starting = False
        if queue.running is None and queue.receiver is None:
            self._queues.pop(queue.session, None)

    def _drop_waiting(self, queue: SessionQueue) -> None:
        self._waiting -= len(queue.waiting)
        self._held_bytes -= queue.waiting_bytes
        queue.waiting.clear()
        queue.waiting_bytes = 0

    def _refusal(
        self, size_bytes: int, queue: SessionQueue | None = None, *, resent: bool = False
    ) -> TransientError | None:
        """Return why a call is not run, None if it is."""
        limits = self._limits
        if queue is not None and (
            len(queue.waiting) >= limits.waiting_max
            or queue.waiting_bytes + size_bytes > limits.waiting_bytes_max
        ):
            return TransientError("this session has too many mutations waiting", code="overloaded")
        # One that has nothing else is let in before those that have much, within bounds. So is what was sent before:
        # it was let in then, and mostly needs an answer only.
        modest = resent or (queue is not None and queue.running is None and not queue.waiting)
        if self._undecided >= limits.undecided_max * (
            _MODEST_FACTOR if modest else 1
        ) or self._held_bytes + size_bytes > limits.undecided_bytes_max * (_MODEST_FACTOR if resent else 1):
            return TransientError("too many mutations are waiting", code="overloaded")
        return None

    def _start(self, call: MutationCall) -> None:
        call.attempts += 1
        if call.trace is not None:
            call.trace.waits()
        self._running_since.pop(call, None)  # at the end again: the dict is in the order of its ts
        self._running_since[call] = self._committer.published_ts
        if call.attempts > 1 or self._meets_others(call):
            self._lane.add(call)
        else:
            self._runner.run_mutation(call)

    def _follow(self, call: MutationCall) -> None:
        if self.tracer is not None:
            call.trace = self.tracer.begin("mutation", call.name, _origin_of(call), call.parent)

    def _meets_others(self, call: MutationCall) -> bool:
        """Tell whether a call is expected to lose to a conflict."""
        if not self._contention.expects(call.name):
            return False
        queue = self.queue_of(call)
        return queue is None or queue.contention.expected()

    def _note(self, call: MutationCall, *, met: bool) -> None:
        """Learn from a call's first run."""
        if self._contention.expects(call.name):
            queue = self.queue_of(call)
            if queue is not None:
                queue.contention.note(met=met)
        self._contention.note(call.name, met=met)

    def _decide(self, call: MutationCall, ts: int) -> None:
        decision = Decision(ts, *self._result(call), lines=self._reporter.shown(call.lines))
        call.decided(call, decision)
        self.finish(call, decision)

    def _result(self, call: MutationCall) -> tuple[bytes | None, ErrorBody | None]:
        if call.failure is None:
            return call.outcome, None
        told = self._reporter.told("mutation", call.failure)
        call.request_id = told.request_id
        return None, told.body

    def _answer_session(self, call: MutationCall, decision: Decision) -> None:
        queue = self.queue_of(call)
        if queue is not None and queue.receiver is not None:
            queue.receiver.receive_decision(call, decision)


def fingerprint(name: str, arguments: bytes, token_identifier: str) -> bytes:
    """Return what a resend of a request must be the same in: function, arguments, user."""
    state = blake2b(digest_size=16)
    for part in (name.encode(), arguments, token_identifier.encode()):
        state.update(len(part).to_bytes(4, "big"))
        state.update(part)
    return state.digest()


def _origin_of(call: MutationCall) -> Origin:
    if call.request is not None:
        return "session"
    if call.job:
        return "job"
    return "action" if call.action else "http"
