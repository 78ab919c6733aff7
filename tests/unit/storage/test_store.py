"""What every store promises, whichever implements it: LMDB, and the one in memory that simulations use."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import lmdb
import pytest
from headwater_storage.checkpoint import copy_metas, restore_metas
from headwater_storage.files import RealFileSystem
from headwater_storage.lmdb_store import DATA_FILE, LmdbStore
from headwater_storage.proposal import CommitTs
from headwater_storage.store import EMPTY_STATE, AppliedBatch, State
from support.memory_files import MemoryFiles
from support.world.paged_store import PagedStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_storage.files import FileSystem
    from headwater_storage.store import Store

ALL = (b"", b"\xff" * 9)
MEMORY = Path("/memory")


def state(number: int) -> State:
    return State(CommitTs(number * 10), number, bytes([number] * 16), CommitTs(number))


def keys(*numbers: int) -> list[bytes]:
    return [b"%02d" % number for number in numbers]


class Machine:
    """A place for one store, which can be opened again."""

    def __init__(self, files: FileSystem, folder: Path, opener: Callable[..., Store]) -> None:
        self.files, self.folder, self.opener = files, folder, opener

    def open(self, *, create: bool = False) -> Store:
        return self.opener(self.folder, map_size=1 << 28, create=create, readers_max=9, sync_each_batch=False)


def memory_machine() -> Machine:
    files = MemoryFiles()
    return Machine(files, MEMORY, lambda folder, **options: PagedStore.open(files, folder, **options))


@pytest.fixture(params=["lmdb", "memory"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Machine:
    return (
        memory_machine() if request.param == "memory" else Machine(RealFileSystem(), tmp_path, LmdbStore.open)
    )


@pytest.fixture
def store(machine: Machine) -> Store:
    return machine.open(create=True)


def test_a_batch_is_applied_whole_with_its_state(store: Store) -> None:
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


def test_a_batch_that_fails_leaves_nothing(store: Store) -> None:
    store.apply(AppliedBatch({b"a": b"1"}), state(1))
    with pytest.raises(lmdb.BadValsizeError):
        store.apply(AppliedBatch({b"b": b"2"}, {b"k" * 600: b""}), state(2))
    with store.snapshot() as snapshot:
        assert (snapshot.state, list(snapshot.documents(*ALL))) == (state(1), [(b"a", b"1")])
    store.close()


@pytest.mark.parametrize("reverse", [False, True])
def test_ranges_are_half_open_and_read_both_ways(store: Store, reverse: bool) -> None:
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


def test_ranges_are_read_lazily_and_side_by_side(store: Store) -> None:
    store.apply(AppliedBatch({key: key for key in keys(*range(10))}), state(1))
    with store.snapshot() as snapshot:
        forward, backward = snapshot.documents(*ALL), snapshot.documents(*ALL, reverse=True)
        seen = [(next(forward)[0], next(backward)[0]) for _ in range(3)]
        assert seen == list(zip(keys(0, 1, 2), keys(9, 8, 7), strict=True))
    store.close()


def test_used_bytes_grow_with_the_file(machine: Machine, store: Store) -> None:
    before = store.used_bytes()
    store.apply(AppliedBatch({b"a": bytes(1_000_000)}), state(1))
    assert store.used_bytes() - before >= 1_000_000
    store.sync()
    descriptor = machine.files.open(store.path / DATA_FILE, os.O_RDONLY)
    assert machine.files.size(descriptor) >= store.used_bytes()
    machine.files.close(descriptor)
    store.close()


def test_what_was_applied_is_there_when_it_is_opened_again(machine: Machine, store: Store) -> None:
    for number in range(1, 6):
        store.apply(
            AppliedBatch({b"%d" % number: b"x" * 900 * number}, {b"e": b"%d" % number}), state(number)
        )
    store.close()
    again = machine.open()
    with again.snapshot() as snapshot:
        assert snapshot.state == state(5)
        assert [len(value) for _, value in snapshot.documents(*ALL)] == [900, 1800, 2700, 3600, 4500]
        assert list(snapshot.entries(*ALL)) == [(b"e", b"5")]
    again.close()


def test_an_open_snapshot_stays_as_it_was(store: Store) -> None:
    store.apply(AppliedBatch({b"a": b"0"}), state(1))
    snapshot = store.snapshot()
    for number in range(2, 9):
        store.apply(AppliedBatch({b"a": b"%d" % number, b"b": b"b" * 5_000}), state(number))
    assert (snapshot.state, list(snapshot.documents(*ALL))) == (state(1), [(b"a", b"0")])
    snapshot.close()
    snapshot.close()
    store.close()


def test_metas_lead_back_to_a_pinned_snapshot(machine: Machine, store: Store) -> None:
    store.apply(AppliedBatch({b"%02d" % number: b"old" * 300 for number in range(20)}), state(1))
    pin = store.snapshot()
    metas = copy_metas(machine.files, store.path, store.page_bytes)
    for number in range(2, 12):
        store.apply(
            AppliedBatch({b"%02d" % (number * 7 % 20): b"new" * 300, b"z": bytes(5_000)}), state(number)
        )
    pin.close()
    store.close()
    restore_metas(machine.files, machine.folder, metas)
    again = machine.open()
    with again.snapshot() as snapshot:
        assert snapshot.state == state(1)
        assert set(dict(snapshot.documents(*ALL)).values()) == {b"old" * 300}
    again.close()


def test_a_key_that_is_too_long_is_refused(store: Store) -> None:
    store.apply(AppliedBatch({b"k" * 511: b""}), state(1))
    with pytest.raises(lmdb.BadValsizeError):
        store.apply(AppliedBatch({b"k" * 512: b""}), state(2))
    store.close()


def test_where_there_is_no_store_none_is_opened(machine: Machine) -> None:
    with pytest.raises(lmdb.Error):
        machine.open()


class TestWhatTheOneInMemoryLoses:
    """The faults by which a simulation sees a missing pin, sync or meta page."""

    def written(self, machine: Machine, *, pinned: bool) -> bytes:
        """Return the metas of a synced snapshot that many transactions have followed."""
        store = machine.open(create=True)
        store.apply(AppliedBatch({b"%02d" % number: b"old" * 300 for number in range(20)}), state(1))
        pin = store.snapshot()
        metas = copy_metas(machine.files, store.path, store.page_bytes)
        store.sync()
        if not pinned:
            pin.close()
        for number in range(2, 20):
            store.apply(AppliedBatch({b"%02d" % (number % 20): b"new" * 300}), state(number))
        return metas

    def state_after_power_cut(self, machine: Machine, metas: bytes, seed: int) -> State | None:
        machine.files.power_cut(Random(seed))
        restore_metas(machine.files, machine.folder, metas)
        try:
            with machine.open().snapshot() as snapshot:
                return snapshot.state
        except lmdb.Error:
            return None

    @pytest.mark.parametrize("pinned", [True, False])
    def test_a_snapshot_whose_pages_are_used_again(self, pinned: bool) -> None:
        states = []
        for seed in range(20):
            machine = memory_machine()
            machine.files.make_folder(MEMORY)
            metas = self.written(machine, pinned=pinned)
            machine.files.sync_folder(MEMORY)
            states.append(self.state_after_power_cut(machine, metas, seed))
        assert (states == [state(1)] * 20) is pinned

    def test_one_that_was_never_synced(self) -> None:
        states = set()
        for seed in range(20):
            machine = memory_machine()
            store = machine.open(create=True)
            store.apply(AppliedBatch({b"a": b"1"}), state(1))
            machine.files.sync_folder(MEMORY)
            metas = copy_metas(machine.files, store.path, store.page_bytes)
            states.add(self.state_after_power_cut(machine, metas, seed))
        assert None in states

    def test_a_dead_reader_holds_its_pages_until_it_is_cleared(self) -> None:
        store = memory_machine().open(create=True)
        store.reader("worker 1").snapshot()
        sizes = []
        for number in range(1, 60):
            store.apply(AppliedBatch({b"a": b"x" * 2_000}), state(number))
            sizes.append(store.used_bytes())
            if number == 30:
                assert store.reader_check() == 0
                store.dead.add("worker 1")
                assert store.reader_check() == 1
        assert sizes[29] > sizes[9]
        assert sizes[58] <= sizes[33]
