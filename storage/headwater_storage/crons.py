"""Crons as documents: declared by a deploy, due again and again, with what came of their last times.

Pure over a transaction or a snapshot. A cron that is due schedules a job in the transaction that moves its next time,
so no time is taken twice; the job's end is noted in the cron's row by the transaction that writes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import msgspec
from headwater_protocol.ids import SUFFIX_LENGTH
from msgspec.structs import replace

from headwater_storage.catalog import CRONS, SYSTEM_HANDLES
from headwater_storage.job_rows import JobFailure, JobKind  # noqa: TC001 (msgspec resolves them)
from headwater_storage.stored import unpack_stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_storage.store import StoreSnapshot
    from headwater_storage.transaction import Transaction

_HANDLE = SYSTEM_HANDLES[CRONS]
_TABLE = _HANDLE.definition.name

RunState = Literal["started", "success", "failed", "cancelled", "skipped"]


class CronRun(msgspec.Struct, frozen=True):
    """One run, or times at which there was none.

    Attributes:
        due_ms: When it was to run; of several times one.
        state: What came of it; `started` until it has ended.
        job: Id of its job.
        completed_ms: When it ended.
        error: Why it failed.
        skipped: At how many times it did not run.
    """

    due_ms: float
    state: RunState
    job: str | None = None
    completed_ms: float | None = None
    error: JobFailure | None = None
    skipped: int = 0


class Cron(msgspec.Struct, frozen=True):
    """The document of one cron.

    Attributes:
        id: Its id.
        creation_time_ms: When it was first declared.
        name: Its name.
        schedule: When it runs.
        time_zone: In which that is meant.
        function: What runs.
        kind: What that is.
        arguments: Encoded map.
        next_ms: When it is due next.
        runs: What came of its last times, the newest last.
    """

    id: str = msgspec.field(name="_id")
    creation_time_ms: float = msgspec.field(name="_creationTime")
    name: str
    schedule: str
    time_zone: str
    function: str
    kind: JobKind
    arguments: msgspec.Raw
    next_ms: float
    runs: list[CronRun] = []


class Passed(Protocol):
    """Times that have passed since a cron was due."""

    @property
    def latest_us(self) -> int:
        """The latest of them."""
        ...

    @property
    def missed(self) -> int:
        """How many before that."""
        ...

    @property
    def next_us(self) -> int:
        """The first one to come."""
        ...


class Timetable(Protocol):
    """When a cron runs."""

    def next_us(self, after_us: int) -> int:
        """Return its first time behind another one."""

    def passed(self, due_us: int, now_us: int) -> Passed:
        """Tell which times have passed since one was due."""


class CronSpec(NamedTuple):
    """A cron as a bundle declares it.

    Attributes:
        name: Its name.
        schedule: When it runs, as text.
        time_zone: In which that is meant.
        function: What runs.
        kind: What that is.
        arguments: Encoded map.
        timetable: When it runs.
    """

    name: str
    schedule: str
    time_zone: str
    function: str
    kind: JobKind
    arguments: bytes
    timetable: Timetable


@dataclass(frozen=True, slots=True)
class CronRules:
    """What becomes of times that have passed.

    Attributes:
        late_us: A run that would begin later than so long after its time is skipped.
        runs_kept: So many of the last runs are told of.
    """

    late_us: int
    runs_kept: int


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Cron).decode


def declare(transaction: Transaction, specs: Sequence[CronSpec]) -> None:
    """Make the crons those of a bundle: what stays as it was keeps its next time, all keep their last runs."""
    rows = transaction.read_range(_TABLE, None, [], None, None, descending=False)
    existing = {cron.name: cron for cron in (_decode(row.document) for row in rows)}
    for spec in specs:
        before = existing.pop(spec.name, None)
        if before is not None and _is_declared(before, spec):
            continue
        if before is None:
            cron_id, creation_time_ms = transaction.new_id(_TABLE)
        else:
            cron_id, creation_time_ms = before.id, before.creation_time_ms
        next_ms = spec.timetable.next_us(transaction.now_us) / 1000
        fields = (spec.schedule, spec.time_zone, spec.function, spec.kind, msgspec.Raw(spec.arguments))
        runs = before.runs if before is not None else []
        cron = Cron(cron_id, creation_time_ms, spec.name, *fields, next_ms, runs)
        transaction.put(cron_id, _encode(cron), counted=False)
    for gone in existing.values():
        transaction.delete(gone.id)


def _is_declared(cron: Cron, spec: CronSpec) -> bool:
    return (cron.schedule, cron.time_zone, cron.function, cron.kind, bytes(cron.arguments)) == (
        spec.schedule,
        spec.time_zone,
        spec.function,
        spec.kind,
        spec.arguments,
    )


def all_crons(snapshot: StoreSnapshot) -> list[Cron]:
    """Return the crons of a snapshot; nothing counts as read."""
    return [
        _decode(bytes(unpack_stored(value, key)[1])) for key, value in snapshot.documents(*_HANDLE.documents)
    ]


def peek(snapshot: StoreSnapshot, cron_id: str) -> Cron | None:
    """Return a cron as a snapshot has it; nothing counts as read."""
    key = _HANDLE.prefix + cron_id[-SUFFIX_LENGTH:].encode()
    value = snapshot.get_document(key)
    return None if value is None else _decode(bytes(unpack_stored(value, key)[1]))


def read(transaction: Transaction, cron_id: str) -> Cron | None:
    """Return a cron as a transaction sees it, None if there is none; it counts as read."""
    stored = transaction.get(cron_id, counted=False)
    return None if stored is None else _decode(stored.document)


def take(transaction: Transaction, cron: Cron, timetable: Timetable, rules: CronRules) -> int | None:
    """Let a cron run that is due, or skip what cannot run any more, and set its next time.

    Args:
        transaction: What to do it in; its time is the present.
        cron: As the transaction sees it.
        timetable: When it runs.
        rules: What becomes of times that have passed.

    Returns:
        When the job is due that was scheduled, µs since 1970; None if there is none.
    """
    due_us = round(cron.next_ms * 1000)
    if due_us > transaction.now_us:
        return None
    passed = timetable.passed(due_us, transaction.now_us)
    runs = list(cron.runs)
    late = transaction.now_us - passed.latest_us > rules.late_us
    busy = any(run.state == "started" for run in runs)
    skipped = passed.missed + (late or busy)
    if skipped:
        shown_us = passed.latest_us if late or busy else due_us
        runs.append(CronRun(shown_us / 1000, "skipped", skipped=skipped))
    job = None
    if not (late or busy):
        job = transaction.schedule(
            cron.function, cron.kind, bytes(cron.arguments), passed.latest_us, cron=cron.id
        )
        runs.append(CronRun(passed.latest_us / 1000, "started", job))
    kept = [run for run in runs[: -rules.runs_kept] if run.state == "started"] + runs[-rules.runs_kept :]
    changed = replace(cron, next_ms=passed.next_us / 1000, runs=kept)
    transaction.put(cron.id, _encode(changed), counted=False)
    return None if job is None else passed.latest_us


def ended(
    transaction: Transaction, cron_id: str, job_id: str, state: RunState, error: JobFailure | None
) -> None:
    """Note how the run of a cron has ended, if the cron is still there."""
    cron = read(transaction, cron_id)
    if cron is None:
        return
    now_ms = transaction.now_us / 1000
    runs = [
        replace(run, state=state, completed_ms=now_ms, error=error) if run.job == job_id else run
        for run in cron.runs
    ]
    transaction.put(cron_id, _encode(replace(cron, runs=runs)), counted=False)
