"""The store in memory shows what LMDB shows, whatever is applied and whichever snapshots stay open."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

import pytest
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.memory_store import MemoryStore
from headwater_storage.proposal import CommitTs
from headwater_storage.store import AppliedBatch, State

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.store import StoreSnapshot

KEYS = [b"%02d" % number for number in range(40)]


def batch(random: Random) -> AppliedBatch:
    def changes() -> dict[bytes, bytes | None]:
        chosen = random.sample(KEYS, random.randint(0, 12))
        return {key: random.choice([None, b"", random.randbytes(3)]) for key in chosen}

    return AppliedBatch({key: value or None for key, value in changes().items()}, changes())


def shown(snapshot: StoreSnapshot, random: Random) -> list[object]:
    lo, hi = sorted(random.sample([b"", *KEYS, b"\xff"], 2))
    key = random.choice(KEYS)
    return [
        snapshot.state,
        snapshot.ts,
        snapshot.get_document(key),
        snapshot.get_entry(key),
        *(list(snapshot.documents(lo, hi, reverse)) for reverse in (False, True)),
        *(list(snapshot.entries(lo, hi, reverse)) for reverse in (False, True)),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_it_shows_what_lmdb_shows(seed: int, tmp_path: Path) -> None:
    random = Random(seed)
    memory, lmdb = MemoryStore(), LmdbStore.open(tmp_path, map_size=1 << 24, create=True)
    pairs: list[tuple[StoreSnapshot, StoreSnapshot]] = []
    for number in range(1, 120):
        changes, state = batch(random), State(CommitTs(number), number, b"", CommitTs(0), number)
        memory.apply(changes, state)
        lmdb.apply(changes, state)
        assert memory.state == state
        if random.random() < 0.4:
            pairs.append((memory.snapshot(), lmdb.snapshot()))
        if len(pairs) > 3:
            for snapshot in pairs.pop(random.randrange(len(pairs))):
                snapshot.close()
                snapshot.close()
        for ours, theirs in pairs:
            look = random.getrandbits(32)
            assert shown(ours, Random(look)) == shown(theirs, Random(look))
    for pair in pairs:
        for snapshot in pair:
            snapshot.close()
    lmdb.close()


def test_a_store_that_nobody_looks_at_is_not_copied() -> None:
    store = MemoryStore()
    store.apply(AppliedBatch({b"a": b"1"}), State(CommitTs(1), 1, b"", CommitTs(0)))
    before = store._newest
    with store.snapshot():
        pass
    store.apply(AppliedBatch({b"a": b"2"}), State(CommitTs(2), 2, b"", CommitTs(0)))
    assert store._newest is before
