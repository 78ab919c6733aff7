"""What a disk may hold after the power fails, from the system calls that were made.

Pure. `read_trace` reads what `native/recorder.c` wrote; a `Disk` follows it and can say at any moment
what the files look like to a process (`whole`) and what may be found after a power cut (`torn`).

A disk here is one of a journaling file system on a device whose sectors are written whole:

- What was written to a file before a sync of it began is there once that sync has ended; the same for
  the names in a folder. A file's sync says nothing of its name.
- Of later writes each page of 4096 bytes, or each sector of 512, is there for itself, in any order; of
  several writes to one unit any number of the first. The size is any between the synced and the newest.
- Of later changes to the names in one folder the first so many are there, for each folder for itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import PurePosixPath
from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

PAGE_BYTES, SECTOR_BYTES = 4096, 512
_ENTRY = Struct("<BBHIQQ")


class Kind(IntEnum):
    """What an event is; the numbers are those of `recorder.c`."""

    CREATE = 1
    RESIZE = 2
    WRITE = 3
    SYNC_BEGIN = 4
    SYNC_END = 5
    RENAME = 6
    UNLINK = 7
    MKDIR = 8
    MARK = 9
    UNKNOWN = 10


@dataclass(frozen=True, slots=True)
class Event:
    """One system call that succeeded, or a mark that the process made.

    Attributes:
        kind: What it did.
        durable: A write through a descriptor that syncs each write.
        inode: Of the file or folder; of a mark: what it means.
        number: Offset of a write, size, number of a sync or mark.
        path: For names.
        data: Written bytes; the new name of a rename.
    """

    kind: Kind
    durable: bool
    inode: int
    number: int
    path: str
    data: bytes


def read_trace(raw: bytes) -> list[Event]:
    """Return the events of a trace, in order."""
    events = []
    offset = 0
    while offset < len(raw):
        kind, flags, path_bytes, data_bytes, inode, number = _ENTRY.unpack_from(raw, offset)
        offset += _ENTRY.size
        path = raw[offset : offset + path_bytes].decode()
        offset += path_bytes
        events.append(Event(Kind(kind), bool(flags), inode, number, path, raw[offset : offset + data_bytes]))
        offset += data_bytes
    return events


Tree = dict[str, "Tree | tuple[File, bytes]"]
"""Names with folders, or files and their contents."""


@dataclass(frozen=True, slots=True)
class _Change:
    """A write, or with `data` None a change of size."""

    offset: int
    data: bytes | None

    def __deepcopy__(self, memo: object) -> _Change:
        return self


@dataclass
class File:
    """One file, whatever its names.

    Attributes:
        inode: Number of the real file.
        base: What is surely on disk.
        changes: Since then, in order.
        syncs: Those under way, and how many of the changes each covers.
    """

    inode: int
    base: bytes = b""
    changes: list[_Change] = field(default_factory=list)
    syncs: dict[int, int] = field(default_factory=dict)

    def secure(self, count: int) -> None:
        """Take the first changes as being on disk."""
        data = bytearray(self.base)
        for change in self.changes[:count]:
            _apply(data, change)
        self.base = bytes(data)
        del self.changes[:count]
        self.syncs = {number: max(0, covered - count) for number, covered in self.syncs.items()}

    def write(self, offset: int, data: bytes, durable: bool) -> None:
        self.changes.append(_Change(offset, data))
        if durable:
            end = offset + len(data)
            self._secure_pages(offset - offset % PAGE_BYTES, end + -end % PAGE_BYTES)

    def _secure_pages(self, lo: int, hi: int) -> None:
        """Take some pages as being on disk as they are now, whatever changed them."""
        base = bytearray(self.base)
        _apply(base, _Change(lo, self.whole()[lo:hi]))
        self.base = bytes(base)
        left = [_outside(change, lo, hi) for change in self.changes]
        self.syncs = {number: sum(map(len, left[:count])) for number, count in self.syncs.items()}
        self.changes = [part for parts in left for part in parts]

    def whole(self) -> bytes:
        data = bytearray(self.base)
        for change in self.changes:
            _apply(data, change)
        return bytes(data)

    def torn(self, random: Random) -> bytes:
        if not self.changes:
            return self.base
        changes = self.changes[: _some(random, len(self.changes), at_end=0.8)]
        base = self.base
        # After a cut to a smaller size nothing of before is found beyond it: what counts begins there.
        for place in reversed(range(len(changes))):
            if changes[place].data is None and changes[place].offset < len(base):
                base, changes = base[: changes[place].offset], changes[place + 1 :]
                break
        return _mixed(random, base, changes)


def _apply(data: bytearray, change: _Change) -> None:
    if change.data is None:
        del data[change.offset :]
        data.extend(bytes(change.offset - len(data)))
        return
    if len(data) < change.offset:
        data.extend(bytes(change.offset - len(data)))
    data[change.offset : change.offset + len(change.data)] = change.data


def _outside(change: _Change, lo: int, hi: int) -> list[_Change]:
    """Return the parts of a change that do not lie in `[lo, hi)`."""
    if change.data is None:
        return [change]
    before, behind = change.data[: max(0, lo - change.offset)], change.data[max(0, hi - change.offset) :]
    end = change.offset + len(change.data)
    parts = [_Change(change.offset, before), _Change(end - len(behind), behind)]
    return [part for part in parts if part.data]


def _some(random: Random, count: int, *, at_end: float) -> int:
    return count if random.random() < at_end else random.randint(0, count)


def _mixed(random: Random, base: bytes, changes: list[_Change]) -> bytes:
    """Return a base with some of some changes, each unit for itself."""
    unit = random.choice((PAGE_BYTES, SECTOR_BYTES))
    share = random.choice((0.0, 0.02, 0.1, 0.5, 0.5, 0.9, 0.98, 1.0))
    size = max([len(base), *(change.offset + len(change.data or b"") for change in changes)])
    data = bytearray(base.ljust(size, b"\0"))
    touching: dict[int, int] = {}
    for change in changes:
        for start in _units(change, unit):
            touching[start] = touching.get(start, 0) + 1
    left = {
        start: count if random.random() < share else random.randrange(count)
        for start, count in touching.items()
    }
    for change in changes:
        for start in _units(change, unit):
            if left[start]:
                left[start] -= 1
                lo, hi = max(start, change.offset), min(start + unit, change.offset + len(change.data or b""))
                data[lo:hi] = (change.data or b"")[lo - change.offset : hi - change.offset]
    if size > len(base) and random.random() < 0.3:
        del data[random.randrange(len(base), size, SECTOR_BYTES) :]
    return bytes(data)


def _units(change: _Change, unit: int) -> range:
    if change.data is None:
        return range(0)
    return range(change.offset - change.offset % unit, change.offset + len(change.data), unit)


@dataclass
class Folder:
    """One folder.

    Attributes:
        base: Names that are surely on disk.
        changes: Since then: a name gets a file or folder, or loses it (None), maybe several at once.
        syncs: Those under way, and how many of the changes each covers.
    """

    base: dict[str, File | Folder] = field(default_factory=dict)
    changes: list[dict[str, File | Folder | None]] = field(default_factory=list)
    syncs: dict[int, int] = field(default_factory=dict)

    def names(self, count: int | None = None) -> dict[str, File | Folder]:
        found = dict(self.base)
        for change in self.changes[:count]:
            for name, entry in change.items():
                if entry is None:
                    found.pop(name, None)
                else:
                    found[name] = entry
        return found

    def secure(self, count: int) -> None:
        self.base = self.names(count)
        del self.changes[:count]
        self.syncs = {number: max(0, covered - count) for number, covered in self.syncs.items()}


class Disk:
    """The files below one folder, as the system calls leave them.

    Attributes:
        root: The folder.
        by_inode: What an inode number of the real files stands for.
    """

    def __init__(self, root: Folder, by_inode: dict[int, File | Folder]) -> None:
        self.root = root
        self.by_inode = by_inode

    def follow(self, event: Event, below: str) -> None:
        """Take over one event; paths are below a real folder."""
        entry = self.by_inode.get(event.inode)
        match event.kind:
            case Kind.CREATE | Kind.MKDIR:
                made = File(event.inode) if event.kind is Kind.CREATE else Folder()
                folder, name = self._place(event.path, below)
                folder.changes.append({name: made})
                self.by_inode[event.inode] = made
            case Kind.WRITE if isinstance(entry, File):
                entry.write(event.number, event.data, event.durable)
            case Kind.RESIZE if isinstance(entry, File):
                entry.changes.append(_Change(event.number, None))
            case Kind.SYNC_BEGIN if entry is not None:
                entry.syncs[event.number] = len(entry.changes)
            case Kind.SYNC_END if entry is not None:
                entry.secure(entry.syncs.pop(event.number))
            case Kind.UNLINK:
                folder, name = self._place(event.path, below)
                folder.changes.append({name: None})
            case Kind.RENAME:
                folder, name = self._place(event.path, below)
                other, new = self._place(event.data.decode(), below)
                if other is not folder:
                    raise ValueError(f"{event.path} moves to another folder, which this disk does not know")
                folder.changes.append({name: None, new: folder.names()[name]})
            case Kind.MARK:
                pass
            case _:
                raise ValueError(f"this disk does not know what {event} does")

    def _place(self, path: str, below: str) -> tuple[Folder, str]:
        *folders, name = PurePosixPath(path).relative_to(below).parts
        found = self.root
        for part in folders:
            entry = found.names()[part]
            assert isinstance(entry, Folder)
            found = entry
        return found, name

    def whole(self) -> Tree:
        """Return what a process sees."""
        return _tree(self.root, None)

    def torn(self, random: Random) -> Tree:
        """Return what may be there after a power cut."""
        return _tree(self.root, random)


def _tree(folder: Folder, random: Random | None) -> Tree:
    count = None if random is None else _some(random, len(folder.changes), at_end=0.5)
    found: Tree = {}
    for name, entry in folder.names(count).items():
        if isinstance(entry, Folder):
            found[name] = _tree(entry, random)
        else:
            found[name] = (entry, entry.whole() if random is None else entry.torn(random))
    return found


def durable_disk(tree: Tree) -> Disk:
    """Return a disk on which a tree is all there is, safely."""

    def settled(part: Tree) -> Folder:
        return Folder(
            {
                name: settled(entry) if isinstance(entry, dict) else File(entry[0].inode, entry[1])
                for name, entry in part.items()
            }
        )

    return Disk(settled(tree), {})
