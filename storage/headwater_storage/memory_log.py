"""A log in memory, for tests and simulation.

It may produce these faults, each once and when asked: an append that fails before anything
is written (`disk_full`), one that fails but was written, and one that fails and was not.
Everything else that goes wrong is the caller's.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from headwater_protocol.errors import StorageError, TransientError

from headwater_storage.log import EMPTY_HEAD, EncodedRecord, Head, LoggedTransaction, Record, RecordKind
from headwater_storage.log_format import decode_record, encode_record
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class AppendFault(Enum):
    """How the next append fails."""

    DISK_FULL = "disk_full"
    FAILED_WRITTEN = "failed_written"
    FAILED_LOST = "failed_lost"


class MemoryLog:
    """A log whose records live as long as this object.

    Attributes:
        fault: What the next append does instead of succeeding; cleared by it.
    """

    def __init__(self, log_id: bytes) -> None:
        self.fault: AppendFault | None = None
        self._log_id = log_id
        self._incarnation = b""
        self._head = EMPTY_HEAD
        self._records: list[EncodedRecord] = []
        self._appended = 0
        self._writable = False

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
        return self._head

    @property
    def appended_bytes(self) -> int:
        """Bytes appended; only grows."""
        return self._appended

    def claim(self, incarnation: bytes, first_ts: CommitTs, wall_us: int) -> Record:
        """Begin a claim."""
        encoded = encode_record(
            kind=RecordKind.CLAIM,
            log_id=self._log_id,
            incarnation=incarnation,
            previous=self._head,
            first_ts=first_ts,
            wall_us=wall_us,
            transactions=(),
        )
        self._incarnation = incarnation
        self._writable = True
        self._add(encoded)
        return next(self.read(encoded.head.number))

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

    def append(self, record: EncodedRecord) -> None:
        """Append one record."""
        if not self._writable:
            raise StorageError("the log is closed or has failed; nothing can be appended", code="disk_failed")
        if record.previous != self._head:
            raise StorageError(
                f"the log ends with record {self._head.number}, not {record.previous.number} as expected",
                code="damaged",
            )
        fault, self.fault = self.fault, None
        if fault is AppendFault.DISK_FULL:
            raise TransientError("there is no space for the next log segment", code="disk_full")
        if fault is not None:
            self._writable = False
            if fault is AppendFault.FAILED_WRITTEN:
                self._add(record)
            raise StorageError(f"writing log record {record.head.number} failed", code="disk_failed")
        self._add(record)

    def _add(self, record: EncodedRecord) -> None:
        self._records.append(record)
        self._appended += len(record.data)
        self._head = record.head

    def read(self, from_number: int) -> Iterator[Record]:
        """Iterate the records from a number up to the head as of the call."""
        wanted = [record for record in self._records if record.head.number >= from_number]
        if from_number <= self._head.number and (not wanted or wanted[0].head.number > from_number):
            raise StorageError(f"log record {from_number} is no longer there", code="damaged")
        for encoded in wanted:
            found = decode_record(encoded.data, 0, self._log_id, encoded.previous)
            if found is None:
                raise StorageError(f"log record {encoded.head.number} is damaged", code="damaged")
            yield found[0]

    def trim(self, up_to_number: int) -> None:
        """Forget records up to this number."""
        self._records = [record for record in self._records if record.head.number > up_to_number]

    def close(self) -> None:
        """Take no more appends; what is in it stays, and a later `claim` opens it again."""
        self._writable = False
