"""Scheduled jobs as documents: how one is made, taken up, ended and forgotten.

Pure over a transaction or a snapshot. A job is a document of the system table `_scheduled_jobs`, so that it is
scheduled in the commit of whoever schedules it, and read like any other document.

    pending ──► success, failed      a mutation, in the commit of its writes
    pending ──► running ──► …        an action: it is begun at most once, so it is marked before it begins
    pending, running ──► cancelled   an action that runs goes on, and schedules nothing any more

Whoever takes a job further reads its row in the transaction that writes it: of two that take up the same job, one
conflicts and finds it taken.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.errors import RequestError
from headwater_protocol.ids import SUFFIX_LENGTH
from msgspec.structs import replace

from headwater_storage import crons
from headwater_storage.catalog import JOBS, SYSTEM_HANDLES
from headwater_storage.job_rows import DueJob, Job
from headwater_storage.keys import NUMBER_BYTES, decode_fields, encode_fields, index_prefix, prefix_range
from headwater_storage.stored import unpack_stored

if TYPE_CHECKING:
    from collections.abc import Container, Iterator

    from headwater_storage.job_rows import JobFailure, JobKind, JobState
    from headwater_storage.store import StoreSnapshot
    from headwater_storage.transaction import Transaction

_HANDLE = SYSTEM_HANDLES[JOBS]
_TABLE = _HANDLE.definition.name
_BY_STATE = index_prefix(_HANDLE.ready["by_state"].number)
_BY_COMPLETED = index_prefix(_HANDLE.ready["by_completed"].number)
_NULL = encode_fields([None])


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Job).decode


def schedule(
    transaction: Transaction,
    function: str,
    kind: JobKind,
    arguments: bytes,
    due_us: int,
    cron: str | None = None,
) -> str:
    """Have a function run at a time, once this transaction has committed; return the job's id.

    Args:
        transaction: What to do it in.
        function: What is to run.
        kind: What that is.
        arguments: Encoded map.
        due_us: When, µs since 1970.
        cron: Id of the cron whose run it is; then it counts for nothing.

    Raises:
        RequestError: A limit of the call.
    """
    if cron is None:
        transaction.usage.schedule(len(arguments))
    job_id, creation_time_ms = transaction.new_id(_TABLE)
    job = Job(job_id, creation_time_ms, function, kind, msgspec.Raw(arguments), due_us / 1000, cron=cron)
    transaction.put(job_id, _encode(job), counted=cron is None)
    return job_id


def cancel(transaction: Transaction, job_id: str) -> bool:
    """Have a job not run any more, or what runs of it count for nothing; False if it has ended or is not there."""
    if transaction.table_name(job_id) != _TABLE:
        raise RequestError(f"{job_id!r:.100} is no id of a scheduled job")
    job = read(transaction, job_id)
    if job is None or job.state not in ("pending", "running"):
        return False
    finish(transaction, job, "cancelled", counted=True)
    return True


def schedule_from(
    transaction: Transaction, parent: str, function: str, kind: JobKind, arguments: bytes, due_us: int
) -> str:
    """Schedule what a running job's action asks for: cancelled at once if that job was; return the new one's id."""
    job_id = transaction.schedule(function, kind, arguments, due_us)
    before, made = read(transaction, parent), read(transaction, job_id)
    if before is not None and before.state == "cancelled" and made is not None:
        finish(transaction, made, "cancelled")
    return job_id


def read(transaction: Transaction, job_id: str) -> Job | None:
    """Return a job as the transaction sees it, None if there is none; it counts as read."""
    stored = transaction.get(job_id)
    return None if stored is None else _decode(stored.document)


def start(transaction: Transaction, job_id: str) -> Job | None:
    """Mark a pending job as running; None if it is pending no more."""
    job = read(transaction, job_id)
    if job is None or job.state != "pending":
        return None
    started = replace(job, state="running", started_ms=transaction.now_us / 1000)
    transaction.put(job_id, _encode(started), counted=False)
    return started


def put_back(transaction: Transaction, job_id: str) -> None:
    """Let a job that was marked as running and has certainly not begun wait again."""
    job = read(transaction, job_id)
    if job is not None and job.state == "running":
        transaction.put(job_id, _encode(replace(job, state="pending", started_ms=None)), counted=False)


def finish(
    transaction: Transaction,
    job: Job,
    state: JobState,
    error: JobFailure | None = None,
    *,
    counted: bool = False,
) -> None:
    """Write how a job has ended; `counted` as a write of the function that does it, or beside that."""
    now_ms = transaction.now_us / 1000
    started_ms = now_ms if job.started_ms is None and state in ("success", "failed") else job.started_ms
    ended = replace(job, state=state, started_ms=started_ms, completed_ms=now_ms, error=error)
    transaction.put(job.id, _encode(ended), counted=counted)
    if job.cron is not None and state in ("success", "failed", "cancelled"):
        crons.ended(transaction, job.cron, job.id, state, error)


def fail(transaction: Transaction, job_id: str, from_state: JobState, error: JobFailure) -> bool:
    """Write that a job has failed, if it is still in a state; tell whether it was."""
    job = read(transaction, job_id)
    if job is None or job.state != from_state:
        return False
    finish(transaction, job, "failed", error)
    return True


def peek(snapshot: StoreSnapshot, job_id: str) -> Job | None:
    """Return a job as a snapshot has it; nothing counts as read."""
    key = _HANDLE.prefix + job_id[-SUFFIX_LENGTH:].encode()
    value = snapshot.get_document(key)
    return None if value is None else _decode(bytes(unpack_stored(value, key)[1]))


def pending(snapshot: StoreSnapshot, kind: JobKind, without: Container[str], count_max: int) -> list[DueJob]:
    """Return the pending jobs of a kind that are due first, some left out; some of those may have been let go since."""
    return list(
        islice((job for job in _in_state(snapshot, "pending", kind) if job.id not in without), count_max)
    )


def running(snapshot: StoreSnapshot, count_max: int) -> list[str]:
    """Return ids of jobs that are marked as running."""
    found = (job.id for kind in ("mutation", "action") for job in _in_state(snapshot, "running", kind))
    return list(islice(found, count_max))


def _in_state(snapshot: StoreSnapshot, state: JobState, kind: str) -> Iterator[DueJob]:
    for key, _ in snapshot.entries(*prefix_range(_BY_STATE + encode_fields([state, kind]))):
        due_ms = decode_fields(key[NUMBER_BYTES:-SUFFIX_LENGTH])[2]
        yield DueJob(round(due_ms * 1000), _HANDLE.id_prefix + key[-SUFFIX_LENGTH:].decode())


@dataclass(frozen=True, slots=True)
class TrimmedJobs:
    """What one step of trimming did.

    Attributes:
        dropped: Jobs that it forgot.
        done: Whether none is left that could go.
    """

    dropped: int
    done: bool


def trim(transaction: Transaction, retention_us: int, count_max: int) -> TrimmedJobs:
    """Forget some jobs that ended longer ago than their retention, the oldest first."""
    before = encode_fields([(transaction.now_us - retention_us) / 1000])
    lo = _BY_COMPLETED + _NULL + b"\xff"  # behind those that have not ended
    entries = transaction.snapshot.entries(lo, _BY_COMPLETED + before)
    found = [_HANDLE.id_prefix + key[-SUFFIX_LENGTH:].decode() for key, _ in islice(entries, count_max)]
    for job_id in found:
        transaction.delete(job_id)
    return TrimmedJobs(len(found), len(found) < count_max)
