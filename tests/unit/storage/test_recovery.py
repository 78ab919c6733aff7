from __future__ import annotations

import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec
import pytest
from headwater_protocol.errors import StorageError
from headwater_storage import recovery
from headwater_storage.checkpoint import read_side_file
from headwater_storage.directory import DataDirectory, WorkerLock, wait_for_workers
from headwater_storage.files import RealFileSystem
from headwater_storage.format import FORMAT_VERSION
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.log import RecordKind
from headwater_storage.recovery import Recovered, StorageOptions, recover
from headwater_storage.store import EMPTY_STATE
from headwater_storage.timeline import Timeline
from support.damage import write
from support.memory_files import Crashed
from support.real_files import RecordingFiles
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
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_storage.store import AppliedBatch, State

COMMITS = Commits(5, documents=40)
FILES = RealFileSystem()


def open_database(
    path: Path, files: RecordingFiles | None = None, clock: FakeClock | None = None, **options: object
) -> Recovered:
    changed = StorageOptions(
        SMALL.durability, SMALL.log, SMALL.checkpoint, SMALL.map_size_bytes, worker_wait_s=1.0
    )
    for name, value in options.items():
        object.__setattr__(changed, name, value)
    return recover(path, changed, inline_environment(files, clock), apply_record)


def refusal(path: Path) -> StorageError:
    with pytest.raises(StorageError) as caught:
        open_database(path)
    return caught.value


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_each_opening_starts_at_the_wall_clock_and_goes_on_densely(tmp_path: Path) -> None:
    clock = FakeClock()
    path = tmp_path / "a" / "b"
    database = open_database(path, clock=clock)
    with database.store.snapshot() as snapshot:
        assert snapshot.state.ts == clock.wall_us() - 1
        assert snapshot.state.head == database.log.head
    encoded = commit(database, COMMITS.batch(0, 3))
    assert encoded.head.last_ts == clock.wall_us() + 2
    first = database.claim.incarnation
    database.close()
    clock.now_s += 1000
    database = open_database(path, clock=clock)
    assert database.claim.incarnation != first
    with database.store.snapshot() as snapshot:
        assert snapshot.state.ts == clock.wall_us() - 1
    following = commit(database, COMMITS.batch(1, 2))
    assert following.head.last_ts == clock.wall_us() + 1
    database.close()
    clock.now_s -= 5000
    database = open_database(path, clock=clock)
    with database.store.snapshot() as snapshot:
        assert snapshot.state.ts == following.head.last_ts
    database.close()
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "jump_s", [0, 3600, -3600, 315e6, -315e6, 1e12, -1e12], ids=lambda jump_s: f"{jump_s:+.0f}s"
)
def test_time_and_ts_go_on_from_the_log_wherever_the_clock_is(tmp_path: Path, jump_s: float) -> None:
    clock = FakeClock()
    newest = EMPTY_STATE
    for back_s in (jump_s, -jump_s, 0, jump_s):
        database = open_database(tmp_path / "data", clock=clock)
        with database.store.snapshot() as snapshot:
            opened = snapshot.state
        assert opened.wall_us > newest.wall_us
        assert opened.ts >= newest.ts
        assert max(opened.ts, opened.wall_us) < 2**53
        commit(database, COMMITS.batch(0, 3), wall_us=Timeline(clock, opened.wall_us).next_us())
        with database.store.snapshot() as snapshot:
            newest = snapshot.state
        assert newest.ts == opened.ts + 3
        database.close(clean=bool(back_s))
        clock.now_s += back_s


def test_a_restored_copy_issues_no_ts_again_that_was_seen_with_other_contents(tmp_path: Path) -> None:
    assert issued_again_after_a_restore(tmp_path, FakeClock()) == set()


def test_without_the_wall_clock_a_restored_copy_does(tmp_path: Path) -> None:
    class NoClock(FakeClock):
        def wall_us(self) -> int:
            return 0

    assert issued_again_after_a_restore(tmp_path, NoClock())


def issued_again_after_a_restore(folder: Path, clock: FakeClock) -> set[int]:
    """Copy a stopped directory, go on in it, then go on in the copy: return the ts that both have issued."""

    def issued(path: Path) -> set[int]:
        clock.now_s += 10
        database = open_database(path, clock=clock)
        records = [commit(database, COMMITS.batch(number, 1)) for number in range(20)]
        database.close()
        return {record.head.last_ts for record in records}

    issued(folder / "data")
    shutil.copytree(folder / "data", folder / "copy")
    return issued(folder / "data") & issued(folder / "copy")


@pytest.mark.parametrize("clean", [True, False])
@pytest.mark.parametrize("durability", ["log", "lmdb"])
def test_everything_is_there_after_a_stop_of_either_kind(
    tmp_path: Path, clean: bool, durability: str
) -> None:
    number = 0
    for life in range(4):
        database = open_database(tmp_path, durability=durability)
        assert database.was_clean is (clean or life == 0)
        assert (database.replayed == 0) is (clean or life == 0)
        assert contents(database.store) == model(COMMITS.batch(0, number))
        for batch in range(5):
            commit(database, COMMITS.batch(number, 3))
            number += 3
            if batch < 4 and database.checkpointer.due():
                database.checkpointer.run_now()
        database.close(clean=clean)


def test_replay_begins_behind_the_checkpoint(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    commit(database, COMMITS.batch(0, 3))
    database.checkpointer.run_now()
    for number in range(4):
        commit(database, COMMITS.batch(3 + number, 1))
    database.close(clean=False)
    database = open_database(tmp_path)
    assert database.replayed == 4
    kinds = [record.kind for record in database.log.read(database.log.head.number - 5)]
    assert kinds == [RecordKind.BATCH] * 5 + [RecordKind.CLAIM]
    assert contents(database.store) == model(COMMITS.batch(0, 7))
    database.close()


def test_the_saved_metas_are_put_back_and_pinned_before_anything_is_replayed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = open_database(tmp_path)
    commit(database, COMMITS.batch(0, 3))
    database.checkpointer.run_now()
    saved = database.checkpointer.saved_state
    commit(database, COMMITS.batch(3, 3))
    database.close(clean=False)
    files = RecordingFiles()
    seen = []

    apply = LmdbStore.apply

    def watch(store: LmdbStore, changes: AppliedBatch, state: State) -> None:
        if not seen:
            with store.snapshot() as snapshot:
                readers = [line.split()[-1] for line in store.readers_text().splitlines()]
                seen.append((snapshot.state, list(files.operations), sum(map(str.isdecimal, readers))))
        apply(store, changes, state)

    monkeypatch.setattr(LmdbStore, "apply", watch)
    recover(tmp_path, SMALL, inline_environment(files), apply_record).close()
    state, operations, readers = seen[0]
    assert state == saved
    assert operations[:2] == [("write", "data.mdb"), ("sync", "data.mdb")]
    assert readers == 2  # the pin, and this look


def test_a_start_that_is_cut_short_anywhere_is_repeated_without_loss(tmp_path: Path) -> None:
    """Crash at each operation on files in turn: while a directory is made, then while it is recovered."""
    for prepared in (False, True):
        for crash_at in range(60):
            path = tmp_path / f"{prepared}-{crash_at}"
            expected = 0
            if prepared:
                database = open_database(path)
                commit(database, COMMITS.batch(0, 3))
                database.checkpointer.run_now()
                commit(database, COMMITS.batch(3, 3))
                database.close(clean=False)
                expected = 6
            files = RecordingFiles()
            files.crash_at = crash_at
            crashed = False
            try:
                open_database(path, files).close(clean=False)
            except Crashed:
                crashed = True
            database = open_database(path)
            assert contents(database.store) == model(COMMITS.batch(0, expected)), crash_at
            commit(database, COMMITS.batch(expected, 1))
            database.close()
            if not crashed:
                break
        assert not crashed
        assert crash_at > 8


def test_a_newer_format_is_refused_untouched(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    for name in ("lock", "workers.lock"):
        (tmp_path / name).unlink()
    newer = (
        (tmp_path / "format").read_bytes().replace(b'"format":%d' % FORMAT_VERSION, b'"format":99,"more":1')
    )
    (tmp_path / "format").write_bytes(newer)
    before = tree(tmp_path)
    error = refusal(tmp_path)
    assert (error.code, "99" in error.message) == ("format_too_new", True)
    assert tree(tmp_path) == before


def test_a_directory_without_its_format_file_is_refused_untouched(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    (tmp_path / "format").unlink()
    before = tree(tmp_path)
    assert refusal(tmp_path).code == "damaged"
    assert tree(tmp_path) == before
    (tmp_path / "format").write_bytes(b"{}")
    assert refusal(tmp_path).code == "damaged"


def test_files_that_are_not_ours_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "admin-key").write_bytes(b"x")
    open_database(tmp_path).close()
    assert (tmp_path / "admin-key").read_bytes() == b"x"


def test_a_directory_is_for_one_process_at_a_time(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    assert refusal(tmp_path).code == "directory_in_use"
    database.close()
    open_database(tmp_path).close()


def test_a_copy_of_a_running_directory_is_refused_and_one_of_a_stopped_is_not(tmp_path: Path) -> None:
    path = tmp_path / "original"
    database = open_database(path)
    commit(database, COMMITS.batch(0, 3))
    shutil.copytree(path, tmp_path / "running")
    database.close()
    shutil.copytree(path, tmp_path / "stopped")
    assert refusal(tmp_path / "running").code == "directory_copied"
    for place in ("stopped", "original"):
        database = open_database(tmp_path / place)
        assert contents(database.store) == model(COMMITS.batch(0, 3))
        database.close(clean=False)
    shutil.copytree(path, tmp_path / "killed")
    assert refusal(tmp_path / "killed").code == "directory_copied"
    path.rename(tmp_path / "moved")
    open_database(tmp_path / "moved").close()


def test_workers_of_an_earlier_daemon_are_waited_for(tmp_path: Path) -> None:
    open_database(tmp_path).close()
    worker = WorkerLock(FILES, DataDirectory(tmp_path))
    second = WorkerLock(FILES, DataDirectory(tmp_path))
    before = tree(tmp_path / "store")
    assert refusal(tmp_path).code == "directory_in_use"
    assert tree(tmp_path / "store") == before

    class EndsWorkers(FakeClock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if self.now_s > started + 0.5:
                worker.close()
                second.close()
                self.sleep = super().sleep  # type: ignore[method-assign]

    clock = EndsWorkers()
    started = clock.now_s
    open_database(tmp_path, clock=clock).close()
    assert 0.5 < clock.now_s - started < 0.6


def test_a_worker_does_not_start_into_a_recovery(tmp_path: Path) -> None:
    recovering = os.open(tmp_path / "workers.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(recovering, fcntl.LOCK_EX)
    with pytest.raises(StorageError) as caught:
        WorkerLock(FILES, DataDirectory(tmp_path))
    assert caught.value.code == "directory_in_use"
    os.close(recovering)
    worker = WorkerLock(FILES, DataDirectory(tmp_path))
    with pytest.raises(StorageError):
        wait_for_workers(FILES, DataDirectory(tmp_path), FakeClock(), 0.1)
    worker.close()
    wait_for_workers(FILES, DataDirectory(tmp_path), FakeClock(), 0.1)


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FILES.kind(tmp_path)
    monkeypatch.setattr(RealFileSystem, "kind", lambda *_: "nfs4")
    assert (refusal(tmp_path).code, list(tmp_path.iterdir())) == ("directory_unusable", [])


def test_a_log_that_does_not_fit_the_store_is_refused(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    commit(database, COMMITS.batch(0, 3))
    database.close()
    for segment in (tmp_path / "log").iterdir():
        segment.unlink()
    assert refusal(tmp_path).code == "damaged"


def flips_that_are_let_in(path: Path, *, each: int) -> set[str]:
    """Flip bits of the state in a stopped store, one at a time, and open it.

    Args:
        path: The directory.
        each: Every so manieth bit.

    Returns:
        What was wrong of the state it was opened with: names of its fields.
    """
    database = open_database(path)
    commit(database, COMMITS.batch(0, 3))
    database.close()
    store = path / "store" / "data.mdb"
    data = store.read_bytes()
    state = read_side_file(FILES, path / "checkpoint").state
    encoded = msgspec.msgpack.encode(state)
    assert data.count(encoded) == 1
    start, wrong = data.index(encoded), set[str]()
    for bit in range(0, 8 * len(encoded), each):
        with database_files_kept(path):
            place = start + bit // 8
            write(store, data[:place] + bytes([data[place] ^ 1 << bit % 8]) + data[place + 1 :])
            try:
                database = open_database(path)
            except StorageError as error:
                refused = error
            else:
                refused = None
            if refused is not None:
                assert refused.code == "damaged"
                assert f"{store}, offset {start}" in refused.message or " log record " in refused.message
                continue
            opened = database.checkpointer.saved_state
            wrong |= {name for name in state._fields if getattr(opened, name) != getattr(state, name)}
            database.close(clean=False)
    return wrong


@contextmanager
def database_files_kept(path: Path) -> Iterator[None]:
    """Put all files back as they were; the store's stays the same inode."""
    kept = tree(path)
    yield
    for name in tree(path).keys() - kept.keys():
        (path / name).unlink()
    for name, content in kept.items():
        write(path / name, content)


def test_a_store_whose_state_is_not_its_checkpoints_is_refused(tmp_path: Path) -> None:
    """No checksum covers the state: a flipped bit would be a commit ts that was issued already, or never."""
    assert flips_that_are_let_in(tmp_path / "data", each=5) == set()


def test_a_store_that_is_not_compared_with_its_checkpoint_goes_on_from_a_wrong_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recovery, "_is_state_of", lambda *_: True)
    assert {"ts", "catalog_ts"} <= flips_that_are_let_in(tmp_path / "data", each=5)


def test_a_refused_start_lets_go_of_everything(tmp_path: Path) -> None:
    database = open_database(tmp_path)
    commit(database, COMMITS.batch(0, 3))
    database.close(clean=False)

    def fail(*_: object) -> None:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        recover(tmp_path, SMALL, inline_environment(), fail)
    database = open_database(tmp_path)
    assert contents(database.store) == model(COMMITS.batch(0, 3))
    database.close()
