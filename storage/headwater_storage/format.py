"""Which format a data directory has; a newer one is refused untouched.

Does IO. The format file is the first thing written into a directory and says "creating"
until everything else is there, so that a crash in between is told from a directory whose
format file has gone missing: only the former may be begun anew.

Format 1 is the only one. A later one adds a step here that brings the one before it up, and
that may be run again after a crash in the middle; the file is rewritten after each step.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from headwater_protocol.errors import StorageError

from headwater_storage.environment import read_file, write_file_durably

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.environment import FileSystem

FORMAT_VERSION = 1


class _VersionOnly(msgspec.Struct):
    format: int


class FormatFile(msgspec.Struct, frozen=True):
    """The format file, as JSON for whoever looks.

    Attributes:
        format: Version of everything in the directory: log, store layout, keys.
        log_id: Names the log, as hex.
        creating: The directory was never complete.
    """

    format: int
    log_id: str
    creating: bool


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
        return msgspec.json.decode(data, type=FormatFile)
    except msgspec.DecodeError as error:
        raise StorageError(f"{path} is damaged: {error}", code="damaged") from None


def write_format(files: FileSystem, path: Path, *, log_id: bytes, creating: bool) -> None:
    """Write the format file; durable on return."""
    content = FormatFile(FORMAT_VERSION, log_id.hex(), creating)
    write_file_durably(files, path, msgspec.json.encode(content) + b"\n")
