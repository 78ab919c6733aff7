from __future__ import annotations

import os
from typing import TYPE_CHECKING
from zlib import crc32

import lmdb
import pytest
from headwater_protocol.errors import StorageError, TransientError
from headwater_storage.lmdb_store import LOCK_FILE, READERS_MAX, LmdbStore
from headwater_storage.proposal import CommitTs
from headwater_storage.store import AppliedBatch, State
from headwater_storage.stored import STORED_HEADER_BYTES, pack_stored, unpack_stored

if TYPE_CHECKING:
    from pathlib import Path

ALL = (b"", b"\xff" * 9)


def state(number: int) -> State:
    return State(CommitTs(number * 10), number, bytes([number] * 16), CommitTs(number))


@pytest.fixture
def store(tmp_path: Path) -> LmdbStore:
    return LmdbStore.open(tmp_path, map_size=1 << 28, create=True)


def keys(*numbers: int) -> list[bytes]:
    return [b"%02d" % number for number in numbers]


def test_another_process_reads_snapshots_of_its_own(store: LmdbStore) -> None:
    store.apply(AppliedBatch({b"a": b"1"}), state(1))
    store.close()
    to_child, from_parent = os.pipe()
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            reader = LmdbStore.open(store.path, map_size=1 << 28, readonly=True)
            with reader.snapshot() as old:
                os.write(to_parent, b"!")
                os.read(to_child, 1)
                with reader.snapshot() as new:
                    values = [(s.state.record_number, s.get_document(b"a")) for s in (old, new)]
                    code = 0 if values == [(1, b"1"), (2, b"2")] else 2
                    os.write(to_parent, b"?")
                    os.read(to_child, 1)
        finally:
            os._exit(code)
    assert os.read(from_child, 1) == b"!"
    writer = LmdbStore.open(store.path, map_size=1 << 28)
    writer.apply(AppliedBatch({b"a": b"2"}), state(2))
    os.write(from_parent, b"!")
    assert os.read(from_child, 1) == b"?"
    assert len(writer.readers_text().splitlines()) > 2
    os.write(from_parent, b"!")
    assert os.waitpid(child, 0)[1] == 0
    # It ended without closing: its slots are found and freed.
    assert writer.reader_check() >= 1
    writer.close()
    for descriptor in (to_child, from_parent, from_child, to_parent):
        os.close(descriptor)


def test_a_full_table_of_readers_is_a_clear_error_and_dead_ones_never_fill_it(tmp_path: Path) -> None:
    """Far more readers die than the table has slots; each takes some without giving them up."""
    (tmp_path / "few").mkdir()
    store = LmdbStore.open(tmp_path / "few", map_size=1 << 24, create=True, readers_max=8)
    store.apply(AppliedBatch({b"a": b"1"}), state(1))
    path = store.path
    store.close()
    for _ in range(6):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                reader = LmdbStore.open(path, map_size=1 << 24, readonly=True, readers_max=8)
                held = [reader.snapshot() for _ in range(5)]
                code = 0 if len(held) == 5 else 2
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
    store = LmdbStore.open(path, map_size=1 << 24, readers_max=8)
    snapshots = []
    with pytest.raises(TransientError) as full:
        snapshots.extend(store.snapshot() for _ in range(9))
    assert full.value.code == "overloaded"
    while snapshots:
        snapshots.pop().close()  # a slot is free again when nothing refers to its snapshot any more
    store.snapshot().close()
    store.close()


def test_a_reader_cannot_write_and_makes_no_store(store: LmdbStore, tmp_path: Path) -> None:
    store.apply(AppliedBatch(), state(1))
    store.close()
    reader = LmdbStore.open(tmp_path, map_size=1 << 28, readonly=True)
    with pytest.raises(lmdb.Error):
        reader.apply(AppliedBatch(), state(2))
    reader.close()
    empty = tmp_path / "empty"
    empty.mkdir()
    for readonly in (True, False):
        with pytest.raises(lmdb.Error):
            LmdbStore.open(empty, readonly=readonly)


def test_old_readers_are_snapshots_of_others_that_commits_have_left_behind(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path, map_size=1 << 24, create=True)
    store.apply(AppliedBatch({b"a": b"1"}), state(1))
    store.close()
    to_child, from_parent = os.pipe()
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            reader = LmdbStore.open(tmp_path, map_size=1 << 24, readonly=True)
            held = [reader.snapshot() for _ in range(2)]
            os.write(to_parent, b"!")
            os.read(to_child, 1)
            held.pop().close()
            os.write(to_parent, b"?")
            os.read(to_child, 1)
        finally:
            os._exit(0)
    assert os.read(from_child, 1) == b"!"
    writer = LmdbStore.open(tmp_path, map_size=1 << 24)
    own = writer.snapshot()
    assert writer.old_readers() == [], "they have the newest"
    writer.apply(AppliedBatch({b"a": b"2"}), state(2))
    old = writer.old_readers()
    assert [reader.process for reader in old] == [child] * 2
    assert len(set(old)) == 1
    writer.apply(AppliedBatch({b"a": b"3"}), state(3))
    assert writer.old_readers() == old
    os.write(from_parent, b"!")
    assert os.read(from_child, 1) == b"?"
    assert writer.old_readers() == old[:1]
    os.write(from_parent, b"!")
    os.waitpid(child, 0)
    assert writer.old_readers() == [], "it ended without closing"
    own.close()
    writer.close()
    for descriptor in (to_child, from_parent, from_child, to_parent):
        os.close(descriptor)


def test_room_is_what_lies_below_the_largest_size_and_what_is_free(tmp_path: Path) -> None:
    store = LmdbStore.open(tmp_path, map_size=1 << 20, create=True)
    assert store.has_room(1 << 19)
    assert not store.has_room(1 << 20)
    store.apply(AppliedBatch({b"a": bytes(700_000)}), state(1))
    assert not store.has_room(1 << 19)
    with pytest.raises(lmdb.MapFullError):
        store.apply(AppliedBatch({b"b": bytes(700_000)}), state(2))
    with store.snapshot() as snapshot:
        assert (snapshot.state, snapshot.get_document(b"b")) == (state(1), None)
    store.apply(AppliedBatch({b"a": None}), state(2))
    assert store.used_bytes() > 700_000, "the file keeps its size"
    assert store.has_room(1 << 19)
    store.close()


def test_a_worker_maps_as_much_as_the_daemon(tmp_path: Path) -> None:
    """One that reserves less cannot read once the store has grown beyond that."""
    store = LmdbStore.open(tmp_path, map_size=1 << 24, create=True)
    store.apply(AppliedBatch({b"a": b"1"}), state(1))
    store.close()
    to_child, from_parent = os.pipe()
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            reader = LmdbStore.open(tmp_path, map_size=1 << 24, readonly=True)
            os.write(to_parent, b"!")
            os.read(to_child, 1)
            with reader.snapshot() as snapshot:
                assert len(snapshot.get_document(b"a") or b"") == 1 << 22
            reader.close()
            reader = LmdbStore.open(tmp_path, map_size=1 << 20, readonly=True)
            os.write(to_parent, b"?")
            os.read(to_child, 1)
            with pytest.raises(lmdb.MapResizedError):
                reader.snapshot()
            code = 0
        finally:
            os._exit(code)
    assert os.read(from_child, 1) == b"!"
    writer = LmdbStore.open(tmp_path, map_size=1 << 24)
    writer.apply(AppliedBatch({b"a": bytes(1 << 22)}), state(2))
    os.write(from_parent, b"!")
    assert os.read(from_child, 1) == b"?"
    writer.apply(AppliedBatch({b"b": bytes(1 << 22)}), state(3))
    os.write(from_parent, b"!")
    assert os.waitpid(child, 0)[1] == 0
    writer.close()
    for descriptor in (to_child, from_parent, from_child, to_parent):
        os.close(descriptor)


def test_the_table_of_readers_has_all_of_its_space_from_the_start(store: LmdbStore) -> None:
    """LMDB writes to it through its map: where the file has a hole and the disk is full, that is a SIGBUS."""
    status = (store.path / LOCK_FILE).stat()
    assert status.st_blocks * 512 >= status.st_size
    assert store._environment.info()["max_readers"] == READERS_MAX


def test_a_stored_document_comes_back_with_its_shape() -> None:
    value = pack_stored(7, b"document", b"key")
    assert value[4:] == b"\x80\0\0\7document"
    assert unpack_stored(value, b"key") == (7, b"document")
    assert unpack_stored(pack_stored(0, b"", b"key"), b"key") == (0, b"")


def test_a_stored_document_is_refused_under_another_key() -> None:
    value = pack_stored(7, b"document", b"key")
    with pytest.raises(StorageError, match=b"other".hex()):
        unpack_stored(value, b"other")


def test_what_format_1_stored_is_read() -> None:
    checked = b"\0\0\0\7document"
    value = crc32(checked).to_bytes(4, "big") + checked
    assert unpack_stored(value, b"any key") == (7, b"document")
    with pytest.raises(StorageError):
        unpack_stored(value[:4] + b"\x80" + value[5:], b"any key")


def test_any_damage_to_a_stored_document_is_seen() -> None:
    value = pack_stored(7, b"document", b"key")
    for position in range(len(value)):
        for bit in range(8):
            damaged = bytearray(value)
            damaged[position] ^= 1 << bit
            with pytest.raises(StorageError, match=b"key".hex()) as caught:
                unpack_stored(bytes(damaged), b"key")
            assert caught.value.code == "damaged"
    for length in range(len(value)):
        with pytest.raises(StorageError):
            unpack_stored(value[:length], b"key")
    assert STORED_HEADER_BYTES == 8
