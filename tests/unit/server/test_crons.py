"""Crons over a database in memory and a clock of the test's own: due, late, busy, changed by a deploy."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from headwater.schedules import Schedule, daily, every
from headwater_protocol.cron_manifest import CronManifest
from headwater_protocol.manifest import Manifest
from headwater_server.jobs.crons import CronClock, CronOptions, cron_specs
from headwater_storage import crons, jobs
from headwater_storage.crons import Cron, CronRules
from headwater_storage.job_rows import JobFailure
from headwater_storage.limits import CallLimits
from headwater_storage.memory_engine import MemoryEngine

if TYPE_CHECKING:
    from collections.abc import Callable

START_US = 1_767_225_600_000_000  # 2026-01-01, midnight
ARGUMENTS = msgspec.msgpack.encode({})
RULES = CronRules(late_us=30_000_000, runs_kept=4)


class World:
    """A database with crons, and their clock."""

    def __init__(self) -> None:
        self.now_us = START_US
        self.engine = MemoryEngine(self, Random(1).randbytes, CallLimits())
        self.due: list[int] = []
        self.clock = CronClock(
            self,
            self.due.append,
            lambda: True,
            lambda: self.now_us,
            CronOptions(RULES),  # type: ignore[arg-type]
        )
        self.deploys = 0

    def wall_us(self) -> int:
        return self.now_us

    def mono_s(self) -> float:
        return self.now_us / 1e6

    def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody sleeps here")

    def snapshot(self) -> Any:
        return self.engine.store.snapshot()

    async def transact(self, function: Callable[[Any], Any]) -> Any:
        with self.engine.begin() as transaction:
            result = function(transaction)
            proposal = transaction.proposal()
        return result, self.engine.commit(proposal)

    def deploy(self, *declared: tuple[str, Schedule, str]) -> None:
        manifests = tuple(
            CronManifest(name, schedule.text, schedule.time_zone, function, "mutation", ARGUMENTS)
            for name, schedule, function in declared
        )
        self.deploys += 1
        self.engine.deploy([], f"bundle {self.deploys}", cron_specs(Manifest(crons=manifests)))
        self.clock.changed()

    async def pass_s(self, seconds: float) -> float:
        """Let time pass, then have run what is due; return for how long there is nothing to do."""
        self.now_us += round(seconds * 1e6)
        return await self.clock._run_due()

    async def end(self, state: Any = "success", error: JobFailure | None = None) -> None:
        """End every job that waits."""
        with self.snapshot() as snapshot:
            waiting = jobs.pending(snapshot, "mutation", (), 99)
        for job in waiting:
            await self.transact(lambda t, job=job: jobs.finish(t, jobs.read(t, job.id), state, error))

    def cron(self, name: str) -> Cron:
        with self.snapshot() as snapshot:
            (found,) = [cron for cron in crons.all_crons(snapshot) if cron.name == name]
        return found

    def runs(self, name: str) -> list[tuple[str, int]]:
        """Return state and skipped times of the last runs."""
        return [(run.state, run.skipped) for run in self.cron(name).runs]


async def test_a_cron_runs_at_each_of_its_times_and_tells_what_came_of_them() -> None:
    world = World()
    world.deploy(("tick", every(seconds=10), "work:tick"))
    assert await world.pass_s(9) <= 1.0
    assert world.runs("tick") == []
    await world.pass_s(2)
    assert world.runs("tick") == [("started", 0)]
    await world.end()
    await world.pass_s(10)
    await world.end("failed", JobFailure("application_error", "no"))
    assert world.runs("tick") == [("success", 0), ("failed", 0)]
    last = world.cron("tick").runs[-1]
    assert last.error is not None
    assert (last.error.message, last.job is not None) == ("no", True)
    # Its times lie 10 s apart, whenever it is looked at: 10 s and 20 s behind the deploy, which took some µs.
    distance = world.cron("tick").runs[1].due_ms - world.cron("tick").runs[0].due_ms
    assert distance == 10_000
    assert [round(due_us - START_US, -6) for due_us in world.due] == [10_000_000, 20_000_000]


async def test_one_run_at_a_time_and_what_cannot_begin_is_skipped() -> None:
    world = World()
    world.deploy(("tick", every(seconds=10), "work:tick"))
    for _ in range(3):
        await world.pass_s(11)
    assert world.runs("tick") == [("started", 0), ("skipped", 1), ("skipped", 1)]
    await world.end()
    await world.pass_s(10)
    assert world.runs("tick") == [("success", 0), ("skipped", 1), ("skipped", 1), ("started", 0)]


async def test_a_run_that_comes_too_late_is_skipped_and_of_many_the_latest_runs() -> None:
    world = World()
    world.deploy(("night", daily("03:30"), "work:tick"), ("tick", every(seconds=10), "work:tick"))
    await world.pass_s(3 * 3600 + 1800 + 31)
    assert world.runs("night") == [("skipped", 1)], "it is 31 s late, 30 s are allowed"
    assert world.runs("tick") == [("skipped", 1262), ("started", 0)]
    assert world.now_us - world.due[0] < 10_000_000
    await world.end()
    await world.pass_s(24 * 3600 - 31 + 29)
    assert world.runs("night") == [("skipped", 1), ("started", 0)], "29 s late"


async def test_no_time_is_taken_twice_by_two_clocks() -> None:
    """As two daemons would be that have one database, one after the other, or a clock that is set back."""
    world = World()
    world.deploy(("tick", every(seconds=10), "work:tick"))
    world.now_us += 11_000_000
    other = CronClock(
        world,
        world.due.append,
        lambda: True,
        lambda: world.now_us,
        CronOptions(RULES),  # type: ignore[arg-type]
    )
    await other._run_due()
    world.clock._due = {world.cron("tick").id: START_US}
    await world.clock._run_due()
    world.now_us -= 5_000_000
    await world.clock._run_due()
    assert world.runs("tick") == [("started", 0)]


async def test_a_deploy_adds_changes_and_removes_crons() -> None:
    world = World()
    world.deploy(
        ("kept", every(seconds=60), "work:a"),
        ("changed", every(seconds=60), "work:a"),
        ("gone", every(seconds=60), "work:a"),
    )
    await world.pass_s(61)
    await world.end()
    before = world.cron("kept")
    world.deploy(
        ("kept", every(seconds=60), "work:a"),
        ("changed", every(seconds=30), "work:b"),
        ("new", daily(), "work:a"),
    )
    await world.pass_s(31)
    assert world.cron("kept") == before, "it goes on as it was"
    changed = world.cron("changed")
    assert (changed.function, [run.state for run in changed.runs]) == ("work:b", ["success", "started"])
    assert world.runs("new") == []
    with world.snapshot() as snapshot:
        assert {cron.name for cron in crons.all_crons(snapshot)} == {"kept", "changed", "new"}
    await world.end()
    assert [run.state for run in world.cron("changed").runs] == ["success", "success"]


async def test_a_run_whose_cron_is_gone_ends_all_the_same() -> None:
    world = World()
    world.deploy(("gone", every(seconds=60), "work:a"))
    await world.pass_s(61)
    world.deploy()
    await world.end()
    with world.snapshot() as snapshot:
        assert jobs.pending(snapshot, "mutation", (), 9) == []
        assert crons.all_crons(snapshot) == []


async def test_so_many_runs_are_told_of_and_one_that_goes_on_among_them() -> None:
    world = World()
    world.deploy(("tick", every(seconds=10), "work:tick"))
    for _ in range(9):
        await world.pass_s(10.001)
    assert world.runs("tick") == [("started", 0), *[("skipped", 1)] * 4]
    await world.end()
    for _ in range(9):
        await world.pass_s(10)
        await world.end()
    assert world.runs("tick") == [("success", 0)] * 4
