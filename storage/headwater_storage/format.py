"""Which format a data directory has; a newer one is refused untouched.

Does IO. The format file is the first thing written into a directory and says "creating"
until everything else is there, so that a crash in between is told from a directory whose
format file has gone missing: only the former may be begun anew.

A directory of an older format is brought up when it is opened, at the last moment before
anything is written that the older version could not read: a start that fails leaves the old
format. Each step may be run again after a crash in the middle; the file is rewritten after all.

    1   the first one
    2   checksums of stored documents cover the key as well, for values written from then on (the
        log keeps its after-images as they are, and replay must give the same store, so older
        values stay as they were); the format file has a checksum
    3   digests of log records are SHA-256, from the claim on with which it is opened
    4   an index may say what stands in it for a field that a document does not have
    5   scheduled jobs and crons are documents of system tables, with entries in indexes that no row declares
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import msgspec
from headwater_protocol.errors import StorageError

from headwater_storage.files import read_file, write_file_durably
from headwater_storage.log import LOG_ID_BYTES

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.files import FileSystem

FORMAT_VERSION = 5
_CHECKED_SINCE = 2


class _VersionOnly(msgspec.Struct):
    format: int


class FormatFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """The format file, as JSON for whoever looks.

    Attributes:
        format: Version of everything in the directory: log, store layout, keys.
        log_id: Names the log, as hex.
        creating: The directory was never complete.
        checksum: CRC-32 of the others as hex; "" in format 1.
        repairing: A repair has begun to put new files in the place of old ones and must be gone on with.
    """

    format: int
    log_id: str
    creating: bool
    checksum: str = ""
    repairing: bool = False

    def expected_checksum(self) -> str:
        """Return what `checksum` must be."""
        covered = f"{(self.format, self.log_id, self.creating)!r}{' repairing' * self.repairing}"
        return f"{crc32(covered.encode()):08x}"

    def is_sound(self) -> bool:
        """Tell whether this is what some version wrote."""
        if len(self.log_id) != 2 * LOG_ID_BYTES or not set(self.log_id) <= set("0123456789abcdef"):
            return False
        if self.format < _CHECKED_SINCE:
            return self.format >= 1 and not self.checksum
        return self.checksum == self.expected_checksum()


def read_format(files: FileSystem, path: Path) -> FormatFile | None:
    """Return the format file, None if there is none.

    Raises:
        StorageError: `format_too_new`, or `damaged`.
    """
    data = read_file(files, path)
    if data is None:
        return None
    try:
        version = msgspec.json.decode(data, type=_VersionOnly).format
        if version > FORMAT_VERSION:
            raise StorageError(
                f"{path.parent} has format {version}, this version of Headwater knows {FORMAT_VERSION};"
                " use the newer version that wrote it",
                code="format_too_new",
            )
        found = msgspec.json.decode(data, type=FormatFile)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StorageError(f"{path}, offset 0: the format file is damaged: {error}", code="damaged") from None
    if not found.is_sound():
        raise StorageError(f"{path}, offset 0: the format file is damaged", code="damaged")
    return found


def write_format(
    files: FileSystem, path: Path, *, log_id: bytes, creating: bool, repairing: bool = False
) -> None:
    """Write the format file; durable on return."""
    content = FormatFile(FORMAT_VERSION, log_id.hex(), creating, repairing=repairing)
    content = msgspec.structs.replace(content, checksum=content.expected_checksum())
    write_file_durably(files, path, msgspec.json.encode(content) + b"\n")
