"""Memory stays flat while clients come, subscribe, leave and go, and bundles replace one another.

Two things are looked at: the daemon's Python objects, which show what is kept, and the memory of all processes, which
also shows what no object is. The latter grows in steps of some MB: what Python has once taken for a moment of many
small objects it rarely gives back, since in each piece of it some object stays.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from headwater.client.aio import connect
from support.daemon import BUNDLES, RunningDaemon

from benchmarks.processes import tree_pss_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from headwater.client.aio import Client
    from support.runs import LongRun

CLIENTS = 20
SUBSCRIPTIONS = 10
KEYS = 100
VALUE_CHARACTERS = 2_000
SHORT_S = 10.0
SHORT_DEPLOYS = 8
DEPLOYS_MAX = 200
DEPLOYS_A_MINUTE = 10
GROWTH_BYTES = 8_000_000
GROWTH_BLOCKS = 10_000  # of some 250,000; how much is under way moves them by 5,000
# What is kept within bounds is small: filling up while the trial goes on would look like growth.
FLAT_OPTIONS = (
    "--delta-memory-bytes",
    str(2 << 20),
    "--rerun-causes-kept",
    "64",
    "--call-log-kept-events",
    "64",
)


@dataclass
class Bundles:
    """Bundles that differ: the same functions and one more, which has another name in each."""

    folder: Path
    number: int = 0

    def next(self) -> Path:
        self.number += 1
        folder = self.folder / "functions"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(BUNDLES / "probe" / "functions", folder, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "further.py").write_text(
            "from headwater import QueryCtx, query\n\n\n"
            f"@query\ndef number_{self.number}(ctx: QueryCtx) -> int:\n    return {self.number}\n"
        )
        return folder


@dataclass
class Course:
    """How the memory went.

    Attributes:
        samples: Bytes of their own of all processes together, one for each round. Pages of files are left out: of the
            store they are in memory as long as the system has room, and belong to it.
        blocks: Python objects of the daemon, one number for each round.
        deploys: How many there were.
    """

    samples: list[int] = field(default_factory=list)
    blocks: list[float] = field(default_factory=list)
    deploys: int = 0

    def growth_bytes(self) -> float:
        """Return by how much memory grew."""
        return growth(self.samples)

    def growth_blocks(self) -> float:
        """Return by how much the daemon's objects grew."""
        return growth(self.blocks)


def growth(samples: Sequence[float]) -> float:
    """Return by how much the last third is above the one before it; the first fills what is bounded."""
    third = len(samples) // 3
    return statistics.median(samples[-third:]) - statistics.median(samples[third : 2 * third])


def own_bytes(pid: int) -> int:
    """Return the memory of a process and its descendants that is no file's; shared pages count once."""
    return tree_pss_bytes(pid, ("Pss_Anon:", "Pss_Shmem:"))


async def come_and_go(
    daemon: RunningDaemon,
    bundles: Bundles,
    chance: random.Random,
    seconds: float,
    deploys: int,
    *,
    new_keys: bool,
) -> Course:
    """Return how the memory went; `new_keys`: half of what clients look at, nobody has looked at before."""
    assert daemon.process is not None
    course = Course()
    start = time.monotonic()
    async with connect(daemon.url) as writer:
        for number in range(KEYS):
            await writer.mutation("probe:keep_value", key=f"{number}", value="x" * VALUE_CHARACTERS)
        while (spent := time.monotonic() - start) < seconds or course.deploys < deploys:
            if course.deploys < deploys * spent / seconds:
                await asyncio.to_thread(daemon.must_deploy, bundles.next())
                course.deploys += 1
            looked_at = [
                [
                    f"{len(course.samples)}/{visitor}/{place}"
                    if new_keys and place % 2
                    else f"{chance.randrange(KEYS)}"
                    for place in range(SUBSCRIPTIONS)
                ]
                for visitor in range(CLIENTS)
            ]
            await asyncio.gather(*(visit(daemon, writer, keys) for keys in looked_at))
            course.samples.append(await asyncio.to_thread(own_bytes, daemon.process.pid))
            course.blocks.append(await asyncio.to_thread(daemon.metric, "headwater_allocated_blocks"))
    return course


async def visit(daemon: RunningDaemon, writer: Client, keys: list[str]) -> None:
    """Come, look at some values, see one of them change, and go; half of what is looked at is left before that."""
    async with connect(daemon.url) as client:
        subscriptions = [client.subscribe("probe:value_of", key=key) for key in keys]
        for subscription in subscriptions:
            await anext(subscription)
        for subscription in subscriptions[1::2]:
            await subscription.aclose()
        value = f"{time.monotonic_ns()}".rjust(VALUE_CHARACTERS)
        await writer.mutation("probe:keep_value", key=keys[0], value=value)
        await anext(subscriptions[0])


def flat_trial(
    folder: Path,
    seed: int,
    seconds: float,
    deploys: int,
    *,
    new_keys: bool = False,
    broken: str | None = None,
) -> Course:
    daemon = RunningDaemon(folder, FLAT_OPTIONS)
    bundles = Bundles(folder)
    try:
        if broken is not None:
            daemon.break_rule(broken)
        daemon.start()
        daemon.must_deploy(bundles.next())
        chance = random.Random(seed)
        course = asyncio.run(come_and_go(daemon, bundles, chance, seconds, deploys, new_keys=new_keys))
        step = max(1, len(course.samples) // 60)
        print([round(sample / 1e6, 1) for sample in course.samples[::step]])
        print([round(count / 1e3, 1) for count in course.blocks[::step]])
        assert course.growth_blocks() < GROWTH_BLOCKS, f"grew by {course.growth_blocks()} objects"
        assert course.growth_bytes() < GROWTH_BYTES, f"grew by {course.growth_bytes()} bytes"
        return course
    finally:
        daemon.end()


def test_memory_stays_flat(tmp_path: Path) -> None:
    course = flat_trial(tmp_path, 1, SHORT_S, SHORT_DEPLOYS)
    assert course.deploys == SHORT_DEPLOYS


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["remembered", "kept_bundles"])
def test_the_trial_finds_what_is_kept(tmp_path: Path, broken: str) -> None:
    with pytest.raises(AssertionError, match="grew by"):
        flat_trial(tmp_path, 1, 3 * SHORT_S, 3 * SHORT_DEPLOYS, broken=broken)


@pytest.mark.slow
def test_flat_memory_at_length(tmp_path: Path, long_run: LongRun) -> None:
    """One run for all of the time."""
    minutes = max(long_run.minutes, 1.0)
    seed = next(long_run.seeds())
    deploys = min(DEPLOYS_MAX, round(DEPLOYS_A_MINUTE * minutes))
    course = flat_trial(tmp_path, seed, minutes * 60, deploys, new_keys=True)
    long_run.record(
        "flat",
        seed,
        minutes=minutes,
        rounds=len(course.samples),
        deploys=course.deploys,
        max_growth_kb=round(course.growth_bytes() / 1000),
        max_growth_objects=round(course.growth_blocks()),
        max_mb=round(max(course.samples) / 1e6),
    )
