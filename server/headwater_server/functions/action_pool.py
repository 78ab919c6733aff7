"""Which worker runs which action: places, the queue for them, time limits, and workers that no longer turn.

On the event loop, without awaits but for bundles. An action is never begun twice: what a worker has begun and
takes with it has failed, and only what it certainly has not begun runs elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Protocol

from headwater_protocol.errors import RequestError, TransientError

from headwater_server.functions.roster import Generation, Role, Roster, Worker
from headwater_server.functions.worker_bounds import WorkerBounds
from headwater_server.worker.messages import (
    ActionDone,
    ActionPiece,
    ActionPrinted,
    AnswerHead,
    Asked,
    CancelJob,
    CreditAction,
    Failure,
    FeedBody,
    KnowTables,
    KnowVariables,
    NestedDone,
    RunAction,
    RunNested,
    ScheduleJob,
    StopAction,
    WantBody,
    WorkerMessage,
)
from headwater_server.worker.token_messages import SignToken, VerifyLogin

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from headwater_protocol.errors import HeadwaterError

    from headwater_server.functions.limits import ActionOptions
    from headwater_server.observe.call_log import Origin
    from headwater_server.observe.traces import CallTrace
    from headwater_server.worker.messages import RouteRequest, Usage

logger = logging.getLogger("headwater.actions")

_WATCH_S = 0.1
_NO_RESULT = "the worker sent neither result nor failure"


class ActionReceiver(Protocol):
    """Who called an action. No method may wait."""

    def piece(self, action: Action, content: bytes) -> None:
        """It sends a piece, encoded."""

    def exchanged(self, action: Action, message: AnswerHead | WantBody) -> None:
        """It is a route, and answers or wants more of its request's body."""

    def over(self, action: Action, content: bytes | None, failure: Failure | None) -> None:
        """It has ended, with an encoded result or with why there is none."""


@dataclass(slots=True, eq=False)
class Action:
    """One action on its way.

    Attributes:
        name: Function.
        arguments: Encoded map.
        identity: Encoded identity, None if there is none.
        internal: Whether the caller may call internal functions.
        window: Bytes of pieces that may be on their way to the caller; 0: it takes one result.
        receiver: Who called it.
        request: It is a route that is asked this; None: it is an action.
        seat: The worker that has it, None while it waits.
        number: Its number on that worker's link.
        sent_s: Monotonic time at which that got it.
        nested: Queries and mutations that it has running.
        caller_left: Whether nobody waits for it any more.
        told: Whether its end has been told; its worker may still have it then.
        reruns: How often it was sent again, never begun.
        held: Whether its bytes are counted.
        origin: Who called it.
        session: The caller's name across connections, None if it has none.
        logged: Its number in the log of calls.
        job: Id of the scheduled job that it is; "": none.
        usage: What it cost, once it has ended by itself.
        lines: What it printed last.
        trace: Its spans, None if it is not followed.
        printed: What it printed before, as far as its caller may be shown that; kept for one with a session.
    """

    name: str
    arguments: bytes
    identity: bytes | None
    internal: bool
    window: int
    receiver: ActionReceiver
    request: RouteRequest | None = None
    seat: Seat | None = None
    number: int = 0
    sent_s: float = 0.0
    nested: int = 0
    caller_left: bool = False
    told: bool = False
    reruns: int = 0
    held: bool = False
    origin: Origin = "http"
    session: bytes | None = None
    logged: int = 0
    job: str = ""
    usage: Usage | None = None
    lines: Sequence[tuple[str, str]] = ()
    trace: CallTrace | None = None
    printed: list[tuple[str, str]] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        """What it is counted as."""
        return len(self.name) + len(self.arguments) + (_size_of(self.request) if self.request else 0)


@dataclass(slots=True, eq=False)
class Seat:
    """A worker and the actions that it has.

    Attributes:
        worker: The worker.
        actions: By number.
        overdue: Those that were cancelled at their time limit, with when that was.
        beats: How often its loop had turned at the last look.
        still_looks: Looks in a row at which it had not turned since.
        blocker: The action that its end is put down to, 0 if none is.
    """

    worker: Worker
    actions: dict[int, Action] = field(default_factory=dict)
    overdue: dict[int, float] = field(default_factory=dict)
    beats: int = 0
    still_looks: int = 0
    blocker: int = 0


class ActionEvents(Protocol):
    """What the pool tells of actions that are not over."""

    def asked(self, action: Action, message: Asked) -> None:
        """It wants a query or mutation run, or a job scheduled or cancelled; answer with `nested_done`."""

    def printed(self, action: Action, lines: Sequence[tuple[str, str]]) -> None:
        """It has printed lines, and goes on."""

    def worker_died(self) -> None:
        """A worker has ended without being told to."""


class ActionPool:
    """Runs actions in the workers of the active bundle.

    Args:
        options: How many of everything.
        roster: The worker processes.
        mono_s: Monotonic clock.
        tables: Returns the tables of the active bundle by their numbers.
        variables: Returns the rows of all environment variables.
    """

    def __init__(
        self,
        options: ActionOptions,
        roster: Roster,
        mono_s: Callable[[], float],
        tables: Callable[[], Mapping[int, str]],
        variables: Callable[[], Mapping[str, bytes]],
    ) -> None:
        self._options = options
        self._roster = roster
        self._mono_s = mono_s
        self._tables = tables
        self._variables = variables
        self._role = Role("actions", options.worker, self)
        self._events: ActionEvents | None = None
        self._prepared: dict[str, Generation] = {}
        self._active: Generation | None = None
        self._earlier: list[Generation] = []
        self._seats: dict[int, Seat] = {}
        self._waiting: deque[Action] = deque()
        self._running: dict[Action, None] = {}  # in the order in which they were sent
        self._held_bytes = 0  # of those that wait or run
        self._numbers = count(1)
        self._timer: asyncio.TimerHandle | None = None
        self._bounds = WorkerBounds(
            roster, options.start_limit_s, options.worker.memory_limit_bytes, options.memory_watch_s
        )
        self._served_s = 0.0
        self._closing = False

    # ------------------------------------------------------------------ life

    def start(self, events: ActionEvents) -> None:
        """Begin to tell what actions want."""
        self._events = events

    def close(self) -> None:
        """Fail whatever is not over as `unavailable`; the roster ends the processes."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        for action in [*self._waiting, *self._running]:
            self._over(action, None, _refusal(TransientError("the server is stopping")))
        self._waiting.clear()

    @property
    def running(self) -> int:
        """How many actions the workers have."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many wait for a place."""
        return len(self._waiting)

    # ------------------------------------------------------------------ bundles

    async def prepare(self, name: str, bundle: bytes) -> None:
        """Start workers for a bundle that has actions, beside the active ones, and return when all are ready.

        Args:
            name: Its hash.
            bundle: The archive.

        Raises:
            RequestError: `invalid_bundle`, with what was wrong.
        """
        if name in self._prepared or (self._active is not None and self._active.bundle == name):
            return
        generation = self._roster.begin(bundle, self._options.workers, self._role)
        self._prepared[name] = generation
        self._watch()
        try:
            await generation.complete
        except BaseException:
            self.discard(name)
            raise

    def discard(self, name: str) -> None:
        """Let the workers of a prepared bundle go that will not become active after all."""
        generation = self._prepared.pop(name, None)
        if generation is not None:
            self._roster.end(generation)

    def activate(self, name: str) -> None:
        """Send all actions to a prepared bundle from now on; to none, if that has no actions.

        What runs goes on in the workers of the bundle that it began with.
        """
        for other in [other for other in self._prepared if other != name]:
            self.discard(other)
        before = self._active
        if before is not None and before.bundle == name:
            return
        self._active = self._prepared.pop(name, None)
        self._served_s = self._mono_s()
        if before is not None:
            self._roster.end(before)
            self._earlier = [one for one in self._earlier if one.workers]
            self._earlier.append(before)
            for generation in self._earlier[: -self._options.earlier_bundles_max]:
                self._end_actions_of(generation)
        self._fill()

    def _end_actions_of(self, generation: Generation) -> None:
        many = self._options.earlier_bundles_max
        why = f"its bundle was replaced, and {many} others after it; no more than so many go on side by side"
        for worker in list(generation.workers):
            self._roster.kill(worker, Failure("worker_died", why))

    # ------------------------------------------------------------------ actions

    def submit(self, action: Action) -> None:
        """Run an action; its receiver hears how it goes, also that it cannot be run."""
        if self._closing:
            self._refuse(action, TransientError("the server is stopping"))
        elif self._active is None:
            self._refuse(action, _no_action(action.name))
        elif len(self._waiting) >= self._options.waiting_max:
            message = f"{self._options.waiting_max} actions wait already; try again later"
            self._refuse(action, TransientError(message, code="overloaded"))
        elif self._held_bytes + action.size_bytes > self._options.held_bytes_max:
            message = f"the arguments of all actions have more than {self._options.held_bytes_max} bytes"
            self._refuse(action, TransientError(message, code="overloaded"))
        else:
            self._held_bytes += action.size_bytes
            action.held = True
            self._waiting.append(action)
            self._fill()
            if self._waiting:
                self._watch()

    def leave(self, action: Action) -> None:
        """Nobody waits for an action any more: it ends if that is what its author wants."""
        action.caller_left = True
        self._tell(action, StopAction(action.number, caller_left=True))

    def stop(self, action: Action) -> None:
        """Cancel an action, whatever its author wants."""
        if action.seat is None and action in self._waiting:
            self._waiting.remove(action)
            self._over(action, None, Failure("cancelled", f"{action.name} was cancelled before it began"))
        self._tell(action, StopAction(action.number, caller_left=False))

    def credit(self, action: Action, size: int) -> None:
        """Its caller has taken pieces of that size."""
        self._tell(action, CreditAction(action.number, size))

    def feed(self, action: Action, content: bytes, *, is_last: bool, failure: Failure | None = None) -> None:
        """More of the body of a route's request has come, which it has asked for; or nothing more can be had."""
        self._tell(action, FeedBody(action.number, content, is_last, failure))

    def nested_done(
        self, action: Action, number: int, content: bytes | None, failure: Failure | None
    ) -> None:
        """What an action has asked for is over."""
        action.nested -= 1
        self._tell(action, NestedDone(action.number, number, content, failure))

    def _tell(self, action: Action, message: StopAction | CreditAction | NestedDone | FeedBody) -> None:
        if action.seat is not None:
            action.seat.worker.link.send(message)

    def variables_changed(self) -> None:
        """Tell all workers that have actions, or had some: what runs sees the change too."""
        message = KnowVariables(dict(self._variables()))
        for seat in self._seats.values():
            if seat.worker.announced:
                seat.worker.link.send(message)

    # ------------------------------------------------------------------ from the roster

    def worker_ready(self, worker: Worker) -> None:
        """Use a worker."""
        self._seats[worker.number] = Seat(worker)
        self._fill()

    def worker_message(self, worker: Worker, message: WorkerMessage) -> None:
        """Hand on what a worker says of an action."""
        seat = self._seats.get(worker.number)
        if seat is None or not isinstance(
            message, ActionDone | ActionPiece | ActionPrinted | Asked | AnswerHead | WantBody
        ):
            return
        action = seat.actions.get(message.call)
        if action is None:
            return
        match message:
            case ActionPiece(_, content):
                if not action.told and not action.caller_left:
                    action.receiver.piece(action, content)
            case AnswerHead() | WantBody():
                if not action.told and not action.caller_left:
                    action.receiver.exchanged(action, message)
            case ActionPrinted(_, lines):
                if not action.told and self._events is not None:
                    self._events.printed(action, lines)
            case RunNested() | ScheduleJob() | CancelJob() | SignToken() | VerifyLogin():
                self._nested(action, message)
            case ActionDone(_, content, failure, usage, lines):
                self._take_out(seat, action)
                action.usage, action.lines = usage, lines
                if content is None and failure is None:
                    failure = Failure("internal_error", _NO_RESULT)
                self._over(action, content, failure)
                self._roster.let_go_if_idle(worker)
                self._fill()

    def _nested(self, action: Action, message: Asked) -> None:
        action.nested += 1
        if action.nested > self._options.worker.nested_calls_max or self._events is None:
            error = TransientError("an action has too many calls running", code="overloaded")
            self.nested_done(action, message.number, None, _refusal(error))
        else:
            self._events.asked(action, message)

    def worker_ended(self, worker: Worker, reason: str, *, planned: bool) -> None:
        """Fail what it had begun, send what it had not elsewhere."""
        if not planned and self._events is not None:
            self._events.worker_died()
        seat = self._seats.pop(worker.number, None)
        if seat is None:
            return
        begun = worker.progress.begun()
        blocker = seat.actions.get(seat.blocker)
        again: list[Action] = []
        for number, action in list(seat.actions.items()):
            self._take_out(seat, action)
            if action.told:
                continue
            if number > begun:
                again.append(action)
            elif action is blocker and worker.ending is not None:
                self._over(action, None, worker.ending)
            else:
                self._over(action, None, _taken_along(action, worker, reason, blocker))
        for action in reversed(again):
            self._again(action)
        self._fill()
        self._watch()

    def _again(self, action: Action) -> None:
        action.reruns += 1
        action.seat = None
        if action.reruns > self._options.reruns_max:
            why = f"{action.reruns} workers ended while {action.name} waited in them"
            self._over(action, None, Failure("worker_died", why))
        elif self._active is None:
            self._over(action, None, _refusal(_no_action(action.name)))
        else:
            self._waiting.appendleft(action)

    # ------------------------------------------------------------------ places

    def _fill(self) -> None:
        """Send waiting actions while there are places."""
        while self._waiting and len(self._running) < self._options.running_max:
            seat = self._free_seat()
            if seat is None:
                return
            self._send(seat, self._waiting.popleft())

    def _free_seat(self) -> Seat | None:
        """Return the worker with the fewest actions, None if all are full."""
        free = [
            seat
            for seat in self._seats.values()
            if seat.worker.generation is self._active
            and not (seat.worker.leaving or seat.worker.doomed)
            and len(seat.actions) < self._options.worker_actions_max
        ]
        return min(free, key=lambda seat: len(seat.actions), default=None)

    def _send(self, seat: Seat, action: Action) -> None:
        worker = seat.worker
        self._served_s = self._mono_s()
        if not worker.announced:
            worker.announced = True
            worker.link.send(KnowTables(dict(self._tables())))
            worker.link.send(KnowVariables(dict(self._variables())))
        if not seat.actions:
            seat.still_looks = 0
        number = action.number = next(self._numbers)
        action.seat, action.sent_s = seat, self._served_s
        seat.actions[number] = action
        worker.in_flight[number] = (None, 0.0)
        self._running[action] = None
        worker.link.send(
            RunAction(
                number,
                action.name,
                action.arguments,
                action.identity,
                action.internal,
                action.window,
                action.request,
            )
        )
        if action.caller_left:
            worker.link.send(StopAction(number, caller_left=True))
        self._watch()

    def _take_out(self, seat: Seat, action: Action) -> None:
        del seat.actions[action.number]
        seat.overdue.pop(action.number, None)
        seat.worker.in_flight.pop(action.number, None)
        self._running.pop(action, None)
        action.seat = None

    def _over(self, action: Action, content: bytes | None, failure: Failure | None) -> None:
        if action.told:
            return
        action.told = True
        if action.held:
            self._held_bytes -= action.size_bytes
        action.receiver.over(action, content, failure)

    def _refuse(self, action: Action, error: HeadwaterError) -> None:
        self._over(action, None, _refusal(error))

    # ------------------------------------------------------------------ watch

    def _watch(self) -> None:
        """Look at the workers again soon; called whenever there may be something to see."""
        if self._timer is None and not self._closing:
            self._timer = asyncio.get_running_loop().call_later(_WATCH_S, self._look)

    def _look(self) -> None:
        self._timer = None
        now_s = self._mono_s()
        self._bounds.begin(now_s)
        busy = bool(self._waiting)
        for worker in self._roster.workers_of(self._role):
            seat = self._seats.get(worker.number)
            if seat is None:
                busy = True
                self._bounds.look_at_start(worker, now_s)
            elif seat.actions:
                busy = True
                self._look_at_loop(seat)
                self._look_at_overdue(seat, now_s)
                self._bounds.look_at_memory(worker)
        self._end_late(now_s)
        self._refuse_if_nobody_serves(now_s)
        if busy:
            self._watch()

    def _look_at_loop(self, seat: Seat) -> None:
        """End a worker whose loop does not turn. Looks are counted, not time: the daemon may have stood still."""
        beats = seat.worker.progress.beats()
        if beats != seat.beats:
            seat.beats, seat.still_looks = beats, 0
            return
        seat.still_looks += 1
        limit_s = self._options.worker.action_block_limit_s
        if seat.still_looks * _WATCH_S <= limit_s or seat.worker.doomed:
            return
        seat.blocker, where = seat.worker.progress.blamed()
        blocker = seat.actions.get(seat.blocker)
        name = blocker.name if blocker is not None else "an action"
        why = (
            f"{name} kept the others of its worker from going on for more than {limit_s:g} s, and was ended;"
            " wait with `await`, and run what computes for long with asyncio.to_thread"
        )
        logger.warning(
            "action_blocked", extra={"fields": {"worker": seat.worker.number, "function": name, "at": where}}
        )
        self._roster.kill(seat.worker, Failure("time_limit", why, None, where), seat.blocker)

    def _look_at_overdue(self, seat: Seat, now_s: float) -> None:
        """Give a worker no more actions that has some which do not end when cancelled, and end it with the last of the others."""
        if not seat.overdue or now_s - next(iter(seat.overdue.values())) <= self._options.end_limit_s:
            return
        if not seat.worker.leaving:
            self._roster.retire(seat.worker)
        if len(seat.overdue) == len(seat.actions):
            why = "all that was left in the worker were actions that had been cancelled and did not end"
            self._roster.kill(seat.worker, Failure("worker_died", why))

    def _end_late(self, now_s: float) -> None:
        """Cancel the actions that have run for too long; they were sent in order, so the first ones are the oldest."""
        limit_s = self._options.time_limit_s
        for action in list(self._running):
            if now_s - action.sent_s <= limit_s:
                return
            if action.seat is not None and action.number not in action.seat.overdue:
                action.seat.overdue[action.number] = now_s
                self.stop(action)
                why = f"{action.name} ran longer than {limit_s:g} s and was cancelled"
                self._over(action, None, Failure("time_limit", why))

    def _refuse_if_nobody_serves(self, now_s: float) -> None:
        """Do not let actions wait for workers that do not come up."""
        if self._running:
            self._served_s = now_s
        elif now_s - self._served_s > self._options.start_limit_s:
            while self._waiting:
                self._refuse(
                    self._waiting.popleft(), TransientError("no worker comes up; see the server's log")
                )


def _size_of(request: RouteRequest) -> int:
    headers = sum(len(name) + len(value) for name, value in request.headers)
    return headers + len(request.path) + len(request.query)


def _no_action(name: str) -> RequestError:
    return RequestError(f"there is no action {name[:200]!r}", code="unknown_function")


def _refusal(error: HeadwaterError) -> Failure:
    return Failure(error.code, error.message)


def _taken_along(action: Action, worker: Worker, reason: str, blocker: Action | None) -> Failure:
    """Return the failure of an action whose worker ended through no known fault of its own."""
    why = reason
    if blocker is not None:
        why = f"{blocker.name}, which ran beside it, kept the worker's loop from turning"
    elif worker.ending is not None:
        why = worker.ending.message
    return Failure("worker_died", f"the worker ended while {action.name} ran in it: {why}")
