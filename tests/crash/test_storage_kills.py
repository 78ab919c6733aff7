"""A process that commits, makes checkpoints and recovers is killed again and again.

Each life is a fork that is killed with -9 at a random moment: while it recovers, commits,
syncs, saves a checkpoint, begins a segment or trims. What it had acknowledged stands in a
pipe. Commit `i` is a function of `i`, so the contents tell how many commits they are of.
"""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.environment import Environment, RealRandom, ThreadExecutor
from headwater_storage.files import RealFileSystem
from headwater_storage.recovery import recover
from support.storage_world import (
    SMALL,
    Commits,
    FakeClock,
    apply_record,
    commit,
    contents,
    inline_environment,
    model,
)

if TYPE_CHECKING:
    from pathlib import Path

COMMITS = Commits(21, documents=120)
BUSY = replace(SMALL, checkpoint=CheckpointOptions(log_bytes=20_000, growth_bytes=1 << 30, interval_s=1e9))
NUMBER_BYTES = 8
LIVES_PER_LOOK = 5


def stopped_clock() -> FakeClock:
    """A clock that makes the number of commits readable from the newest ts: no life begins later than the last ended."""
    clock = FakeClock()
    clock.now_s = 1_000 / 1e6
    return clock


def live(path: Path, acknowledged: int, pipe: int) -> None:
    """Recover, then commit for ever, and say so after each commit. Checkpoints run in a thread meanwhile."""
    environment = Environment(stopped_clock(), RealRandom(), RealFileSystem(), ThreadExecutor())
    database = recover(path, BUSY, environment, apply_record)
    with database.store.snapshot() as snapshot:
        number = snapshot.state.ts - 999
    if number < acknowledged:
        os._exit(9)
    saving = pending = None
    while True:
        commit(database, COMMITS.batch(number, 1))
        number += 1
        os.write(pipe, number.to_bytes(NUMBER_BYTES, "big"))
        if pending is not None and saving is not None and saving.done():
            saving.result()
            database.checkpointer.finish(pending)
            pending = None
        elif pending is None and database.checkpointer.due():
            pending = begun = database.checkpointer.begin()
            saving = environment.executor.submit(lambda begun=begun: database.checkpointer.save(begun))  # type: ignore[misc]


def kill_one_life(path: Path, acknowledged: int, wait_s: float) -> int:
    """Start a life and kill it; return the number of commits acknowledged by then."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(ours)
            live(path, acknowledged, theirs)
        finally:
            os._exit(8)
    os.close(theirs)
    time.sleep(wait_s)  # the pipe holds more numbers than one life can acknowledge
    os.kill(pid, signal.SIGKILL)
    status = os.waitpid(pid, 0)[1]
    while data := os.read(ours, NUMBER_BYTES):
        acknowledged = max(acknowledged, int.from_bytes(data, "big"))
    os.close(ours)
    assert os.WIFSIGNALED(status), f"the life ended by itself with {os.WEXITSTATUS(status)}"
    return acknowledged


def run_lives(path: Path, kills: int, seed: int) -> None:
    recover(path, BUSY, inline_environment(clock=stopped_clock()), apply_record).close()
    random = Random(seed)
    acknowledged = 0
    for life in range(kills):
        acknowledged = kill_one_life(
            path, acknowledged, random.choice((0.004, 0.02, 0.06, 0.15)) * random.random()
        )
        if life % LIVES_PER_LOOK == LIVES_PER_LOOK - 1 or life == kills - 1:
            database = recover(path, BUSY, inline_environment(clock=stopped_clock()), apply_record)
            with database.store.snapshot() as snapshot:
                number = snapshot.state.ts - 999
            # Each life since the last look may have logged one commit that it did not get to acknowledge.
            assert acknowledged <= number <= acknowledged + LIVES_PER_LOOK
            assert contents(database.store) == model(COMMITS.batch(0, number))
            database.close(clean=random.random() < 0.5)
            acknowledged = number
    assert acknowledged > kills, "hardly anything was committed between the kills"


def test_nothing_acknowledged_is_lost_by_kills_at_random_moments(tmp_path: Path) -> None:
    run_lives(tmp_path / "data", 50, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 15))
def test_nothing_is_lost_by_many_kills(tmp_path: Path, seed: int) -> None:
    run_lives(tmp_path / "data", 200, seed)
