"""Scheduled jobs and crons in the testing kit: run when the test says so, as the daemon would."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from headwater.testing import Deployment
from support import scheduled
from support.scheduled import work

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater import Id, ScheduledJob

SECOND = timedelta(seconds=1)


@pytest.fixture
def deployment() -> Deployment:
    return Deployment(scheduled)


@pytest.fixture
def state(deployment: Deployment) -> Callable[[Id[ScheduledJob]], str]:
    def of(job: Id[ScheduledJob]) -> str:
        found = deployment.run_query(work.job, job)
        assert found is not None
        return found.state

    return of


async def test_nothing_runs_before_it_is_due_and_then_at_its_own_time(
    deployment: Deployment, state: Callable[[Id[ScheduledJob]], str]
) -> None:
    start = deployment.now
    jobs = [deployment.run_mutation(work.later, name=f"{delay}", seconds=delay) for delay in (20, 10)]
    deployment.advance(timedelta(seconds=5))
    assert await deployment.run_due() == 0
    assert await deployment.pass_time(timedelta(seconds=6)) == 1
    assert [state(job) for job in jobs] == ["pending", "success"]
    assert deployment.now == start + timedelta(seconds=11)
    assert await deployment.pass_time(timedelta(minutes=1)) == 1
    seen = deployment.run_query(work.effects)
    assert [effect.name for effect in seen] == ["10", "20"]
    assert [round(effect.creation_time_ms - start.timestamp() * 1000) for effect in seen] == [10_000, 20_000]


async def test_a_job_that_is_cancelled_does_not_run(
    deployment: Deployment, state: Callable[[Id[ScheduledJob]], str]
) -> None:
    job = deployment.run_mutation(work.later, name="x", seconds=1)
    assert deployment.run_mutation(work.cancel, job)
    assert await deployment.pass_time(SECOND) == 0
    assert state(job) == "cancelled"


async def test_one_that_fails_is_told_in_its_job_and_leaves_nothing(deployment: Deployment) -> None:
    for what in ("mutation", "action"):
        job = deployment.run_mutation(work.fail_later, what=what)
        screen = deployment.watch(work.job, job)
        assert await deployment.run_due() == 1
        assert screen.result is not None
        assert screen.result.state == "failed"
        assert screen.result.error is not None
        assert screen.result.error.data == what
    assert deployment.run_query(work.effects) == []


async def test_actions_schedule_and_are_scheduled_without_an_identity(deployment: Deployment) -> None:
    ada = deployment.as_user("ada")
    job = await ada.run_action(work.plan, name="planned")
    other = await ada.run_action(work.plan, name="other")
    assert await ada.run_action(work.unplan, other)
    assert await deployment.run_due() == 1
    found = deployment.run_query(work.job, job)
    assert found is not None
    assert (found.kind, found.state) == ("action", "success")
    assert [effect.name for effect in deployment.run_query(work.effects)] == ["planned by nobody"]


async def test_crons_run_and_skip_as_in_the_daemon(deployment: Deployment) -> None:
    assert await deployment.pass_time(timedelta(minutes=30, seconds=1)) == 3
    assert deployment.run_query(work.runs, "often") == ["success"] * 3
    deployment.advance(timedelta(minutes=31))
    assert await deployment.run_due() == 1
    assert deployment.run_query(work.runs, "often")[-2:] == ["skipped", "success"]
    assert deployment.run_query(work.runs, "nightly") == []
    deployment.advance(timedelta(hours=23))
    await deployment.run_due()
    assert deployment.run_query(work.runs, "nightly") == ["skipped"], "it would have been an hour late"


async def test_jobs_without_an_end_are_found(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.testing.jobs._RUNS_MAX", 50)
    deployment.run_mutation(work.for_ever)
    with pytest.raises(RuntimeError, match="work:for_ever was due again and again"):
        await deployment.run_due()
    with pytest.raises(ValueError, match="time goes forward only"):
        await deployment.pass_time(-SECOND)
