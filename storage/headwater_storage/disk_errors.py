"""What an error of the disk means: no room, which passes, or a failure, after which the process ends.

Room comes back, and nothing was changed by a call for which there was none: writes are
refused meanwhile and tried again. After anything else nobody knows what is on the disk, and
asking the kernel again does not help: it takes pages that it failed to write for written.
So a failed sync is a failure whatever its number says, and no failure is tried again.

LMDB reports a write that was cut short as EIO, like a disk that fails. Which of them it was
is found out with a write of our own, whose error is exact.

A meta page without room is between the two: the process has to end, as LMDB takes nothing any
more, but there is nothing wrong with the disk, and that is what a start says.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import lmdb
from headwater_protocol.errors import StorageError, TransientError

from headwater_storage.files import SyncFailedError
from headwater_storage.lmdb_store import MetaPageError

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.files import FileSystem

NO_ROOM_NUMBERS = frozenset({errno.ENOSPC, errno.EDQUOT})
_UNUSABLE_NUMBERS = frozenset(
    {
        errno.EEXIST,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""What people have done, not the disk: starting again does not help."""
PROBE_NAME = "probe.tmp"
_PROBE_BYTES = 64 << 10
_DAMAGED = (
    lmdb.CorruptedError,
    lmdb.PageNotFoundError,
    lmdb.NotFoundError,
    lmdb.InvalidError,
    lmdb.VersionMismatchError,
)


def is_no_room(error: BaseException) -> bool:
    """Tell whether an error of the system only means that there was no room for what was asked."""
    return (
        isinstance(error, OSError)
        and not isinstance(error, SyncFailedError)
        and error.errno in NO_ROOM_NUMBERS
    )


def no_room(path: Path, purpose: str) -> TransientError:
    """Return what those are told for whom there was no room on a path's disk."""
    return TransientError(
        f"the disk of {path} is full: there is no room for {purpose}. Free some space there or raise the quota;"
        " writes are taken again as soon as there is room, reads go on meanwhile",
        code="disk_full",
    )


def no_room_in_store(folder: Path) -> TransientError:
    """Return what those are told for whom there was no room below the store's largest size."""
    return TransientError(
        f"the store in {folder} has reached its largest size: raise the setting `store_limit_bytes` and start the"
        " daemon again; writes are refused until then, reads go on meanwhile",
        code="disk_full",
    )


def disk_error(error: OSError, path: Path, purpose: str) -> TransientError | StorageError:
    """Return what an error of the system means for what was done at a path."""
    if is_no_room(error):
        return no_room(path, purpose)
    return StorageError(f"{path}: the disk failed at {purpose}: {error}", code="disk_failed")


def start_error(error: OSError, path: Path, purpose: str) -> TransientError | StorageError:
    """Return what an error of the system means at a start, or for whoever looks at a stopped directory."""
    if error.errno not in _UNUSABLE_NUMBERS or isinstance(error, SyncFailedError):
        return disk_error(error, path, purpose)
    return StorageError(
        f"{path} cannot be used as a data directory: {error}. It must be a folder that the user who runs Headwater may"
        " read and write, with everything in it",
        code="directory_unusable",
    )


def store_error(error: lmdb.Error, folder: Path, files: FileSystem) -> TransientError | StorageError:
    """Return what an error of LMDB at a write means.

    Args:
        error: What it raised.
        folder: Of the store.
        files: For a look at whether there is room.

    Returns:
        A `TransientError` (`disk_full`): nothing was applied, and it may work later. A `StorageError`
        (`disk_failed`, `damaged`, or `disk_full` at a meta page): the process has to end.
    """
    cause = error.__cause__
    if isinstance(error, MetaPageError) and isinstance(cause, lmdb.Error):
        why = store_error(cause, folder, files)
        if isinstance(why, TransientError):
            return StorageError(
                f"the disk of {folder} is full: there was no room for a meta page of the store ({cause}), which"
                " takes nothing any more. Free some space there or raise the quota, and start the daemon again",
                code="disk_full",
            )
    number = getattr(error, "code", 0)
    if isinstance(error, lmdb.MapFullError):
        return no_room_in_store(folder)
    if isinstance(error, lmdb.MemoryError):
        return TransientError(
            f"there is no memory for the store in {folder}, or less address space than the setting"
            f" `store_limit_bytes` asks for ({error})",
            code="disk_full",
        )
    if isinstance(error, lmdb.DiskError) or number in NO_ROOM_NUMBERS:
        return no_room(folder, f"the store ({error})")
    if number == errno.EIO and not _has_room(files, folder):
        return no_room(folder, "the store (a write was cut short)")
    if isinstance(error, _DAMAGED):
        return StorageError(f"{folder}: the store is damaged: {error}", code="damaged")
    return StorageError(f"{folder}: the store failed: {error}", code="disk_failed")


def _has_room(files: FileSystem, folder: Path) -> bool:
    """Tell whether a small file can be written in a folder."""
    probe = folder / PROBE_NAME
    try:
        descriptor = files.open(probe, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        try:
            files.pwrite(descriptor, b"\xff" * _PROBE_BYTES, 0)
        finally:
            files.close(descriptor)
            files.remove(probe)
    except OSError as error:
        return not is_no_room(error)
    return True
