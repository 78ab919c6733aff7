"""Strict serializability, ranges included, of the real daemon while it is killed again and again.

What clients saw is examined in two ways that share nothing with the engine: a search for cycles of
dependencies and time (`support/history.py`), and a run of all transactions in the order of the log over
plain dicts (`support/registers.py`), which must read the same.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest
from support.daemon import RunningDaemon
from support.serial_trial import SerialTrial, cycles, differences

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from support.runs import LongRun

# Small segments, frequent checkpoints: kills then also meet rotations and half-made checkpoints. All of
# the log is kept: it tells the order of commits.
OPTIONS = (
    *("--workers", "3", "--log-segment-bytes", "1048576", "--log-keep-bytes", "1073741824"),
    *("--checkpoint-interval-s", "0.3", "--checkpoint-log-bytes", "1048576"),
)
NO_CHECKPOINTS = ("--checkpoint-interval-s", "3600", "--checkpoint-log-bytes", "1073741824", "--workers", "3")


def trial_of(
    folder: Path,
    seed: int,
    *,
    transactions: int,
    lives: int,
    clients: int,
    broken: str | None = None,
    options: tuple[str, ...] = OPTIONS,
) -> SerialTrial:
    """Run a trial to the end of its daemon."""
    daemon = RunningDaemon(folder, options)
    if broken is not None:
        daemon.break_rule(broken)
    try:
        daemon.start()
        daemon.must_deploy("registers")
        trial = SerialTrial(daemon, random.Random(seed), clients)
        asyncio.run(trial.run(transactions, lives=lives))
        assert daemon.terminate() == 0
        return trial
    finally:
        daemon.end()


def right(trial: SerialTrial) -> None:
    assert cycles(trial) == []
    assert differences(trial) == []
    assert trial.daemon.doctor() == []


@pytest.mark.timeout(240)
def test_transactions_are_strictly_serializable_under_kills(
    tmp_path: Path, seeds: Callable[[list[int]], Iterable[int]]
) -> None:
    for seed in seeds([random.SystemRandom().randrange(2**32)]):
        print(f"seed {seed}")
        trial = trial_of(tmp_path, seed, transactions=900, lives=3, clients=8)
        right(trial)
        assert trial.operations > 2_000
        assert trial.kills.daemons == 2


@pytest.mark.slow
def test_serial_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        trial = trial_of(tmp_path / str(seed), seed, transactions=10_000, lives=20, clients=12)
        right(trial)
        long_run.record(
            "serial",
            seed,
            operations=trial.operations,
            transactions=len(trial.seen),
            kills=trial.kills.daemons + trial.kills.workers + trial.kills.zygotes,
        )


def broken_trial(folder: Path, broken: str) -> SerialTrial:
    # What a daemon without the rule has lost must not have been saved by a checkpoint.
    return trial_of(
        folder,
        random.SystemRandom().randrange(2**32),
        transactions=400,
        lives=2 if broken == "log_first" else 1,
        clients=8,
        broken=broken,
        options=NO_CHECKPOINTS,
    )


def test_the_trial_finds_validation_without_ranges(tmp_path: Path) -> None:
    trial = broken_trial(tmp_path, "ranges")
    assert cycles(trial)
    assert differences(trial)


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["points", "stale", "log_first"])
def test_the_serial_trial_finds_what_is_left_out(tmp_path: Path, broken: str) -> None:
    trial = broken_trial(tmp_path, broken)
    found = cycles(trial)
    print(f"{broken}: {len(found)} anomalies, {sorted({line.partition(':')[0] for line in found})}")
    assert found
    assert differences(trial)
