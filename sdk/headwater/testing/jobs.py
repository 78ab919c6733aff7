"""Scheduled jobs and crons in a test: run when the test says so, one after the other, in the order in which they are due."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_server.jobs.crons import CronOptions, cron_specs
from headwater_server.worker.job_row import job_failure
from headwater_server.worker.messages import Failure
from headwater_storage import crons, jobs

from headwater.call_failures import CallFailure
from headwater.schedules import Schedule
from headwater.testing.actions import ActionStage

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.manifest import Manifest
    from headwater_storage.crons import CronSpec, Passed, Timetable
    from headwater_storage.job_rows import Job
    from headwater_storage.transaction import Transaction

    from headwater.testing.calls import Stage

_RUNS_MAX = 100_000


class _Later:
    """A timetable whose first time lies behind the time at which a test begins, not behind its deploy before that."""

    def __init__(self, timetable: Timetable, start_us: int) -> None:
        self._timetable = timetable
        self._start_us = start_us

    def next_us(self, after_us: int) -> int:
        """Return the first time behind another one."""
        return self._timetable.next_us(max(after_us, self._start_us))

    def passed(self, due_us: int, now_us: int) -> Passed:
        """Tell which times have passed."""
        return self._timetable.passed(due_us, now_us)


def specs_from(manifest: Manifest, start_us: int) -> list[CronSpec]:
    """Return the crons of a manifest, to be declared by a test that begins at a time."""
    return [spec._replace(timetable=_Later(spec.timetable, start_us)) for spec in cron_specs(manifest)]


class JobStage:
    """The jobs and crons of a deployment.

    Args:
        stage: Of the deployment.
    """

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def next_due_us(self) -> int | None:
        """Return when the next job or cron is due, None if nothing waits."""
        with self._stage.engine.store.snapshot() as snapshot:
            due = [round(cron.next_ms * 1000) for cron in crons.all_crons(snapshot)]
            for kind in ("mutation", "action"):
                due += [job.due_us for job in jobs.pending(snapshot, kind, (), 1)]
        return min(due, default=None)

    async def run_due(self) -> int:
        """Run what is due, and what that schedules for the present; return how many jobs have run.

        Raises:
            RuntimeError: There is no end to it.
        """
        count = 0
        while True:
            self._take_crons()
            job = self._next_job()
            if job is None:
                return count
            await self._run(job)
            count += 1
            if count > _RUNS_MAX:
                raise RuntimeError(
                    f"{job.function} was due again and again: jobs schedule jobs without an end"
                )

    def _next_job(self) -> Job | None:
        now_us = self._stage.engine.next_us()  # later than any call that has scheduled something
        with self._stage.engine.store.snapshot() as snapshot:
            heads = [job for kind in ("mutation", "action") for job in jobs.pending(snapshot, kind, (), 1)]
            due = [job for job in heads if job.due_us <= now_us]
            first = min(due, key=lambda job: job.due_us, default=None)
            return None if first is None else jobs.peek(snapshot, first.id)

    def _take_crons(self) -> None:
        now_us = self._stage.engine.next_us()
        with self._stage.engine.store.snapshot() as snapshot:
            due = [cron for cron in crons.all_crons(snapshot) if round(cron.next_ms * 1000) <= now_us]
        for cron in due:
            timetable = Schedule(cron.schedule, cron.time_zone)

            def take(
                transaction: Transaction, cron_id: str = cron.id, timetable: Schedule = timetable
            ) -> None:
                found = crons.read(transaction, cron_id)
                if found is not None:
                    crons.take(transaction, found, timetable, CronOptions().rules)

            self._transact(take)

    async def _run(self, job: Job) -> None:
        if job.kind == "action":
            await self._run_action(job)
            return
        done = self._stage.worker.mutation(job.function, bytes(job.arguments), None, job=job.id)
        self._stage.worker.bundle.take_error()  # it is told in the job's row
        if done.proposal is not None:
            self._stage.commit(done.proposal)

    async def _run_action(self, job: Job) -> None:
        self._transact(lambda transaction: jobs.start(transaction, job.id))
        stage, failure = self._stage, None

        async def emit(piece: bytes) -> None:
            raise TypeError("an action that streams cannot be scheduled")

        done = await stage.worker.bundle.call_action(
            job.function, bytes(job.arguments), ActionStage(stage, None), emit, internal_allowed=True
        )
        if isinstance(done, CallFailure):
            stage.worker.bundle.take_error()
            failure = job_failure(Failure(done.code, done.message, done.data))

        def finish(transaction: Transaction) -> None:
            running = jobs.read(transaction, job.id)
            if running is not None and running.state == "running":
                jobs.finish(transaction, running, "failed" if failure else "success", failure)

        self._transact(finish)

    def _transact(self, function: Callable[[Transaction], object]) -> None:
        with self._stage.engine.begin() as transaction:
            function(transaction)
            proposal = transaction.proposal()
        self._stage.commit(proposal)
