"""The log seam: an ordered sequence of records, each durable before anybody hears of it.

Pure: values and a protocol. `FileLog` implements it over segments on disk, `MemoryLog` for
tests; a replicated log can take their place. The log is the commit point: nothing but one
of its records ever changes the database, and the store can be given again from them.

Encoding is the caller's work (CPU, on the event loop), appending is IO (`appender.py` says where it runs).
Records are numbered without gaps and each names the digest of the one before, so an append
says by itself what it expects the log to end with: `judge_append` is that check, `advance`
the one of whoever applies records. Both are here so that every log and every reader of one
have the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec
from headwater_protocol.errors import StorageError

from headwater_storage.proposal import Backfill, CommitTs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIGEST_BYTES = 16
LOG_ID_BYTES = 16
INCARNATION_BYTES = 16

NO_DIGEST = bytes(DIGEST_BYTES)
"""What the first record of a log names as the digest of the one before."""


class LoggedTransaction(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One committed transaction as after-images; index entries follow from the documents.

    Attributes:
        writes: Document keys with their stored values; None deletes.
        backfill: Index entries to derive when the record is applied; only deploys set it.
    """

    writes: list[tuple[bytes, bytes | None]]
    backfill: Backfill | None = None


class RecordKind(IntEnum):
    """What a record is for."""

    BATCH = 1
    CLAIM = 2


class Head(NamedTuple):
    """Where a log ends, or would end after a record.

    Attributes:
        number: Number of the last record; 0 before the first.
        digest: Its digest.
        last_ts: Newest commit ts that is taken.
    """

    number: int
    digest: bytes
    last_ts: CommitTs


EMPTY_HEAD = Head(0, NO_DIGEST, CommitTs(0))


@dataclass(frozen=True, slots=True)
class Record:
    """One record, decoded.

    Attributes:
        number: Its place in the log, from 1, without gaps.
        kind: A batch of commits, or the claim with which a leader opens the log.
        incarnation: Random; names the claim under which it was written (a claim: its own).
        previous_digest: Digest of the record before.
        digest: Its own.
        first_ts: Commit ts of its first transaction. Without transactions: the next commit
            has at least this ts, which may leave a gap.
        wall_us: The leader's wall time, µs since 1970.
        transactions: In commit order, with dense ts. May be none.
    """

    number: int
    kind: RecordKind
    incarnation: bytes
    previous_digest: bytes
    digest: bytes
    first_ts: CommitTs
    wall_us: int
    transactions: list[LoggedTransaction]

    @property
    def last_ts(self) -> CommitTs:
        """Commit ts of its last transaction: the ts of the database after it."""
        return CommitTs(self.first_ts + len(self.transactions) - 1)

    @property
    def head(self) -> Head:
        """Where the log ends with this record."""
        return Head(self.number, self.digest, self.last_ts)


class EncodedRecord(NamedTuple):
    """A record as bytes, ready to be appended.

    Attributes:
        data: All of its sectors.
        previous: Where the log must end for it to be appended.
        head: Where the log ends after it.
    """

    data: bytes
    previous: Head
    head: Head


@dataclass(frozen=True, slots=True)
class Appended:
    """The record is in the log, durably; also where a repeated append found it there already."""


@dataclass(frozen=True, slots=True)
class Conflict:
    """The log has gone on without the record: somebody else has it. Nothing more can be appended.

    Attributes:
        reason: What was found, for people.
    """

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The record may or may not be in the log. Nothing more can be appended; the next start finds out.

    Attributes:
        reason: What failed, for people.
    """

    reason: str


AppendOutcome = Appended | Conflict | Unknown


def judge_append(head: Head, record: EncodedRecord) -> Appended | Conflict | None:
    """Return how an append ends without anything being written, None if it has to be written.

    Args:
        head: Where the log ends.
        record: What is to be appended.
    """
    if record.head == head:
        return Appended()
    if record.previous != head:
        return Conflict(f"the log ends with record {head.number}, not {record.previous.number} as expected")
    return None


class Position(NamedTuple):
    """How far somebody has applied a log.

    Attributes:
        head: Of the last record applied.
        incarnation: The current claim, b"" if it is not known yet.
    """

    head: Head
    incarnation: bytes = b""


def continues(previous: Head, record: Record) -> bool:
    """Tell whether a record is the next one. A `last_ts` of 0 is not checked."""
    expected_ts = previous.last_ts + 1
    return (
        record.number == previous.number + 1
        and record.previous_digest == previous.digest
        and (
            not previous.last_ts
            or record.first_ts == expected_ts
            or (not record.transactions and record.first_ts > expected_ts)
        )
    )


def advance(position: Position, record: Record) -> Position | None:
    """Return the position behind a record that is to be applied now.

    Args:
        position: What has been applied.
        record: What the log delivered; it may deliver records more than once.

    Returns:
        None if the record was applied before and must not be applied again.

    Raises:
        StorageError: `damaged`: it is neither the next record under the current claim nor one
            that was applied before.
    """
    head, incarnation = position
    if record.number < head.number or record.head == head:
        return None
    if not continues(head, record):
        raise StorageError(
            f"log record {record.number} does not continue the one with number {head.number}", code="damaged"
        )
    if record.kind is not RecordKind.CLAIM and incarnation not in (b"", record.incarnation):
        raise StorageError(
            f"log record {record.number} was written under a claim that had ended", code="damaged"
        )
    return Position(record.head, record.incarnation)


class Log(Protocol):
    """A log that was opened for writing. One append at a time; reads may run beside it."""

    @property
    def log_id(self) -> bytes:
        """Random; names this log among all."""
        ...

    @property
    def incarnation(self) -> bytes:
        """Names the claim under which records are appended; b"" before `claim`."""
        ...

    @property
    def head(self) -> Head:
        """Where the durable log ends."""
        ...

    @property
    def appended_bytes(self) -> int:
        """Bytes of records behind what the store had when the log was opened; only grows."""
        ...

    def claim(self, incarnation: bytes, first_ts: CommitTs, wall_us: int) -> Record:
        """Begin a claim: append its record, after which only this claim may append. Durable on return.

        Raises:
            StorageError: `log_taken`, somebody else was faster; `disk_failed`.
            TransientError: `disk_full`.
        """
        ...

    def encode(
        self,
        previous: Head,
        transactions: Sequence[LoggedTransaction],
        wall_us: int,
        first_ts: CommitTs | None = None,
    ) -> EncodedRecord:
        """Return the record of a batch as bytes. Does no IO and changes nothing.

        Args:
            previous: Where the log will end when it is appended.
            transactions: In commit order; none makes a record that only moves the ts.
            wall_us: Wall time.
            first_ts: Commit ts of the first, `previous.last_ts + 1` if not given. A later
                one is allowed only without transactions.
        """
        ...

    def has_place(self, record: EncodedRecord) -> bool:
        """Tell whether the next append of this record is a write and a sync, and the log asks nothing else of the disk."""
        ...

    def append(self, record: EncodedRecord) -> AppendOutcome:
        """Append one record; durable on return. Blocks: see `Appender`.

        Raises:
            TransientError: `disk_full`, the log is as it was: the record will not be found in it later.
            StorageError: The log was not claimed, is closed, or an append before ended otherwise
                than `Appended`.
        """
        ...

    def read(self, from_number: int) -> Iterator[Record]:
        """Iterate the records from a number up to the head as of the call.

        Raises:
            StorageError: `damaged`, also when records from there on were trimmed.
        """
        ...

    def follow(self, from_number: int, *, idle_s: float) -> Iterator[Record]:
        """Iterate the records from a number on, and go on with new ones as they become durable. Blocks.

        How another node, or a test, stays up to date. A record may come more than once; `advance`
        tells.

        Args:
            from_number: Number of the first one.
            idle_s: It ends when no new one came for so long, or when the log is closed; with 0 it
                ends where the log does now.

        Raises:
            StorageError: See `read`; also when the reader fell so far behind that its next record
                was trimmed.
        """
        ...

    def trim(self, up_to_number: int) -> None:
        """Allow records up to this number to go. How many are kept beyond is the log's own affair."""

    def close(self) -> None:
        """Give up the files."""
