"""What actions need of the world, in a test: their queries and mutations run over the database in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.errors import TransientError
from headwater_protocol.failures import error_from
from headwater_protocol.messages import ErrorBody
from headwater_server.functions.limits import WorkerLimits

from headwater.values import decode_any

if TYPE_CHECKING:
    from headwater_protocol.errors import HeadwaterError
    from headwater_protocol.manifest import FunctionKind
    from headwater_server.worker.messages import Failure

    from headwater.testing.calls import Stage


class ActionStage:
    """Implements `ActionBackend` for the actions of one caller.

    Args:
        stage: Of the deployment.
        identity: Encoded identity of the caller, which nested calls have as well.
    """

    def __init__(self, stage: Stage, identity: bytes | None) -> None:
        self._stage = stage
        self._identity = identity
        self.depth_max = WorkerLimits().action_depth_max

    def now_ms(self) -> float:
        """Return the time of the test, later at each look."""
        return self._stage.engine.next_us() / 1000

    def random_bytes(self, size: int) -> bytes:
        """Return chance that follows from the deployment's seed."""
        return self._stage.random_bytes(size)

    def table_name(self, document_id: str) -> str | None:
        """Return the table that an id names."""
        return self._stage.engine.table_name(document_id)

    def variable(self, name: str) -> bytes | None:
        """Return the row of an environment variable."""
        with self._stage.engine.begin(writable=False) as transaction:
            return transaction.variable(name)

    async def run(self, kind: FunctionKind, name: str, arguments: bytes) -> bytes:
        """Run a query, or run and commit a mutation; nothing else runs in between."""
        worker = self._stage.worker
        if kind == "query":
            read = worker.query(name, arguments, self._identity, None)
            if read.failure is not None:
                raise self._error(read.failure)
            return _content(read.content)
        ran = worker.mutation(name, arguments, self._identity)
        if ran.failure is not None:
            raise self._error(ran.failure)
        if ran.proposal is not None:
            self._stage.commit(ran.proposal)
        return _content(ran.outcome)

    async def schedule(self, function: str, kind: FunctionKind, arguments: bytes, due_us: int) -> str:
        """Schedule a job, at once."""
        assert kind != "query", "nothing schedules a query"
        with self._stage.engine.begin() as transaction:
            job = transaction.schedule(function, kind, arguments, due_us)
            proposal = transaction.proposal()
        self._stage.commit(proposal)
        return job

    async def cancel_job(self, job_id: str) -> bool:
        """Cancel a job, at once."""
        with self._stage.engine.begin() as transaction:
            in_time = transaction.cancel_job(job_id)
            proposal = transaction.proposal()
        self._stage.commit(proposal)
        return in_time

    async def sign_token(self, claims: bytes, lifetime_s: int) -> str:
        """Sign a token, with the key of this deployment."""
        return await self._stage.issuer.sign(decode_any(claims), lifetime_s)

    async def verify_login(self, token: str, issuer: str, audience: str) -> bytes:
        """Refuse: a test has no provider whose keys could be fetched."""
        raise TransientError("a test of a bundle has no network to fetch the keys of a provider from")

    def _error(self, failure: Failure) -> HeadwaterError:
        """Return what an action is told of a nested call that failed: it ran elsewhere, so not the exception itself."""
        told = error_from(ErrorBody(failure.code, failure.message, failure.data))
        told.__cause__ = self._stage.worker.bundle.take_error()
        return told


def _content(encoded: bytes | None) -> bytes:
    assert encoded is not None, "it has not failed"
    return encoded
