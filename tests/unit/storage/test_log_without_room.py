"""The log on a disk that is full or fails: what was refused never comes back, what was acknowledged stays."""

from __future__ import annotations

import errno
from pathlib import Path
from random import Random

import pytest
from headwater_protocol.errors import StorageError, TransientError
from headwater_storage.file_log import FileLog, FileLogOptions
from headwater_storage.log import (
    EMPTY_HEAD,
    Appended,
    AppendOutcome,
    EncodedRecord,
    LoggedTransaction,
    Unknown,
)
from headwater_storage.log_format import SECTOR_BYTES
from headwater_storage.proposal import CommitTs
from support.memory_files import MemoryFiles
from support.storage_world import inline_environment

FOLDER = Path("/log")
LOG_ID = b"L" * 16
SMALL = FileLogOptions(segment_bytes=40 * SECTOR_BYTES, first_segment_bytes=8 * SECTOR_BYTES, keep_bytes=0)


class FullFiles(MemoryFiles):
    """A full disk on which each write needs new space, also where the file has it: it copies on write.

    Attributes:
        full: Writes fail.
        written: The part that such a write leaves behind all the same.
    """

    def __init__(self, written: float) -> None:
        super().__init__()
        self.full = False
        self.written = written

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        if not self.full:
            super().pwrite(descriptor, data, offset)
            return
        super().pwrite(descriptor, data[: int(len(data) * self.written)], offset)
        raise OSError(errno.ENOSPC, "no space")


def open_log(files: MemoryFiles) -> FileLog:
    return FileLog.open(FOLDER, LOG_ID, inline_environment(files), SMALL, needed=EMPTY_HEAD)  # type: ignore[arg-type]


def claim(log: FileLog) -> None:
    log.claim(b"I" * 16, CommitTs(log.head.last_ts + 1), 1)


def small(number: int) -> LoggedTransaction:
    return LoggedTransaction([(b"%d" % number, Random(number).randbytes((9, 600, 2_500)[number % 3]))])


def append(log: FileLog, number: int) -> EncodedRecord:
    record = log.encode(log.head, [small(number)], 1)
    assert log.append(record) == Appended()
    return record


def append_all(log: FileLog, numbers: range) -> None:
    for number in numbers:
        append(log, number)


@pytest.mark.parametrize("written", [0.0, 0.5, 1.0])
def test_a_record_without_room_is_cut_off_and_the_log_goes_on_in_a_new_segment(written: float) -> None:
    files = FullFiles(written)
    log = open_log(files)
    claim(log)
    append_all(log, range(3))
    files.full = True
    for _ in range(2):
        with pytest.raises(TransientError) as full:
            append(log, 3)
        assert full.value.code == "disk_full"
    files.full = False
    append_all(log, range(4, 30))
    expected = [[small(number)] for number in (0, 1, 2, *range(4, 30))]
    assert [record.transactions for record in log.read(2)] == expected
    for seed in range(10):
        files.power_cut(Random(seed))
        log = open_log(files)
        assert [record.transactions for record in log.read(2)] == expected


@pytest.mark.parametrize("written", [0.0, 0.5, 1.0])
def test_a_refused_record_is_gone_whatever_ends_the_log_then(written: float) -> None:
    for seed in range(20):
        files = FullFiles(written)
        log = open_log(files)
        claim(log)
        append_all(log, range(seed % 4))
        head = log.head
        files.full = True
        with pytest.raises(TransientError):
            append(log, 9)
        files.power_cut(Random(seed)) if seed % 2 else files.kill()
        files.full = False
        assert open_log(files).head == head


def test_a_refused_record_would_come_back_if_it_were_not_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(log: FileLog) -> None:
        log._segments[-1].size = log._offset

    monkeypatch.setattr(FileLog, "_end_segment", leave)
    files = FullFiles(1.0)
    log = open_log(files)
    claim(log)
    files.full = True
    with pytest.raises(TransientError):
        append(log, 9)
    files.kill()
    files.full = False
    assert [record.transactions for record in open_log(files).read(2)] == [[small(9)]]


def test_a_whole_copy_of_a_refused_record_counts_for_nothing_once_the_log_went_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a disk that keeps what was cut off: the segment that began with that number decides."""

    def leave(log: FileLog) -> None:
        log._segments[-1].size = log._offset

    monkeypatch.setattr(FileLog, "_end_segment", leave)
    files = FullFiles(1.0)
    log = open_log(files)
    claim(log)
    append_all(log, range(2))
    files.full = True
    with pytest.raises(TransientError):
        append(log, 9)
    files.full = False
    append_all(log, range(2, 20))
    for seed in range(10):
        files.power_cut(Random(seed))
        records = open_log(files).read(2)
        assert [record.transactions for record in records] == [[small(number)] for number in range(20)]


def test_what_cannot_be_cut_off_ends_the_log() -> None:
    for operation, number in (("cut", errno.ENOSPC), ("cut", errno.EIO), ("sync", errno.ENOSPC)):
        files = FullFiles(0.5)
        log = open_log(files)
        claim(log)
        files.full = True
        files.fail = (operation, number)
        with pytest.raises(StorageError) as failed:
            append(log, 1)
        assert failed.value.code == "disk_failed"
        files.full = False
        with pytest.raises(StorageError):
            append(log, 1)


def test_going_on_behind_a_failed_record_loses_what_comes_after(monkeypatch: pytest.MonkeyPatch) -> None:
    def stay(log: FileLog) -> None:
        """Go on where half of a record may stand, as if nothing were there."""
        log._offset += SECTOR_BYTES

    monkeypatch.setattr(FileLog, "_end_segment", stay)
    files = FullFiles(0.5)
    log = open_log(files)
    claim(log)
    files.full = True
    with pytest.raises(TransientError):
        append(log, 9)
    files.full = False
    append(log, 1)
    with pytest.raises(StorageError) as damaged:
        open_log(files)
    assert damaged.value.code == "damaged"


def test_no_failed_sync_is_taken_for_a_full_disk() -> None:
    for operation in ("sync", "sync_folder"):
        files = MemoryFiles()
        log = open_log(files)
        claim(log)
        files.fail = (operation, errno.ENOSPC)
        outcome: AppendOutcome = Appended()
        while outcome == Appended():
            outcome = log.append(log.encode(log.head, [small(1)], 1))
        assert isinstance(outcome, Unknown)


def test_a_segment_that_could_not_be_made_ahead_is_made_when_it_is_needed() -> None:
    files = MemoryFiles()
    log = open_log(files)
    claim(log)
    files.fail = ("create", errno.ENOSPC)
    append_all(log, range(30))
    assert files.fail is None
    assert log.head.number == 31


def test_a_segment_whose_making_failed_ends_the_log_with_the_next_append() -> None:
    files = MemoryFiles()
    log = open_log(files)
    claim(log)
    files.fail = ("create", errno.EIO)
    append_all(log, range(2))
    assert files.fail is None
    assert isinstance(log.append(log.encode(log.head, [small(2)], 1)), Unknown)
    with pytest.raises(StorageError):
        append(log, 2)


def test_a_trim_without_room_is_made_up_for_by_the_next() -> None:
    files = MemoryFiles()
    log = open_log(files)
    claim(log)
    append_all(log, range(60))
    before = len(files.names(FOLDER))
    files.fail = ("remove", errno.ENOSPC)
    log.trim(20)
    assert len(files.names(FOLDER)) == before
    log.trim(20)
    assert len(files.names(FOLDER)) < before
    files.fail = ("remove", errno.EIO)
    with pytest.raises(StorageError):
        log.trim(58)
