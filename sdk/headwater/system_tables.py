"""Tables that the system writes and functions read: `ctx.db.get(job_id)`, `ctx.db.query(ScheduledJob.by_state, state="failed")`.

Every bundle has them, without declaring them.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from headwater.fields import Id  # noqa: TC001 (msgspec resolves it)
from headwater.indexes import Index
from headwater.schema import Table, TableMeta


class JobError(Struct, frozen=True):
    """Why a scheduled job has failed. Meant for developers: clients are told what a function makes of it.

    Attributes:
        code: A code of the error table, such as `application_error` or `time_limit`.
        message: What happened.
        data: What an `ApplicationError` carries.
    """

    code: str
    message: str
    data: Any = None


class ScheduledJob(Table, name="_scheduled_jobs"):
    """A function that was scheduled with `ctx.scheduler`: to come, running, or ended not long ago.

    Attributes:
        function: Its name, `module:function`.
        kind: What it was when it was scheduled.
        arguments: What it is called with, as clients have values.
        due_ms: When it is to run, ms since 1970.
        state: How far it is. `cancelled` is what was taken back before it began.
        started_ms: When it began to run for the last time, None before.
        completed_ms: When it ended or was cancelled, None before.
        error: Why it failed, None if it did not.
        cron: The cron whose run it is, None if it is none's.
    """

    function: str
    kind: Literal["mutation", "action"]
    arguments: dict[str, Any]
    due_ms: float
    state: Literal["pending", "running", "success", "failed", "cancelled"]
    started_ms: float | None = None
    completed_ms: float | None = None
    error: JobError | None = None
    cron: Id[CronJob] | None = None

    by_state = Index("state", "kind", "due_ms")
    by_completed = Index("completed_ms")


class CronRun(Struct, frozen=True):
    """One run of a cron, or times at which it did not run.

    Attributes:
        due_ms: When it was to run, ms since 1970; of several times one.
        state: `started` is what has not ended. A run is `skipped` where it would have come too late or its
            predecessor still ran.
        job: Its job, None if it was skipped.
        completed_ms: When it ended, None before.
        error: Why it failed, None if it did not.
        skipped: At how many times it did not run.
    """

    due_ms: float
    state: Literal["started", "success", "failed", "cancelled", "skipped"]
    job: Id[ScheduledJob] | None = None
    completed_ms: float | None = None
    error: JobError | None = None
    skipped: int = 0


class CronJob(Table, name="_crons"):
    """A cron of the active bundle.

    Attributes:
        name: Its name.
        schedule: When it runs: `every 600s`, or a cron expression.
        time_zone: In which that is meant.
        function: What runs.
        kind: What that is.
        arguments: What it is called with, as clients have values.
        next_ms: When it is due next.
        runs: What came of its last times, the newest last.
    """

    name: str
    schedule: str
    time_zone: str
    function: str
    kind: Literal["mutation", "action"]
    arguments: dict[str, Any]
    next_ms: float
    runs: list[CronRun] = []  # noqa: RUF012 (a table copies its defaults)

    by_name = Index("name")


SYSTEM_TABLES: tuple[TableMeta, ...] = (ScheduledJob, CronJob)
