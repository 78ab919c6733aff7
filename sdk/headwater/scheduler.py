"""`ctx.scheduler`: functions that run later, by themselves."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, cast

from headwater_protocol.errors import RequestError

from headwater.refusals import nearest

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from headwater_protocol.manifest import FunctionKind

    from headwater.calls import CompiledFunction
    from headwater.fields import Id
    from headwater.system_tables import ScheduledJob

P = ParamSpec("P")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_LATEST_MS = 253_402_300_799_999.0  # the end of the year 9999, where datetimes end
_SCHEDULABLE = ("mutation", "action")


class Schedulable(Protocol[P]):
    """A mutation, or an action with one result: what can run by itself later."""

    def __schedulable__(self, *args: P.args, **kwargs: P.kwargs) -> None:
        """Exist for type checkers only."""


class SchedulingCall(Protocol):
    """What scheduling needs of the call that does it."""

    @property
    def functions(self) -> Mapping[Any, CompiledFunction]:
        """Functions of the bundle by what their decorator made of them."""
        ...


@dataclass(frozen=True, slots=True)
class ScheduledCall:
    """A function with its arguments, checked, and the time at which it is to run.

    Attributes:
        function: Its name.
        kind: What it is.
        arguments: Encoded map.
        due_us: When, µs since 1970.
    """

    function: str
    kind: FunctionKind
    arguments: bytes
    due_us: int


def scheduled_call(
    functions: Mapping[Any, CompiledFunction],
    function: Any,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    table_of: Callable[[str], str | None],
    due_ms: float,
) -> ScheduledCall:
    """Check what is to be scheduled.

    Args:
        functions: Functions of the bundle by what their decorator made of them.
        function: What is to run.
        args: Positional arguments.
        kwargs: Keyword arguments.
        table_of: Names the table of an id.
        due_ms: When.

    Raises:
        TypeError: It cannot be scheduled.
        RequestError: `invalid_arguments`.
    """
    compiled = functions.get(function)
    if compiled is None:
        known = nearest(function, [item.name for item in functions.values()]) if type(function) is str else ""
        raise TypeError(f"ctx.scheduler takes a @mutation or @action of this bundle, got {function!r}{known}")
    if compiled.kind not in _SCHEDULABLE:
        raise TypeError(
            f"{compiled.name} is a {compiled.kind}; schedule a @mutation or an @action: nobody would see its result"
        )
    if compiled.stream:
        raise TypeError(
            f"{compiled.name} streams, and nobody would take its pieces; schedule an action with one result"
        )
    arguments = compiled.arguments.encode(args, kwargs)
    compiled.arguments.decode(arguments, table_of)
    return ScheduledCall(compiled.name, compiled.kind, arguments, round(due_ms * 1000))


def due_after(now_ms: float, delay: float | timedelta) -> float:
    """Return when something is due that is to wait for a while, ms since 1970; at once if that is less than nothing.

    Raises:
        TypeError: It is no time.
        ValueError: It is beyond the year 9999.
    """
    if isinstance(delay, timedelta):
        delay_ms = delay / _MICROSECOND / 1000
    elif type(delay) in (int, float):
        delay_ms = delay
    else:
        raise TypeError(f"ctx.scheduler.run_after takes milliseconds or a timedelta, got {delay!r}")
    return _checked(now_ms + max(delay_ms, 0.0), delay)


def due_at(now_ms: float, time: float | datetime) -> float:
    """Return when something is due that is to run at a time, ms since 1970; at once if that has passed.

    Raises:
        TypeError: It is no time.
        ValueError: It has no time zone, or is beyond the year 9999.
    """
    if isinstance(time, datetime):
        if time.tzinfo is None:
            raise ValueError(f"ctx.scheduler.run_at takes a datetime with a time zone, got {time!r}")
        time_ms = (time - _EPOCH) / _MICROSECOND / 1000
    elif type(time) in (int, float):
        time_ms = time
    else:
        raise TypeError(f"ctx.scheduler.run_at takes milliseconds since 1970 or a datetime, got {time!r}")
    return _checked(max(time_ms, now_ms), time)


def _checked(due_ms: float, given: Any) -> float:
    if not due_ms <= _LATEST_MS:  # nor what is no number
        raise ValueError(f"a job cannot wait until then: {given!r}; the last year is 9999")
    return due_ms


class _MutationCall(SchedulingCall, Protocol):
    @property
    def backend(self) -> _TransactionBackend: ...


class _TransactionBackend(Protocol):
    @property
    def now_us(self) -> int: ...

    def table_name(self, document_id: str) -> str | None: ...

    def schedule(self, function: str, kind: Any, arguments: bytes, due_us: int) -> str: ...

    def cancel_job(self, job_id: str) -> bool: ...


class Scheduler:
    """Has functions run later. What it does takes effect with the mutation, or not at all."""

    __slots__ = ("_call",)

    def __init__(self, call: _MutationCall) -> None:
        self._call = call

    def run_after(
        self, delay: float | timedelta, function: Schedulable[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledJob]:
        """Run a function once a time has passed, at the earliest when this mutation has committed.

        Args:
            delay: Milliseconds, or a timedelta.
            function: A mutation or an action of this bundle, internal ones too.
            *args: Its arguments, which are checked now and again when it runs.
            **kwargs: Its arguments.

        Returns:
            The job's id, for `cancel` and `ctx.db.get`.

        Raises:
            RequestError: `invalid_arguments`, or a limit of the call.
        """
        return self._schedule(due_after(self._now_ms, delay), function, args, kwargs)

    def run_at(
        self, time: float | datetime, function: Schedulable[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledJob]:
        """Run a function at a time, as `run_after` does.

        Args:
            time: Milliseconds since 1970, or an aware datetime. At once if it has passed.
            function: A mutation or an action of this bundle.
            *args: Its arguments.
            **kwargs: Its arguments.
        """
        return self._schedule(due_at(self._now_ms, time), function, args, kwargs)

    def cancel(self, job: Id[ScheduledJob], /) -> bool:
        """Have a job not run any more. False if it has ended or is not remembered.

        An action that runs already is told like one whose caller has gone away: it ends if it has `cancel_with_caller`,
        else it goes on. Its job is cancelled either way, and what it schedules from then on is not run.
        """
        return self._call.backend.cancel_job(_job_id(job))

    @property
    def _now_ms(self) -> float:
        return self._call.backend.now_us / 1000

    def _schedule(
        self, due_ms: float, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Id[ScheduledJob]:
        backend = self._call.backend
        made = scheduled_call(self._call.functions, function, args, kwargs, backend.table_name, due_ms)
        job = backend.schedule(made.function, made.kind, made.arguments, made.due_us)
        return cast("Id[ScheduledJob]", job)


class _RunningActionCall(SchedulingCall, Protocol):
    @property
    def backend(self) -> _ActionBackend: ...


class _ActionBackend(Protocol):
    def now_ms(self) -> float: ...

    def table_name(self, document_id: str) -> str | None: ...

    def schedule(self, function: str, kind: Any, arguments: bytes, due_us: int) -> Awaitable[str]: ...

    def cancel_job(self, job_id: str) -> Awaitable[bool]: ...


class ActionScheduler:
    """Has functions run later, at once for each call: what the action does later changes nothing of it."""

    __slots__ = ("_call",)

    def __init__(self, call: _RunningActionCall) -> None:
        self._call = call

    async def run_after(
        self, delay: float | timedelta, function: Schedulable[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledJob]:
        """Run a function once a time has passed; see `Scheduler.run_after`. The job is there when this returns."""
        return await self._schedule(due_after(self._call.backend.now_ms(), delay), function, args, kwargs)

    async def run_at(
        self, time: float | datetime, function: Schedulable[P], /, *args: P.args, **kwargs: P.kwargs
    ) -> Id[ScheduledJob]:
        """Run a function at a time; see `Scheduler.run_at`. The job is there when this returns."""
        return await self._schedule(due_at(self._call.backend.now_ms(), time), function, args, kwargs)

    async def cancel(self, job: Id[ScheduledJob], /) -> bool:
        """Have a job not run any more. False if it has ended or is not remembered.

        An action that runs already is told like one whose caller has gone away: it ends if it has `cancel_with_caller`,
        else it goes on. Its job is cancelled either way, and what it schedules from then on is not run.
        """
        return await self._call.backend.cancel_job(_job_id(job))

    async def _schedule(
        self, due_ms: float, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Id[ScheduledJob]:
        backend = self._call.backend
        made = scheduled_call(self._call.functions, function, args, kwargs, backend.table_name, due_ms)
        return cast(
            "Id[ScheduledJob]",
            await backend.schedule(made.function, made.kind, made.arguments, made.due_us),
        )


def _job_id(job: Any) -> str:
    if type(job) is not str:
        raise RequestError(f"ctx.scheduler.cancel takes the id of a scheduled job, got {job!r:.200}")
    return job
