"""Each kind of damage, done to a sound store, is found."""

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from headwater_storage.apply import apply_record
from headwater_storage.catalog import DEPLOYMENT, NUMBERS_SUFFIX, TABLES, CatalogCache, Numbers, encode_table
from headwater_storage.check import check, digest, reaches_back, replay
from headwater_storage.keys import document_key
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.log import LoggedTransaction
from headwater_storage.memory_log import MemoryLog
from headwater_storage.proposal import CommitTs
from headwater_storage.store import AppliedBatch
from headwater_storage.stored import pack_stored
from support.memory_store import MemoryStore, insert, logged, table

TABLE = table(32, "x", ("by_a", ["a"], False), ("by_u", ["u"], True))


@pytest.fixture
def log() -> MemoryLog:
    """A log of a catalog and of a few documents."""
    memory = MemoryStore()
    memory.add_table(TABLE)
    rows = {
        document_key(TABLES, b"x"): encode_table(TABLE),
        document_key(DEPLOYMENT, NUMBERS_SUFFIX): msgspec.msgpack.encode(Numbers(33, 400)),
    }
    catalog = LoggedTransaction([(key, pack_stored(0, row, key)) for key, row in rows.items()])
    transactions = [catalog]
    for i in range(4):
        writer = memory.transaction(now_us=1_700_000_000_000_000 + i)
        insert(writer, "x", a="long" * 200 if i == 3 else i, u=i)
        transactions.append(logged(writer.proposal()))
        memory.commit(writer.proposal())
    log = MemoryLog(b"l" * 16)
    log.claim(b"i" * 16, CommitTs(1), 0)
    log.append(log.encode(log.head, transactions, 0))
    return log


@pytest.fixture
def store(tmp_path: Path, log: MemoryLog) -> Iterator[LmdbStore]:
    (tmp_path / "store").mkdir()
    store = LmdbStore.open(tmp_path / "store", create=True)
    replay(log, store)
    yield store
    store.close()


def damage(
    store: LmdbStore, change: Callable[[dict[bytes, bytes | None], dict[bytes, bytes | None]], None]
) -> list[str]:
    with store.snapshot() as snapshot:
        state = snapshot.state
        documents: dict[bytes, bytes | None] = dict(
            snapshot.documents(b"\x00\x00\x00\x20", b"\x00\x00\x00\x21")
        )
        entries: dict[bytes, bytes | None] = dict(snapshot.entries(b"\x00", b"\xff"))
    change(documents, entries)
    store.apply(AppliedBatch(documents, entries), state)
    return check(store)


def test_a_sound_store(store: LmdbStore, log: MemoryLog, tmp_path: Path) -> None:
    assert check(store, log, tmp_path / "scratch") == []


def test_a_missing_entry(store: LmdbStore) -> None:
    def change(documents: dict[bytes, bytes | None], entries: dict[bytes, bytes | None]) -> None:
        entries[min(entries)] = None

    findings = damage(store, change)
    assert len(findings) == 2
    assert "no entry in index 'by_a'" in findings[0]


def test_an_entry_without_document(store: LmdbStore) -> None:
    def change(documents: dict[bytes, bytes | None], entries: dict[bytes, bytes | None]) -> None:
        entries[min(entries)[:-1] + b"!"] = b""

    assert any("5 entries for 4 documents" in finding for finding in damage(store, change))


def test_a_wrong_rest_of_a_cut_entry(store: LmdbStore) -> None:
    def change(documents: dict[bytes, bytes | None], entries: dict[bytes, bytes | None]) -> None:
        entries[next(key for key, value in entries.items() if value)] = b"else"

    assert any("no entry" in finding for finding in damage(store, change))


def test_an_entry_of_an_unknown_index(store: LmdbStore) -> None:
    def change(documents: dict[bytes, bytes | None], entries: dict[bytes, bytes | None]) -> None:
        entries[b"\x80\x00\x0f\xff" + min(entries)[4:]] = b""

    assert any("does not exist" in finding for finding in damage(store, change))


def test_a_missing_document(store: LmdbStore) -> None:
    def change(documents: dict[bytes, bytes | None], entries: dict[bytes, bytes | None]) -> None:
        documents[min(documents)] = None

    assert len(damage(store, change)) == 2


def test_a_flipped_bit(store: LmdbStore) -> None:
    def change(documents: dict[bytes, bytes | None], entries: dict[bytes, bytes | None]) -> None:
        value = documents[min(documents)]
        assert value is not None
        documents[min(documents)] = value[:-1] + bytes([value[-1] ^ 1])

    [finding] = damage(store, change)
    assert "checksum" in finding


def test_two_documents_of_one_unique_value(store: LmdbStore, log: MemoryLog) -> None:
    memory = MemoryStore()
    memory.add_table(TABLE)
    writer = memory.transaction(now_us=1_800_000_000_000_000)
    insert(writer, "x", a=9, u=2)
    log.append(log.encode(log.head, [logged(writer.proposal())], 0))
    apply_record(store, next(iter(log.read(log.head.number))), CatalogCache())
    [finding] = check(store, log)
    assert "by_u" in finding


def test_a_store_that_is_not_where_its_log_ends(store: LmdbStore, log: MemoryLog) -> None:
    log.append(log.encode(log.head, [], 0))
    [finding] = check(store, log)
    assert "the log ends at" in finding


def test_a_store_that_differs_from_its_log(store: LmdbStore, log: MemoryLog, tmp_path: Path) -> None:
    with store.snapshot() as snapshot:
        state = snapshot.state
    key = document_key(5, b"row")
    store.apply(AppliedBatch({key: pack_stored(0, b"x", key)}), state)
    assert check(store, log) == []
    assert check(store, log, tmp_path / "scratch") == ["replaying the log gives another database"]


def test_a_log_that_was_trimmed_does_not_reach_back(log: MemoryLog) -> None:
    assert reaches_back(log)
    log.trim(1)
    assert not reaches_back(log)


def test_digests_differ_with_the_state(store: LmdbStore) -> None:
    before = digest(store)
    with store.snapshot() as snapshot:
        state = snapshot.state
    store.apply(AppliedBatch(), state._replace(ts=CommitTs(state.ts + 1)))
    assert digest(store) != before
