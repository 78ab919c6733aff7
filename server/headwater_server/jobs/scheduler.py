"""Runs scheduled jobs when they are due: mutations exactly once, actions at most once.

Lives on the event loop. It holds a few of the next jobs and those that run; all else is in the database. A mutation's
job is decided by the transaction that runs its function (`worker/job_row.py`), whatever happens here. An action's is
marked as running before it begins, and what a daemon finds marked when it starts has failed: nobody knows how far it came.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

import msgspec
from headwater_protocol.errors import HeadwaterError, StorageError, TransientError
from headwater_storage import jobs
from headwater_storage.job_rows import JobFailure

from headwater_server.functions.mutations import Decision, MutationCall
from headwater_server.jobs.due_jobs import DueJobs, wait_s
from headwater_server.jobs.job_retries import RetryPolicy
from headwater_server.worker.job_row import job_failure
from headwater_server.worker.messages import Failure, ScheduleJob

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from headwater_protocol.manifest import Manifest
    from headwater_storage.job_rows import Job, JobKind, JobState
    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import StoreSnapshot
    from headwater_storage.transaction import Transaction

    from headwater_server.observe.metrics import JobMetrics
    from headwater_server.worker.messages import CancelJob

logger = logging.getLogger("headwater.jobs")

_T = TypeVar("_T")

_KINDS: tuple[JobKind, ...] = ("mutation", "action")
_AT_ONCE = 256  # jobs that one transaction of the daemon's own writes at most
_LOST = JobFailure(
    "outcome_unknown",
    "the server ended while this action ran: what it had done by then stands, and it is not run again",
)


class Database(Protocol):
    """What the scheduler needs of the engine."""

    def snapshot(self) -> StoreSnapshot:
        """Return the newest state."""

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it, again after a conflict."""


class MutationRunner(Protocol):
    """Runs mutations."""

    def run(self, call: MutationCall) -> None:
        """Run one; raises `overloaded`."""


class ActionRunner(Protocol):
    """Runs actions."""

    def begin_unasked(
        self, name: str, arguments: bytes, over: Callable[[Failure | None], None], job: str
    ) -> Callable[[], None]:
        """Begin an action that nobody waits for; one that cannot be begun is over before this returns. What is returned has it end, if its author wants that."""


@dataclass(frozen=True, slots=True)
class JobOptions:
    """How scheduled jobs run.

    Attributes:
        mutations_max: Mutations that run at a time.
        actions_max: Actions that run at a time.
        known_max: Jobs of each kind that are looked up at a time.
        retention_s: How long a job that has ended is remembered.
        trim_interval_s: Pause between two looks for jobs to forget.
        trim_pause_s: Pause between two steps of that.
        look_s: Longest pause between two looks at the clock.
        retries: When to try again.
    """

    mutations_max: int = 32
    actions_max: int = 32
    known_max: int = 128
    retention_s: float = 7 * 86_400.0
    trim_interval_s: float = 60.0
    trim_pause_s: float = 0.02
    look_s: float = 1.0
    retries: RetryPolicy = field(default_factory=RetryPolicy)


class JobScheduler:
    """All scheduled jobs of one daemon.

    Args:
        database: Where they are.
        mutations: Runs mutations.
        actions: Runs actions.
        manifest: Returns what the active bundle declares, None before the first deploy.
        wall_us: The wall clock.
        options: Bounds.
        metrics: The daemon's.
    """

    def __init__(
        self,
        database: Database,
        mutations: MutationRunner,
        actions: ActionRunner,
        manifest: Callable[[], Manifest | None],
        wall_us: Callable[[], int],
        options: JobOptions,
        metrics: JobMetrics,
    ) -> None:
        self._database = database
        self._mutations = mutations
        self._actions = actions
        self._manifest = manifest
        self._wall_us = wall_us
        self._options = options
        self._metrics = metrics
        self._queues: dict[JobKind, DueJobs] = {
            "mutation": DueJobs(options.mutations_max, options.known_max),
            "action": DueJobs(options.actions_max, options.known_max),
        }
        self._woken = asyncio.Event()
        self._stopping = False
        self._working = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._kinds: tuple[Manifest | None, dict[str, str]] = (None, {})
        metrics.running.set_function(lambda: sum(len(queue.running) for queue in self._queues.values()))

    # ------------------------------------------------------------------ life

    async def run(self) -> None:
        """Run what is due until this is cancelled."""
        trimming = asyncio.create_task(self._trim_loop(), name="job trimmer")
        try:
            await self._until_written(self._fail_lost)
            while True:
                self._woken.clear()
                pause_s = self._begin_due()
                try:
                    await asyncio.wait_for(self._woken.wait(), pause_s)
                except TimeoutError:
                    continue
        finally:
            tasks = [trimming, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def refuse_new(self) -> None:
        """Begin nothing from now on."""
        self._stopping = True

    @property
    def is_busy(self) -> bool:
        """Whether a job is on its way that could come to an end by itself."""
        return self._working > 0

    # ------------------------------------------------------------------ what is scheduled

    def scheduled(self, due_us: int) -> None:
        """A job was scheduled by a commit that is published."""
        for queue in self._queues.values():
            queue.scheduled(due_us)
        self._woken.set()

    def asked(
        self,
        message: ScheduleJob | CancelJob,
        tell: Callable[[bytes | None, Failure | None], None],
        parent: str = "",
    ) -> None:
        """Schedule or cancel a job for an action, and tell how that went.

        Args:
            message: What it asks for.
            tell: Told.
            parent: Id of the job that the action is itself; "": it is none.
        """
        self._spawn(self._answer(message, tell, parent))

    async def _answer(
        self,
        message: ScheduleJob | CancelJob,
        tell: Callable[[bytes | None, Failure | None], None],
        parent: str,
    ) -> None:
        answer: str | bool
        try:
            if isinstance(message, ScheduleJob):
                asked = message
                answer, _ = await self._database.transact(
                    lambda t: (
                        jobs.schedule_from(
                            t, parent, asked.function, asked.kind, asked.arguments, asked.due_us
                        )
                        if parent
                        else t.schedule(asked.function, asked.kind, asked.arguments, asked.due_us)
                    )
                )
                self.scheduled(message.due_us)
            else:
                job_id = message.job
                answer, _ = await self._database.transact(lambda t: t.cancel_job(job_id))
        except HeadwaterError as error:
            tell(None, Failure(error.code, error.message))
        else:
            tell(msgspec.msgpack.encode(answer), None)

    # ------------------------------------------------------------------ what is due

    def _begin_due(self) -> float:
        """Give places to what is due; return how long there is nothing to do."""
        if self._stopping or self._manifest() is None:
            return self._options.look_s
        now_us = self._wall_us()
        for kind, queue in self._queues.items():
            while True:
                if queue.look_due:
                    with self._database.snapshot() as snapshot:
                        queue.looked(jobs.pending(snapshot, kind, queue.running, queue.known_max))
                job = queue.take(now_us)
                if job is None:
                    break
                self._metrics.delay_seconds.observe((now_us - job.due_us) / 1e6)
                self._spawn(self._see_through(queue, job.id))
        return wait_s(self._queues.values(), now_us, self._options.look_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _see_through(self, queue: DueJobs, job_id: str) -> None:
        """Try until a job is decided; it keeps its place meanwhile."""
        attempts = deaths = 0
        try:
            while not self._stopping:
                attempts += 1
                code = await self._working_on(job_id, deaths)
                if code is None:
                    return
                deaths += code == "worker_died"
                self._metrics.retries.inc()
                await asyncio.sleep(self._options.retries.pause_s(attempts))
        finally:
            queue.ended(job_id)
            self._woken.set()

    async def _working_on(self, job_id: str, deaths: int) -> str | None:
        """Try once; return None if the job is decided, else the code of what came in between."""
        self._working += 1
        try:
            return await self._attempt(job_id, deaths)
        except (TransientError, StorageError) as error:
            return error.code
        except Exception:  # of one job; the others go on
            logger.exception("job_failed", extra={"fields": {"job": job_id}})
            return "internal_error"
        finally:
            self._working -= 1

    async def _attempt(self, job_id: str, deaths: int) -> str | None:
        with self._database.snapshot() as snapshot:
            job = jobs.peek(snapshot, job_id)
        if job is None or job.state != "pending":
            return None
        if self._kind_of(job) == "action":
            return await self._run_action(job)
        return await self._run_mutation(job, deaths)

    def _kind_of(self, job: Job) -> str:
        """Return what a job's function is in the active bundle; what it was if that does not have it, which tells so."""
        manifest = self._manifest()
        if self._kinds[0] is not manifest and manifest is not None:
            self._kinds = (manifest, {item.name: item.kind for item in manifest.functions})
        kind = self._kinds[1].get(job.function, job.kind)
        return kind if kind in _KINDS else job.kind

    # ------------------------------------------------------------------ mutations

    async def _run_mutation(self, job: Job, deaths: int) -> str | None:
        decided: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()

        def receive(call: MutationCall, decision: Decision) -> None:
            if not decided.done():
                decided.set_result(decision)

        call = MutationCall(
            job.function, bytes(job.arguments), None, internal=True, decided=receive, job=job.id
        )
        self._mutations.run(call)
        decision = await decided
        error = decision.error
        if decision.committed or error is None:
            self._metrics.ended.labels("failed" if error else "success").inc()
            return None
        if self._options.retries.again(error.code, deaths + 1):
            return error.code
        # It was ended by a limit, or ended its worker again and again: nothing of it was written, its row neither.
        failure = job_failure(Failure(error.code, error.message, None))
        await self._fail(job.id, "pending", failure)
        return None

    # ------------------------------------------------------------------ actions

    async def _run_action(self, job: Job) -> str | None:
        started, _ = await self._database.transact(lambda t: jobs.start(t, job.id))
        if started is None:
            return None
        over: asyncio.Future[Failure | None] = asyncio.get_running_loop().create_future()

        def tell(failure: Failure | None) -> None:
            if not over.done():
                over.set_result(failure)

        leave = self._actions.begin_unasked(job.function, bytes(job.arguments), tell, job.id)
        if over.done() and self._is_put_back(over.result()):
            await self._until_written(lambda: self._database.transact(lambda t: jobs.put_back(t, job.id)))
            return cast("Failure", over.result()).code
        failure = await self._end_of(over, job.id, leave)
        if failure is not None:
            await self._until_written(lambda: self._fail(job.id, "running", job_failure(failure)))
        else:
            await self._until_written(lambda: self._succeed(job.id))
        return None

    async def _end_of(
        self, over: asyncio.Future[Failure | None], job_id: str, leave: Callable[[], None]
    ) -> Failure | None:
        """Wait for the end of an action; when its job is cancelled, it is told as if its caller had gone away."""
        while not (await asyncio.wait([over], timeout=self._options.look_s))[0]:
            with self._database.snapshot() as snapshot:
                job = jobs.peek(snapshot, job_id)
            if job is None or job.state != "running":
                leave()
                break
        return await over

    def _is_put_back(self, failure: Failure | None) -> bool:
        """Tell whether an action that was over before anything could begin it has to wait again."""
        return failure is not None and self._options.retries.again(
            failure.code, self._options.retries.deaths_max
        )

    async def _succeed(self, job_id: str) -> None:
        def write(transaction: Transaction) -> bool:
            job = jobs.read(transaction, job_id)
            if job is None or job.state != "running":
                return False
            jobs.finish(transaction, job, "success")
            return True

        in_time, _ = await self._database.transact(write)
        self._metrics.ended.labels("success" if in_time else "cancelled").inc()

    # ------------------------------------------------------------------ rows

    async def _fail(self, job_id: str, from_state: JobState, error: JobFailure) -> None:
        failed, _ = await self._database.transact(lambda t: jobs.fail(t, job_id, from_state, error))
        if failed:
            fields = {"job": job_id, "code": error.code}
            logger.warning("job_failed", extra={"fields": fields})
            self._metrics.ended.labels("failed").inc()

    async def _fail_lost(self) -> None:
        """Mark as failed what an earlier daemon had running; nothing runs yet."""
        while True:
            with self._database.snapshot() as snapshot:
                lost = jobs.running(snapshot, _AT_ONCE)
            if not lost:
                return
            ids = lost

            def write(transaction: Transaction, ids: list[str] = ids) -> None:
                for job_id in ids:
                    jobs.fail(transaction, job_id, "running", _LOST)

            await self._database.transact(write)
            self._metrics.ended.labels("failed").inc(len(lost))
            logger.warning("jobs_lost", extra={"fields": {"jobs": len(lost), "first": lost[0]}})

    async def _until_written(self, write: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Write something that must be written, however long the disk is full."""
        attempts = 0
        while True:
            try:
                await write()
            except TransientError as error:
                attempts += 1
                fields = {"code": error.code, "reason": error.message}
                logger.warning("job_write_put_off", extra={"fields": fields})
                await asyncio.sleep(self._options.retries.pause_s(attempts))
            else:
                return

    async def _trim_loop(self) -> None:
        """Forget jobs that ended long ago, in bounded steps."""
        options = self._options
        while True:
            await asyncio.sleep(options.trim_interval_s)
            try:
                step = await self.trim_step()
                while not step.done:
                    await asyncio.sleep(options.trim_pause_s)
                    step = await self.trim_step()
            except TransientError as error:
                fields = {"code": error.code, "reason": error.message}
                logger.warning("job_trim_put_off", extra={"fields": fields})
            except Exception:  # of one pass; the next may find it repaired
                logger.exception("job_trim_failed")

    async def trim_step(self) -> jobs.TrimmedJobs:
        """Forget some jobs that ended long enough ago."""
        retention_us = round(self._options.retention_s * 1e6)
        trimmed, _ = await self._database.transact(lambda t: jobs.trim(t, retention_us, _AT_ONCE))
        return trimmed
