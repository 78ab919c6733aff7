"""An acknowledged mutation survives loss of power.

`support/power_cut.py` cuts the power of a real database at many moments, as the system calls that it made
allow, and opens what is left. The same trial with one part of the protocol taken out must lose something:
that shows that it can see what it is for.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import SystemRandom
from typing import TYPE_CHECKING, Any

import pytest
from support.native import built
from support.power_mutants import MUTANTS
from support.power_work import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.runs import LongRun

TESTS = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")  # a file system in memory, where there is one: states are small and many
SHORT_STATES, LONG_STATES = 25, 200


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A fast folder; what a lost state was is kept in `tmp_path`."""
    parent = MEMORY if os.access(MEMORY, os.W_OK) else tmp_path
    made = Path(tempfile.mkdtemp(dir=parent, prefix="power-"))
    yield made
    for disk in made.glob("*/disk"):
        shutil.copytree(disk, tmp_path / "disks" / disk.parent.name, dirs_exist_ok=True)
    shutil.rmtree(made)


def cut_power(folder: Path, workload: str, seed: int, states: int, *extra: str) -> dict[str, Any]:
    """Try about so many states of one workload, and return what was found; see `power_cut.main`."""
    command = [sys.executable, "-m", "support.power_cut", f"--workload={workload}", f"--seed={seed}"]
    command += [f"--states={states}", f"--folder={folder / f'{workload}-{seed}'}", *extra]
    environment = os.environ | {"LD_PRELOAD": str(built("recorder")), "PYTHONPATH": str(TESTS)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("workload", WORKLOADS)
def test_nothing_acknowledged_is_lost(folder: Path, workload: str) -> None:
    seed = SystemRandom().randrange(2**32)
    found = cut_power(folder, workload, seed, SHORT_STATES)
    assert found["lost"] is None, f"seed {seed}: {found['lost']}"
    assert found["states"] >= SHORT_STATES * 3 // 4
    # LMDB writes and syncs its file without our file system: it must be seen all the same.
    assert found["store_calls"]["WRITE"] > 10
    assert found["store_calls"]["SYNC_END"] > 1


TRIALS = [("small", 1), ("pages", 2), ("small", 3), ("engine", 4), ("pages", 5)]


@pytest.mark.parametrize("part", MUTANTS)
def test_something_is_lost_with_a_part_taken_out(folder: Path, part: str) -> None:
    tried = 0
    for workload, seed in TRIALS:
        # One life: a process that recovers badly by itself is no power cut.
        found = cut_power(folder, workload, seed, 60, f"--mutant={part}", "--lives=1")
        tried += found["states"]
        if found["lost"] is not None:
            assert tried, found["lost"]
            return
    pytest.fail(f"{tried} states were recovered without it")


@pytest.mark.slow
def test_power(folder: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        with ThreadPoolExecutor(2) as pool:
            trials = pool.map(lambda name, seed=seed: cut_power(folder, name, seed, LONG_STATES), WORKLOADS)
            found = dict(zip(WORKLOADS, trials, strict=True))
        assert {name: figures["lost"] for name, figures in found.items()} == dict.fromkeys(WORKLOADS), seed
        kinds = Counter[str]()
        for figures in found.values():
            kinds.update(figures["kinds"])
        long_run.record(
            "power",
            seed,
            states=sum(figures["states"] for figures in found.values()),
            second_crashes=sum(figures["second_crashes"] for figures in found.values()),
            **{f"at_{kind.replace(' ', '_')}": count for kind, count in sorted(kinds.items())},
        )
        for name in WORKLOADS:
            shutil.rmtree(folder / f"{name}-{seed}")
