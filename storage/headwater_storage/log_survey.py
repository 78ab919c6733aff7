"""Everything that can be read of a log whatever is damaged in it. Changes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwater_protocol.errors import StorageError

from headwater_storage.files import read_file
from headwater_storage.findings import Finding
from headwater_storage.log_format import SECTOR_BYTES, Tail, judge_tail
from headwater_storage.segments import find_segments, read_segment, segment_start

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_storage.files import FileSystem
    from headwater_storage.log import Head, Record


class LogSurvey:
    """Reads all segments of a log.

    Attributes:
        findings: What is wrong; complete when `records` has come to its end.
    """

    def __init__(self, files: FileSystem, folder: Path, log_id: bytes, known_number: int = 0) -> None:
        """Prepare.

        Args:
            files: The file system.
            folder: Where the segments are.
            log_id: Of the log.
            known_number: A record that was durable once: the log may not end before it.
        """
        self.findings: list[Finding] = []
        self._files = files
        self._folder = folder
        self._log_id = log_id
        self._known_number = known_number

    def records(self) -> Iterator[Record]:
        """Iterate every record that can be read, in order; there are gaps where something is damaged."""
        if not self._files.exists(self._folder):
            self.findings.append(Finding(str(self._folder), None, "the folder of the log is missing"))
            return
        segments = find_segments(self._files, self._folder)
        before: Head | None = None
        for place, (base, path) in enumerate(segments):
            ends_at = segments[place + 1][0] - 1 if place + 1 < len(segments) else None
            before = yield from self._segment(base, path, before, ends_at)
        if not segments and self._known_number:
            text = f"there is no segment, and log record {self._known_number} was durable"
            self.findings.append(Finding(str(self._folder), None, text))

    def _segment(self, base: int, path: Path, before: Head | None, ends_at: int | None) -> _Segment:
        """Yield a segment's records; returns where the log is behind it, None if that is not known."""
        data = read_file(self._files, path) or b""
        try:
            head, end = segment_start(data, path, self._log_id, base, before), SECTOR_BYTES
        except StorageError as error:
            self.findings.append(Finding(str(path), 0, error.message.partition(": ")[2] or error.message))
            return None
        if ends_at is None or head.number < ends_at:
            for record, offset in read_segment(data, path, self._log_id, base, before):
                head, end = record.head, offset
                yield record
                if head.number == ends_at:
                    break
        if ends_at is not None:
            sound = head.number == ends_at
        else:
            tail = judge_tail(data, end, self._log_id, head.number + 1)
            sound = tail is not Tail.DAMAGED and head.number >= self._known_number
        if not sound:
            text = f"log record {head.number + 1} is damaged or missing, and was acknowledged"
            self.findings.append(Finding(str(path), end, text))
        return head if sound else None


if TYPE_CHECKING:
    from collections.abc import Generator

    _Segment = Generator[Record, None, Head | None]
