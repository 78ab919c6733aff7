"""Scheduled jobs in a real daemon: with their mutation or not at all, run once, ended, cancelled, read and forgotten."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from support.daemon import BUNDLES, RunningDaemon, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = BUNDLES / "jobs" / "functions"
OPTIONS = ("--workers", "2", "--action-workers", "1", "--call-time-limit-s", "1")
FAR_MS = 3_600_000.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("jobs"), *OPTIONS, deploy="jobs") as found:
        yield found


def job_of(daemon: RunningDaemon, job: str) -> dict[str, Any]:
    found: dict[str, Any] = daemon.call("query", "work:job", job=job)
    return found


def ended(daemon: RunningDaemon, job: str) -> dict[str, Any]:
    """Wait until a job has ended and return it."""
    wait_until(lambda: job_of(daemon, job)["state"] not in ("pending", "running"))
    return job_of(daemon, job)


def count(daemon: RunningDaemon, name: str) -> int:
    found: int = daemon.call("query", "work:count", name=name)
    return found


def refused(daemon: RunningDaemon, kind: str, name: str, /, **arguments: Any) -> tuple[str, str]:
    answer = daemon.post(f"/api/{kind}", {"path": name, "args": arguments})
    assert answer.json["status"] == "error", answer.text
    return answer.json["errorCode"], answer.json["errorMessage"]


def test_a_scheduled_mutation_runs_once_and_its_job_tells_so(daemon: RunningDaemon) -> None:
    job = daemon.call("mutation", "work:later", name="once", delay_ms=0)
    found = ended(daemon, job)
    assert (found["state"], found["error"], found["function"]) == ("success", None, "work:take_effect")
    assert found["arguments"] == {"name": "once"}
    assert found["due_ms"] <= found["started_ms"] == found["completed_ms"]
    assert count(daemon, "once") == 1


def test_a_job_waits_until_it_is_due_and_can_be_cancelled_until_then(daemon: RunningDaemon) -> None:
    job = daemon.call("mutation", "work:later", name="never", delay_ms=FAR_MS)
    other = daemon.call("mutation", "work:later", name="never", delay_ms=FAR_MS)
    assert job_of(daemon, job)["state"] == "pending"
    assert daemon.call("mutation", "work:cancel", job=job) is True
    assert daemon.call("mutation", "work:cancel", job=job) is False
    assert daemon.call("action", "work:cancel_from_action", job=other) is True
    assert daemon.call("action", "work:cancel_from_action", job=other) is False
    assert {job_of(daemon, one)["state"] for one in (job, other)} == {"cancelled"}
    assert job_of(daemon, job)["completed_ms"] is not None
    done = daemon.call("mutation", "work:later", name="soon", delay_ms=0)
    ended(daemon, done)
    assert daemon.call("mutation", "work:cancel", job=done) is False, "it has run"
    assert count(daemon, "never") == 0


def test_a_job_that_is_due_sooner_overtakes_those_that_wait(daemon: RunningDaemon) -> None:
    start_ms = time.time() * 1000
    daemon.call("mutation", "work:many", names=["late"] * 300, at_ms=start_ms + FAR_MS)
    job = daemon.call("mutation", "work:later", name="sooner", delay_ms=200)
    assert ended(daemon, job)["completed_ms"] >= start_ms + 200


def test_what_a_mutation_that_fails_has_scheduled_is_gone(daemon: RunningDaemon) -> None:
    assert refused(daemon, "mutation", "work:schedule_and_fail", name="gone")[0] == "application_error"
    daemon.call("mutation", "work:schedule_in_nested", name="gone")
    assert count(daemon, "gone caught") == 1
    last = daemon.call("mutation", "work:later", name="after", delay_ms=0)
    ended(daemon, last)
    assert count(daemon, "gone") == 0


def test_an_action_schedules_at_once(daemon: RunningDaemon) -> None:
    job = daemon.call("action", "work:later_from_action", name="from action")
    assert ended(daemon, job)["state"] == "success"
    assert count(daemon, "from action") == 1


@pytest.mark.parametrize(
    ("what", "code"),
    [("refuse", "application_error"), ("break", "internal_error"), ("loop", "time_limit")],
)
def test_a_mutation_that_fails_leaves_nothing_but_its_error(
    daemon: RunningDaemon, what: str, code: str
) -> None:
    job = daemon.call("mutation", "work:schedule", what=what, name=what)
    found = ended(daemon, job)
    assert (found["state"], found["error"]["code"]) == ("failed", code)
    if what == "refuse":
        assert found["error"]["data"] == {"refused": "refuse"}
    if what == "break":
        assert "RuntimeError: broken" in found["error"]["message"]
    assert count(daemon, what) == 0


def test_a_mutation_that_ends_its_workers_is_tried_again_and_then_fails(daemon: RunningDaemon) -> None:
    before = daemon.metric("headwater_worker_deaths_total")
    job = daemon.call("mutation", "work:schedule", what="exit", name="exit")
    assert ended(daemon, job)["error"]["code"] == "worker_died"
    assert daemon.metric("headwater_worker_deaths_total") == before + 3
    assert count(daemon, "exit") == 0


@pytest.mark.parametrize("canceller", ["mutation", "action"])
def test_a_running_action_that_is_cancelled_goes_on_and_schedules_nothing(
    daemon: RunningDaemon, canceller: str
) -> None:
    name = f"goes on {canceller}"
    daemon.call("mutation", "work:hold")
    job = daemon.call("mutation", "work:schedule", what="act on", name=name)
    wait_until(lambda: count(daemon, f"{name} began") == 1)
    wait_until(lambda: count(daemon, f"{name} scheduled before") == 1)
    cancel = "work:cancel" if canceller == "mutation" else "work:cancel_from_action"
    assert daemon.call(canceller, cancel, job=job) is True
    assert daemon.call(canceller, cancel, job=job) is False
    assert job_of(daemon, job)["state"] == "cancelled"
    daemon.call("mutation", "work:let_go")
    wait_until(lambda: count(daemon, name) == 1)
    later = daemon.call("query", "work:noted", name=f"{name} job")
    assert job_of(daemon, later)["state"] == "cancelled"
    found = job_of(daemon, job)
    assert (found["state"], found["error"]) == ("cancelled", None), "whatever came of it"
    assert count(daemon, f"{name} scheduled behind") == 0


def test_a_running_action_ends_with_its_job_if_its_author_wants_that(daemon: RunningDaemon) -> None:
    job = daemon.call("mutation", "work:schedule", what="act until left", name="left")
    wait_until(lambda: count(daemon, "left began") == 1)
    assert daemon.call("mutation", "work:cancel", job=job) is True
    wait_until(lambda: count(daemon, "left was cancelled") == 1)
    assert job_of(daemon, job)["state"] == "cancelled"
    wait_until(lambda: daemon.metric("headwater_jobs_running") == 0)


def test_an_action_is_running_while_it_runs_and_its_end_is_kept(daemon: RunningDaemon) -> None:
    daemon.call("mutation", "work:hold")
    job = daemon.call("mutation", "work:schedule", what="act", name="acted")
    wait_until(lambda: count(daemon, "acted began") == 1)
    found = job_of(daemon, job)
    assert (found["state"], found["completed_ms"]) == ("running", None)
    assert found["started_ms"] >= found["due_ms"]
    daemon.call("mutation", "work:let_go")
    assert ended(daemon, job)["state"] == "success"
    assert daemon.call("mutation", "work:cancel", job=job) is False, "it has ended"
    bad = daemon.call("mutation", "work:schedule", what="act badly", name="badly")
    error = ended(daemon, bad)["error"]
    assert (error["code"], error["data"]) == ("application_error", {"bad": "badly"})
    assert count(daemon, "badly began") == 1


async def test_jobs_are_read_like_any_document_and_a_change_is_pushed(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        job = await client.mutation("work:later", name="watched", delay_ms=FAR_MS)
        seen = []
        async with client.subscribe("work:job", job=job) as states:
            async for found in states:
                seen.append(found["state"])
                if len(seen) == 1:
                    await client.mutation("work:cancel", job=job)
                else:
                    break
        assert seen == ["pending", "cancelled"]
        assert job in [found["_id"] for found in await client.query("work:in_state", state="cancelled")]


@pytest.mark.parametrize("how", ["patch", "delete", "replace", "insert"])
def test_functions_do_not_write_jobs(daemon: RunningDaemon, how: str) -> None:
    job = daemon.call("mutation", "work:later", name="tampered", delay_ms=FAR_MS)
    code, message = refused(daemon, "mutation", "work:tamper", job=job, how=how)
    assert code == "not_allowed_here"
    assert "ScheduledJob is a table of the system" in message
    assert job_of(daemon, job)["state"] == "pending"


@pytest.mark.parametrize(
    ("how", "code", "told"),
    [
        ("a query", "internal_error", "work:count is a query; schedule a @mutation or an @action"),
        ("arguments", "invalid_arguments", "work:take_effect: Expected `str`, got `int` - at `$.name`"),
        (
            "a name",
            "internal_error",
            "ctx.scheduler takes a @mutation or @action of this bundle, got 'work:take_effect'",
        ),
        ("never", "internal_error", "a job cannot wait until then: inf"),
        ("large", "too_many_bytes", "the arguments of the scheduled job have 300"),
        ("no date", "internal_error", "milliseconds since 1970 or a datetime"),
    ],
)
def test_what_cannot_be_scheduled_is_told_at_once(
    daemon: RunningDaemon, how: str, code: str, told: str
) -> None:
    found, message = refused(daemon, "mutation", "work:schedule_wrongly", how=how)
    assert found == code
    assert told in message


def test_a_call_schedules_so_many_jobs(daemon: RunningDaemon) -> None:
    code, message = refused(daemon, "mutation", "work:many", names=["x"] * 1001, at_ms=0)
    assert code == "too_many_documents"
    assert "1000 jobs" in message


def test_an_id_of_another_table_is_no_job(daemon: RunningDaemon) -> None:
    assert refused(daemon, "mutation", "work:cancel", job="x" * 32)[0] == "invalid_arguments"


def test_a_function_that_is_gone_fails_its_jobs_and_one_that_changed_runs_as_it_is_now(
    tmp_path: Path,
) -> None:
    source = tmp_path / "functions"
    shutil.copytree(SOURCE, source)
    with running(tmp_path / "daemon", *OPTIONS, deploy=source) as daemon:
        due_ms = time.time() * 1000 + 5000
        gone = daemon.call("mutation", "work:schedule", what="refuse", name="x", delay_ms=5000)
        changed = daemon.call("mutation", "work:later", name="changed", delay_ms=5000)
        lost_action = daemon.call("mutation", "work:schedule", what="act badly", name="y", delay_ms=5000)
        text = (source / "work.py").read_text()
        text = text.replace("refuse", "refuse_now").replace("act_badly", "act_worse")
        text = text.replace("Effect(name=name)", "Effect(name=f'new {name}')")
        (source / "work.py").write_text(text)
        daemon.must_deploy(source)
        assert time.time() * 1000 < due_ms, "the deploy took too long for this test"
        assert ended(daemon, changed)["state"] == "success"
        assert count(daemon, "new changed") == 1
        for job in (gone, lost_action):
            error = ended(daemon, job)["error"]
            assert error["code"] == "unknown_function"
        assert "did you mean `work:refuse_now`?" in ended(daemon, gone)["error"]["message"]


def test_jobs_that_have_ended_are_forgotten_in_time(tmp_path: Path) -> None:
    options = (*OPTIONS, "--job-retention-s", "1", "--job-trim-interval-s", "0.1")
    with running(tmp_path, *options, deploy="jobs") as daemon:
        waiting = daemon.call("mutation", "work:later", name="waits", delay_ms=FAR_MS)
        daemon.call("mutation", "work:many", names=["x"] * 600, at_ms=0)
        wait_until(lambda: count(daemon, "x") == 600)
        wait_until(lambda: daemon.call("query", "work:counted") == {"pending": 1})
        assert job_of(daemon, waiting)["state"] == "pending"
        daemon.kill()
        assert daemon.doctor() == []


def test_jobs_survive_a_restart_and_what_was_running_has_failed(tmp_path: Path) -> None:
    with running(tmp_path, *OPTIONS, deploy="jobs") as daemon:
        daemon.call("mutation", "work:hold")
        running_job = daemon.call("mutation", "work:schedule", what="act", name="cut")
        wait_until(lambda: count(daemon, "cut began") == 1)
        waiting = daemon.call("mutation", "work:later", name="kept", delay_ms=FAR_MS)
        soon = daemon.call("mutation", "work:later", name="meanwhile", delay_ms=500)
        daemon.kill()
        assert daemon.doctor() == []
        daemon.start()
        found = ended(daemon, running_job)
        assert (found["state"], found["error"]["code"]) == ("failed", "outcome_unknown")
        assert ended(daemon, soon)["state"] == "success"
        assert job_of(daemon, waiting)["state"] == "pending"
        daemon.call("mutation", "work:let_go")
        assert (count(daemon, "cut began"), count(daemon, "cut"), count(daemon, "meanwhile")) == (1, 0, 1)
