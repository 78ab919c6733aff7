"""A log in memory, for tests and simulation.

Several handles may share its records, as several processes would: the newest claim has the log.
Each fault of `AppendFault` is produced once and when asked; `before_append` delays.
"""

from __future__ import annotations

from enum import Enum
from threading import Condition
from typing import TYPE_CHECKING, Self

from headwater_protocol.errors import StorageError, TransientError

from headwater_storage.log import (
    EMPTY_HEAD,
    INCARNATION_BYTES,
    Appended,
    AppendOutcome,
    EncodedRecord,
    Head,
    LoggedTransaction,
    Record,
    RecordKind,
    Unknown,
    judge_append,
)
from headwater_storage.log_format import decode_record, encode_record
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence


class AppendFault(Enum):
    """What happens to the next append."""

    DISK_FULL = "disk_full"
    """It is refused before anything is written."""

    CONFLICT = "conflict"
    """Somebody else claims the log first."""

    UNKNOWN_WRITTEN = "unknown_written"
    """It takes effect, and nobody hears of it."""

    UNKNOWN_LOST = "unknown_lost"
    """It takes no effect, and nobody hears of it."""

    RETRIED = "retried"
    """It takes effect, its answer is lost, and a second attempt finds the record there."""

    DELIVERED_TWICE = "delivered_twice"
    """It takes effect, and whoever follows the log gets the record twice."""


class _SharedRecords:
    """What all handles of one log see.

    Attributes:
        head: Where it ends.
        delivered: What a follower gets, in order; a record may be there twice.
        changed: Guards the two, and is notified when they change.
    """

    def __init__(self) -> None:
        self.head = EMPTY_HEAD
        self.delivered: list[EncodedRecord] = []
        self.changed = Condition()

    def add(self, record: EncodedRecord, times: int = 1) -> AppendOutcome:
        """Append where the log ends, as one step."""
        with self.changed:
            outcome = judge_append(self.head, record)
            if outcome is not None:
                return outcome
            self.delivered += [record] * times
            self.head = record.head
            self.changed.notify_all()
        return Appended()


class MemoryLog:
    """One handle of a log whose records live as long as any handle does.

    Attributes:
        fault: What happens to the next append; cleared by it.
        before_append: Called by each append before it takes effect; may wait.
    """

    def __init__(self, log_id: bytes) -> None:
        self.fault: AppendFault | None = None
        self.before_append: Callable[[], None] = lambda: None
        self._log_id = log_id
        self._shared = _SharedRecords()
        self._incarnation = b""
        self._known_head: Head | None = (
            None  # once claimed: where the log ends for all that this handle knows
        )
        self._appended = 0
        self._writable = False
        self._closed = False

    def another(self) -> Self:
        """Return a handle of the same log, as another process would open it."""
        other = type(self)(self._log_id)
        other._shared = self._shared
        return other

    @property
    def log_id(self) -> bytes:
        """Names this log among all."""
        return self._log_id

    @property
    def incarnation(self) -> bytes:
        """Names the claim under which records are appended; b"" before `claim`."""
        return self._incarnation

    @property
    def head(self) -> Head:
        """Where the log ends."""
        return self._shared.head if self._known_head is None else self._known_head

    @property
    def appended_bytes(self) -> int:
        """Bytes appended; only grows."""
        return self._appended

    def claim(self, incarnation: bytes, first_ts: CommitTs, wall_us: int) -> Record:
        """Begin a claim."""
        self._known_head = self._shared.head
        encoded = encode_record(
            kind=RecordKind.CLAIM,
            log_id=self._log_id,
            incarnation=incarnation,
            previous=self._known_head,
            first_ts=first_ts,
            wall_us=wall_us,
            transactions=(),
        )
        outcome = self._shared.add(encoded)
        if not isinstance(outcome, Appended):
            raise StorageError(outcome.reason, code="log_taken")
        self._incarnation = incarnation
        self._writable, self._closed = True, False
        self._appended += len(encoded.data)
        self._known_head = encoded.head
        return self._decoded(encoded)

    def encode(
        self,
        previous: Head,
        transactions: Sequence[LoggedTransaction],
        wall_us: int,
        first_ts: CommitTs | None = None,
    ) -> EncodedRecord:
        """Return the record of a batch as bytes."""
        return encode_record(
            kind=RecordKind.BATCH,
            log_id=self._log_id,
            incarnation=self._incarnation,
            previous=previous,
            first_ts=CommitTs(previous.last_ts + 1) if first_ts is None else first_ts,
            wall_us=wall_us,
            transactions=transactions,
        )

    def has_place(self, record: EncodedRecord) -> bool:
        """Say yes."""
        return True

    def append(self, record: EncodedRecord) -> AppendOutcome:
        """Append one record."""
        if not self._writable:
            raise StorageError("the log is closed or has failed; nothing can be appended", code="disk_failed")
        self.before_append()
        fault, self.fault = self.fault, None
        if fault is AppendFault.DISK_FULL:
            raise TransientError("there is no space for the next log segment", code="disk_full")
        outcome = self._attempt(record, fault)
        if isinstance(outcome, Appended):
            if record.head != self._known_head:
                self._appended += len(record.data)
            self._known_head = record.head
        else:
            self._writable = False
        return outcome

    def _attempt(self, record: EncodedRecord, fault: AppendFault | None) -> AppendOutcome:
        unknown = Unknown(f"nothing was heard of log record {record.head.number}")
        match fault:
            case AppendFault.UNKNOWN_LOST:
                return unknown
            case AppendFault.UNKNOWN_WRITTEN:
                self._shared.add(record)
                return unknown
            case AppendFault.CONFLICT:
                other = self.another()
                other.claim(bytes(INCARNATION_BYTES), CommitTs(other.head.last_ts + 1), 0)
            case AppendFault.RETRIED:
                self._shared.add(record)
            case AppendFault.DELIVERED_TWICE:
                return self._shared.add(record, times=2)
            case _:
                pass
        return self._shared.add(record)

    def read(self, from_number: int) -> Iterator[Record]:
        """Iterate the records from a number up to the head as of the call."""
        return self._up_to(from_number, self.head.number)

    def _up_to(self, from_number: int, last_number: int) -> Iterator[Record]:
        for record in self.follow(from_number, idle_s=0):
            if record.number > last_number:
                return
            yield record

    def follow(self, from_number: int, *, idle_s: float) -> Iterator[Record]:
        """Iterate the records from a number on, and go on with new ones."""
        shared = self._shared
        number = from_number
        while True:
            with shared.changed:
                self._wait_for(number, idle_s)
                last_number = shared.head.number
                wanted = [record for record in shared.delivered if record.head.number >= number]
            if last_number < number:
                return
            if wanted[0].head.number > number:
                raise StorageError(f"log record {number} is no longer there", code="damaged")
            for encoded in wanted:
                yield self._decoded(encoded)
            number = last_number + 1

    def _wait_for(self, number: int, idle_s: float) -> None:
        """Wait until a record is there, or the handle is closed."""
        shared = self._shared
        shared.changed.wait_for(lambda: shared.head.number >= number or self._closed, idle_s)

    def _decoded(self, encoded: EncodedRecord) -> Record:
        found = decode_record(encoded.data, 0, self._log_id, encoded.previous)
        if found is None:
            raise StorageError(f"log record {encoded.head.number} is damaged", code="damaged")
        return found[0]

    def trim(self, up_to_number: int) -> None:
        """Forget records up to this number."""
        with self._shared.changed:
            self._shared.delivered = [
                record for record in self._shared.delivered if record.head.number > up_to_number
            ]

    def close(self) -> None:
        """Take no more appends; what is in it stays, and a later `claim` opens it again."""
        self._writable = False
        with self._shared.changed:
            self._closed = True
            self._shared.changed.notify_all()
