"""Pages are read right without LMDB, sound stores are found sound, and no damage passes that LMDB's own tool sees."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import TYPE_CHECKING

import pytest
from headwater_storage.files import RealFileSystem
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.page_check import PageCheck
from headwater_storage.page_store import PageSnapshot, check_pages, newest_shown, opened
from headwater_storage.pages import Pages, metas_of
from lmdb.verify import VerifyError, verify
from support.prepared_stores import Recipe, prepare

if TYPE_CHECKING:
    from pathlib import Path

FILES = RealFileSystem()
EVERYTHING = b"", b"\xff" * 9


@pytest.fixture(scope="module")
def data_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prepared") / "data"
    prepare(path, Recipe(7, commits=50))
    return path / "store" / "data.mdb"


def findings(path: Path, budget_bytes: int | None = None) -> list[str]:
    return [str(finding) for finding in check_pages(FILES, path, path.read_bytes()[:8192], budget_bytes)]


def tree_pages(path: Path) -> list[int]:
    """Return offsets of all leaf pages."""
    with opened(FILES, path) as file:
        snapshot = PageSnapshot(Pages(file, metas_of(path.read_bytes())[0]), path)
        trees = (snapshot.document_tree, snapshot.entry_tree, snapshot.pages.meta.main)
        return [node.number * 4096 for tree in trees for node in snapshot.pages.leaves(tree)]


def test_a_sound_store_is_found_sound(data_file: Path) -> None:
    assert verify(str(data_file), subdir=False) == []
    assert findings(data_file) == []


def test_pages_give_what_lmdb_gives(data_file: Path) -> None:
    store = LmdbStore.open(data_file.parent)
    with store.snapshot() as known, opened(FILES, data_file) as file:
        read = PageSnapshot(Pages(file, metas_of(data_file.read_bytes())[0]), data_file)
        assert read.state == known.state
        assert newest_shown(FILES, data_file) == known.state.record_number
        for reverse in (False, True):
            documents = list(known.documents(*EVERYTHING, reverse))
            entries = list(known.entries(*EVERYTHING, reverse))
            assert list(read.documents(*EVERYTHING, reverse)) == documents
            assert list(read.entries(*EVERYTHING, reverse)) == entries
        keys = [key for key, _ in documents]
        random = Random(1)
        for _ in range(100):
            lo, hi = sorted(random.choice(keys)[: random.randrange(36)] for _ in range(2))
            reverse = random.random() < 0.5
            assert list(read.documents(lo, hi, reverse)) == list(known.documents(lo, hi, reverse))
            key = random.choice(keys) + random.choice((b"", b"x"))
            assert read.get_document(key) == known.get_document(key)
        for key, value in entries:
            assert read.get_entry(key) == value
    store.close()


def test_a_small_budget_leaves_the_lower_pages_out(data_file: Path) -> None:
    with opened(FILES, data_file) as file:
        pages = Pages(file, metas_of(data_file.read_bytes())[0])
        check = PageCheck(pages, data_file, 30_000)
        assert check.run() == []
        assert not check.complete
        assert pages.bytes_read < 100_000


def test_what_lmdbs_own_tool_sees_is_seen_here(data_file: Path, tmp_path: Path) -> None:
    """Flip bits at the heads of pages and in their nodes, where structure is."""
    whole = data_file.read_bytes()
    copy = tmp_path / "data.mdb"
    random = Random(3)
    found = 0
    used = tree_pages(data_file)
    for _ in range(200):
        damaged = bytearray(whole)
        page = random.choice(used)
        damaged[page + random.choice((random.randrange(40), random.randrange(4096)))] ^= (
            1 << random.randrange(8)
        )
        copy.write_bytes(damaged)
        ours = findings(copy)
        try:
            theirs = verify(str(copy), subdir=False)
        except VerifyError as error:
            theirs = [str(error)]
        assert ours or not theirs, theirs
        assert all("offset" in finding for finding in ours)
        found += bool(ours)
    assert found > 20


def test_pages_swapped_or_zeroed_are_found(data_file: Path, tmp_path: Path) -> None:
    whole = data_file.read_bytes()
    copy = tmp_path / "data.mdb"
    leaves = tree_pages(data_file)
    for place, other in pairwise(leaves):
        for new in (bytes(4096), whole[other : other + 4096]):
            copy.write_bytes(whole[:place] + new + whole[place + 4096 :])
            assert any(f"offset {place}" in finding for finding in findings(copy))
    copy.write_bytes(whole[: max(leaves)])
    assert any("cut off" in finding for finding in findings(copy))
