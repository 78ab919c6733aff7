from __future__ import annotations

from random import Random

import pytest
from headwater_protocol.errors import StorageError
from headwater_storage.log import EMPTY_HEAD, EncodedRecord, Head, LoggedTransaction, RecordKind
from headwater_storage.log_format import (
    LOG_FORMAT,
    SECTOR_BYTES,
    Tail,
    decode_record,
    decode_segment_header,
    encode_record,
    encode_segment_header,
    judge_tail,
)
from headwater_storage.proposal import Backfill, CommitTs

LOG_ID = b"L" * 16
SEGMENT = 1 << 14


def record_after(
    previous: Head, size: int = 700, *, random: Random | None = None, **changed: object
) -> EncodedRecord:
    value = (random or Random(size)).randbytes(size)
    fields = {
        "kind": RecordKind.BATCH,
        "log_id": LOG_ID,
        "incarnation": b"I" * 16,
        "previous": previous,
        "first_ts": CommitTs(previous.last_ts + 1),
        "wall_us": 5,
        "transactions": [LoggedTransaction([(b"key", value), (b"gone", None)])],
        **changed,
    }
    return encode_record(**fields)  # type: ignore[arg-type]


def segment_of(*records: EncodedRecord) -> bytes:
    return b"".join(record.data for record in records).ljust(SEGMENT, b"\0")


def end_of_valid(data: bytes) -> tuple[int, Head]:
    offset, head = 0, EMPTY_HEAD
    while (found := decode_record(data, offset, LOG_ID, head)) is not None:
        record, offset = found
        head = record.head
    return offset, head


def judge(data: bytes) -> tuple[Tail, int]:
    offset, head = end_of_valid(data)
    return judge_tail(data, offset, LOG_ID, head.number + 1), head.number


def test_a_record_comes_back_as_it_was() -> None:
    transactions = [
        LoggedTransaction([(b"a", b"\0" * 2000), (b"b", None)]),
        LoggedTransaction([], Backfill(3, b"lo", b"hi")),
    ]
    previous = Head(41, b"d" * 16, CommitTs(100))
    encoded = record_after(previous, transactions=transactions)
    found = decode_record(encoded.data, 0, LOG_ID, previous)
    assert found is not None
    record, end = found
    assert end == len(encoded.data)
    assert record.transactions == transactions
    assert (record.number, record.first_ts, record.last_ts, record.wall_us) == (42, 101, 102, 5)
    assert (record.kind, record.incarnation, record.previous_digest) == (
        RecordKind.BATCH,
        b"I" * 16,
        b"d" * 16,
    )
    assert record.head == encoded.head


@pytest.mark.parametrize("size", [0, 1, 300, 390, 391, 392, 393, 394, 395, 1_000, 5_000])
def test_no_sector_of_a_record_reads_as_zeros(size: int) -> None:
    encoded = record_after(EMPTY_HEAD, transactions=[LoggedTransaction([(b"k", bytes(size))])])
    assert len(encoded.data) % SECTOR_BYTES == 0
    for start in range(0, len(encoded.data), SECTOR_BYTES):
        assert any(encoded.data[start : start + SECTOR_BYTES])


def test_commit_ts_may_skip_only_before_no_transaction() -> None:
    previous = Head(1, b"d" * 16, CommitTs(100))
    jump = record_after(previous, transactions=[], first_ts=CommitTs(500))
    assert jump.head.last_ts == 499
    with pytest.raises(ValueError, match="500"):
        record_after(previous, first_ts=CommitTs(500))
    with pytest.raises(ValueError, match="100"):
        record_after(previous, transactions=[], first_ts=CommitTs(100))


def test_records_of_another_place_or_log_are_not_taken() -> None:
    first = record_after(EMPTY_HEAD)
    second = record_after(first.head)
    assert decode_record(second.data, 0, LOG_ID, first.head) is not None
    assert decode_record(second.data, 0, b"M" * 16, first.head) is None
    assert decode_record(second.data, 0, LOG_ID, EMPTY_HEAD) is None
    assert decode_record(second.data, 0, LOG_ID, first.head._replace(digest=b"e" * 16)) is None
    assert decode_record(second.data, 0, LOG_ID, first.head._replace(last_ts=CommitTs(7))) is None


def test_every_flipped_bit_of_an_acknowledged_record_is_damage() -> None:
    first = record_after(EMPTY_HEAD, 900)
    last = record_after(first.head, 1_100)
    data = bytearray(segment_of(first, last))
    for position in range(len(first.data) + len(last.data)):
        data[position] ^= 1 << (position % 8)
        assert judge(bytes(data))[0] is Tail.DAMAGED, position
        data[position] ^= 1 << (position % 8)
    assert judge(bytes(data)) == (Tail.CLEAN, 2)


def test_any_part_of_the_last_write_is_a_torn_tail_and_nothing_before_it_is_lost() -> None:
    random = Random(1)
    for _ in range(400):
        records, head = [], EMPTY_HEAD
        for _ in range(random.randint(1, 4)):
            records.append(record_after(head, random.choice((10, 600, 3_000)), random=random))
            head = records[-1].head
        whole = segment_of(*records)
        start = sum(len(record.data) for record in records[:-1])
        data = bytearray(whole)
        lost = 0
        for sector in range(start, start + len(records[-1].data), SECTOR_BYTES):
            if random.random() < 0.5:
                data[sector : sector + SECTOR_BYTES] = bytes(SECTOR_BYTES)
                lost += 1
        verdict, number = judge(bytes(data))
        if not lost:
            assert (verdict, number) == (Tail.CLEAN, len(records))
        else:
            assert number == len(records) - 1
            written = any(data[start:])
            assert verdict is (Tail.TORN if written else Tail.CLEAN)


def test_a_record_behind_an_unwritten_part_proves_damage() -> None:
    first, second = record_after(EMPTY_HEAD, 2_000), None
    second = record_after(first.head, 100)
    data = bytearray(segment_of(first, second))
    data[SECTOR_BYTES : 2 * SECTOR_BYTES] = bytes(SECTOR_BYTES)
    assert judge(bytes(data)) == (Tail.DAMAGED, 0)
    data[:SECTOR_BYTES] = bytes(SECTOR_BYTES)
    assert judge(bytes(data)) == (Tail.DAMAGED, 0)


def test_bytes_behind_a_torn_record_are_damage() -> None:
    first = record_after(EMPTY_HEAD, 2_000)
    data = bytearray(segment_of(first))
    data[SECTOR_BYTES : 2 * SECTOR_BYTES] = bytes(SECTOR_BYTES)
    assert judge(bytes(data))[0] is Tail.TORN
    data[len(first.data) + 700] = 1
    assert judge(bytes(data))[0] is Tail.DAMAGED


def test_a_record_cut_by_the_end_of_the_file_is_damage() -> None:
    first = record_after(EMPTY_HEAD, 2_000)
    assert judge(first.data[:-SECTOR_BYTES])[0] is Tail.DAMAGED


def test_a_segment_header_comes_back_and_damage_is_seen() -> None:
    data = encode_segment_header(LOG_ID, Head(7, b"d" * 16, CommitTs(9)))
    header = decode_segment_header(data, "segment")
    assert (header.log_id, header.base_number, header.previous_digest) == (LOG_ID, 8, b"d" * 16)
    with pytest.raises(StorageError, match="offset 0") as caught:
        decode_segment_header(data[:20] + b"\xff" + data[21:], "segment")
    assert caught.value.code == "damaged"


def test_a_newer_format_is_told_from_damage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater_storage.log_format.LOG_FORMAT", LOG_FORMAT + 1)
    header = encode_segment_header(LOG_ID, EMPTY_HEAD)
    record = record_after(EMPTY_HEAD)
    monkeypatch.undo()
    for read in (
        lambda: decode_segment_header(header, "segment"),
        lambda: decode_record(record.data, 0, LOG_ID, EMPTY_HEAD),
    ):
        with pytest.raises(StorageError) as caught:
            read()
        assert caught.value.code == "format_too_new"
