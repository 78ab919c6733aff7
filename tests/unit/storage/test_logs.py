"""What every log does, and what the one in files does besides."""

from __future__ import annotations

import errno
import threading
import time
from pathlib import Path
from random import Random

import pytest
from headwater_protocol.errors import HeadwaterError, StorageError, TransientError
from headwater_storage.file_log import PREPARED_NAME, FileLog, FileLogOptions
from headwater_storage.files import SyncFailedError
from headwater_storage.log import (
    EMPTY_HEAD,
    Appended,
    AppendOutcome,
    Conflict,
    EncodedRecord,
    Head,
    Log,
    LoggedTransaction,
    Record,
    RecordKind,
    Unknown,
)
from headwater_storage.log_format import SECTOR_BYTES
from headwater_storage.memory_log import MemoryLog
from headwater_storage.proposal import CommitTs
from headwater_storage.segments import read_log, segment_name
from support.memory_files import Crashed, MemoryFiles
from support.storage_world import Commits, inline_environment

FOLDER = Path("/log")
LOG_ID = b"L" * 16
SMALL = FileLogOptions(segment_bytes=40 * SECTOR_BYTES, first_segment_bytes=8 * SECTOR_BYTES, keep_bytes=0)


def open_log(files: MemoryFiles, needed: Head = EMPTY_HEAD, options: FileLogOptions = SMALL) -> FileLog:
    return FileLog.open(FOLDER, LOG_ID, inline_environment(files), options, needed=needed)  # type: ignore[arg-type]


def claim(log: Log) -> Record:
    return log.claim(b"I" * 16, CommitTs(log.head.last_ts + 1), 1)


def small(number: int) -> LoggedTransaction:
    return LoggedTransaction(
        [(b"%d" % number, Random(number).randbytes(Random(number).choice((9, 600, 2_500))))]
    )


def append(log: Log, number: int) -> EncodedRecord:
    record = log.encode(log.head, [small(number)], 1)
    assert log.append(record) == Appended()
    return record


def append_all(log: Log, numbers: range) -> None:
    for number in numbers:
        append(log, number)


@pytest.fixture(params=["memory", "file"])
def log(request: pytest.FixtureRequest) -> Log:
    return MemoryLog(LOG_ID) if request.param == "memory" else open_log(MemoryFiles())


class TestEveryLog:
    def test_records_come_back_in_order(self, log: Log) -> None:
        claimed = claim(log)
        for number in range(40):
            append(log, number)
        records = list(log.read(1))
        assert records[0] == claimed
        assert (claimed.kind, claimed.number, claimed.transactions) == (RecordKind.CLAIM, 1, [])
        assert [record.transactions for record in records[1:]] == [[small(number)] for number in range(40)]
        assert [record.number for record in records] == list(range(1, 42))
        assert [record.last_ts for record in records] == list(range(41))
        assert [record.previous_digest for record in records[1:]] == [r.digest for r in records[:-1]]
        assert records[-1].head == log.head
        assert {record.incarnation for record in records} == {log.incarnation}
        assert list(log.read(30)) == records[29:]
        assert list(log.read(42)) == []

    def test_reading_ends_at_the_head_as_of_the_call(self, log: Log) -> None:
        claim(log)
        reading = log.read(1)
        assert next(reading).number == 1
        append(log, 1)
        assert list(reading) == []

    def test_nothing_is_appended_before_a_claim_or_after_close(self, log: Log) -> None:
        for _ in range(2):
            with pytest.raises(StorageError):
                append(log, 1)
            claim(log)
            append(log, 1)
            log.close()

    def test_an_append_that_does_not_continue_the_log_is_refused(self, log: Log) -> None:
        claim(log)
        record = log.encode(log.head, [small(1)], 1)
        other = log.encode(log.head, [small(2)], 1)
        assert log.append(record) == Appended()
        outcome = log.append(other)
        assert isinstance(outcome, Conflict)
        assert "expected" in outcome.reason
        assert [r.transactions for r in log.read(2)] == [[small(1)]]
        with pytest.raises(StorageError):
            append(log, 3)

    def test_an_append_that_is_repeated_finds_its_record(self, log: Log) -> None:
        claim(log)
        record = append(log, 1)
        written = log.appended_bytes
        assert log.append(record) == Appended()
        append(log, 2)
        assert [r.transactions for r in log.read(2)] == [[small(1)], [small(2)]]
        assert log.appended_bytes > written

    def test_records_can_be_encoded_ahead(self, log: Log) -> None:
        claim(log)
        first = log.encode(log.head, [small(1)], 1)
        second = log.encode(first.head, [small(2)], 1)
        log.append(first)
        log.append(second)
        assert log.head == second.head

    def test_the_ts_can_be_moved_on_by_a_record_without_transactions(self, log: Log) -> None:
        claim(log)
        log.append(log.encode(log.head, [], 1, CommitTs(1_000)))
        append(log, 1)
        assert [record.first_ts for record in log.read(2)] == [1_000, 1_000]
        assert log.head.last_ts == 1_000

    def test_trimmed_records_are_told_from_the_end_of_the_log(self, log: Log) -> None:
        claim(log)
        for number in range(60):
            append(log, number)
        before = log.appended_bytes
        log.trim(40)
        assert next(log.read(41)).number == 41
        with pytest.raises(StorageError, match="no longer"):
            list(log.read(1))
        assert log.appended_bytes == before > 0
        append(log, 61)

    def test_following_goes_on_as_records_become_durable(self, log: Log) -> None:
        claim(log)
        append(log, 0)
        followed: list[Record] = []
        ended = threading.Event()

        def follow() -> None:
            followed.extend(log.follow(2, idle_s=30))
            ended.set()

        follower = threading.Thread(target=follow)
        follower.start()
        for number in range(1, 40):
            append(log, number)
            if number % 10 == 0:
                time.sleep(0.01)  # the follower runs out of records now and then
        log.close()
        assert ended.wait(30)
        follower.join()
        assert followed == list(log.read(2))
        assert len(followed) == 40
        assert list(log.follow(30, idle_s=0)) == followed[28:]
        assert list(log.follow(42, idle_s=0)) == []

    def test_a_follower_that_fell_behind_the_trimming_hears_of_it(self, log: Log) -> None:
        claim(log)
        append(log, 0)
        following = log.follow(1, idle_s=0)
        assert next(following).number == 1
        for number in range(1, 60):
            append(log, number)
        log.trim(55)
        with pytest.raises(StorageError, match="no longer"):
            list(following)


class TestFiles:
    def test_a_segment_is_durable_under_its_name_before_its_first_record(self) -> None:
        files = MemoryFiles()
        log = open_log(files)
        claim(log)
        for number in range(60):
            append(log, number)
        names = [name for name in files.names(FOLDER) if name != PREPARED_NAME]
        assert len(names) > 3
        for name in names:
            made = files.operations.index(("rename", name))
            assert files.operations[made - 1] == ("sync", PREPARED_NAME)
            assert files.operations[made + 1] == ("sync_folder", FOLDER.name)
            assert files.operations[made + 2] == ("write", PREPARED_NAME)

    def test_a_segment_is_made_of_written_zeros(self) -> None:
        """A hole would be filled by an append, whose sync then has to change the file's metadata as well."""
        files = MemoryFiles()
        log = open_log(files, options=FileLogOptions(1 << 16, 9 << 20))
        written: list[tuple[int, int]] = []
        pwrite = files.pwrite

        def noted(descriptor: int, data: bytes, offset: int) -> None:
            assert not data.strip(b"\x00") or offset < 2 * SECTOR_BYTES, "a header and a record"
            written.append((offset, len(data)))
            pwrite(descriptor, data, offset)

        files.pwrite = noted  # type: ignore[method-assign]
        claim(log)
        end = 0
        for offset, size in written[:-2]:
            assert offset == end
            end += size
        assert end == 9 << 20

    def test_an_append_is_one_write_and_one_sync(self) -> None:
        files = MemoryFiles()
        log = open_log(files, options=FileLogOptions(1 << 20, 1 << 20))
        claim(log)
        done = len(files.operations)
        append(log, 2)
        assert [name for name, _ in files.operations[done:]] == ["write", "sync"]

    def test_a_record_larger_than_a_segment_gets_one_of_its_own(self) -> None:
        files = MemoryFiles()
        log = open_log(files)
        claim(log)
        append(log, 1)
        large = LoggedTransaction([(b"k", Random(1).randbytes(100_000))])
        log.append(log.encode(log.head, [large], 1))
        append(log, 2)
        log.close()
        assert [r.transactions for r in open_log(files).read(2)] == [[small(1)], [large], [small(2)]]

    def test_opening_continues_where_the_log_ended(self) -> None:
        files = MemoryFiles()
        for life in range(4):
            log = open_log(files)
            assert claim(log).number == 1 + 8 * life
            for number in range(7):
                append(log, number)
            files.kill()
        log = open_log(files)
        assert [record.kind for record in log.read(1)] == ([RecordKind.CLAIM] + [RecordKind.BATCH] * 7) * 4
        assert log.head.last_ts == 28

    def test_a_found_segment_is_copied_and_the_copy_is_durable_before_open_returns(self) -> None:
        files = MemoryFiles()
        log = open_log(files)
        claim(log)
        record = log.encode(log.head, [small(1)], 1)
        files.fail = ("sync", errno.EIO)
        assert isinstance(log.append(record), Unknown)
        with pytest.raises(StorageError):
            log.append(record)
        files.kill()
        # The cache has the record, the disk does not: once shown, it has to stay.
        assert open_log(files).head == record.head
        for seed in range(10):
            files.power_cut(Random(seed))
            assert open_log(files).head == record.head

    def test_a_log_that_was_copied_into_place_is_durable_once_it_is_open(self) -> None:
        for seed in range(10):
            files, heads = written(range(30))
            for node in files.folder(FOLDER).current.values():
                node.durable = bytearray()
            assert open_log(files).head == heads[-1]
            files.power_cut(Random(seed))
            assert open_log(files).head == heads[-1]

    def test_a_full_disk_refuses_and_later_goes_on(self) -> None:
        files = MemoryFiles()
        log = open_log(files)
        claim(log)
        files.space = 0
        with pytest.raises(TransientError) as full:
            append_all(log, range(100))
        done = log.head.number - 1
        assert full.value.code == "disk_full"
        with pytest.raises(TransientError):
            append(log, done)
        assert log.head.number == 1 + done
        files.space = None
        for number in range(done, done + 20):
            append(log, number)
        log.close()
        records = list(open_log(files).read(2))
        assert [record.transactions for record in records] == [[small(n)] for n in range(done + 20)]

    def test_a_failing_disk_ends_the_log_also_between_records(self) -> None:
        files = MemoryFiles()
        log = open_log(files)
        claim(log)
        files.fail = ("rename", errno.EIO)
        outcome: AppendOutcome = Appended()
        while outcome == Appended():
            outcome = log.append(log.encode(log.head, [small(1)], 1))
        assert isinstance(outcome, Unknown)
        with pytest.raises(StorageError):
            append(log, 1)

    def test_a_directory_with_another_owner_gets_no_new_segment(self) -> None:
        def refuse() -> None:
            raise StorageError(code="directory_in_use")

        log = FileLog.open(
            FOLDER,
            LOG_ID,
            inline_environment(MemoryFiles()),  # type: ignore[arg-type]
            SMALL,
            needed=EMPTY_HEAD,
            check_owner=refuse,
        )
        with pytest.raises(StorageError) as caught:
            claim(log)
        assert caught.value.code == "directory_in_use"

    def test_a_directory_that_gets_another_owner_is_a_conflict(self) -> None:
        owners = iter([True] * 3)

        def check_owner() -> None:
            if not next(owners, False):
                raise StorageError("taken", code="directory_in_use")

        log = FileLog.open(
            FOLDER,
            LOG_ID,
            inline_environment(MemoryFiles()),  # type: ignore[arg-type]
            SMALL,
            needed=EMPTY_HEAD,
            check_owner=check_owner,
        )
        claim(log)
        outcome: AppendOutcome = Appended()
        while outcome == Appended():
            outcome = log.append(log.encode(log.head, [small(1)], 1))
        assert outcome == Conflict("taken")

    def test_what_the_store_lacks_is_handed_over_while_the_log_is_opened(self) -> None:
        files, heads = written(range(30))
        for lacking in (0, 7, 29):
            found: list[Record] = []
            log = FileLog.open(
                FOLDER,
                LOG_ID,
                inline_environment(files),  # type: ignore[arg-type]
                SMALL,
                needed=heads[lacking],
                replay=found.append,
            )
            assert [record.head for record in found] == heads[lacking + 1 :]
            assert (log.head, log.appended_bytes > 0) == (heads[-1], lacking < 29)

    def test_trim_keeps_what_recovery_needs_and_what_the_option_says(self) -> None:
        for keep in (0, 3 * SMALL.segment_bytes):
            files = MemoryFiles()
            log = open_log(
                files, options=FileLogOptions(SMALL.segment_bytes, SMALL.first_segment_bytes, keep)
            )
            claim(log)
            heads = [append(log, number).head for number in range(100)]
            log.trim(heads[79].number)
            kept = sum(
                len(files.folder(FOLDER).current[name].current)
                for name in files.names(FOLDER)
                if name != PREPARED_NAME
            )
            assert kept <= keep + SMALL.segment_bytes * 12
            assert (files.names(FOLDER)[1] == segment_name(1)) is False
            log.close()
            assert open_log(files, needed=heads[79]).head == heads[-1]

    def test_unfinished_files_of_an_earlier_life_are_removed(self) -> None:
        files = MemoryFiles()
        for name in (PREPARED_NAME, "segment-x.tmp"):
            files.close(files.open(FOLDER / name, 0o102))
        open_log(files)
        assert files.names(FOLDER) == []


def written(numbers: range) -> tuple[MemoryFiles, list[Head]]:
    files = MemoryFiles()
    log = open_log(files)
    claim(log)
    heads = [append(log, number).head for number in numbers]
    log.close()
    return files, heads


class TestDamage:
    def refused(self, files: MemoryFiles, needed: Head = EMPTY_HEAD) -> HeadwaterError:
        before = {name: bytes(node.current) for name, node in files.folder(FOLDER).current.items()}
        with pytest.raises(StorageError) as caught:
            open_log(files, needed)
        assert caught.value.code == "damaged"
        segments = {name: data for name, data in before.items() if name != PREPARED_NAME}
        for name, data in segments.items():
            kept = bytes(files.folder(FOLDER).current[name].current)
            assert data.startswith(kept) or kept == data
            assert not data[len(kept) :].strip(b"\0"), "something of the log was cut away"
        return caught.value

    @pytest.mark.parametrize("segment", [0, 1, -1])
    def test_a_flipped_bit_is_refused_with_file_and_offset(self, segment: int) -> None:
        files, _ = written(range(30))
        names = [name for name in files.names(FOLDER) if name != PREPARED_NAME]
        data = files.folder(FOLDER).current[names[segment]].current
        data[SECTOR_BYTES + 300] ^= 4
        assert f"{names[segment]}, offset {SECTOR_BYTES}" in str(self.refused(files))

    def test_damage_is_seen_by_whoever_only_reads(self) -> None:
        files, _ = written(range(30))
        name = [name for name in files.names(FOLDER) if name != PREPARED_NAME][-1]
        files.folder(FOLDER).current[name].current[SECTOR_BYTES + 300] ^= 4
        with pytest.raises(StorageError, match=name):
            list(read_log(files, FOLDER, LOG_ID, 1))  # type: ignore[arg-type]

    def test_random_flips_in_what_was_acknowledged_are_never_cut_off(self) -> None:
        random = Random(5)
        for _ in range(60):
            files, _ = written(range(random.randint(1, 25)))
            names = [name for name in files.names(FOLDER) if name != PREPARED_NAME]
            data = files.folder(FOLDER).current[random.choice(names)].current
            used = len(bytes(data).rstrip(b"\0"))
            data[random.randrange(used)] ^= 1 << random.randrange(8)
            self.refused(files)

    def test_a_missing_segment_is_refused(self) -> None:
        for missing in range(3):
            files, heads = written(range(60))
            names = [name for name in files.names(FOLDER) if name != PREPARED_NAME]
            files.remove(FOLDER / names[missing])
            self.refused(files)
        for name in names:
            files.remove(FOLDER / name)
        self.refused(files, heads[3])

    def test_a_log_that_ends_before_the_store_is_refused(self) -> None:
        files, heads = written(range(10))
        last = heads[-1]
        self.refused(files, Head(last.number + 1, b"x" * 16, CommitTs(last.last_ts + 1)))

    def test_a_store_that_applied_another_record_is_refused(self) -> None:
        files, heads = written(range(10))
        self.refused(files, heads[4]._replace(digest=b"x" * 16))
        self.refused(files, heads[-1]._replace(digest=b"x" * 16))

    def test_a_segment_of_another_log_is_refused(self) -> None:
        files, _ = written(range(10))
        with pytest.raises(StorageError, match="another log"):
            FileLog.open(FOLDER, b"M" * 16, inline_environment(files), SMALL, needed=EMPTY_HEAD)  # type: ignore[arg-type]

    def test_a_renamed_segment_is_refused(self) -> None:
        files, _ = written(range(3))
        files.rename(FOLDER / segment_name(1), FOLDER / segment_name(2))
        with pytest.raises(StorageError):
            open_log(files)

    def test_a_torn_last_record_goes_and_what_was_acknowledged_stays(self) -> None:
        files, heads = written(range(20))
        name = [name for name in files.names(FOLDER) if name != PREPARED_NAME][-1]
        log = open_log(files)
        claim(log)
        record = log.encode(log.head, [LoggedTransaction([(b"k", b"x" * 2_000)])], 1)
        before = log.head
        log.append(record)
        name = files.names(FOLDER)[-1]
        data = files.folder(FOLDER).current[name].current
        data[3 * SECTOR_BYTES : 4 * SECTOR_BYTES] = bytes(SECTOR_BYTES)
        files.kill()
        assert open_log(files).head == before
        assert heads[-1] in [r.head for r in read_log(files, FOLDER, LOG_ID, 1)]  # type: ignore[arg-type]


def loses_what_was_shown(seed: int, *, failing: bool = False) -> str | None:
    """Crash at a random operation of each of eight lives, recovery's own included; the power may go with any of them.

    Args:
        seed: Decides everything.
        failing: Syncs may fail as well. What they were for is lost, though the cache takes it for written; it
            drops some of that at any time.

    Returns:
        What was lost of that which an earlier life had acknowledged or shown; None if nothing.
    """
    commits = Commits(7, documents=20)
    random = Random(seed)
    files = MemoryFiles()
    files.dropping = random if failing else None
    shown: list[list[LoggedTransaction]] = []
    number = 0
    for life in range(9):
        files.crash_at = len(files.operations) + random.randint(1, 60) if life < 8 else None
        fails_at = random.randint(0, 12) if failing and life < 8 else None
        try:
            if fails_at == 0:
                files.fail = ("sync", errno.EIO)
            log = open_log(files)
            found = [r.transactions for r in log.read(1) if r.kind is RecordKind.BATCH]
            if found[: len(shown)] != shown or len(found) > len(shown) + 1:
                return f"seed {seed}, life {life}: {len(shown)} were shown, {len(found)} are there"
            shown = found
            claim(log)
            appended = 0
            while life < 8:
                appended += 1
                if fails_at == appended:
                    files.fail = ("sync", errno.EIO)
                batch = commits.batch(number, random.choice((1, 1, 3)))
                number += 3
                if log.append(log.encode(log.head, batch, 1)) != Appended():
                    raise Crashed  # the daemon ends, and nobody is told anything
                shown.append(batch)
        except (Crashed, SyncFailedError):
            if random.random() < 0.5:
                files.power_cut(random)
            else:
                files.kill()
        except StorageError as refusal:
            return f"seed {seed}, life {life}: {refusal}"
    return None


@pytest.mark.parametrize("failing", [False, True], ids=["", "syncs fail"])
def test_whatever_was_shown_survives_kills_and_power_cuts_at_any_operation(failing: bool) -> None:
    assert [lost for seed in range(80) if (lost := loses_what_was_shown(seed, failing=failing))] == []


def test_a_tail_that_is_shown_before_it_is_copied_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process wrote may be in the cache only: it reads well, and is gone with the power."""

    def as_it_was_found(_: FileLog, base_number: int, path: Path, _known: int) -> list[tuple[int, Path]]:
        return [(base_number, path)]

    monkeypatch.setattr(FileLog, "_copy_tail", as_it_was_found)
    assert any(loses_what_was_shown(seed) for seed in range(80))


def test_a_tail_that_is_synced_where_it_lies_is_lost_after_a_failed_sync(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The cache takes for written what a failed sync was for: the next sync passes over it and succeeds."""

    def synced(log: FileLog, base_number: int, path: Path, _known: int) -> list[tuple[int, Path]]:
        log._make_durable(path)
        return [(base_number, path)]

    monkeypatch.setattr(FileLog, "_copy_tail", synced)
    assert any(loses_what_was_shown(seed, failing=True) for seed in range(80))


def test_a_failed_sync_that_is_tried_again_loses_what_it_was_for(monkeypatch: pytest.MonkeyPatch) -> None:
    sync = MemoryFiles.fdatasync

    def tried_again(files: MemoryFiles, descriptor: int) -> None:
        try:
            sync(files, descriptor)
        except SyncFailedError:
            sync(files, descriptor)

    monkeypatch.setattr(MemoryFiles, "fdatasync", tried_again)
    assert any(loses_what_was_shown(seed, failing=True) for seed in range(80))


def test_a_log_that_is_not_synced_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryFiles, "fdatasync", lambda *_: None)
    assert any(loses_what_was_shown(seed) for seed in range(80))
