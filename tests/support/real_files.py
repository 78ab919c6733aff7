"""The machine's files, watched, and failing on request.

Faults: the operation named in `fail` raises once; the one numbered `crash_at` raises
`Crashed`, after which the process is taken as dead (what it wrote stays in the cache).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from headwater_storage.files import RealFileSystem, SyncFailedError

from support.memory_files import Crashed

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class RecordingFiles(RealFileSystem):
    """Implements `FileSystem`.

    Attributes:
        operations: Name of each changing operation and of its file or folder.
        fail: Operation that fails next, with an errno; cleared by failing.
        crash_at: Number of the operation that is not done any more.
        before: What to call before an operation on a file of a name; called once.
    """

    def __init__(self) -> None:
        self.operations: list[tuple[str, str]] = []
        self.fail: tuple[str, int] | None = None
        self.crash_at: int | None = None
        self.before: dict[tuple[str, str], Callable[[], None]] = {}
        self._names: dict[int, str] = {}

    def _step(self, operation: str, name: str) -> None:
        if self.crash_at is not None and len(self.operations) >= self.crash_at:
            raise Crashed
        self.operations.append((operation, name))
        if (hook := self.before.pop((operation, name), None)) is not None:
            hook()
        if self.fail is not None and self.fail[0] == operation:
            number, self.fail = self.fail[1], None
            kind = SyncFailedError if operation.startswith("sync") else OSError
            raise kind(number, os.strerror(number), name)

    def open(self, path: Path, flags: int) -> int:
        descriptor = super().open(path, flags)
        self._names[descriptor] = path.name
        return descriptor

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        self._step("write", self._names[descriptor])
        super().pwrite(descriptor, data, offset)

    def truncate(self, descriptor: int, size: int) -> None:
        self._step("truncate", self._names[descriptor])
        super().truncate(descriptor, size)

    def fdatasync(self, descriptor: int) -> None:
        self._step("sync", self._names[descriptor])
        super().fdatasync(descriptor)

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder", path.name)
        super().sync_folder(path)

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename", new.name)
        super().rename(old, new)

    def remove(self, path: Path) -> None:
        if path.exists():
            self._step("remove", path.name)
            super().remove(path)
