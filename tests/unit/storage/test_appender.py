"""Where appends run: on the event loop while the disk is quick, in a thread while it is not."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import StorageError
from headwater_storage.appender import Appender
from headwater_storage.environment import Environment, InlineExecutor, RealRandom
from headwater_storage.file_log import FileLog, FileLogOptions
from headwater_storage.files import RealFileSystem
from headwater_storage.log import EMPTY_HEAD, Appended, AppendOutcome, EncodedRecord, Head, LoggedTransaction
from headwater_storage.log_format import SECTOR_BYTES
from headwater_storage.proposal import CommitTs
from support.memory_files import MemoryFiles
from support.storage_world import FakeClock, inline_environment

if TYPE_CHECKING:
    from collections.abc import Callable

RECORD = EncodedRecord(b"record", Head(1, b"", CommitTs(1)), Head(2, b"", CommitTs(2)))
QUICK_S = 0.001


class Place:
    """A log on a disk that takes as long as it is told to, and threads that work when they are told to."""

    def __init__(self, quick_s: float = QUICK_S) -> None:
        self.clock = FakeClock()
        self.takes_s = 0.0
        self.fails: Exception | None = None
        self.has_room = True
        self.waiting: list[Callable[[], None]] = []
        environment = Environment(self.clock, RealRandom(), RealFileSystem(), self)
        self.appender = Appender(self, environment, quick_s)  # type: ignore[arg-type]

    def has_place(self, record: EncodedRecord) -> bool:
        assert record is RECORD
        return self.has_room

    def append(self, record: EncodedRecord) -> AppendOutcome:
        assert record is RECORD
        self.clock.now_s += self.takes_s
        if self.fails is not None:
            raise self.fails
        return Appended()

    def submit(self, work: Callable[[], Any], /) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append(lambda: future.set_result(work()))
        return future

    def close(self) -> None:
        """Nothing is left."""

    async def where(self, takes_s: float, commits: int = 1) -> str:
        """Append a record and tell where that ran."""
        self.takes_s = takes_s
        appended = self.appender.append(RECORD, commits)
        in_thread = bool(self.waiting)
        assert appended.done() is not in_thread
        while self.waiting:
            self.waiting.pop()()
        assert await asyncio.wait_for(appended, 5) == Appended()
        return "thread" if in_thread else "loop"


async def test_a_disk_has_to_be_quick_a_few_times_first() -> None:
    place = Place()
    places = [await place.where(0.0003) for _ in range(40)]
    assert places[0] == "thread"
    assert places == sorted(places, reverse=True), "first in threads, then on the loop"
    assert 3 < places.count("thread") < 20


async def test_a_slow_disk_never_holds_up_the_loop() -> None:
    place = Place()
    assert {await place.where(0.002) for _ in range(200)} == {"thread"}


async def test_a_disk_that_stands_still_once_holds_up_the_loop_once() -> None:
    place = Place()
    while await place.where(0.0003) == "thread":
        pass
    assert await place.where(2.0) == "loop", "nobody could know"
    assert {await place.where(0.0003) for _ in range(40)} == {"thread"}
    assert [await place.where(0.0003) for _ in range(100)][-1] == "loop"


async def test_where_there_is_much_to_do_the_loop_does_not_wait() -> None:
    place = Place()
    while await place.where(0.0003) == "thread":
        pass
    assert [await place.where(0.0003, commits) for commits in (1, 4, 5, 100)] == [
        "loop",
        "loop",
        "thread",
        "thread",
    ]


async def test_with_a_limit_of_nothing_every_append_runs_in_a_thread() -> None:
    place = Place(quick_s=0.0)
    assert {await place.where(0.0) for _ in range(100)} == {"thread"}


async def test_what_needs_more_than_a_write_and_a_sync_runs_in_a_thread() -> None:
    place = Place()
    while await place.where(0.0003) == "thread":
        pass
    place.has_room = False
    assert await place.where(0.0003) == "thread"
    place.has_room = True
    assert await place.where(0.0003) == "loop"


async def test_an_error_on_the_loop_is_the_outcome() -> None:
    place = Place()
    while await place.where(0.0003) == "thread":
        pass
    place.fails = StorageError("closed", code="disk_failed")
    with pytest.raises(StorageError):
        await place.appender.append(RECORD, 1)


def test_a_record_has_its_place_where_an_append_is_all_that_the_log_asks_of_the_disk() -> None:
    class Later(InlineExecutor):
        """Does nothing yet."""

        def submit(self, work: Any, /) -> Future[Any]:
            future: Future[Any] = Future()
            waiting.append(lambda: future.set_result(work()))
            return future

    waiting: list[Any] = []
    environment = replace(inline_environment(MemoryFiles()), executor=Later())  # type: ignore[arg-type]
    options = FileLogOptions(1 << 20, 64 * SECTOR_BYTES)
    log = FileLog.open(Path("/log"), b"l" * 16, environment, options, needed=EMPTY_HEAD)
    log.claim(b"i" * 16, CommitTs(1), 1)

    def encoded(size: int) -> EncodedRecord:
        return log.encode(log.head, [LoggedTransaction([(b"key", bytes(size))])], 1)

    appended = 0
    while not waiting:
        assert log.has_place(encoded(500))
        log.append(encoded(500))
        appended += 1
    assert appended < 32, "half of the segment"
    assert not log.has_place(encoded(500)), "the next segment is being written"
    waiting.pop()()
    assert log.has_place(encoded(500))
    assert not log.has_place(encoded(64 * SECTOR_BYTES))
    log.close()
