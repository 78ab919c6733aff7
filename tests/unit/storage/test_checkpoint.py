from __future__ import annotations

import asyncio
import errno
from typing import TYPE_CHECKING

import lmdb
import pytest
from headwater_protocol.errors import HeadwaterError, StorageError, TransientError
from headwater_storage.checkpoint import (
    BEHIND_RETRY_S,
    CheckpointOptions,
    read_side_file,
    write_side_file,
)
from headwater_storage.environment import Environment, RealRandom, ThreadExecutor
from headwater_storage.recovery import Recovered, StorageOptions, recover
from support.real_files import RecordingFiles
from support.storage_world import SMALL, Commits, FakeClock, Gate, apply_record, commit, inline_environment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

COMMITS = Commits(3)
QUIET = StorageOptions(
    log=SMALL.log,
    checkpoint=CheckpointOptions(log_bytes=1 << 30, growth_bytes=1 << 30, interval_s=5.0),
    map_size_bytes=SMALL.map_size_bytes,
)


class World:
    def __init__(self, path: Path, options: StorageOptions = QUIET) -> None:
        self.files = RecordingFiles()
        self.clock = FakeClock()
        self.database: Recovered = recover(
            path, options, inline_environment(self.files, self.clock), apply_record
        )
        self.checkpointer = self.database.checkpointer
        self.number = 0

    def commit(self, count: int = 1) -> None:
        commit(self.database, COMMITS.batch(self.number, count))
        self.number += count

    def side_number(self) -> int:
        return read_side_file(self.files, self.database.directory.checkpoint_file).state.record_number


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    made.database.close(clean=False)


def test_the_side_file_names_the_pinned_snapshot_and_not_a_later_one(world: World) -> None:
    world.commit()
    pending = world.checkpointer.begin()
    number = pending.content.state.record_number
    world.commit(5)
    world.checkpointer.save(pending)
    assert world.checkpointer.saved_state.record_number < number
    world.commit(5)
    world.checkpointer.finish(pending)
    assert world.side_number() == number == world.checkpointer.saved_state.record_number
    assert world.database.log.head.number == number + 2


def test_the_old_pin_stands_until_the_side_file_is_durable(world: World) -> None:
    world.commit()
    old = world.checkpointer._pin
    pending = world.checkpointer.begin()
    world.checkpointer.save(pending)
    assert old.get_document(b"missing") is None
    world.checkpointer.finish(pending)
    with pytest.raises(lmdb.Error):
        old.get_document(b"missing")
    assert world.checkpointer._pin is pending.pin


def test_the_side_file_is_replaced_durably(world: World) -> None:
    world.commit()
    world.files.operations.clear()
    world.checkpointer.run_now()
    assert [step for step in world.files.operations if "checkpoint" in step[1] or step[0] == "sync_folder"][
        :4
    ] == [
        ("write", "checkpoint.tmp"),
        ("sync", "checkpoint.tmp"),
        ("rename", "checkpoint"),
        ("sync_folder", world.database.directory.path.name),
    ]


def test_log_goes_only_behind_a_finished_checkpoint(world: World) -> None:
    for _ in range(60):
        world.commit(3)
    folder = world.database.directory.log_folder
    before = world.files.names(folder)
    pending = world.checkpointer.begin()
    world.checkpointer.save(pending)
    assert world.files.names(folder) == before
    world.checkpointer.finish(pending)
    left = world.files.names(folder)
    assert len(left) < len(before)
    assert next(world.database.log.read(pending.content.state.record_number)) is not None


def due_after(world: World, change: Callable[[], None]) -> tuple[bool, bool]:
    world.checkpointer.run_now()
    before = world.checkpointer.due()
    change()
    return before, world.checkpointer.due()


def test_due_by_time_if_anything_was_written(world: World) -> None:
    def wait() -> None:
        world.clock.now_s += 6

    assert due_after(world, wait) == (False, False)
    world.commit()
    assert world.checkpointer.due()
    assert due_after(world, world.commit) == (False, False)


def test_due_by_log_bytes(tmp_path: Path) -> None:
    world = World(tmp_path, StorageOptions(log=SMALL.log, checkpoint=CheckpointOptions(10_000, 1 << 40, 1e9)))
    assert due_after(world, lambda: world.commit(30)) == (False, True)
    world.checkpointer.begin()
    assert not world.checkpointer.due()
    world.database.close(clean=False)


def test_due_by_growth(tmp_path: Path) -> None:
    world = World(tmp_path, StorageOptions(log=SMALL.log, checkpoint=CheckpointOptions(1 << 40, 10_000, 1e9)))
    assert due_after(world, lambda: world.commit(30)) == (False, True)
    world.database.close(clean=False)


def test_a_failed_sync_or_write_is_fatal_and_the_old_pin_stays(world: World) -> None:
    world.commit()
    before = world.side_number()
    old = world.checkpointer._pin
    world.files.fail = ("sync", errno.EIO)
    with pytest.raises(StorageError) as caught:
        world.checkpointer.run_now()
    assert caught.value.code == "disk_failed"
    assert world.side_number() == before
    assert old.get_document(b"missing") is None


def test_a_full_disk_postpones(world: World) -> None:
    world.commit()
    before = world.side_number()
    world.clock.now_s += 6
    assert world.checkpointer.due()
    world.files.fail = ("write", errno.ENOSPC)
    with pytest.raises(TransientError) as caught:
        world.checkpointer.run_now()
    assert caught.value.code == "disk_full"
    assert world.side_number() == before
    assert not world.checkpointer.due()
    world.commit()
    world.clock.now_s += 6
    assert world.checkpointer.due()
    world.checkpointer.run_now()
    assert world.side_number() == world.database.log.head.number


@pytest.mark.parametrize(
    "limits", [CheckpointOptions(4_000, 1 << 40, 1e9), CheckpointOptions(1 << 40, 4_000, 1e9)]
)
def test_commits_that_wait_for_a_checkpoint_without_room_get_another_one(
    tmp_path: Path, limits: CheckpointOptions
) -> None:
    """Nothing is written meanwhile, so nothing that is written can make it due."""
    world = World(tmp_path, StorageOptions(log=SMALL.log, checkpoint=limits))
    while not world.checkpointer.is_behind():
        world.commit(10)
    world.files.fail = ("write", errno.ENOSPC)
    with pytest.raises(TransientError):
        world.checkpointer.run_now()
    assert world.checkpointer.is_behind()
    assert not world.checkpointer.due(), "not at once: it has only just failed"
    world.clock.now_s += BEHIND_RETRY_S
    assert world.checkpointer.due()
    world.checkpointer.run_now()
    assert not world.checkpointer.is_behind()
    assert not world.checkpointer.due()
    world.database.close(clean=False)


def test_another_owner_stops_checkpoints(world: World) -> None:
    path = world.database.directory.checkpoint_file
    found = read_side_file(world.files, path)
    write_side_file(
        world.files, path, type(found)(*(found.format, found.state, found.metas, found.inode, b"x", False))
    )
    with pytest.raises(StorageError) as caught:
        world.checkpointer.run_now()
    assert caught.value.code == "directory_in_use"


def test_a_damaged_or_missing_side_file_is_refused(world: World, tmp_path: Path) -> None:
    path = world.database.directory.checkpoint_file
    data = path.read_bytes()
    for position in range(0, len(data), 97):
        path.write_bytes(data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :])
        with pytest.raises(StorageError) as caught:
            read_side_file(world.files, path)
        assert caught.value.code == "damaged"
    path.write_bytes(data)
    read_side_file(world.files, path)
    with pytest.raises(StorageError, match="missing"):
        read_side_file(world.files, tmp_path / "none")


async def test_commits_go_on_while_a_checkpoint_is_saved_in_a_thread(tmp_path: Path) -> None:
    gate = Gate()
    files = RecordingFiles()
    environment = Environment(FakeClock(), RealRandom(), files, ThreadExecutor())
    database = recover(tmp_path, QUIET, environment, apply_record)
    commit(database, COMMITS.batch(0, 1))
    number = database.log.head.number
    files.before = {("rename", "checkpoint"): gate.wait}
    running = asyncio.create_task(database.checkpointer.run())
    await asyncio.to_thread(gate.reached.wait, 10)
    commit(database, COMMITS.batch(1, 5))
    assert not running.done()
    gate.release.set()
    await running
    assert database.checkpointer.saved_state.record_number == number
    assert database.log.head.number == number + 1
    database.close(clean=False)
    environment.executor.close()


async def test_a_cancelled_checkpoint_is_ended_by_close(tmp_path: Path) -> None:
    gate = Gate()
    files = RecordingFiles()
    environment = Environment(FakeClock(), RealRandom(), files, ThreadExecutor())
    database = recover(tmp_path, QUIET, environment, apply_record)
    commit(database, COMMITS.batch(0, 1))
    files.before = {("rename", "checkpoint"): gate.wait}
    running = asyncio.create_task(database.checkpointer.run())
    await asyncio.to_thread(gate.reached.wait, 10)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    gate.release.set()
    database.close(clean=True)
    side = read_side_file(files, database.directory.checkpoint_file)
    assert (side.clean, side.state.record_number) == (True, database.log.head.number)
    environment.executor.close()


async def test_an_error_in_the_thread_reaches_the_caller_once(tmp_path: Path) -> None:
    files = RecordingFiles()
    environment = Environment(FakeClock(), RealRandom(), files, ThreadExecutor())
    database = recover(tmp_path, QUIET, environment, apply_record)
    for number, code in ((errno.ENOSPC, "disk_full"), (errno.EIO, "disk_failed")):
        commit(database, COMMITS.batch(0, 1))
        files.fail = ("write", number)
        with pytest.raises(HeadwaterError) as caught:
            await database.checkpointer.run()
        assert caught.value.code == code
    database.close(clean=False)
    environment.executor.close()
