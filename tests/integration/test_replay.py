"""Replay equals live, digest for digest: at a start, in a check, and on a node that follows the log."""

from __future__ import annotations

import asyncio
import random
import threading
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from headwater_storage import deployment
from headwater_storage.apply import record_applier
from headwater_storage.check import digest
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.recovery import StorageOptions
from headwater_storage.replay import Replay
from support.memory_store import encode, insert
from support.tables import IndexOf, TableOf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_storage.committer import PublishedBatch
    from headwater_storage.log import Log, Record
    from headwater_storage.replay import AppliedStore, ApplyRecord
    from headwater_storage.transaction import Transaction

OPTIONS = EngineOptions(
    storage=StorageOptions(
        log=FileLogOptions(segment_bytes=1 << 18, first_segment_bytes=1 << 16, keep_bytes=1 << 30)
    )
)
IDLE_S = 60.0
"""Far above what a follower waits for; it ends because the log is closed."""


INDEXES = [
    IndexOf("by_a", ["a"]),
    IndexOf("by_a_n", ["a", "n"]),
    IndexOf("by_text", ["text"]),
    IndexOf("by_n", ["n"]),
]


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = real_environment()
    yield environment
    environment.executor.close()


class Live:
    """A real engine under random commits; remembers its digest after each record."""

    def __init__(self, engine: Engine, seed: int) -> None:
        self.engine = engine
        self.random = random.Random(seed)
        self.ids: list[str] = []
        self.digests: dict[int, bytes] = {}
        engine.listener = self

    def published(self, _: PublishedBatch) -> None:
        with self.engine.snapshot() as snapshot:
            number = snapshot.state.record_number
        self.digests[number] = digest(self.engine.store)

    def rejected(self, owner: Any, error: Exception) -> None:
        raise AssertionError((owner, error))

    def change(self, transaction: Transaction) -> None:
        for _ in range(self.random.choice((1, 1, 3, 20))):
            fields = {
                "a": self.random.choice((None, 1, 1.0, "x", [1, 2], self.random.randrange(9))),
                "n": self.random.randrange(1 << 40),
                "text": self.random.choice("ab") * self.random.choice((1, 500, 700)),
            }
            known = self.random.choice(self.ids) if self.ids and self.random.random() < 0.5 else None
            if known is None or transaction.get(known) is None:
                self.ids.append(insert(transaction, "t", **fields))
            elif self.random.random() < 0.3:
                transaction.delete(known)
            else:
                transaction.put(known, encode(known, 1.0, **fields))

    async def write(self, count: int) -> None:
        for _ in range(count):
            await asyncio.gather(
                *(self.engine.transact(self.change) for _ in range(self.random.choice((1, 4))))
            )

    async def deploy(self, number: int) -> None:
        tables = [TableOf("t", self.random.sample(INDEXES, self.random.randrange(1, 4)))]
        await self.engine.deploy(tables, f"bundle {number}", b"archive" * number)


class Follower(threading.Thread):
    """Another node: applies what it reads from the log to a store of its own, and compares."""

    def __init__(self, log: Log, folder: Path, apply_record: ApplyRecord) -> None:
        super().__init__()
        folder.mkdir()
        self.store = LmdbStore.open(folder, create=True)
        self.digests: dict[int, bytes] = {}
        self.error: Exception | None = None
        self._log = log
        self._apply_record = apply_record

    def run(self) -> None:
        try:
            with closing(Replay(self.store, self._apply_record, group_bytes=0)) as replay:
                for record in self._log.follow(1, idle_s=IDLE_S):
                    replay.apply(record)
                    self.digests[record.number] = digest(self.store)
        except Exception as error:
            self.error = error


async def followed(
    path: Path, environment: Environment, seed: int, apply_record: ApplyRecord, *, lives: int = 2
) -> tuple[Live, list[Follower]]:
    """Run an engine beside a follower for each of its lives, each of which begins at the first record."""
    followers = []
    live: Live | None = None
    for life in range(lives):
        engine = Engine.open(path / "data", OPTIONS, environment)
        known = ({}, []) if live is None else (live.digests, live.ids)
        live = Live(engine, seed + life)
        live.digests, live.ids = known
        follower = Follower(engine.log, path / f"follower {life}", apply_record)
        follower.start()
        followers.append(follower)
        running = asyncio.create_task(engine.run())
        for number in range(3):
            writing = asyncio.create_task(live.write(6)) if number or life else None
            await live.deploy(3 * life + number)
            if writing:
                await writing
        await live.write(6)
        engine.stop()
        await running
        engine.close(clean=life % 2 == 0)
        await asyncio.to_thread(follower.join)
        follower.store.close()
        if follower.error:
            raise follower.error
    assert live is not None
    return live, followers


@pytest.mark.parametrize("seed", range(3))
async def test_a_node_that_follows_the_log_has_the_same_database_at_each_record(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(deployment, "_CHUNK_ITEMS", 7)
    live, followers = await followed(tmp_path, environment, seed, record_applier())
    for follower in followers:
        compared = {number: found for number, found in live.digests.items() if number in follower.digests}
        assert len(compared) > 30
        assert {number: follower.digests[number] for number in compared} == compared
    assert set(live.digests) <= set(followers[-1].digests)


@pytest.mark.parametrize("seed", range(2))
async def test_a_replay_in_groups_of_any_size_ends_at_the_same_database(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(deployment, "_CHUNK_ITEMS", 7)
    live, _ = await followed(tmp_path, environment, seed, record_applier(), lives=1)
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    records = list(engine.log.read(1))
    live_digest = digest(engine.store)
    engine.close()
    for group_bytes in (0, 1 << 10, 1 << 14, 1 << 30):
        folder = tmp_path / f"groups of {group_bytes}"
        folder.mkdir()
        store = LmdbStore.open(folder, create=True)
        compared = 0
        with closing(Replay(store, record_applier(), group_bytes=group_bytes)) as replay:
            for record in records:
                replay.apply(record)
                with store.snapshot() as snapshot:
                    number = snapshot.state.record_number
                if number in live.digests and random.Random(number).random() < 0.2:
                    compared += 1
                    assert digest(store) == live.digests[number]
            replay.flush()
        assert digest(store) == live_digest
        assert compared > (3 if group_bytes < 1 << 30 else -1)
        store.close()


async def test_the_comparison_finds_what_a_replay_leaves_out(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deployment, "_CHUNK_ITEMS", 7)
    apply_record = record_applier()

    def without_backfill(store: AppliedStore, record: Record) -> None:
        writes = [replace_backfill(transaction) for transaction in record.transactions]
        apply_record(store, replace(record, transactions=writes))

    def replace_backfill(transaction: Any) -> Any:
        return type(transaction)(transaction.writes, None)

    live, followers = await followed(tmp_path, environment, 1, without_backfill, lives=1)
    differing = [n for n, found in followers[0].digests.items() if live.digests.get(n, found) != found]
    assert differing
