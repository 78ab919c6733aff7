"""Reading the log's segment files, without changing anything.

Does IO through the file system it is given. Used by the log itself, by recovery's checks and by
`headwater doctor`, which may look at the directory of a daemon that is not running.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater_protocol.errors import StorageError

from headwater_storage.files import read_file, read_part
from headwater_storage.log import Head, Record
from headwater_storage.log_format import (
    SECTOR_BYTES,
    Tail,
    decode_record,
    decode_segment_header,
    judge_tail,
)
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from headwater_storage.files import FileSystem

_SEGMENT_PREFIX, _SEGMENT_ENDING = "segment-", ".log"


def segment_name(base_number: int) -> str:
    """Return the file name of the segment whose first record has this number."""
    return f"{_SEGMENT_PREFIX}{base_number:020d}{_SEGMENT_ENDING}"


def find_segments(files: FileSystem, folder: Path) -> list[tuple[int, Path]]:
    """Return base numbers and paths of all segments in a folder, in order."""
    found = []
    for name in files.names(folder):
        number = name.removeprefix(_SEGMENT_PREFIX).removesuffix(_SEGMENT_ENDING)
        if number.isdecimal() and name == segment_name(int(number)):
            found.append((int(number), folder / name))
    return found


@dataclass(frozen=True, slots=True)
class SegmentScan:
    """What a segment holds.

    Attributes:
        before: Where the log ended before its first record; `last_ts` is 0 if not known.
        head: Where the log ends with its last valid record.
        end: Offset behind that record.
        tail: What follows there.
    """

    before: Head
    head: Head
    end: int
    tail: Tail


def read_segment(
    data: bytes, path: Path, log_id: bytes, base_number: int, before: Head | None
) -> Iterator[tuple[Record, int]]:
    """Iterate the valid records of a segment and the offset behind each; ends at the first bad one.

    Args:
        data: The segment.
        path: Its file, for errors.
        log_id: Of the log.
        base_number: As its name says.
        before: Where the log ends before it, None if it is the first one looked at.

    Raises:
        StorageError: The segment is not what its name says or does not follow `before`.
    """
    previous = segment_start(data, path, log_id, base_number, before)
    offset = SECTOR_BYTES
    while (found := decode_record(data, offset, log_id, previous)) is not None:
        record, offset = found
        previous = record.head
        yield record, offset


def segment_start(data: bytes, path: Path, log_id: bytes, base_number: int, before: Head | None) -> Head:
    """Return where the log ends before a segment; see `read_segment`."""
    header = decode_segment_header(data, str(path))
    if header.log_id != log_id:
        raise StorageError(f"{path}, offset 0: the segment belongs to another log", code="damaged")
    if header.base_number != base_number:
        raise StorageError(
            f"{path}, offset 0: the segment says that its first record is {header.base_number}",
            code="damaged",
        )
    if before is None:
        return Head(base_number - 1, header.previous_digest, CommitTs(0))
    if (before.number, before.digest) != (base_number - 1, header.previous_digest):
        raise StorageError(f"{path}, offset 0: it does not follow record {before.number}", code="damaged")
    return before


def scan_segment(
    data: bytes, path: Path, log_id: bytes, base_number: int, before: Head | None, known_number: int = 0
) -> SegmentScan:
    """Return what a last segment holds.

    Args:
        data: The segment.
        path: Its file, for errors.
        log_id: Of the log.
        base_number: As its name says.
        before: Where the log ends before it, None if that is not known.
        known_number: A record that was durable once, so that the log may not end before it.

    Raises:
        StorageError: `damaged`, with file and offset, unless what follows the valid records
            is a torn tail or nothing.
    """
    start = segment_start(data, path, log_id, base_number, before)
    head, end = start, SECTOR_BYTES
    for record, offset in read_segment(data, path, log_id, base_number, before):
        head, end = record.head, offset
    tail = judge_tail(data, end, log_id, head.number + 1)
    if tail is Tail.DAMAGED or head.number < known_number:
        raise _damaged(path, end, head.number + 1)
    return SegmentScan(start, head, end, tail)


def _damaged(path: Path, offset: int, number: int) -> StorageError:
    return StorageError(
        f"{path}, offset {offset}: log record {number} is damaged or missing. It was acknowledged, so the log is"
        " not cut off there; restore the directory from a copy, or see what `headwater doctor --repair` can save",
        code="damaged",
    )


def read_log(
    files: FileSystem, folder: Path, log_id: bytes, from_number: int, *, after: Head | None = None
) -> Iterator[Record]:
    """Iterate the records of a log on disk; see `read_sized_log`."""
    return (record for record, _ in read_sized_log(files, folder, log_id, from_number, after=after))


def read_sized_log(
    files: FileSystem, folder: Path, log_id: bytes, from_number: int, *, after: Head | None = None
) -> Iterator[tuple[Record, int]]:
    """Iterate the records of a log on disk, from a number to its end, and their bytes. Changes nothing.

    Args:
        files: The file system.
        folder: Where the segments are.
        log_id: Of the log.
        from_number: Number of the first record wanted.
        after: What is known of the record before it: it must be there, or have been the last one
            of a segment that is gone.

    Raises:
        StorageError: `damaged`: a bad record that is no torn tail, a missing segment.
    """
    segments = find_segments(files, folder)
    while len(segments) > 1 and segments[1][0] <= from_number:
        del segments[0]
    if not segments or segments[0][0] > from_number:
        raise StorageError(
            f"{folder}: log record {from_number} is no longer there, nor its segment", code="damaged"
        )
    before = after if segments[0][0] == from_number else None
    for position, (base, path) in enumerate(segments):
        data = read_file(files, path) or b""
        is_last = position == len(segments) - 1
        ends_at = None if is_last else segments[position + 1][0] - 1
        head, end = segment_start(data, path, log_id, base, before), SECTOR_BYTES
        if ends_at is None or head.number < ends_at:
            for record, offset in read_segment(data, path, log_id, base, before):
                if after is not None and record.number == after.number and record.digest != after.digest:
                    raise StorageError(
                        f"{path}, offset {end}: log record {record.number} is not the one that the store has",
                        code="damaged",
                    )
                size = offset - end
                head, end = record.head, offset
                if record.number >= from_number:
                    yield record, size
                if record.number == ends_at:
                    break
        # Behind the number with which the next segment begins stands at most a record
        # whose writing failed, after which the log went on in that segment.
        if ends_at is not None and head.number != ends_at:
            raise _damaged(path, end, head.number + 1)
        if is_last and judge_tail(data, end, log_id, head.number + 1) is Tail.DAMAGED:
            raise _damaged(path, end, head.number + 1)
        if is_last and after is not None and head.number < after.number:
            raise _damaged(path, end, head.number + 1)
        before = head


@dataclass(slots=True)
class Segment:
    """One segment of an open log.

    Attributes:
        path: Its file.
        base_number: Number of its first record.
        size: Its bytes on disk.
        end: Offset behind its last durable record; None for a segment that was found at the
            start, where the next one's base number says which record is its last.
        began_us: Log time when it was begun; see `retention`.
    """

    path: Path
    base_number: int
    size: int
    end: int | None = None
    began_us: int = 0


class LogCursor:
    """A place in a log of which it is known how far it is durable; reading goes on from there.

    Args:
        files: The file system.
        log_id: Of the log.
        from_number: Number of the first record wanted.
    """

    def __init__(self, files: FileSystem, log_id: bytes, from_number: int) -> None:
        self._files = files
        self._log_id = log_id
        self._wanted = from_number
        self._segment: Segment | None = None  # that holds what comes next
        self._offset = 0
        self._previous: Head | None = None

    @property
    def next_number(self) -> int:
        """Number of the record that comes next."""
        return self._wanted

    def records(self, segments: Sequence[Segment], last_number: int) -> Iterator[Record]:
        """Iterate on, up to a record that is known to be durable.

        Args:
            segments: All of the log, in order; at least up to that record.
            last_number: Of that record.

        Raises:
            StorageError: `damaged`; also when records were trimmed before they were read.
        """
        while self._wanted <= last_number:
            position = max(
                (i for i, segment in enumerate(segments) if segment.base_number <= self._wanted), default=-1
            )
            if position < 0:
                raise self._gone()
            following = segments[position + 1] if position + 1 < len(segments) else None
            last_here = last_number
            if following is not None:
                last_here = min(last_number, following.base_number - 1)
            yield from self._in_segment(segments[position], last_here)

    def _in_segment(self, segment: Segment, last_number: int) -> Iterator[Record]:
        is_new = self._segment is None or self._segment.base_number != segment.base_number
        start = 0 if is_new else self._offset
        try:
            data = read_part(
                self._files, segment.path, start, segment.size if segment.end is None else segment.end
            )
        except FileNotFoundError:
            raise self._gone() from None
        at = 0
        if is_new:
            self._previous = segment_start(
                data, segment.path, self._log_id, segment.base_number, self._previous
            )
            self._segment, at = segment, SECTOR_BYTES
        assert self._previous is not None, "it is known where the segment begins"
        previous = self._previous
        while previous.number < last_number:
            found = decode_record(data, at, self._log_id, previous)
            if found is None:
                raise _damaged(segment.path, start + at, previous.number + 1)
            record, at = found
            self._previous = previous = record.head
            self._offset = start + at
            if record.number == self._wanted:
                self._wanted += 1
                yield record

    def _gone(self) -> StorageError:
        return StorageError(f"log record {self._wanted} is no longer there", code="damaged")
