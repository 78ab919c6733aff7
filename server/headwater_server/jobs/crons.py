"""Has crons run when they are due: each time is taken by the commit that schedules its job and sets the next one.

Lives on the event loop. It holds when each cron of the active bundle is due; all else is in the database.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from headwater.schedules import Schedule
from headwater_protocol.errors import TransientError
from headwater_storage import crons
from headwater_storage.crons import CronRules, CronSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_protocol.cron_manifest import CronManifest
    from headwater_protocol.manifest import Manifest
    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import StoreSnapshot
    from headwater_storage.transaction import Transaction

logger = logging.getLogger("headwater.crons")

_T = TypeVar("_T")


class Database(Protocol):
    """What crons need of the engine."""

    def snapshot(self) -> StoreSnapshot:
        """Return the newest state."""

    async def transact(self, function: Callable[[Transaction], _T]) -> tuple[_T, CommitTs]:
        """Run a function in a transaction and commit it, again after a conflict."""


@dataclass(frozen=True, slots=True)
class CronOptions:
    """How crons run.

    Attributes:
        rules: What becomes of times that have passed.
        look_s: Longest pause between two looks at the clock.
        again_s: Pause before what could not be committed is tried again.
    """

    rules: CronRules = field(default_factory=lambda: CronRules(300_000_000, 10))
    look_s: float = 1.0
    again_s: float = 1.0


class CronClock:
    """The crons of one daemon.

    Args:
        database: Where they are.
        scheduled: Told when a job is due that a cron has scheduled.
        serving: Tells whether a bundle is in service.
        wall_us: The wall clock.
        options: Rules.
    """

    def __init__(
        self,
        database: Database,
        scheduled: Callable[[int], None],
        serving: Callable[[], bool],
        wall_us: Callable[[], int],
        options: CronOptions,
    ) -> None:
        self._database = database
        self._scheduled = scheduled
        self._serving = serving
        self._wall_us = wall_us
        self._options = options
        self._due: dict[str, int] = {}
        self._changed = True
        self._woken = asyncio.Event()

    def changed(self) -> None:
        """Look at all crons again: another bundle is active."""
        self._changed = True
        self._woken.set()

    async def run(self) -> None:
        """Have crons run until this is cancelled."""
        while True:
            self._woken.clear()
            try:
                pause_s = await self._run_due()
            except TransientError as error:
                fields = {"code": error.code, "reason": error.message}
                logger.warning("cron_put_off", extra={"fields": fields})
                pause_s = self._options.again_s
            except Exception:  # of one look; the next may find it repaired
                logger.exception("cron_failed")
                pause_s = self._options.again_s
            try:
                await asyncio.wait_for(self._woken.wait(), pause_s)
            except TimeoutError:
                continue

    async def _run_due(self) -> float:
        """Have run what is due; return how long there is nothing to do."""
        if not self._serving():
            return self._options.look_s
        if self._changed:
            self._changed = False
            with self._database.snapshot() as snapshot:
                self._due = {cron.id: round(cron.next_ms * 1000) for cron in crons.all_crons(snapshot)}
        for cron_id, due_us in [*self._due.items()]:
            if due_us <= self._wall_us():
                await self._take(cron_id)
        wait_s = min((max(0, due_us - self._wall_us()) / 1e6 for due_us in self._due.values()), default=60.0)
        return min(wait_s, self._options.look_s)

    async def _take(self, cron_id: str) -> None:
        def take(transaction: Transaction) -> tuple[crons.Cron | None, int | None]:
            cron = crons.read(transaction, cron_id)
            if cron is None:
                return None, None
            timetable = Schedule(cron.schedule, cron.time_zone)
            job_due_us = crons.take(transaction, cron, timetable, self._options.rules)
            return crons.read(transaction, cron_id), job_due_us

        (cron, job_due_us), _ = await self._database.transact(take)
        if cron is None:
            self._due.pop(cron_id, None)
            return
        self._due[cron_id] = round(cron.next_ms * 1000)
        if job_due_us is not None:
            self._scheduled(job_due_us)
        elif cron.runs and cron.runs[-1].state == "skipped":
            fields = {"cron": cron.name, "times": cron.runs[-1].skipped}
            logger.warning("cron_skipped", extra={"fields": fields})


def cron_specs(manifest: Manifest) -> list[CronSpec]:
    """Return the crons of a manifest as a deploy takes them."""
    return [_spec(cron) for cron in manifest.crons]


def _spec(cron: CronManifest) -> CronSpec:
    timetable = Schedule(cron.schedule, cron.time_zone)
    return CronSpec(
        cron.name, cron.schedule, cron.time_zone, cron.function, cron.kind, cron.arguments, timetable
    )
