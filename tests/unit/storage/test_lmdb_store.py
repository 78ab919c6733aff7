from __future__ import annotations

import os
from typing import TYPE_CHECKING
from zlib import crc32

import lmdb
import pytest
from headwater_protocol.errors import StorageError
from headwater_storage.lmdb_store import LOCK_FILE, READERS_MAX, LmdbStore
from headwater_storage.proposal import CommitTs
from headwater_storage.store import EMPTY_STATE, AppliedBatch, State
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


def test_a_batch_is_applied_whole_with_its_state(store: LmdbStore) -> None:
    with store.snapshot() as before:
        store.apply(AppliedBatch({b"b": b"2", b"a": b"1"}, {b"e": b""}), state(1))
        store.apply(
            AppliedBatch({b"b": None, b"missing": None, b"c": b"3"}, {b"e": None, b"f": b"rest"}), state(2)
        )
        assert before.state == EMPTY_STATE
        assert list(before.documents(*ALL)) == []
        assert before.get_document(b"a") is None
    with store.snapshot() as after:
        assert after.state == state(2)
        assert after.ts == 20
        assert list(after.documents(*ALL)) == [(b"a", b"1"), (b"c", b"3")]
        assert list(after.entries(*ALL)) == [(b"f", b"rest")]
        assert after.get_document(b"b") is None
        assert after.get_document(b"c") == b"3"
        assert (after.get_entry(b"f"), after.get_entry(b"e")) == (b"rest", None)
    store.close()


def test_a_batch_that_fails_leaves_nothing(store: LmdbStore) -> None:
    store.apply(AppliedBatch({b"a": b"1"}), state(1))
    with pytest.raises(lmdb.BadValsizeError):
        store.apply(AppliedBatch({b"b": b"2"}, {b"k" * 600: b""}), state(2))
    with store.snapshot() as snapshot:
        assert (snapshot.state, list(snapshot.documents(*ALL))) == (state(1), [(b"a", b"1")])
    store.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_ranges_are_half_open_and_read_both_ways(store: LmdbStore, reverse: bool) -> None:
    present = range(1, 20, 2)
    store.apply(
        AppliedBatch({key: key for key in keys(*present)}, dict.fromkeys(keys(*present), b"")), state(1)
    )
    with store.snapshot() as snapshot:
        for lo in range(22):
            for hi in range(22):
                wanted = keys(*(number for number in present if lo <= number < hi))
                if reverse:
                    wanted.reverse()
                bounds = (b"%02d" % lo, b"%02d" % hi)
                assert [key for key, _ in snapshot.documents(*bounds, reverse)] == wanted
                assert [key for key, _ in snapshot.entries(*bounds, reverse=reverse)] == wanted
    store.close()


def test_ranges_are_read_lazily_and_side_by_side(store: LmdbStore) -> None:
    store.apply(AppliedBatch({key: key for key in keys(*range(10))}), state(1))
    with store.snapshot() as snapshot:
        forward, backward = snapshot.documents(*ALL), snapshot.documents(*ALL, reverse=True)
        seen = [(next(forward)[0], next(backward)[0]) for _ in range(3)]
        assert seen == list(zip(keys(0, 1, 2), keys(9, 8, 7), strict=True))
    store.close()


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


def test_the_table_of_readers_has_all_of_its_space_from_the_start(store: LmdbStore) -> None:
    """LMDB writes to it through its map: where the file has a hole and the disk is full, that is a SIGBUS."""
    status = (store.path / LOCK_FILE).stat()
    assert status.st_blocks * 512 >= status.st_size
    assert store._environment.info()["max_readers"] == READERS_MAX


def test_used_bytes_grow_with_the_file(store: LmdbStore) -> None:
    before = store.used_bytes()
    store.apply(AppliedBatch({b"a": bytes(1_000_000)}), state(1))
    assert store.used_bytes() - before >= 1_000_000
    store.sync()
    assert (store.path / "data.mdb").stat().st_size >= store.used_bytes()
    store.close()


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
