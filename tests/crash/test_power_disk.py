"""The disk on which power is cut keeps what it says it keeps, and nothing more."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from support.power_disk import SECTOR_BYTES, Disk, Event, Folder, Kind, Tree, durable_disk

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = "/disk"
FOLDER, FILE = 1, 2


def event(kind: Kind, inode: int = 0, number: int = 0, path: str = "", data: bytes = b"") -> Event:
    return Event(kind, False, inode, number, path, data)


def write(offset: int, data: bytes, inode: int = FILE) -> Event:
    return event(Kind.WRITE, inode, offset, "", data)


def sync(inode: int) -> list[Event]:
    return [event(Kind.SYNC_BEGIN, inode, 1), event(Kind.SYNC_END, inode, 1)]


def create(name: str, inode: int = FILE) -> Event:
    return event(Kind.CREATE, inode, path=f"{ROOT}/{name}")


def disk_after(*events: Event) -> Disk:
    root = Folder()
    disk = Disk(root, {FOLDER: root})
    for each in events:
        disk.follow(each, ROOT)
    return disk


def contents(tree: Tree) -> dict[str, bytes]:
    return {name: entry[1] for name, entry in tree.items() if isinstance(entry, tuple)}


def torn(disk: Disk, count: int = 150) -> Iterator[dict[str, bytes]]:
    random = Random(count)
    for _ in range(count):
        yield contents(disk.torn(random))


NAMED = [create("a"), *sync(FOLDER)]


def test_what_was_synced_is_there_and_each_later_unit_in_any_of_its_states() -> None:
    random = Random(1)
    size = 24 * SECTOR_BYTES
    versions = [bytearray(random.randbytes(size))]
    disk = disk_after(*NAMED, write(0, bytes(versions[0])), *sync(FILE))
    for _ in range(12):
        offset, data = random.randrange(size), random.randbytes(random.choice((10, 512, 5_000)))
        disk.follow(write(offset, data[: size - offset]), ROOT)
        versions.append(bytearray(contents(disk.whole())["a"]))
    seen: set[bytes] = set()
    for found in torn(disk):
        seen.add(found["a"])
        assert len(found["a"]) == size
        for start in range(0, size, SECTOR_BYTES):
            unit = slice(start, start + SECTOR_BYTES)
            assert found["a"][unit] in [version[unit] for version in versions]
    assert len(seen) > 70
    assert {bytes(versions[0]), bytes(versions[-1])} <= seen


def test_a_sync_covers_what_was_written_before_it_began() -> None:
    disk = disk_after(
        *NAMED,
        write(0, b"old"),
        event(Kind.SYNC_BEGIN, FILE, 1),
        write(0, b"new"),
        event(Kind.SYNC_END, FILE, 1),
    )
    assert {found["a"] for found in torn(disk)} == {b"old", b"new"}


def test_a_sync_that_has_not_ended_covers_nothing() -> None:
    disk = disk_after(*NAMED, write(0, b"data"), event(Kind.SYNC_BEGIN, FILE, 1))
    assert {b"", b"data"} <= {found["a"] for found in torn(disk)}


def test_a_write_that_syncs_itself_is_there_with_its_page() -> None:
    other = write(4_090, b"0123456789")
    disk = disk_after(*NAMED, other, write(0, b"...."), Event(Kind.WRITE, True, FILE, 1, "", b"data"))
    found = {each["a"].replace(b"\0", b"") for each in torn(disk)}
    assert found == {b".data012345", b".data0123456789"}


def test_a_file_that_grew_has_any_size_between() -> None:
    disk = disk_after(*NAMED, write(0, b"x" * 512), *sync(FILE), write(512, b"y" * 2048))
    assert {len(found["a"]) for found in torn(disk)} == {512, 1024, 1536, 2048, 2560}


def test_a_file_that_was_emptied_and_written_anew_is_no_mixture() -> None:
    disk = disk_after(
        *NAMED, write(0, b"old" * 700), *sync(FILE), event(Kind.RESIZE, FILE), write(0, b"new" * 700)
    )
    found = [each["a"] for each in torn(disk)]
    assert all(not (b"old" in each and b"new" in each) for each in found)
    assert {b"old" * 700, b"new" * 700, b""} <= set(found)


def test_the_sync_of_a_file_does_not_keep_its_name() -> None:
    disk = disk_after(create("a"), write(0, b"data"), *sync(FILE))
    assert {tuple(found.items()) for found in torn(disk)} == {(), (("a", b"data"),)}


def test_names_change_in_their_order_until_the_folder_is_synced() -> None:
    rename = event(Kind.RENAME, path=f"{ROOT}/b", data=f"{ROOT}/a".encode())
    unlink = event(Kind.UNLINK, path=f"{ROOT}/c")
    events = [*NAMED, create("b", 3), create("c", 4), *sync(FOLDER), rename, unlink]
    disk = disk_after(*events, *sync(3))
    assert {tuple(sorted(found)) for found in torn(disk)} == {("a", "b", "c"), ("a", "c"), ("a",)}
    synced = disk_after(*events, *sync(FOLDER))
    assert {tuple(found) for found in torn(synced)} == {("a",)}


def test_a_disk_can_be_made_of_what_was_left() -> None:
    disk = disk_after(
        event(Kind.MKDIR, 5, path=f"{ROOT}/f"), create("f/a"), write(0, b"data"), create("f/b", 3)
    )
    again = durable_disk(disk.whole())
    assert again.torn(Random(1)) == again.whole()
    assert contents(again.whole()["f"]) == {"a": b"data", "b": b""}  # type: ignore[arg-type]


def test_what_the_disk_does_not_know_is_refused() -> None:
    with pytest.raises(ValueError, match="does not know"):
        disk_after(event(Kind.UNKNOWN, path="copy_file_range"))
    moved = event(Kind.RENAME, path=f"{ROOT}/a", data=f"{ROOT}/f/a".encode())
    with pytest.raises(ValueError, match="another folder"):
        disk_after(event(Kind.MKDIR, 5, path=f"{ROOT}/f"), create("a"), moved)
