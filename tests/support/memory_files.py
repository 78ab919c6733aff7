"""A file system in memory that can lose what was not made durable.

Faults it may produce, all within what a disk and a journaling file system may do in a power
cut: a write that was not synced is there or not, each 512-byte sector for itself; of the
name changes in a folder that was not synced a first part is there, in order. On request an
operation fails with an error. When that is a file's sync, nothing since the one before is on
the disk, and yet the cache takes it for written, as Linux does: later syncs succeed without it,
and reads see it until the page is dropped. Everything else that a test finds is the product's
fault.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater_storage.files import SyncFailedError

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

SECTOR = 512


class Crashed(BaseException):
    """The machine has stopped at this operation; no handler for errors may see it."""


@dataclass(eq=False)
class Node:
    """One file.

    Attributes:
        current: What reads see.
        durable: What the disk holds.
        inode: Its number.
        lost: Sectors that the cache holds and takes for written, though the disk never got them.
    """

    current: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    inode: int = 0
    lost: set[int] = field(default_factory=set)

    def write(self, data: bytes, offset: int) -> None:
        self.current[offset : offset + len(data)] = data
        if self.lost:
            self.lost -= set(range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)))

    def cut(self, size: int) -> None:
        del self.current[size:]
        self.lost = {sector for sector in self.lost if sector * SECTOR < size}

    def sync(self) -> None:
        before, self.durable = self.durable, bytearray(self.current)
        for sector in self.lost:
            self.durable[_span(sector)] = _part(before, sector, len(self.current))

    def fail_sync(self) -> None:
        count = -(-len(self.current) // SECTOR)
        self.lost.update(
            sector
            for sector in range(count)
            if self.current[_span(sector)] != _part(self.durable, sector, len(self.current))
        )

    def drop(self, sector: int) -> None:
        """Drop a sector from the cache: reads see what the disk holds from now on."""
        self.lost.discard(sector)
        self.current[_span(sector)] = _part(self.durable, sector, len(self.current))


@dataclass
class Folder:
    current: dict[str, Node] = field(default_factory=dict)
    durable: dict[str, Node] = field(default_factory=dict)
    pending: list[tuple[str, Node | None]] = field(default_factory=list)


class MemoryFiles:
    """Implements `FileSystem`.

    Attributes:
        operations: Name and path of each changing operation so far.
        crash_at: Number of the changing operation that raises `Crashed` instead of being done.
        fail: Name of the operation that fails next, with an errno; cleared by failing.
        space: Bytes that may still be allocated; None: enough.
        dropping: Decides at each read which lost sectors the cache has dropped by then; None: none.
    """

    def __init__(self) -> None:
        self.folders: dict[Path, Folder] = {}
        self.open_files: dict[int, tuple[Path, Node]] = {}
        self.operations: list[tuple[str, str]] = []
        self.crash_at: int | None = None
        self.fail: tuple[str, int] | None = None
        self.space: int | None = None
        self.dropping: Random | None = None
        self._next = 3
        self._locks: dict[int, tuple[Node, bool]] = {}

    def make_folder(self, path: Path) -> None:
        """Folders are there at once and for good: making one is no fault that this file system has."""
        self.folder(path)

    def exists(self, path: Path) -> bool:
        return path in self.folders or path.name in self.folder(path.parent).current

    def inode(self, path: Path) -> int:
        node = self.folder(path.parent).current.get(path.name)
        if node is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
        return node.inode

    def kind(self, path: Path) -> str:
        return "memory"

    def try_lock(self, descriptor: int, *, shared: bool) -> bool:
        node = self.open_files[descriptor][1]
        for other, (locked, other_shared) in self._locks.items():
            if locked is node and other != descriptor and not (shared and other_shared):
                return False
        self._locks[descriptor] = (node, shared)
        return True

    def folder(self, path: Path) -> Folder:
        return self.folders.setdefault(path, Folder())

    def _step(self, name: str, path: Path) -> None:
        if self.crash_at is not None and len(self.operations) >= self.crash_at:
            raise Crashed
        self.operations.append((name, path.name))
        if self.fail is not None and self.fail[0] == name:
            number, self.fail = self.fail[1], None
            kind = SyncFailedError if name.startswith("sync") else OSError
            raise kind(number, os.strerror(number), str(path))

    def _change(self, path: Path, node: Node | None) -> None:
        folder = self.folder(path.parent)
        folder.pending.append((path.name, node))
        _set(folder.current, path.name, node)

    def open(self, path: Path, flags: int) -> int:
        node = self.folder(path.parent).current.get(path.name)
        if node is None:
            if not flags & os.O_CREAT:
                raise FileNotFoundError(errno.ENOENT, "no such file", str(path))
            self._step("create", path)
            self._next += 1
            node = Node(inode=self._next)
            self._change(path, node)
        elif flags & os.O_TRUNC:
            self._step("truncate", path)
            self._allocate(-len(node.current))
            node.cut(0)
        self._next += 1
        self.open_files[self._next] = (path, node)
        return self._next

    def close(self, descriptor: int) -> None:
        del self.open_files[descriptor]
        self._locks.pop(descriptor, None)

    def pread(self, descriptor: int, size: int, offset: int) -> bytes:
        node = self.open_files[descriptor][1]
        if self.dropping is not None:
            for sector in sorted(node.lost):
                if self.dropping.random() < 0.5:
                    node.drop(sector)
        return bytes(node.current[offset : offset + size])

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        path, node = self.open_files[descriptor]
        self._step("write", path)
        growth = offset + len(data) - len(node.current)
        if growth > 0:
            self._allocate(growth)
            node.current.extend(bytes(growth))
        node.write(data, offset)

    def _allocate(self, count: int) -> None:
        if self.space is not None:
            if count > self.space:
                raise OSError(errno.ENOSPC, "no space")
            self.space -= count

    def truncate(self, descriptor: int, size: int) -> None:
        path, node = self.open_files[descriptor]
        self._step("cut", path)
        self._allocate(size - len(node.current))
        node.cut(size)

    def fdatasync(self, descriptor: int) -> None:
        path, node = self.open_files[descriptor]
        try:
            self._step("sync", path)
        except OSError:
            node.fail_sync()
            raise
        node.sync()

    def sync_folder(self, path: Path) -> None:
        self._step("sync_folder", path)
        folder = self.folder(path)
        folder.durable = dict(folder.current)
        folder.pending.clear()

    def rename(self, old: Path, new: Path) -> None:
        self._step("rename", new)
        node = self.folder(old.parent).current[old.name]
        folder = self.folder(old.parent)
        folder.pending.append((new.name, node))
        folder.pending.append((old.name, None))
        folder.current[new.name] = node
        del folder.current[old.name]

    def remove(self, path: Path) -> None:
        node = self.folder(path.parent).current.get(path.name)
        if node is not None:
            self._step("remove", path)
            self._allocate(-len(node.current))
            self._change(path, None)

    def names(self, folder: Path) -> list[str]:
        return sorted(self.folder(folder).current)

    def size(self, descriptor: int) -> int:
        return len(self.open_files[descriptor][1].current)

    def free_bytes(self, path: Path) -> int:
        return 1 << 40 if self.space is None else self.space

    def kill(self) -> None:
        """End the process: files stay as they are, nothing becomes durable."""
        self.crash_at = None
        self.fail = None
        self.open_files.clear()
        self._locks.clear()

    def power_cut(self, random: Random) -> None:
        """End the machine: what was not synced may be there or not."""
        self.kill()
        mixed: dict[int, Node] = {}
        for folder in self.folders.values():
            for name, node in folder.pending[: random.randint(0, len(folder.pending))]:
                _set(folder.durable, name, node)
            folder.pending.clear()
            folder.current = {
                name: mixed.setdefault(id(node), _mixture(node, random))
                for name, node in folder.durable.items()
            }
            folder.durable = dict(folder.current)


def _set(names: dict[str, Node], name: str, node: Node | None) -> None:
    if node is None:
        names.pop(name, None)
    else:
        names[name] = node


def _mixture(node: Node, random: Random) -> Node:
    old, new = bytes(node.durable), bytes(node.current)
    data = bytearray(old if len(old) >= len(new) or random.random() < 0.5 else old.ljust(len(new), b"\0"))
    if len(old) > len(new) and random.random() < 0.5:
        del data[len(new) :]
    for start in range(0, min(len(data), len(new)), SECTOR):
        if random.random() < 0.5 and start // SECTOR not in node.lost:
            data[start : start + SECTOR] = new[start : start + SECTOR]
    return Node(data, bytearray(data), node.inode)


def _span(sector: int) -> slice:
    return slice(sector * SECTOR, (sector + 1) * SECTOR)


def _part(data: bytearray, sector: int, size: int) -> bytes:
    """Return a sector of a file that has grown to `size`: zeros where it had not yet been."""
    return bytes(data[_span(sector)]).ljust(min(SECTOR, size - sector * SECTOR), b"\0")
