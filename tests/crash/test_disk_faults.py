"""A full or failing disk: every call that changes a file fails, one after the other, and nothing is corrupt.

Points inside the engine are met in processes with the engine alone (`support/disk_lives.py`), others in the real daemon
with real clients (`support/disk_daemon.py`).
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support import disk_daemon, disk_lives
from support.disk_faults import Faults, Tally

if TYPE_CHECKING:
    from support.runs import LongRun

TESTS = Path(__file__).parents[1]
LIVES_LIMIT_S = 900.0
POINTS_MAX = 400


def with_faults(module: str, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a module of ours in a process whose calls on a data directory can be made to fail."""
    folder.mkdir(parents=True, exist_ok=True)
    data, control = folder / "data", folder / "control"
    environment = {**os.environ, **Faults(data, control).environment}
    done = subprocess.run(
        [sys.executable, "-m", module, str(data), str(control), *words],
        cwd=TESTS,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIVES_LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done


def engine_lives(folder: Path, seed: int, mode: str, count: int, mutant: str = "") -> dict[str, Any]:
    """Run lives of the engine in a process of its own; return what it met and what was wrong."""
    words = [str(seed), mode, str(count), *([mutant] if mutant else [])]
    done = with_faults("support.disk_lives", folder, *words)
    found: dict[str, Any] = json.loads(done.stdout)
    print(f"seed {seed}\n{found['text']}")
    if found["wrong"]:
        found["wrong"] += f" (seed {seed})\n{done.stderr[-4000:]}"
    return found


def a_seed(request: pytest.FixtureRequest) -> int:
    chosen = request.config.getoption("--seed")
    return int(chosen) if chosen else random.SystemRandom().randrange(2**32)


def test_the_engine_on_a_failing_disk(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    found = engine_lives(tmp_path, a_seed(request), "sample", 28)
    assert not found["wrong"], found["wrong"]
    assert found["points"] > 14
    assert found["acknowledged"] > 20


@pytest.mark.parametrize("mutant", list(disk_lives.MUTANTS))
def test_the_trial_fails_when_the_engine(tmp_path: Path, mutant: str) -> None:
    assert engine_lives(tmp_path, 3, "sample", 200, mutant)["wrong"]


def test_a_start_says_whether_the_disk_is_full_or_fails_whatever_call_met_it(tmp_path: Path) -> None:
    """Also where LMDB's meta page is what found no room: LMDB then speaks of a fatal error."""
    for found in json.loads(with_faults("support.disk_starts", tmp_path).stdout):
        starts = found["starts"]
        # Nothing depends on a segment that is being made ahead; the next append would tell.
        failed = [start for start in starts if start["place"] != "rename log/next.prepared"]
        expected = "disk_full" if found["is_full"] else "disk_failed"
        assert {start["code"] for start in failed} == {expected}, failed
        assert any("meta page" in start["said"] for start in failed), failed


@pytest.mark.timeout(300)
def test_the_daemon_on_a_failing_disk(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    tally = disk_daemon.trial(tmp_path, a_seed(request), full_rounds=8, failures=1)
    print(tally.text())
    assert tally.points > 5


@pytest.mark.slow
def test_disk(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        found = engine_lives(tmp_path / f"engine-{seed}", seed, "sweep", POINTS_MAX)
        assert not found["wrong"], found["wrong"]
        tally: Tally = disk_daemon.trial(tmp_path / f"daemon-{seed}", seed, full_rounds=150, failures=30)
        print(tally.text())
        long_run.record(
            "disk",
            seed,
            points=found["points"] + tally.points,
            engine_points=found["points"],
            daemon_points=tally.points,
            acknowledged=found["acknowledged"] + tally.acknowledged,
            refused=found["refused"] + tally.refused,
        )
