"""Damaged copies of data directories: what may happen to bytes on a disk, at random places.

Each copy is made in the place of the original, so that the store's file stays the same inode.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headwater_storage.files import RealFileSystem
from headwater_storage.format import read_format
from headwater_storage.page_check import PageCheck
from headwater_storage.page_store import opened
from headwater_storage.pages import Pages, metas_of
from headwater_storage.segments import find_segments, read_segment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from random import Random

SECTOR, PAGE = 512, 4096
DATA_FILE = "store/data.mdb"


@dataclass(frozen=True)
class Damage:
    """One damaged copy.

    Attributes:
        file: Which file, relative to the directory.
        kind: What was done to it.
        offset: Where, roughly.
        data: What it holds now; None: it is missing.
    """

    file: str
    kind: str
    offset: int
    data: bytes | None

    def __str__(self) -> str:
        return f"{self.kind} at {self.offset} of {self.file}"


@dataclass
class Original:
    """A directory and all that is needed to put it back.

    Attributes:
        path: Where it is.
        files: Contents by relative path.
        records: Where records begin and end in each segment.
        used_pages: Pages of the store's snapshot.
    """

    path: Path
    files: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, list[tuple[int, int]]] = field(default_factory=dict)
    used_pages: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, path: Path) -> Original:
        """Read a directory that nobody uses."""
        original = cls(path)
        for name in ("lock", "workers.lock", "store/lock.mdb"):
            (path / name).unlink(missing_ok=True)
        for file in sorted(path.rglob("*")):
            if file.is_file():
                original.files[str(file.relative_to(path))] = file.read_bytes()
        files = RealFileSystem()
        found = read_format(files, path / "format")
        assert found is not None
        for base, segment in find_segments(files, path / "log"):
            start, places = SECTOR, []
            for _, end in read_segment(
                segment.read_bytes(), segment, bytes.fromhex(found.log_id), base, None
            ):
                places.append((start, end))
                start = end
            original.records[str(segment.relative_to(path))] = places
        with opened(files, path / DATA_FILE) as file:
            check = PageCheck(Pages(file, metas_of(original.files[DATA_FILE])[0]), path)
            assert check.run() == []
            original.used_pages = [number for number, mark in enumerate(check._marks) if mark == 1]
        return original

    def restore(self) -> None:
        """Put everything back as it was, the store's file in place."""
        for aside in self.path.glob(f"damaged-*/{DATA_FILE}"):
            os.replace(aside, self.path / DATA_FILE)
        for file in sorted(self.path.rglob("*"), reverse=True):
            name = str(file.relative_to(self.path))
            if file.is_file() and name not in self.files:
                file.unlink()
            elif file.is_dir() and name not in ("store", "log"):
                file.rmdir()
        for name, data in self.files.items():
            write(self.path / name, data)

    def apply(self, damage: Damage) -> None:
        """Damage the directory, which is as it was."""
        path = self.path / damage.file
        if damage.data is None:
            path.unlink()
        else:
            write(path, damage.data)


def write(path: Path, data: bytes) -> None:
    """Give a file new contents; an existing one stays the same inode."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        os.pwrite(descriptor, data, 0)
        os.ftruncate(descriptor, len(data))
    finally:
        os.close(descriptor)


def damaged(original: Original, random: Random, only: str = "") -> Damage:
    """Return one kind of damage at one place, in a file whose path begins with `only`."""
    while True:
        draw = random.random()
        if draw < 0.5:
            name = DATA_FILE
        elif draw < 0.85:
            name = random.choice(sorted(original.records))
        else:
            name = "checkpoint" if draw < 0.95 else "format"
        if not name.startswith(only):
            continue
        kind = random.choice(sorted(KINDS))
        data = original.files[name]
        if kind == "missing":
            if name == DATA_FILE or random.random() < 0.8:
                continue  # another file would be another inode; and it is but one place
            return Damage(name, kind, 0, None)
        block, place = _place(original, name, random)
        changed = KINDS[kind](data, place, block, random)
        if changed != data:
            return Damage(name, kind, place, changed)


def _place(original: Original, name: str, random: Random) -> tuple[int, int]:
    """Return a block size and an offset: a page in use, a record, a sector or any byte."""
    data = original.files[name]
    if name == DATA_FILE:
        page = (
            random.choice(original.used_pages)
            if random.random() < 0.8
            else random.randrange(len(data) // PAGE)
        )
        inside = random.choice((0, random.randrange(48), random.randrange(PAGE)))
        return random.choice((PAGE, PAGE, SECTOR)), page * PAGE + inside
    if name in original.records and original.records[name] and random.random() < 0.7:
        start, end = random.choice(original.records[name])
        return end - start, start
    return SECTOR, random.randrange(len(data))


def _flip(data: bytes, place: int, _: int, random: Random) -> bytes:
    place = min(place + random.randrange(SECTOR) * random.randrange(2), len(data) - 1)
    return data[:place] + bytes([data[place] ^ 1 << random.randrange(8)]) + data[place + 1 :]


def _zero(data: bytes, place: int, block: int, _: Random) -> bytes:
    size = min(block, len(data) - (place := _aligned(place, block)))
    return data[:place] + bytes(size) + data[place + size :]


def _zero_sector(data: bytes, place: int, block: int, random: Random) -> bytes:
    return _zero(data, place + random.randrange(0, max(block, 1), SECTOR), SECTOR, random)


def _double(data: bytes, place: int, block: int, _: Random) -> bytes:
    place = _aligned(place, block)
    copy = data[place : place + block]
    return (data[: place + block] + copy + data[place + 2 * block :])[: len(data)]


def _insert(data: bytes, place: int, block: int, _: Random) -> bytes:
    place = _aligned(place, block)
    return data[: place + block] + data[place : place + block] + data[place + block :]


def _swap(data: bytes, place: int, block: int, random: Random) -> bytes:
    place = _aligned(place, block)
    other = place + block * random.choice((1, 1, 2, 5))
    if other + block > len(data):
        return data
    one, two = data[place : place + block], data[other : other + block]
    return data[:place] + two + data[place + block : other] + one + data[other + block :]


def _cut_out(data: bytes, place: int, block: int, _: Random) -> bytes:
    place = _aligned(place, block)
    return data[:place] + data[place + block :]


def _truncate(data: bytes, place: int, _: int, __: Random) -> bytes:
    return data[:place]


def _aligned(place: int, block: int) -> int:
    return place - place % block if block in (PAGE, SECTOR) else place


KINDS: dict[str, Callable[[bytes, int, int, Random], bytes]] = {
    "flip": _flip,
    "flip again": _flip,
    "flip once more": _flip,
    "zeroed": _zero,
    "zeroed sector": _zero_sector,
    "doubled": _double,
    "inserted": _insert,
    "swapped": _swap,
    "cut out": _cut_out,
    "truncated": _truncate,
    "missing": _truncate,
}
