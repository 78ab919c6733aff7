"""The data directory: what lies where in it, and who may use it.

    <data>/format           format version and log id; see `format.py`
    <data>/lock             locked by the daemon that owns the directory
    <data>/workers.lock     locked, shared, by each worker for its life
    <data>/checkpoint       the side file; see `checkpoint.py`
    <data>/log/             segments
    <data>/store/           LMDB

Does IO. Locks are `flock`: the kernel lets go of them when the last process with the open
file ends, however it ends. They do not fence two hosts, so network file systems are refused.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater_protocol.errors import StorageError

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.environment import Clock
    from headwater_storage.files import FileSystem

_NETWORK_FILESYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs"}
)
_WORKER_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class DataDirectory:
    """Paths inside a data directory."""

    path: Path

    @property
    def format_file(self) -> Path:
        """Says which format the directory has."""
        return self.path / "format"

    @property
    def lock_file(self) -> Path:
        """Locked by the daemon."""
        return self.path / "lock"

    @property
    def workers_lock_file(self) -> Path:
        """Locked, shared, by workers."""
        return self.path / "workers.lock"

    @property
    def checkpoint_file(self) -> Path:
        """The side file with the saved meta pages."""
        return self.path / "checkpoint"

    @property
    def log_folder(self) -> Path:
        """Segments."""
        return self.path / "log"

    @property
    def store_folder(self) -> Path:
        """LMDB."""
        return self.path / "store"


def require_database(files: FileSystem, directory: DataDirectory) -> None:
    """Refuse a path at which no database lies, before anything is made there.

    Raises:
        StorageError: `directory_unusable`.
    """
    parts = (
        directory.format_file,
        directory.checkpoint_file,
        directory.log_folder,
        directory.store_folder,
    )
    if any(map(files.exists, parts)):
        return
    path = directory.path
    names = ", ".join(f"`{part.name}`" for part in parts)
    found = f"none of {names} is there" if files.exists(path) else "there is no such folder"
    raise StorageError(
        f"{path} holds no database: {found}. The setting `data` must name the folder that the daemon was started"
        " with; `headwater config` prints which one that is here, and `headwater serve` makes a new one",
        code="directory_unusable",
    )


def refuse_network_filesystem(files: FileSystem, path: Path) -> None:
    """Refuse a folder that two hosts could use at the same time.

    Raises:
        StorageError: `directory_unusable`.
    """
    kind = files.kind(path)
    if kind in _NETWORK_FILESYSTEMS:
        raise StorageError(
            f"{path} lies on a network file system ({kind}), where a lock does not keep a second host away;"
            " use a local disk",
            code="directory_unusable",
        )


class DirectoryLock:
    """The exclusive right to a data directory, held until `close` or the end of the process."""

    def __init__(self, files: FileSystem, directory: DataDirectory, *, make: bool = True) -> None:
        """Take it.

        Args:
            files: The file system.
            directory: Which one.
            make: Make the lock file if there is none. Without, nothing is written, so that a directory that
                is read-only can be locked too.

        Raises:
            StorageError: `directory_in_use`.
        """
        self._files = files
        self._descriptor = _open_lock(files, directory.lock_file, make=make)
        if not files.try_lock(self._descriptor, shared=False):
            files.close(self._descriptor)
            raise StorageError(
                f"another process has the data directory {directory.path}", code="directory_in_use"
            )

    def close(self) -> None:
        """Give it up."""
        self._files.close(self._descriptor)


class WorkerLock:
    """A worker's sign that it may have the store mapped. Take it before opening the store.

    It must be taken by the worker process itself: a lock that was inherited over a fork
    belongs to both processes.
    """

    def __init__(self, files: FileSystem, directory: DataDirectory) -> None:
        """Take it.

        Raises:
            StorageError: `directory_in_use`, a daemon is about to recover the directory.
        """
        self._files = files
        self._descriptor = _open_lock(files, directory.workers_lock_file, make=True)
        if not files.try_lock(self._descriptor, shared=True):
            files.close(self._descriptor)
            raise StorageError(f"{directory.path} is being recovered", code="directory_in_use")

    def close(self) -> None:
        """Give it up, after closing the store."""
        self._files.close(self._descriptor)


def wait_for_workers(
    files: FileSystem, directory: DataDirectory, clock: Clock, wait_s: float, *, make: bool = True
) -> None:
    """Return when no worker of an earlier daemon has the store mapped any more.

    Args:
        files: The file system.
        directory: Which one.
        clock: Time.
        wait_s: How long to wait.
        make: See `DirectoryLock`.

    Raises:
        StorageError: `directory_in_use`, some were still there after `wait_s`.
    """
    descriptor = _open_lock(files, directory.workers_lock_file, make=make)
    try:
        deadline_mono = clock.mono_s() + wait_s
        while not files.try_lock(descriptor, shared=False):
            if clock.mono_s() >= deadline_mono:
                raise StorageError(
                    f"workers of an earlier daemon still use {directory.path} after {wait_s:g} s",
                    code="directory_in_use",
                )
            clock.sleep(_WORKER_POLL_S)
    finally:
        files.close(descriptor)


def _open_lock(files: FileSystem, path: Path, *, make: bool) -> int:
    return files.open(path, os.O_RDWR | os.O_CREAT if make else os.O_RDONLY)
