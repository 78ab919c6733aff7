"""Scheduled jobs while the daemon is killed again and again: each mutation once, no action twice, each missing one told.

Half a second of jobs lies behind each other where the daemon gets about a second each time: it is killed in the middle
of them. The truth is in the documents that they write, and in the rows of the jobs.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import RunningDaemon, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from support.runs import LongRun

OPTIONS = ("--workers", "2", "--action-workers", "1", "--checkpoint-interval-s", "0.5")
SCHEDULED_AT_ONCE = 500
LIFE_S = 1.0
END_TIMEOUT_S = 120.0


def schedule(daemon: RunningDaemon, what: str, names: list[str], at_ms: float) -> None:
    for first in range(0, len(names), SCHEDULED_AT_ONCE):
        chosen = names[first : first + SCHEDULED_AT_ONCE]
        daemon.call("mutation", f"work:{what}", names=chosen, at_ms=at_ms)


def trial(daemon: RunningDaemon, chance: random.Random, mutations: int, actions: int, life_s: float) -> int:
    """Let jobs become due, kill the daemon soon after it is ready until none is left; return how often."""
    daemon.start()
    daemon.must_deploy("jobs")
    at_ms = time.time() * 1000 + 1000 + mutations / 4
    schedule(daemon, "many", [f"m{number}" for number in range(mutations)], at_ms)
    schedule(daemon, "many_actions", [f"a{number}" for number in range(actions)], at_ms)
    kills = 0
    while True:
        deadline_s = time.monotonic() + chance.uniform(0.5, 1.5) * life_s
        while time.monotonic() < deadline_s:
            time.sleep(0.005)
        daemon.kill()
        kills += 1
        daemon.start()
        counted = daemon.call("query", "work:counted")
        if not counted.get("pending") and not counted.get("running"):
            return kills
        if kills == 2:
            assert daemon.call("query", "work:names") is not None


def check(daemon: RunningDaemon, mutations: int, actions: int) -> dict[str, int]:
    """Return the figures of a trial; fails where a promise is broken."""
    wait_until(
        lambda: not {"pending", "running"} & daemon.call("query", "work:counted").keys(), END_TIMEOUT_S
    )
    effects = Counter(daemon.call("query", "work:names"))
    twice = {name: times for name, times in effects.items() if times > 1}
    assert not twice, f"took effect more than once: {twice}"
    for number in range(mutations):
        assert effects[f"m{number}"] == 1, f"m{number} was lost"
    failed: list[dict[str, Any]] = daemon.call("query", "work:in_state", state="failed")
    lost = {job["arguments"]["name"] for job in failed}
    assert {job["error"]["code"] for job in failed} <= {"outcome_unknown"}
    assert not {name for name in lost if name.startswith("m")}
    for number in range(actions):
        name = f"a{number}"
        assert (effects[name] == 1) or name in lost, f"{name} is missing and not told"
        assert effects[name] <= effects[f"{name} began"]
    daemon.kill()
    assert daemon.doctor() == []
    return {"mutations": mutations, "actions": actions, "actions_cut": len(lost)}


@pytest.fixture
def daemon(tmp_path: Path) -> Any:
    made = RunningDaemon(tmp_path, OPTIONS)
    try:
        yield made
    finally:
        made.end()


def test_jobs_that_are_due_while_the_daemon_is_killed_run_once(daemon: RunningDaemon) -> None:
    kills = trial(daemon, random.Random(1), 300, 60, 0.15)
    check(daemon, 300, 60)
    assert kills > 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rule", "said"),
    [("job_row", "took effect more than once"), ("job_marked", "took effect more than once")],
)
def test_a_daemon_without_one_of_the_rules_is_found(daemon: RunningDaemon, rule: str, said: str) -> None:
    daemon.break_rule(rule)
    with pytest.raises(AssertionError, match=said):  # noqa: PT012 - either of both may find it
        for seed in range(5):
            trial(daemon, random.Random(seed), 200, 100, 0.15)
            check(daemon, 200, 100)
            daemon.data.rename(daemon.folder / f"data {seed}")


@pytest.mark.slow
def test_ten_thousand_jobs_while_the_daemon_is_killed(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        daemon = RunningDaemon(tmp_path / str(seed), OPTIONS)
        try:
            kills = trial(daemon, random.Random(seed), 10_000, 1_000, LIFE_S)
            figures = check(daemon, 10_000, 1_000)
        finally:
            daemon.end()
        long_run.record("jobs", seed, kills=kills, **figures)
