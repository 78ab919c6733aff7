"""A process that commits, makes checkpoints and recovers is killed again and again.

Each life is a fork that is killed with -9 at a random moment: while it recovers, commits,
syncs, saves a checkpoint, begins a segment or trims. What it had acknowledged stands in a
pipe. Commit `i` is a function of `i`, and writes `i + 1` into one document, which tells how many
commits the contents are of.
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
from headwater_storage.log import LoggedTransaction
from headwater_storage.recovery import recover
from support.storage_world import (
    SMALL,
    TABLE,
    Commits,
    FakeClock,
    apply_record,
    commit,
    contents,
    document_key,
    inline_environment,
    model,
    suffix,
)

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.store import Store

COMMITS = Commits(21, documents=120)
BUSY = replace(SMALL, checkpoint=CheckpointOptions(log_bytes=20_000, growth_bytes=1 << 30, interval_s=1e9))
NUMBER_BYTES = 8
COUNT = document_key(TABLE, suffix(COMMITS.documents))
LIVES_PER_LOOK = 5


def commit_of(number: int) -> LoggedTransaction:
    """What is committed after so many commits."""
    count = (number + 1).to_bytes(NUMBER_BYTES, "big")
    return LoggedTransaction([*COMMITS.transaction(number).writes, (COUNT, count)])


def committed(store: Store) -> int:
    """How many commits a store has; its ts does not tell, as lives that commit nothing use some up."""
    with store.snapshot() as snapshot:
        return int.from_bytes(snapshot.get_document(COUNT) or b"", "big")


def live(path: Path, acknowledged: int, pipe: int) -> None:
    """Recover, then commit for ever, and say so after each commit. Checkpoints run in a thread meanwhile."""
    environment = Environment(FakeClock(), RealRandom(), RealFileSystem(), ThreadExecutor())
    database = recover(path, BUSY, environment, apply_record)
    number = committed(database.store)
    if number < acknowledged:
        os._exit(9)
    saving = pending = None
    while True:
        commit(database, [commit_of(number)])
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
    recover(path, BUSY, inline_environment(clock=FakeClock()), apply_record).close()
    random = Random(seed)
    acknowledged = 0
    for life in range(kills):
        acknowledged = kill_one_life(
            path, acknowledged, random.choice((0.004, 0.02, 0.06, 0.15)) * random.random()
        )
        if life % LIVES_PER_LOOK == LIVES_PER_LOOK - 1 or life == kills - 1:
            database = recover(path, BUSY, inline_environment(clock=FakeClock()), apply_record)
            number = committed(database.store)
            # Each life since the last look may have logged one commit that it did not get to acknowledge.
            assert acknowledged <= number <= acknowledged + LIVES_PER_LOOK
            assert contents(database.store) == model(commit_of(each) for each in range(number))
            database.close(clean=random.random() < 0.5)
            acknowledged = number
    assert acknowledged > kills, "hardly anything was committed between the kills"


def test_nothing_acknowledged_is_lost_by_kills_at_random_moments(tmp_path: Path) -> None:
    run_lives(tmp_path / "data", 50, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(10, 15))
def test_nothing_is_lost_by_many_kills(tmp_path: Path, seed: int) -> None:
    run_lives(tmp_path / "data", 200, seed)
