"""The log in segment files of one folder.

Does IO. Segments are made of real zeros and synced before their first use, so that an
append changes no metadata of the file system, and are never used again for other records,
so that nothing old can look like a record. The next one is made ahead, in the background.

A file found at the start is never appended to: its records may be in the page cache only,
or lie behind a block whose writing failed. `FileLog.open` copies the valid records of the
last segment to a new file, makes that durable and puts it in the old one's place.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from threading import Condition
from typing import TYPE_CHECKING

from headwater_protocol.errors import StorageError

from headwater_storage.disk_errors import disk_error, is_no_room
from headwater_storage.files import read_file, read_part, write_file_durably
from headwater_storage.log import (
    EMPTY_HEAD,
    Appended,
    AppendOutcome,
    Conflict,
    EncodedRecord,
    Head,
    LoggedTransaction,
    Record,
    RecordKind,
    Unknown,
    judge_append,
)
from headwater_storage.log_format import (
    SECTOR_BYTES,
    encode_record,
    encode_segment_header,
    first_wall_us,
)
from headwater_storage.proposal import CommitTs
from headwater_storage.retention import SegmentExtent, removable
from headwater_storage.segments import (
    LogCursor,
    Segment,
    find_segments,
    read_sized_log,
    scan_segment,
    segment_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from concurrent.futures import Future
    from pathlib import Path

    from headwater_storage.environment import Environment

SEGMENT_BYTES = 16 << 20
"""Zeros for the next segment are written while the log is in use: a large one competes with appends."""

KEEP_BYTES = 64 << 20
FIRST_SEGMENT_BYTES = 1 << 20
PREPARED_NAME = "next.prepared"
_ZEROS_CHUNK = 4 << 20
"""Written and synced at a time, so that an append meanwhile waits for no more than this."""


@dataclass(frozen=True, slots=True)
class FileLogOptions:
    """How the log lies on disk.

    Attributes:
        segment_bytes: Size of a segment; a record that is larger gets one of its own.
        first_segment_bytes: Size of the one that each opening begins: small, as it is
            written before the daemon is ready.
        keep_bytes: How much log to keep beyond what recovery needs.
        keep_s: How long to keep such log; 0 for no limit.
    """

    segment_bytes: int = SEGMENT_BYTES
    first_segment_bytes: int = FIRST_SEGMENT_BYTES
    keep_bytes: int = KEEP_BYTES
    keep_s: float = 0.0


class FileLog:
    """The log of one data directory, whose lock the caller holds.

    Appends come from one thread at a time; `trim`, `read` and `follow` from others. Life: `recover`
    reads and secures what is there, `claim` begins a segment of its own; until then nothing can be
    appended.
    """

    def __init__(
        self,
        folder: Path,
        log_id: bytes,
        environment: Environment,
        options: FileLogOptions,
        check_owner: Callable[[], None],
    ) -> None:
        self._folder = folder
        self._log_id = log_id
        self._environment = environment
        self._files = environment.files
        self._options = options
        self._check_owner = check_owner
        # Guards the list of segments, and wakes who follows when the head moves or the log is closed.
        self._changed = Condition()
        self._segments: list[Segment] = []
        self._head = EMPTY_HEAD
        self._incarnation = b""
        self._appended = 0
        self._descriptor: int | None = None  # of the current segment; None before `claim` and after `close`
        self._offset = 0
        self._failed = False  # set by an append that ended otherwise than it should, for good
        self._closed = False
        self._opened_us = 0  # wall time of the claim, and the monotonic time then
        self._opened_mono_s = environment.clock.mono_s()
        self._preparing: Future[None] | None = None

    @classmethod
    def open(
        cls,
        folder: Path,
        log_id: bytes,
        environment: Environment,
        options: FileLogOptions,
        *,
        needed: Head,
        known_number: int = 0,
        replay: Callable[[Record], None] = lambda _: None,
        check_owner: Callable[[], None] = lambda: None,
    ) -> FileLog:
        """Make a log and recover it; see there.

        Args:
            folder: An existing folder; without segments the log is new.
            log_id: Which log is expected there.
            environment: Files, and the executor that makes segments ahead.
            options: How it lies on disk.
            needed: Where the store is.
            known_number: See `recover`.
            replay: Given each record behind `needed`.
            check_owner: Called before each new segment; raises if the directory has got
                another owner.
        """
        log = cls(folder, log_id, environment, options, check_owner)
        log.recover(needed, replay, known_number=known_number)
        return log

    def recover(self, needed: Head, replay: Callable[[Record], None], *, known_number: int = 0) -> None:
        """Make durable what is there, and read what the store lacks, in one go.

        Args:
            needed: Where the store is: what follows must be readable, and the log may not
                end before.
            replay: Given each record behind `needed`, in order, once it is durable.
            known_number: Number of a record that was durable once: the log may not end before it, even
                if what follows looks like a torn tail.

        Raises:
            StorageError: `damaged`, with file and offset.
        """
        self._secure(known_number)
        self._replay(needed, replay, known_number)

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
        """Where the durable log ends."""
        return self._head

    @property
    def appended_bytes(self) -> int:
        """Bytes of the records behind what the store had when the log was opened."""
        return self._appended

    def _secure(self, known_number: int) -> None:
        """Remove what is unfinished and make durable what is valid."""
        files = self._files
        for name in files.names(self._folder):
            if name == PREPARED_NAME or name.endswith(".tmp"):
                files.remove(self._folder / name)
        found = find_segments(files, self._folder)
        for _, path in found[:-1]:
            self._make_durable(path)
        if found:
            found[-1:] = self._copy_tail(*found[-1], known_number)
        self._segments = [self._found(base, path) for base, path in found]

    def _found(self, base_number: int, path: Path) -> Segment:
        began_us = first_wall_us(read_part(self._files, path, 0, 2 * SECTOR_BYTES))
        return Segment(path, base_number, self._size_of(path), began_us=began_us)

    def _make_durable(self, path: Path) -> None:
        descriptor = self._files.open(path, os.O_RDWR)
        try:
            self._files.fdatasync(descriptor)
        finally:
            self._files.close(descriptor)

    def _size_of(self, path: Path) -> int:
        descriptor = self._files.open(path, os.O_RDONLY)
        try:
            return self._files.size(descriptor)
        finally:
            self._files.close(descriptor)

    def _copy_tail(self, base_number: int, path: Path, known_number: int) -> list[tuple[int, Path]]:
        """Put a durable copy of the last segment's valid records in its place.

        Syncing the file itself would not do: after a failed sync the cache may hold what the disk
        does not, taken for written, and a second sync passes over it. Whatever was read is
        written anew this way, so it does not matter whether it came from the cache or the disk.
        """
        data = read_file(self._files, path) or b""
        scan = scan_segment(data, path, self._log_id, base_number, None, known_number)
        write_file_durably(self._files, path, data[: scan.end])
        return [(base_number, path)]

    def _replay(self, needed: Head, replay: Callable[[Record], None], known_number: int) -> None:
        """Read everything behind `needed`, hand it over, and find where the log ends."""
        if not self._segments:
            if needed.number or known_number:
                raise StorageError(
                    f"{self._folder}: the log is gone, which had record {max(needed.number, known_number)}",
                    code="damaged",
                )
            return
        head = needed
        for record, size in read_sized_log(
            self._files, self._folder, self._log_id, needed.number + 1, after=needed
        ):
            self._appended += size
            replay(record)
            head = record.head
        self._head = head

    def claim(self, incarnation: bytes, first_ts: CommitTs, wall_us: int) -> Record:
        """Begin a claim in a segment of its own. Durable on return."""
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
        self._opened_us, self._opened_mono_s = wall_us, self._environment.clock.mono_s()
        self._start_segment(len(encoded.data), self._options.first_segment_bytes)
        outcome = self._append(encoded)
        if not isinstance(outcome, Appended):
            raise StorageError(outcome.reason, code="disk_failed")
        return Record(
            number=encoded.head.number,
            kind=RecordKind.CLAIM,
            incarnation=incarnation,
            previous_digest=encoded.previous.digest,
            digest=encoded.head.digest,
            first_ts=first_ts,
            wall_us=wall_us,
            transactions=[],
        )

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
        """Tell whether a record fits into the open segment, and no other one is being written."""
        return self._fits(record) and (self._preparing is None or self._preparing.done())

    def _fits(self, record: EncodedRecord) -> bool:
        return self._offset + len(record.data) <= self._segments[-1].size

    def append(self, record: EncodedRecord) -> AppendOutcome:
        """Append one record; durable on return."""
        if self._failed or self._descriptor is None:
            raise StorageError("the log is closed or has failed; nothing can be appended", code="disk_failed")
        outcome: AppendOutcome | None = judge_append(self._head, record)
        if outcome is None:
            outcome = self._place_and_append(record)
        if not isinstance(outcome, Appended):
            self._failed = True
        return outcome

    def _place_and_append(self, record: EncodedRecord) -> AppendOutcome:
        """Write a record, in a new segment if it has no place in this one."""
        try:
            self._look_at_prepared()
            if not self._fits(record):
                self._rotate(len(record.data))
        except OSError as error:
            return self._ended_by(error, self._folder, "the next segment")
        except StorageError as error:
            if error.code == "directory_in_use":
                return Conflict(error.message)
            raise
        return self._append(record)

    def _ended_by(self, error: OSError, path: Path, purpose: str) -> Unknown:
        """Return how an append ends; if there merely was no room, raise that."""
        ours = disk_error(error, path, purpose)
        if is_no_room(error):
            raise ours from error
        return Unknown(ours.message)

    def _append(self, record: EncodedRecord) -> Appended | Unknown:
        assert self._descriptor is not None
        segment, purpose = self._segments[-1], f"log record {record.head.number}"
        try:
            self._files.pwrite(self._descriptor, record.data, self._offset)
        except OSError as error:
            if is_no_room(error):
                self._end_segment()
            return self._ended_by(error, segment.path, purpose)
        try:
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            return self._ended_by(error, segment.path, purpose)
        self._offset += len(record.data)
        self._appended += len(record.data)
        with self._changed:
            segment.end = self._offset
            self._head = record.head
            self._changed.notify_all()
        if self._preparing is None and self._offset * 2 > segment.size:
            self._preparing = self._environment.executor.submit(self._prepare)
        return Appended()

    def _end_segment(self) -> None:
        """Take back what a write without room left behind the last record, and go on in a new segment.

        A segment has its space beforehand, but a copy-on-write file system needs new space for
        each write. Nothing of the record was synced, and yet all of it may be on the disk by
        the next power cut: it is cut off durably before anybody hears that it was refused.
        """
        assert self._descriptor is not None
        segment = self._segments[-1]
        try:
            self._files.truncate(self._descriptor, self._offset)
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            self._failed = True  # whatever the error is: the record stands there
            raise StorageError(
                f"{segment.path}: a record for which there was no room cannot be cut off: {error}",
                code="disk_failed",
            ) from error
        segment.size = self._offset  # the next record finds no place here

    def _rotate(self, record_bytes: int) -> None:
        """Begin the next segment, or raise with the log as it was."""
        if self._preparing is not None:
            self._preparing.exception()  # waits
            self._look_at_prepared()
        self._start_segment(record_bytes, self._options.segment_bytes)

    def _look_at_prepared(self) -> None:
        """Raise if making the next segment ahead failed; if it found no room, `_rotate` tries again."""
        if self._preparing is not None and self._preparing.done():
            error = self._preparing.exception()
            if error is not None and not is_no_room(error):
                raise error

    def _prepare(self) -> None:
        """Make a segment of zeros under a name that recovery removes."""
        self._write_zeros(self._folder / PREPARED_NAME, self._options.segment_bytes)

    def _write_zeros(self, path: Path, size: int) -> None:
        files = self._files
        descriptor = files.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            zeros = bytes(min(size, _ZEROS_CHUNK))
            for offset in range(0, size, len(zeros)):
                files.pwrite(descriptor, zeros[: size - offset], offset)
                files.fdatasync(descriptor)
        except OSError:
            files.remove(path)  # a full disk shall not be fuller for it
            raise
        finally:
            files.close(descriptor)

    def _start_segment(self, record_bytes: int, size: int) -> None:
        """Make the segment for the next record, durable under its name, and use it from now on."""
        self._check_owner()
        files = self._files
        prepared = self._folder / PREPARED_NAME
        size = max(size, SECTOR_BYTES + record_bytes)
        size += -size % SECTOR_BYTES
        try:
            ready = self._size_of(prepared) == size
        except FileNotFoundError:
            ready = False
        if not ready:
            self._write_zeros(prepared, size)
        base = self._head.number + 1
        path = self._folder / segment_name(base)
        descriptor = files.open(prepared, os.O_RDWR)
        try:
            files.pwrite(descriptor, encode_segment_header(self._log_id, self._head), 0)
            files.fdatasync(descriptor)
            files.rename(prepared, path)
            files.sync_folder(self._folder)
        except BaseException:
            files.close(descriptor)
            raise
        if self._descriptor is not None:
            files.close(self._descriptor)
        self._preparing = None
        self._descriptor, self._offset = descriptor, SECTOR_BYTES
        with self._changed:
            others = [segment for segment in self._segments if segment.base_number != base]
            self._segments = [*others, Segment(path, base, size, SECTOR_BYTES, self._now_us())]

    def read(self, from_number: int) -> Iterator[Record]:
        """Iterate the records from a number up to the head as of the call."""
        cursor = LogCursor(self._files, self._log_id, from_number)
        with self._changed:
            segments, last_number = self._segments, self._head.number
        return cursor.records(segments, last_number)

    def follow(self, from_number: int, *, idle_s: float) -> Iterator[Record]:
        """Iterate the records from a number on, and go on with new ones as they become durable."""
        cursor = LogCursor(self._files, self._log_id, from_number)
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._head.number >= cursor.next_number or self._closed, idle_s
                )
                segments, last_number = self._segments, self._head.number
            if last_number < cursor.next_number:
                return
            yield from cursor.records(segments, last_number)

    def _now_us(self) -> int:
        """Return the log's time, which no wall clock moves once the log is claimed."""
        return self._opened_us + int((self._environment.clock.mono_s() - self._opened_mono_s) * 1_000_000)

    def trim(self, up_to_number: int) -> None:
        """Allow records up to this number to go; what is kept beyond is an option.

        Raises:
            StorageError: `disk_failed`.
        """
        with self._changed:
            segments = self._segments
        extents = [SegmentExtent(segment.base_number, segment.size, segment.began_us) for segment in segments]
        keep_us = int(self._options.keep_s * 1_000_000)
        gone = set(removable(extents, up_to_number, self._options.keep_bytes, self._now_us(), keep_us))
        if not gone:
            return
        try:
            # Oldest first: what is left after a crash in between is still one run of records.
            for segment in [segment for segment in segments if segment.base_number in gone]:
                self._files.remove(segment.path)
            self._files.sync_folder(self._folder)
        except OSError as error:
            if is_no_room(error):
                return  # the next trim removes them
            self._failed = True
            raise disk_error(error, self._folder, "removing old segments") from error
        with self._changed:  # an append may have begun another one meanwhile
            self._segments = [segment for segment in self._segments if segment.base_number not in gone]

    def close(self) -> None:
        """Give up the files; everything appended is durable already."""
        preparing, self._preparing = self._preparing, None
        if preparing is not None:
            preparing.exception()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._files.close(descriptor)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
