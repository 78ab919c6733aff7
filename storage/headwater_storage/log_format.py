"""Bytes of log records and segment headers, and what a bad record is.

Pure. A record takes whole sectors of 512 bytes. Each sector begins with a marker that is
not zero and holds 511 bytes of the record, so a sector that reads as zeros was never
written: this is what tells a torn tail from damage. The record's header lies in its first
sector and has a checksum of its own; it carries the digest of the body, and its own digest
is the record's. Each record names the digest of the one before.

Digests are SHA-256, cut to 16 bytes: processors have instructions for it. Records of format 1 have
BLAKE2b; a log may begin with such records, and the format in a record's header tells.

    segment header   magic, format, log id, base number, previous digest, checksum
    record header    magic, format, kind, log id, incarnation, number, previous digest,
                     first ts, wall µs, body length, body digest, checksum
    body             msgpack array of transactions
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b, sha256
from struct import Struct
from typing import TYPE_CHECKING
from zlib import crc32

import msgspec
from headwater_protocol.errors import StorageError

from headwater_storage.log import (
    DIGEST_BYTES,
    EncodedRecord,
    Head,
    LoggedTransaction,
    Record,
    RecordKind,
    continues,
)
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Sequence

LOG_FORMAT = 2
_SHA256_SINCE = 2
SECTOR_BYTES = 512
BODY_BYTES_MAX = 64 << 20
"""Far above the largest batch: a length beyond it is damage, not a record."""

_MARKER = b"\xa5"
_SECTOR_PAYLOAD = SECTOR_BYTES - len(_MARKER)
_ZERO_SECTOR = bytes(SECTOR_BYTES)

_RECORD_MAGIC = b"HWrc"
_RECORD = Struct(">4sHH16s16sQ16sQQI16s")
_CHECKSUM = Struct(">I")
_RECORD_HEADER_BYTES = _RECORD.size + _CHECKSUM.size

_SEGMENT_MAGIC = b"HWsegmnt"
_SEGMENT = Struct(">8sI16sQ16s")

_encode_body = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(list[LoggedTransaction]).decode


def digest_of(data: bytes | bytearray | memoryview, version: int = LOG_FORMAT) -> bytes:
    """Return the digest that chains records, as a log format has it."""
    if version < _SHA256_SINCE:
        return blake2b(data, digest_size=DIGEST_BYTES).digest()
    return sha256(data).digest()[:DIGEST_BYTES]


def encode_record(
    *,
    kind: RecordKind,
    log_id: bytes,
    incarnation: bytes,
    previous: Head,
    first_ts: CommitTs,
    wall_us: int,
    transactions: Sequence[LoggedTransaction],
) -> EncodedRecord:
    """Return a record as bytes, with where the log ends before and after it.

    Raises:
        ValueError: A ts that was issued before, or a gap before a transaction.
    """
    expected_ts = previous.last_ts + 1
    if first_ts < expected_ts or (transactions and first_ts != expected_ts):
        raise ValueError(f"commit ts {first_ts} cannot follow {previous.last_ts}")
    body = _encode_body(transactions)
    if len(body) > BODY_BYTES_MAX:
        raise ValueError(f"a log record of {len(body)} bytes is larger than any may be")
    header = _RECORD.pack(
        _RECORD_MAGIC,
        LOG_FORMAT,
        kind,
        log_id,
        incarnation,
        previous.number + 1,
        previous.digest,
        first_ts,
        wall_us,
        len(body),
        digest_of(body),
    )
    head = Head(previous.number + 1, digest_of(header), CommitTs(first_ts + len(transactions) - 1))
    return EncodedRecord(_to_sectors(header + _CHECKSUM.pack(crc32(header)) + body), previous, head)


def _to_sectors(payload: bytes) -> bytes:
    parts = [payload[i : i + _SECTOR_PAYLOAD] for i in range(0, len(payload), _SECTOR_PAYLOAD)]
    data = _MARKER + _MARKER.join(parts)
    return data + bytes(-len(data) % SECTOR_BYTES)


def _sectors_for(payload_bytes: int) -> int:
    return -(-payload_bytes // _SECTOR_PAYLOAD)


def encode_segment_header(log_id: bytes, previous: Head) -> bytes:
    """Return the first sector of a segment whose first record follows `previous`."""
    header = _SEGMENT.pack(_SEGMENT_MAGIC, LOG_FORMAT, log_id, previous.number + 1, previous.digest)
    header += _CHECKSUM.pack(crc32(header))
    return header + bytes(SECTOR_BYTES - len(header))


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says of itself.

    Attributes:
        log_id: The log it belongs to.
        base_number: Number of its first record.
        previous_digest: Digest of the record before that.
    """

    log_id: bytes
    base_number: int
    previous_digest: bytes


def decode_segment_header(data: bytes, file: str) -> SegmentHeader:
    """Return the header of a segment.

    Args:
        data: The segment's bytes, at least its first sector.
        file: Its name, for errors.

    Raises:
        StorageError: `damaged` or `format_too_new`.
    """
    if len(data) >= SECTOR_BYTES:
        magic, version, log_id, base, digest = _SEGMENT.unpack_from(data)
        checksum = _CHECKSUM.unpack_from(data, _SEGMENT.size)[0]
        padding = data[_SEGMENT.size + _CHECKSUM.size : SECTOR_BYTES]
        if magic == _SEGMENT_MAGIC and checksum == crc32(data[: _SEGMENT.size]) and not padding.strip(b"\0"):
            if version > LOG_FORMAT:
                raise StorageError(f"{file} has log format {version}", code="format_too_new")
            return SegmentHeader(log_id, base, digest)
    raise StorageError(f"{file}, offset 0: the segment header is damaged", code="damaged")


@dataclass(frozen=True, slots=True)
class _RecordHeader:
    digest: bytes
    version: int
    kind: int
    log_id: bytes
    incarnation: bytes
    number: int
    previous_digest: bytes
    first_ts: int
    wall_us: int
    body_bytes: int
    body_digest: bytes

    @property
    def size(self) -> int:
        return _sectors_for(_RECORD_HEADER_BYTES + self.body_bytes) * SECTOR_BYTES


def _header_at(data: bytes, offset: int) -> _RecordHeader | None:
    """Return the record header at a sector, None if there is no valid one."""
    start = offset + len(_MARKER)
    if data[offset:start] != _MARKER or data[start : start + len(_RECORD_MAGIC)] != _RECORD_MAGIC:
        return None
    raw = data[start : start + _RECORD.size]
    checksum = data[start + _RECORD.size : start + _RECORD_HEADER_BYTES]
    if len(checksum) != _CHECKSUM.size or _CHECKSUM.unpack(checksum)[0] != crc32(raw):
        return None
    _, version, *fields = _RECORD.unpack(raw)
    if version > LOG_FORMAT:
        raise StorageError(f"the log has a record of format {version}", code="format_too_new")
    return _RecordHeader(digest_of(raw, version), version, *fields)


def first_wall_us(start: bytes) -> int:
    """Return the wall time of the first record of a segment, 0 if there is none.

    Args:
        start: Its first two sectors.
    """
    header = _header_at(start, SECTOR_BYTES)
    return 0 if header is None else header.wall_us


def decode_record(data: bytes, offset: int, log_id: bytes, previous: Head) -> tuple[Record, int] | None:
    """Return the record that follows `previous` at an offset, and where the next one begins.

    Args:
        data: A segment.
        offset: Of a sector.
        log_id: Of the log.
        previous: Where the log ends before it. A `last_ts` of 0 is not checked.

    Returns:
        None if there is no valid record, or not this one.
    """
    header = _header_at(data, offset)
    if header is None or header.log_id != log_id or header.body_bytes > BODY_BYTES_MAX:
        return None
    end = offset + header.size
    body = _body_at(data, offset, end, header)
    if body is None:
        return None
    try:
        record = Record(
            header.number,
            RecordKind(header.kind),
            header.incarnation,
            header.previous_digest,
            header.digest,
            CommitTs(header.first_ts),
            header.wall_us,
            _decode_body(body),
        )
    except (ValueError, msgspec.DecodeError):
        return None
    return (record, end) if continues(previous, record) else None


def _body_at(data: bytes, offset: int, end: int, header: _RecordHeader) -> memoryview | None:
    """Return the body of a record if every byte of its sectors is as it was written."""
    if end > len(data):
        return None
    if data[offset:end:SECTOR_BYTES] != _MARKER * (header.size // SECTOR_BYTES):
        return None
    payload = bytearray(memoryview(data)[offset:end])
    del payload[::SECTOR_BYTES]
    body_end = _RECORD_HEADER_BYTES + header.body_bytes
    if payload[body_end:].strip(b"\x00"):
        return None
    body = memoryview(payload)[_RECORD_HEADER_BYTES:body_end]
    return body if digest_of(body, header.version) == header.body_digest else None


class Tail(Enum):
    """What follows the last valid record of the last segment."""

    CLEAN = "clean"
    """Nothing was ever written there."""

    TORN = "torn"
    """A record whose writing was cut short: it was acknowledged to nobody and goes."""

    DAMAGED = "damaged"
    """Something that was whole once. Cutting it would lose what was acknowledged."""


def judge_tail(data: bytes, offset: int, log_id: bytes, expected_number: int) -> Tail:
    """Tell what the bytes behind the last valid record are.

    One write is in flight at a time. So a record behind proves that the bad one was
    acknowledged; and the bad one itself was, unless a part of it was never written.

    Args:
        data: The last segment.
        offset: Where its valid records end.
        log_id: Of the log.
        expected_number: Number of the record that would be there.
    """
    written = len(data.rstrip(b"\x00"))
    if written <= offset:
        return Tail.CLEAN
    header = _header_at(data, offset)
    ours = header is not None and header.log_id == log_id and header.number == expected_number
    if header is not None and not ours:
        return Tail.DAMAGED
    end = written if header is None else offset + header.size
    if written > end or (header is not None and end > len(data)):
        return Tail.DAMAGED
    for start in range(offset + SECTOR_BYTES, written, SECTOR_BYTES):
        later = _header_at(data, start)
        if later is not None and later.log_id == log_id and later.number > expected_number:
            return Tail.DAMAGED
    return Tail.TORN if has_unwritten_sector(data, offset, end) else Tail.DAMAGED


def has_unwritten_sector(data: bytes, offset: int, end: int) -> bool:
    """Tell whether a sector in `[offset, end)` reads as zeros, which no sector of a record does."""
    return any(
        data[start : start + SECTOR_BYTES] == _ZERO_SECTOR[: len(data) - start]
        for start in range(offset, end, SECTOR_BYTES)
    )
