"""What is stored of a scheduled job."""

from __future__ import annotations

from typing import Literal

import msgspec

JobKind = Literal["mutation", "action"]
JobState = Literal["pending", "running", "success", "failed", "cancelled"]


class JobFailure(msgspec.Struct, frozen=True):
    """Why a job has failed.

    Attributes:
        code: A code of the error table.
        message: What happened.
        data: Of an application error, encoded; else null.
    """

    code: str
    message: str
    data: msgspec.Raw = msgspec.Raw(b"\xc0")


class Job(msgspec.Struct, frozen=True):
    """The document of one job.

    Attributes:
        id: Its id.
        creation_time_ms: When it was scheduled.
        function: What it runs.
        kind: What that was when it was scheduled.
        arguments: Encoded map.
        due_ms: When it is to run.
        state: How far it is.
        started_ms: When its action was marked as running, or its mutation ran; None before.
        completed_ms: When it ended; None before.
        error: Why it failed.
        cron: Id of the cron whose run it is, None if it is none's.
    """

    id: str = msgspec.field(name="_id")
    creation_time_ms: float = msgspec.field(name="_creationTime")
    function: str
    kind: JobKind
    arguments: msgspec.Raw
    due_ms: float
    state: JobState = "pending"
    started_ms: float | None = None
    completed_ms: float | None = None
    error: JobFailure | None = None
    cron: str | None = None


class DueJob(msgspec.Struct, frozen=True):
    """A pending job by what its index entry says."""

    due_us: int
    id: str
