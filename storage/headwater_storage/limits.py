"""What one call may read and write.

Pure. Too many documents or bytes raise a named error in the call; too many ranges are
merged into wider ones, which may cause a needless rerun but never a missed one.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from headwater_protocol.errors import RequestError

_MAP_16, _MAP_32, _SHORT_MAP_COUNT = 0xDE, 0xDF, 0x0F
_NO_HEADS = bytes({*range(256)} - {*range(0x80, 0xA0), *range(0xDC, 0xE0)})
"""All bytes but those with which an encoded list or map begins."""

_decode = msgspec.msgpack.Decoder().decode


@dataclass(frozen=True, slots=True)
class CallLimits:
    """Bounds of one transaction.

    Attributes:
        documents_read_max: Documents read, own writes and missing ones included.
        bytes_read_max: Their encoded bytes together.
        documents_written_max: Documents inserted, replaced or deleted, each time counted.
        bytes_written_max: Their encoded bytes together.
        document_bytes_max: One encoded document.
        document_fields_max: Fields of one document, the system's included, not counting those inside them.
        document_depth_max: Lists and maps inside one another in one document, which is the first itself.
        ranges_max: Ranges of the read set before neighbours are merged.
        jobs_max: Jobs that one call may schedule.
        job_arguments_bytes_max: Encoded arguments of one job.
    """

    documents_read_max: int = 32_768
    bytes_read_max: int = 64 << 20
    documents_written_max: int = 16_384
    bytes_written_max: int = 15 << 20
    document_bytes_max: int = 1 << 20
    document_fields_max: int = 1_024
    document_depth_max: int = 32
    ranges_max: int = 4_096
    jobs_max: int = 1_000
    job_arguments_bytes_max: int = 256 << 10


class CallUsage:
    """Counts what a transaction reads and writes, and raises when it is more than its limits.

    Attributes:
        documents_read: Documents read so far.
        bytes_read: Their bytes.
        documents_written: Documents written so far.
        bytes_written: Their bytes.
        jobs: Jobs scheduled so far.
    """

    __slots__ = ("_limits", "bytes_read", "bytes_written", "documents_read", "documents_written", "jobs")

    def __init__(self, limits: CallLimits) -> None:
        self._limits = limits
        self.documents_read = 0
        self.bytes_read = 0
        self.documents_written = 0
        self.bytes_written = 0
        self.jobs = 0

    def read(self, size: int) -> None:
        """Count one document read."""
        self.documents_read += 1
        self.bytes_read += size
        if self.documents_read > self._limits.documents_read_max:
            raise RequestError(
                f"the call read more than {self._limits.documents_read_max} documents",
                code="too_many_documents",
            )
        if self.bytes_read > self._limits.bytes_read_max:
            raise RequestError(
                f"the call read more than {self._limits.bytes_read_max} bytes", code="too_many_bytes"
            )

    def schedule(self, size: int) -> None:
        """Count one job scheduled, before its document is written; `size` is that of its arguments."""
        limits = self._limits
        if size > limits.job_arguments_bytes_max:
            raise RequestError(
                f"the arguments of the scheduled job have {size} bytes, the limit is {limits.job_arguments_bytes_max};"
                " store what it needs as documents and schedule it with their ids",
                code="too_many_bytes",
            )
        if self.jobs >= limits.jobs_max:
            raise RequestError(
                f"the call scheduled more than {limits.jobs_max} jobs; schedule one that schedules the others",
                code="too_many_documents",
            )
        self.jobs += 1

    def write_document(self, document: bytes) -> None:
        """Count one encoded document written."""
        if (fields := field_count(document)) > self._limits.document_fields_max:
            raise RequestError(
                f"the document has {fields} fields, the limit is {self._limits.document_fields_max}",
                code="document_too_large",
            )
        if is_deeper(document, self._limits.document_depth_max):
            raise RequestError(
                f"the document has more than {self._limits.document_depth_max} lists and objects inside one another",
                code="document_too_large",
            )
        self.write(len(document))

    def write(self, size: int) -> None:
        """Count one document written; `size` is 0 for a delete."""
        limits = self._limits
        if size > limits.document_bytes_max:
            raise RequestError(
                f"the document has {size} bytes encoded, the limit is {limits.document_bytes_max}",
                code="document_too_large",
            )
        if self.documents_written >= limits.documents_written_max:
            raise RequestError(
                f"the call wrote more than {limits.documents_written_max} documents",
                code="too_many_documents",
            )
        if self.bytes_written + size > limits.bytes_written_max:
            raise RequestError(
                f"the call wrote more than {limits.bytes_written_max} bytes", code="too_many_bytes"
            )
        self.documents_written += 1
        self.bytes_written += size


def field_count(document: bytes) -> int:
    """Return how many fields an encoded document has: what the head of its msgpack map says."""
    head = document[0]
    if head == _MAP_16:
        return int.from_bytes(document[1:3], "big")
    if head == _MAP_32:
        return int.from_bytes(document[1:5], "big")
    return head & _SHORT_MAP_COUNT


def is_deeper(document: bytes, depth_max: int) -> bool:
    """Tell whether more lists and maps than so many are inside one another in an encoded document.

    Few documents are decoded for it: most have not even as many bytes that could begin a list or map.
    """
    if len(document.translate(None, _NO_HEADS)) <= depth_max:
        return False
    try:
        level = [_decode(document)]
    except RecursionError:
        return True
    for _ in range(depth_max):
        level = [
            item
            for holder in level
            for item in (holder.values() if type(holder) is dict else holder)
            if type(item) is dict or type(item) is list
        ]
        if not level:
            return False
    return True
