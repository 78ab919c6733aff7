"""The whole system on virtual time: hundreds of random histories with crashes, faults and checkers.

For each rule that keeps a promise there is a daemon without it, and some history shows the difference.
"""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import Future
from functools import partial
from pathlib import Path

import pytest
from headwater_protocol.errors import StorageError
from headwater_server.reactive.core import ReactiveCore
from headwater_server.worker.serve import Server
from headwater_storage.file_log import FileLog
from headwater_storage.log import Appended
from support.world.life import Life
from support.world.paged_store import PagedStore
from support.world.timeline import SeededExecutor
from support.world.truth import Wrong
from support.world.world import FAULTS, Setup, World

PARTS = 8
SEEDS_EACH = 25


@pytest.mark.parametrize("part", range(PARTS))
def test_random_histories_of_the_whole_system(part, seeds):
    chosen = list(seeds(range(part * SEEDS_EACH, (part + 1) * SEEDS_EACH)))
    if len(chosen) == 1 and part:
        pytest.skip("one seed is run once")
    for seed in chosen:
        World(seed).run()


@pytest.mark.slow
def test_random_histories_of_the_whole_system_at_length(long_run):
    """New seeds, until the time is up: `make sim MINUTES=10`, or `make torture ONLY=whole_system`."""
    for first in long_run.seeds():
        figures = [
            World(seed).run().figures
            for seed in range(first, first + (1 if long_run.seed is not None else 50))
        ]
        long_run.record(
            "sim",
            first,
            histories=len(figures),
            acknowledged=sum(one.acknowledged for one in figures),
            transitions=sum(one.transitions for one in figures),
            daemons=sum(one.lives for one in figures),
            faults=sum(one.faults.total() for one in figures),
        )


def test_histories_meet_every_fault():
    met = set()
    for seed in range(40):
        met |= World(seed).run().figures.faults.keys()
        if met == {*FAULTS, "power cut"}:
            return
    raise AssertionError(f"the world is too tame, it met only {met}")


_TRACES = (
    "from support.world.world import World; print([World(seed).run().timeline.trace for seed in range(2)])"
)


def test_equal_seeds_give_equal_traces():
    """Also in other processes, whose sets are in another order."""
    traces = set()
    for hash_seed in ("1", "2"):
        environment = {
            **os.environ,
            "PYTHONHASHSEED": hash_seed,
            "PYTHONPATH": str(Path(__file__).parents[1]),
        }
        done = subprocess.run(
            [sys.executable, "-c", _TRACES],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        traces.add(done.stdout)
    assert len(traces) == 1
    assert len(set(traces.pop().split())) == 2


# ------------------------------------------------------------------------------- daemons without a rule


def objection(life=Life, *kinds, first=0, seeds=60, **setup):
    """Run histories until one is found wrong; return what was said, None if nothing was.

    The first seed is near one that is known to show the fault, so that this takes no time.
    """
    for seed in range(first, first + seeds):
        try:
            World(seed, Setup(life=life, kinds=kinds or None, **setup)).run()
        except (Wrong, StorageError) as wrong:
            return str(wrong)
    return None


CRASHES = ("kill", "kill while writing")


def test_a_log_that_is_not_synced_is_seen():
    class NoLogSync(Life):
        def environment(self):
            files, sync = self.files, self.files.fdatasync

            def fdatasync(descriptor):
                if files.disk.open_files[descriptor][0].parent.name != "log":
                    sync(descriptor)

            files.fdatasync = fdatasync
            return super().environment()

    assert objection(NoLogSync, *CRASHES) is not None


def test_a_checkpoint_without_pin_is_seen():
    class Unpinned(PagedStore):
        def snapshot(self, owner="daemon"):
            snapshot = super().snapshot(owner)
            if owner == "daemon":
                del self.readers[snapshot._slot]
            return snapshot

    class NoPin(Life):
        def _open_store(self, path, **options):
            self.store = Unpinned.open(self.files, path, **options)
            return self.store

    assert objection(NoPin, *CRASHES) is not None


def test_a_checkpoint_without_sync_is_seen(monkeypatch):
    monkeypatch.setattr(PagedStore, "sync", lambda _: None)
    assert objection(Life, *CRASHES) is not None


def test_a_recovery_that_trusts_the_page_cache_is_seen(monkeypatch):
    """What it found in the log only the cache may hold; it is shown, and gone after the next power cut."""

    class DiesBeforeSync(Life):
        """Is killed now and then between the write of a record and its sync."""

        def environment(self):
            files, sync = self.files, self.files.fdatasync

            def fdatasync(descriptor):
                if self.serves and files.disk.open_files[descriptor][0].parent.name == "log":
                    files.operations_left = 1 if self.random.random() < 0.2 else None
                sync(descriptor)

            files.fdatasync = fdatasync
            return super().environment()

    history = {"faults": 5, "calls": 12}
    assert objection(DiesBeforeSync, "cut", seeds=2, **history) is None
    monkeypatch.setattr(FileLog, "_copy_tail", lambda _, base, path, __: [(base, path)])
    monkeypatch.setattr(FileLog, "_make_durable", lambda *_: None)
    assert objection(DiesBeforeSync, "cut", **history) is not None


def test_answers_before_the_record_is_durable_are_seen():
    class EarlyExecutor(SeededExecutor):
        last = 0.0

        def submit(self, work):
            if not (isinstance(work, partial) and work.func.__name__ == "_timed"):
                return super().submit(work)
            self.last = max(self.last + 1e-6, self._loop.time() + self._random.random() * self.slow_s)
            self._loop.at(self.last, work)
            early = Future()
            early.set_result(Appended())
            return early

    class Early(Life):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.executor = EarlyExecutor(self.loop, self.random)

    assert objection(Early, *CRASHES, first=11) is not None


def test_a_mutation_that_leaves_no_request_row_is_seen(monkeypatch):
    propose = Server._propose

    def forgetful(self, message, transaction, _memory, *arguments):
        propose(self, message, transaction, None, *arguments)

    monkeypatch.setattr(Server, "_propose", forgetful)
    assert "twice" in objection(Life, "cut", "kill")


def test_a_result_registered_without_looking_at_the_window_is_seen(monkeypatch):
    class NothingTouched:
        def first_touch(self, after_ts, points, ranges):
            return None

    register = ReactiveCore._register

    def blind(self, *arguments):
        window, self._window = self._window, NothingTouched()
        register(self, *arguments)
        self._window = window

    monkeypatch.setattr(ReactiveCore, "_register", blind)
    assert "show" in objection(Life, "slow calls")


def test_a_commit_that_is_not_validated_is_seen(monkeypatch):
    monkeypatch.setattr("headwater_storage.committer.conflict", lambda *_: False)
    assert objection(Life, "kill worker") is not None
