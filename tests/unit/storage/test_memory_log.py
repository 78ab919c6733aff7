"""What goes wrong in a log in memory, and what whoever applies records makes of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from headwater_protocol.errors import StorageError, TransientError
from headwater_storage.log import (
    EMPTY_HEAD,
    Appended,
    Conflict,
    EncodedRecord,
    LoggedTransaction,
    Position,
    Record,
    RecordKind,
    Unknown,
    advance,
)
from headwater_storage.memory_log import AppendFault, MemoryLog
from headwater_storage.proposal import CommitTs

LOG_ID = b"L" * 16


def claim(log: MemoryLog) -> Record:
    return log.claim(b"I" * 16, CommitTs(log.head.last_ts + 1), 1)


def small(number: int) -> LoggedTransaction:
    return LoggedTransaction([(b"%d" % number, b"value")])


def append(log: MemoryLog, number: int) -> EncodedRecord:
    record = log.encode(log.head, [small(number)], 1)
    assert log.append(record) == Appended()
    return record


class TestAdvance:
    """Records are applied under the current claim, in order, once."""

    def records(self) -> list[Record]:
        log = MemoryLog(LOG_ID)
        claim(log)
        append(log, 1)
        append(log, 2)
        log.claim(b"J" * 16, CommitTs(log.head.last_ts + 1), 1)
        append(log, 3)
        return list(log.read(1))

    def test_each_record_once_whatever_is_delivered_twice(self) -> None:
        records = self.records()
        position, applied = Position(EMPTY_HEAD), []
        for record in [records[0], *records[:3], records[2], *records]:
            if (following := advance(position, record)) is not None:
                position = following
                applied.append(record)
        assert applied == records
        assert position == Position(records[-1].head, b"J" * 16)

    def test_a_gap_and_another_history_are_refused(self) -> None:
        first, second, third, *_ = self.records()
        for wrong in (third, replace(second, previous_digest=b"x" * 16)):
            with pytest.raises(StorageError, match="does not continue"):
                advance(Position(first.head), wrong)
        with pytest.raises(StorageError, match="does not continue"):
            advance(Position(second.head), replace(third, first_ts=CommitTs(third.first_ts + 1)))
        with pytest.raises(StorageError):
            advance(Position(second.head), replace(second, digest=b"x" * 16))

    def test_a_record_of_a_claim_that_has_ended_is_refused(self) -> None:
        *_, second_claim, last = self.records()
        late = replace(last, incarnation=b"I" * 16)
        with pytest.raises(StorageError, match="claim"):
            advance(Position(second_claim.head, second_claim.incarnation), late)
        assert advance(Position(second_claim.head), last) is not None


class TestMemoryFaults:
    def test_a_full_disk_refuses_once(self) -> None:
        log = MemoryLog(LOG_ID)
        claim(log)
        log.fault = AppendFault.DISK_FULL
        with pytest.raises(TransientError) as full:
            append(log, 1)
        assert full.value.code == "disk_full"
        append(log, 1)

    @pytest.mark.parametrize(
        ("fault", "written"), [(AppendFault.UNKNOWN_LOST, 0), (AppendFault.UNKNOWN_WRITTEN, 1)]
    )
    def test_what_is_unknown_ends_the_handle_and_another_finds_out(
        self, fault: AppendFault, written: int
    ) -> None:
        log = MemoryLog(LOG_ID)
        claim(log)
        log.fault = fault
        assert isinstance(log.append(log.encode(log.head, [small(1)], 1)), Unknown)
        with pytest.raises(StorageError):
            append(log, 2)
        again = log.another()
        assert again.head.number == 1 + written
        claim(again)
        append(again, 2)

    def test_a_claim_by_somebody_else_is_a_conflict(self) -> None:
        log = MemoryLog(LOG_ID)
        claim(log)
        log.fault = AppendFault.CONFLICT
        assert isinstance(log.append(log.encode(log.head, [small(1)], 1)), Conflict)
        with pytest.raises(StorageError):
            append(log, 1)
        assert [record.kind for record in log.another().read(1)] == [RecordKind.CLAIM] * 2

    def test_two_handles_of_one_log_never_both_append(self) -> None:
        one = MemoryLog(LOG_ID)
        claim(one)
        append(one, 1)
        two = one.another()
        claim(two)
        assert isinstance(one.append(one.encode(one.head, [small(2)], 1)), Conflict)
        append(two, 3)
        assert [record.transactions for record in two.read(1)] == [[], [small(1)], [], [small(3)]]

    def test_a_retry_and_a_second_delivery_take_effect_once(self) -> None:
        log = MemoryLog(LOG_ID)
        claim(log)
        for number, fault in enumerate((AppendFault.RETRIED, AppendFault.DELIVERED_TWICE, None)):
            log.fault = fault
            append(log, number)
        assert [record.number for record in log.follow(1, idle_s=0)] == [1, 2, 3, 3, 4]
        assert log.head.number == 4

    def test_an_append_can_be_delayed(self) -> None:
        log = MemoryLog(LOG_ID)
        claim(log)
        seen = []
        log.before_append = lambda: seen.append(log.another().head.number)
        append(log, 1)
        assert (seen, log.head.number) == ([1], 2)
