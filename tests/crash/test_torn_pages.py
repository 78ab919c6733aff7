"""Power cuts under LMDB: each page or sector of its file at random from two states.

One is the file at the moment of the checkpoint, the other the file at the crash; the kernel
may have written any mixture of them. Recovery must give the checkpoint exactly, and after
replay the state of the crash exactly; both are known from plain dicts that were fed with the
same after-images. The same trial with one part of the protocol taken out must fail: that
shows that the trial can see what it is for.

Every opening runs in a child process, as a torn file can abort the process that has it mapped.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import shutil
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import pytest
from headwater_storage import recovery
from headwater_storage.checkpoint import Checkpointer
from headwater_storage.recovery import Recovered, StorageOptions, recover
from support.storage_world import (
    SMALL,
    Commits,
    Contents,
    apply_record,
    commit,
    contents,
    inline_environment,
    model,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater_storage.log import Record
    from headwater_storage.store import Store

PAGE, SECTOR = 4096, 512
WHOLE, WRONG_CHECKPOINT, WRONG_REPLAY, REFUSED = 0, 1, 2, 3


class UnpinnedCheckpointer(Checkpointer):
    """A checkpointer with the pin taken out, to show that the trial notices."""

    def finish(self, pending):  # type: ignore[no-untyped-def]
        super().finish(pending)
        self._pin.close()


class HastyCheckpointer(Checkpointer):
    """Ends the old pin before the new meta pages are saved."""

    def begin(self, *, clean=False):  # type: ignore[no-untyped-def]
        pending = super().begin(clean=clean)
        self._pin.close()
        return pending


class UnpinnedRecovery(Checkpointer):
    """Lets go of the restored snapshot before anything is replayed."""

    def __init__(self, *args, **options):  # type: ignore[no-untyped-def]
        super().__init__(*args, **options)
        self._pin.close()


@dataclass(frozen=True)
class Workload:
    """What is written before the checkpoint, and between it and the crash.

    Attributes:
        seed: Of its commits.
        before: Commits before the checkpoint.
        after: Commits after it.
        documents: How many documents there may be.
        unsaved: A further checkpoint was begun and synced after half of these, but never saved.
    """

    seed: int
    before: int
    after: int
    documents: int = 300
    unsaved: bool = False


@dataclass
class Crash:
    """What a crash left: the directory, and the two states of LMDB's file."""

    path: Path
    saved: Path
    at_checkpoint: bytes
    at_crash: bytes
    checkpoint: Contents
    final: Contents


def in_child(work: Callable[[], int]) -> int:
    """Run in a fork and return its exit code; a signal counts as 100 + its number."""
    pid = os.fork()
    if pid == 0:
        code = REFUSED
        try:
            # A torn file that is opened without the protocol aborts or breaks the process.
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = work()
        finally:
            os._exit(code)
    return _status(os.waitpid(pid, 0)[1])


def _status(status: int) -> int:
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 100 + os.WTERMSIG(status)


def opened(path: Path, checkpointer: type[Checkpointer] = Checkpointer) -> Recovered:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "Checkpointer", checkpointer)
        options = StorageOptions("log", SMALL.log, map_size_bytes=1 << 30)
        return recover(path, options, inline_environment(), apply_record)


def crash(folder: Path, workload: Workload, checkpointer: type[Checkpointer] = Checkpointer) -> Crash:
    """Run a workload in a child that dies without closing anything, and keep what it left."""
    path = folder / "data"
    data_file = path / "store" / "data.mdb"
    commits = Commits(workload.seed, workload.documents)

    def work() -> int:
        database = opened(path, checkpointer)
        number = 0

        def write(count: int) -> None:
            nonlocal number
            while count:
                size = min(count, 3)
                commit(database, commits.batch(number, size))
                number, count = number + size, count - size

        write(workload.before // 2)
        database.checkpointer.run_now()
        write(workload.before - workload.before // 2)
        pending = database.checkpointer.begin()
        shutil.copyfile(data_file, folder / "at_checkpoint")
        write(workload.after // 4)  # commits go on while the checkpoint is being saved
        database.checkpointer.save(pending)
        database.checkpointer.finish(pending)
        write(workload.after // 4)
        if workload.unsaved:
            database.checkpointer.begin()
            database.store.sync()
        write(workload.after - 2 * (workload.after // 4))
        return 0

    assert in_child(work) == 0
    saved = folder / "saved"
    shutil.copytree(path / "log", saved / "log")
    shutil.copy2(path / "checkpoint", saved / "checkpoint")
    numbers = range(workload.before), range(workload.before + workload.after)
    checkpoint, final = (model(commits.transaction(n) for n in part) for part in numbers)
    return Crash(
        path, saved, (folder / "at_checkpoint").read_bytes(), data_file.read_bytes(), checkpoint, final
    )


def torn(random: Random, old: bytes, new: bytes) -> bytes:
    """Return a mixture of two states of a file that the kernel may have left."""
    share, unit = random.choice(((0.5, PAGE), (0.1, PAGE), (0.9, PAGE), (1.0, PAGE), (0.5, SECTOR)))
    size = random.randrange(len(old), len(new) + 1, PAGE)
    mixed = bytearray(old.ljust(size, b"\0"))
    for start in range(0, size, unit):
        if random.random() < share:
            mixed[start : start + unit] = new[start : start + unit]
    return bytes(mixed)


def put_back(found: Crash, data: bytes) -> None:
    """Make the directory what the crash left, with other contents of LMDB's file (the same inode)."""
    shutil.rmtree(found.path / "log")
    shutil.copytree(found.saved / "log", found.path / "log")
    shutil.copy2(found.saved / "checkpoint", found.path / "checkpoint")
    with open(found.path / "store" / "data.mdb", "r+b") as file:
        file.write(data)
        file.truncate()


def trial(found: Crash) -> int:
    """Open the directory and compare with what must be in it."""
    looked = []

    def first_look(store: Store, record: Record) -> None:
        if not looked:
            looked.append(contents(store) == found.checkpoint)
            if not looked[0]:
                os._exit(WRONG_CHECKPOINT)
        apply_record(store, record)

    database = recover(found.path, SMALL, inline_environment(), first_look)
    assert looked
    return WHOLE if contents(database.store) == found.final else WRONG_REPLAY


def run_trials(found: Crash, count: int, seed: int, *, metas: bool = True) -> list[int]:
    random = Random(seed)
    results = []

    def attempt() -> int:
        if not metas:
            recovery.restore_metas = lambda *_: None
        return trial(found)

    for _ in range(count):
        put_back(found, torn(random, found.at_checkpoint, found.at_crash))
        results.append(in_child(attempt))
    return results


WORKLOADS = [
    Workload(11, 60, 12),
    Workload(12, 60, 60),
    Workload(13, 90, 200),
    Workload(14, 120, 60, documents=3_000),
    Workload(15, 60, 60, unsaved=True),
]
TRIALS = 48


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda workload: str(workload.seed))
def test_every_mixture_of_pages_gives_the_checkpoint_and_after_replay_the_crash(
    tmp_path: Path, workload: Workload
) -> None:
    found = crash(tmp_path, workload)
    assert found.at_checkpoint != found.at_crash
    results = run_trials(found, TRIALS, workload.seed)
    assert results == [WHOLE] * TRIALS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 112))
def test_many_mixtures(tmp_path: Path, seed: int) -> None:
    random = Random(seed)
    workload = Workload(
        seed,
        random.randint(10, 200),
        random.randint(8, 400),
        random.choice((30, 300, 3_000)),
        random.random() < 0.5,
    )
    results = run_trials(crash(tmp_path, workload), 100, seed)
    assert results == [WHOLE] * 100


def test_the_trial_fails_when_the_pin_is_taken_out(tmp_path: Path) -> None:
    results = run_trials(crash(tmp_path, WORKLOADS[1], UnpinnedCheckpointer), 12, 1)
    assert results.count(WHOLE) <= 3, results


def test_the_trial_fails_when_the_metas_are_not_put_back(tmp_path: Path) -> None:
    results = run_trials(crash(tmp_path, WORKLOADS[1]), 12, 2, metas=False)
    assert results.count(WHOLE) <= 9, results


def test_the_trial_fails_when_the_old_pin_ends_before_the_new_one_is_saved(tmp_path: Path) -> None:
    results = run_trials(crash(tmp_path, WORKLOADS[4], HastyCheckpointer), 12, 3)
    assert results.count(WHOLE) <= 3, results


def crashes_in_replay(tmp_path: Path, checkpointer: type[Checkpointer]) -> list[int]:
    """Cut the power, die in the middle of replay, cut the power again, recover."""
    found = crash(tmp_path, WORKLOADS[1])
    data_file = found.path / "store" / "data.mdb"
    random = Random(9)
    results = []
    for dies_at in range(4, 18):
        before = torn(random, found.at_checkpoint, found.at_crash)
        put_back(found, before)

        def die(dies_at: int = dies_at) -> int:
            count = 0

            def apply(store: Store, record: Record) -> None:
                nonlocal count
                apply_record(store, record)
                count += 1
                if count == dies_at:
                    os._exit(77)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(recovery, "Checkpointer", checkpointer)
                recover(found.path, SMALL, inline_environment(), apply)
            return WHOLE

        assert in_child(die) == 77
        after = data_file.read_bytes()
        again = torn(random, before[: len(after)], after)
        with open(data_file, "r+b") as file:
            file.write(again)
            file.truncate()
        results.append(in_child(lambda: trial(found)))
    return results


def test_a_crash_in_the_middle_of_replay_leaves_the_checkpoint_whole(tmp_path: Path) -> None:
    assert set(crashes_in_replay(tmp_path, Checkpointer)) == {WHOLE}


def test_the_trial_of_replay_fails_when_the_pin_is_taken_out(tmp_path: Path) -> None:
    results = crashes_in_replay(tmp_path, UnpinnedRecovery)
    assert results.count(WHOLE) <= len(results) // 2, results
