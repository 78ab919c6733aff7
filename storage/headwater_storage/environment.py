"""What storage needs of the outside: clock, randomness, files, threads, the store.

Small protocols with the real implementations; simulation and tests hand in others. LMDB goes
to the operating system itself, so whoever hands in other files hands in another store too.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from headwater_storage.lmdb_store import LmdbStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from headwater_storage.store import OpenStore

_T = TypeVar("_T")

_BLOCKING_THREADS = 4
"""One append, one checkpoint and one next segment may be under way, and one look at the disk."""

_MOUNTS = "/proc/self/mountinfo"


class Clock(Protocol):
    """Time."""

    def wall_us(self) -> int:
        """Return wall clock time, µs since 1970. May go back."""
        ...

    def mono_s(self) -> float:
        """Return monotonic time in seconds."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait; only ever called before the daemon serves."""


class Random(Protocol):
    """Randomness."""

    def bytes(self, count: int) -> bytes:
        """Return `count` random bytes."""
        ...


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


class Executor(Protocol):
    """Runs blocking work: in threads in the daemon, at once in simulation."""

    def submit(self, work: Callable[[], _T], /) -> Future[_T]:
        """Start the work; the future has its result or error."""
        ...

    def close(self) -> None:
        """Wait for all work and end."""


@dataclass(frozen=True, slots=True)
class Environment:
    """All of the outside that storage sees."""

    clock: Clock
    random: Random
    files: FileSystem
    executor: Executor
    open_store: OpenStore = LmdbStore.open

    async def run_blocking(self, work: Callable[[], _T]) -> _T:
        """Run blocking work without holding up the event loop; cancelling the caller does not stop it."""
        return await outcome_of(self.executor.submit(work))


class RealClock:
    """The machine's clocks."""

    def wall_us(self) -> int:
        """Return wall clock time, µs since 1970."""
        return time.time_ns() // 1000

    def mono_s(self) -> float:
        """Return monotonic time in seconds."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait."""
        time.sleep(seconds)


class RealRandom:
    """The kernel's randomness."""

    def bytes(self, count: int) -> bytes:
        """Return `count` random bytes."""
        return os.urandom(count)


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


class ThreadExecutor:
    """A few threads of its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(_BLOCKING_THREADS, thread_name_prefix="headwater-storage")

    def submit(self, work: Callable[[], _T], /) -> Future[_T]:
        """Start the work in a thread."""
        return self._pool.submit(work)

    def close(self) -> None:
        """Wait for all work and end."""
        self._pool.shutdown()


class InlineExecutor:
    """Does the work at once, in the caller's thread: for simulation and command line tools."""

    def submit(self, work: Callable[[], _T], /) -> Future[_T]:
        """Do the work; the returned future is done."""
        future: Future[_T] = Future()
        try:
            future.set_result(work())
        except Exception as error:
            future.set_exception(error)
        return future

    def close(self) -> None:
        """Do nothing: no work is ever left."""


async def outcome_of(future: Future[_T]) -> _T:
    """Wait for submitted work; cancelling the caller does not stop it."""
    if future.done():
        return future.result()
    return await asyncio.shield(asyncio.wrap_future(future))


def real_environment() -> Environment:
    """Return the machine's clock, randomness, files and threads; whoever makes it closes the executor."""
    return Environment(RealClock(), RealRandom(), RealFileSystem(), ThreadExecutor())


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
