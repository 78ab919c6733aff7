from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from headwater_storage.file_log import FileLog, FileLogOptions
from headwater_storage.log import EMPTY_HEAD, Appended, Head, LoggedTransaction
from headwater_storage.log_format import SECTOR_BYTES
from headwater_storage.proposal import CommitTs
from headwater_storage.retention import SegmentExtent, removable
from support.memory_files import MemoryFiles
from support.storage_world import FakeClock, inline_environment

FOLDER = Path("/log")
LOG_ID = b"L" * 16
SMALL = FileLogOptions(segment_bytes=40 * SECTOR_BYTES, first_segment_bytes=8 * SECTOR_BYTES, keep_bytes=0)

SEGMENTS = [SegmentExtent(base, 100) for base in (1, 11, 21, 31)]


@pytest.mark.parametrize(
    ("up_to", "keep", "gone"),
    [
        (0, 0, []),
        (9, 0, []),
        (10, 0, []),
        (11, 0, [1]),
        (20, 0, [1]),
        (21, 0, [1, 11]),
        (99, 0, [1, 11, 21]),
        (99, 99, [1, 11, 21]),
        (99, 100, [1, 11]),
        (99, 250, [1]),
        (99, 300, []),
        (21, 100, [1]),
    ],
)
def test_the_newest_that_fit_are_kept_and_the_last_always(up_to: int, keep: int, gone: list[int]) -> None:
    assert removable(SEGMENTS, up_to, keep) == gone


def test_no_segments() -> None:
    assert removable([], 5, 0) == []


AGED = [SegmentExtent(base, 100, began_us) for base, began_us in ((1, 0), (11, 10), (21, 20), (31, 30))]


@pytest.mark.parametrize(
    ("now_us", "keep_us", "gone"),
    [
        (30, 0, []),
        (30, 20, []),
        (31, 20, [1]),
        (45, 20, [1, 11]),
        (99, 20, [1, 11, 21]),
        (-99, 20, []),
    ],
)
def test_what_ended_too_long_ago_goes_and_the_last_stays(now_us: int, keep_us: int, gone: list[int]) -> None:
    assert removable(AGED, 99, 1_000, now_us, keep_us) == gone
    needed = [base for base in gone if base < 11]
    assert removable(AGED, 11, 1_000, now_us, keep_us) == needed


def test_size_and_age_both_limit() -> None:
    assert removable(AGED, 99, 100, 31, 20) == [1, 11]
    assert removable(AGED, 99, 200, 45, 20) == [1, 11]


def test_log_goes_by_age_and_no_jump_of_the_wall_clock_makes_it_older() -> None:
    class JumpingClock(FakeClock):
        ahead_s = 0.0

        def wall_us(self) -> int:
            return super().wall_us() + int(self.ahead_s * 1e6)

    files, clock = MemoryFiles(), JumpingClock()
    options = replace(SMALL, keep_bytes=1 << 30, keep_s=100.0)

    walls = [0]

    def next_us() -> int:
        walls.append(max(walls[-1] + 1, clock.wall_us()))  # as the committer's never go back
        return walls[-1]

    def append_all() -> None:
        for number in range(30):
            record = log.encode(log.head, [LoggedTransaction([(b"%d" % number, bytes(1_000))])], next_us())
            assert log.append(record) == Appended()

    def opened(needed: Head = EMPTY_HEAD) -> FileLog:
        environment = inline_environment(files, clock)  # type: ignore[arg-type]
        log = FileLog.open(FOLDER, LOG_ID, environment, options, needed=needed)
        log.claim(b"I" * 16, CommitTs(log.head.last_ts + 1), next_us())
        return log

    def first(log: FileLog) -> int:
        return log._segments[0].base_number

    log = opened()
    append_all()
    clock.now_s += 60
    for ahead_s in (0.0, 3.15e8, -3.15e8):
        clock.ahead_s = ahead_s
        append_all()
        log.trim(log.head.number)
        assert first(log) == 1
    clock.now_s += 60
    log.trim(log.head.number)
    young = first(log)
    assert 20 < young <= 31
    log.close()
    clock.ahead_s = -3.15e8  # the next life begins before the log does
    log = opened(log.head)
    log.trim(log.head.number)
    assert young < first(log) <= 62  # once it is open again, what was written before the jump ahead is old
    clock.now_s += 101
    log.trim(log.head.number)
    assert first(log) == log._segments[-1].base_number
