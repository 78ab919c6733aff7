"""The row of a scheduled job in the transaction that runs its function, so that a mutation takes effect once.

Pure over a transaction. The row is read before the function runs and written with what it wrote: of two runs of one
job, by whatever crash or resend, the second conflicts with the first or finds the job ended.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_storage import jobs
from headwater_storage.job_rows import JobFailure
from msgspec import Raw

from headwater_server.worker.messages import Failure
from headwater_server.worker.request_row import Answer

if TYPE_CHECKING:
    from headwater_storage.transaction import Transaction

_NOT_PENDING = Failure(
    "cancelled", "the job was cancelled, or has run already, or is not there: it was not run"
)


class JobMemory:
    """One job, as the transaction that runs it sees it.

    Attributes:
        answer: Why it is not run; None: it has to be run.
    """

    def __init__(self, transaction: Transaction, job_id: str) -> None:
        self._transaction = transaction
        self._job = jobs.read(transaction, job_id)
        pending = self._job is not None and self._job.state == "pending"
        self.answer = None if pending else Answer(None, _NOT_PENDING)

    def keep(self, outcome: bytes | None, failure: Failure | None) -> None:
        """Write how the job ended; what its function returned is not kept."""
        assert self._job is not None, "what is not pending is not run"
        error = None if failure is None else job_failure(failure)
        jobs.finish(self._transaction, self._job, "failed" if failure else "success", error)


def job_failure(failure: Failure) -> JobFailure:
    """Return a failure as a job's row keeps it."""
    if failure.data is None:
        return JobFailure(failure.code, failure.message)
    return JobFailure(failure.code, failure.message, Raw(failure.data))
