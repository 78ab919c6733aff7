"""The files of the log and the small files beside it, behind a small protocol with the real implementation.

Workers read files too: nothing here needs an event loop, which would cost each of them some MB.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from pathlib import Path

_MOUNTS = "/proc/self/mountinfo"


class SyncFailedError(OSError):
    """A sync failed. Whatever its number says, what was written may be lost, and a second try would not tell."""


class FileSystem(Protocol):
    """The files of the log and the small files beside it. Errors are `OSError`."""

    def make_folder(self, path: Path) -> None:
        """Make a folder, mode 0700, with those above it; one that is there is no error."""

    def exists(self, path: Path) -> bool:
        """Tell whether there is a file or folder."""
        ...

    def inode(self, path: Path) -> int:
        """Return the number that tells a file from every copy of it."""
        ...

    def kind(self, path: Path) -> str:
        """Return the type of the file system that a path lies on ("ext4", "nfs4"), or "" if it cannot be told."""
        ...

    def try_lock(self, descriptor: int, *, shared: bool) -> bool:
        """Lock a file until its descriptor is closed; False if somebody else has a lock that excludes it."""
        ...

    def open(self, path: Path, flags: int) -> int:
        """Open a file, mode 0600 if it is made; returns its descriptor."""
        ...

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data`."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file to a size that is not larger than its own."""

    def fdatasync(self, descriptor: int) -> None:
        """Return when what was written to the file is durable; raises `SyncFailedError`."""

    def sync_folder(self, path: Path) -> None:
        """Return when the names in a folder are durable; raises `SyncFailedError`."""

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing what has the new name."""

    def remove(self, path: Path) -> None:
        """Remove a file; one that is not there is no error."""

    def names(self, folder: Path) -> list[str]:
        """Return the sorted names in a folder."""
        ...

    def size(self, descriptor: int) -> int:
        """Return a file's size in bytes."""
        ...

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes may still be written where a path lies."""
        ...


class RealFileSystem:
    """The machine's files."""

    def make_folder(self, path: Path) -> None:
        """Make a folder where there is none."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def exists(self, path: Path) -> bool:
        """Tell whether there is a file or folder."""
        return path.exists()

    def inode(self, path: Path) -> int:
        """Return a file's inode number."""
        return path.stat().st_ino

    def kind(self, path: Path) -> str:
        """Return the type of the file system that a path lies on."""
        return filesystem_kind(path)

    def try_lock(self, descriptor: int, *, shared: bool) -> bool:
        """Take an `flock`, which the kernel ends with the last process that has the open file."""
        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def open(self, path: Path, flags: int) -> int:
        """Open a file."""
        return os.open(path, flags | os.O_CLOEXEC, 0o600)

    def close(self, descriptor: int) -> None:
        """Close a descriptor."""
        os.close(descriptor)

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        """Read up to `size` bytes; fewer only at the end of the file."""
        part = os.pread(descriptor, size, offset)
        if len(part) == size or not part:
            return part
        parts = [part]
        done = len(part)
        while done < size and (part := os.pread(descriptor, size - done, offset + done)):
            parts.append(part)
            done += len(part)
        return b"".join(parts)

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        """Write all of `data`."""
        written = os.pwrite(descriptor, data, offset)
        while written < len(data):
            written += os.pwrite(descriptor, memoryview(data)[written:], offset + written)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file."""
        os.ftruncate(descriptor, size)

    def fdatasync(self, descriptor: int) -> None:
        """Make what was written durable."""
        try:
            os.fdatasync(descriptor)
        except OSError as error:
            raise SyncFailedError(error.errno, error.strerror) from error

    def sync_folder(self, path: Path) -> None:
        """Make the names in a folder durable."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise SyncFailedError(error.errno, error.strerror, str(path)) from error
        finally:
            os.close(descriptor)

    def rename(self, old: Path, new: Path) -> None:
        """Rename, replacing what has the new name."""
        os.replace(old, new)

    def remove(self, path: Path) -> None:
        """Remove a file if it is there."""
        path.unlink(missing_ok=True)

    def names(self, folder: Path) -> list[str]:
        """Return the sorted names in a folder."""
        return sorted(os.listdir(folder))

    def size(self, descriptor: int) -> int:
        """Return a file's size in bytes."""
        return os.fstat(descriptor).st_size

    def free_bytes(self, path: Path) -> int:
        """Return how many bytes may still be written there."""
        status = os.statvfs(path)
        return status.f_bavail * status.f_frsize


def read_file(files: FileSystem, path: Path) -> bytes | None:
    """Return all of a file, None if there is none."""
    try:
        descriptor = files.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        return files.pread(descriptor, files.size(descriptor), 0)
    finally:
        files.close(descriptor)


def read_part(files: FileSystem, path: Path, start: int, end: int) -> bytes:
    """Return the bytes `[start, end)` of a file; fewer only at its end."""
    descriptor = files.open(path, os.O_RDONLY)
    try:
        return files.pread(descriptor, end - start, start)
    finally:
        files.close(descriptor)


def write_file_durably(files: FileSystem, path: Path, data: bytes) -> None:
    """Write a whole file so that after a crash either the old or the new one is there, complete.

    On return the new one is durable under its name. If it raises, the old one still is, or either after
    `SyncFailedError`.
    """
    temporary = path.with_name(path.name + ".tmp")
    descriptor = files.open(temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
    try:
        files.pwrite(descriptor, data, 0)
        files.fdatasync(descriptor)
    except OSError:
        files.remove(temporary)  # a full disk shall not be fuller for it
        raise
    finally:
        files.close(descriptor)
    files.rename(temporary, path)
    files.sync_folder(path.parent)


def filesystem_kind(path: Path) -> str:
    """Return the type of the filesystem that a path lies on ("ext4", "nfs4"), or "" if it cannot be told."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    try:
        with open(_MOUNTS, encoding="utf-8", errors="replace") as mounts:
            for line in mounts:
                fields, _, rest = line.partition(" - ")
                if fields.split()[2] == wanted:
                    return rest.split()[0]
    except OSError:
        return ""
    return ""
