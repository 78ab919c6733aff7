"""How large the store's file becomes: up to its limit, and no further than the writes themselves need."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import OutcomeUnknown, TransientError
from headwater_storage.check import check
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.committer import CommitterOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.recovery import StorageOptions
from support.daemon import running
from support.memory_store import decode, encode, insert
from support.tables import IndexOf, TableOf

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 8 << 20
RESERVE = 2 << 20
NOTES = TableOf("notes", [IndexOf("by_name", ["name"])])
OPTIONS = EngineOptions(
    storage=StorageOptions(
        log=FileLogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 16),
        checkpoint=CheckpointOptions(log_bytes=1 << 20, growth_bytes=1 << 20, interval_s=0.05),
        map_size_bytes=LIMIT,
    ),
    committer=CommitterOptions(batch_count_max=4, free_bytes_min=RESERVE, retry_s=0.01),
    checkpoint_poll_s=0.01,
)


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = real_environment()
    yield environment
    environment.executor.close()


def with_limit(limit: int) -> EngineOptions:
    return replace(OPTIONS, storage=replace(OPTIONS.storage, map_size_bytes=limit))


async def note(engine: Engine, name: int, size: int = 40_000) -> str:
    """Insert one; return its id."""
    found, _ = await engine.transact(lambda t: insert(t, "notes", name=name, text="x" * size))
    return found


async def rewrite(engine: Engine, ids: list[str], number: int, size: int = 40_000) -> None:
    """Give one of some documents another text."""
    document = encode(ids[number % len(ids)], 1.0, name=number, text="y" * size)
    await engine.transact(lambda t: t.put(ids[number % len(ids)], document))


def names(engine: Engine) -> set[int]:
    with engine.begin(writable=False) as transaction:
        found = transaction.read_range("notes", "by_name", (), None, None, descending=False)
        return {decode(stored.document)["name"] for stored in found}


async def fill(engine: Engine) -> tuple[set[int], set[str]]:
    """Insert until every client has been refused; return what was acknowledged, and what was said to the others."""
    acknowledged: set[int] = set()
    texts: set[str] = set()

    async def client(first: int) -> None:
        for name in range(first, 10_000, 8):
            try:
                await note(engine, name)
            except TransientError as error:
                if error.code != "disk_full":
                    raise
                texts.add(error.message)
                return
            acknowledged.add(name)

    await asyncio.gather(*(client(first) for first in range(7)))
    await client(7)  # alone: there may be room for one where there was none for several
    return acknowledged, texts


async def test_at_its_largest_size_writes_are_refused_and_reads_go_on(
    tmp_path: Path, environment: Environment
) -> None:
    engine = Engine.open(tmp_path, OPTIONS, environment)
    async with engine.running():
        await engine.deploy([NOTES], "one", b"archive")
        acknowledged, texts = await fill(engine)
        assert len(acknowledged) > 50
        assert all("`store_limit_bytes`" in text for text in texts)
        assert names(engine) == acknowledged
        with pytest.raises(TransientError, match="store_limit_bytes"):
            await note(engine, -1)
        assert engine.store.used_bytes() <= LIMIT
        assert check(engine.store) == []
    same = Engine.open(tmp_path, OPTIONS, environment)
    async with same.running():
        assert names(same) == acknowledged
        with pytest.raises(TransientError, match="store_limit_bytes"):
            await note(same, -1, 10)
    larger = Engine.open(tmp_path, with_limit(2 * LIMIT), environment)
    async with larger.running():
        await note(larger, -1)
        assert names(larger) == acknowledged | {-1}
        assert check(larger.store) == []


async def test_a_kill_at_its_largest_size_leaves_a_store_that_opens(
    tmp_path: Path, environment: Environment
) -> None:
    engine = Engine.open(tmp_path, OPTIONS, environment)
    task = asyncio.create_task(engine.run())
    await engine.deploy([NOTES], "one", b"archive")
    acknowledged, _ = await fill(engine)
    engine.stop()
    await task
    engine.close(clean=False)
    again = Engine.open(tmp_path, OPTIONS, environment)
    async with again.running():
        assert names(again) == acknowledged
        assert check(again.store) == []


async def test_without_the_reserve_a_durable_batch_waits_for_a_larger_limit(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the reserve is for: without it a batch gets into the log that the store cannot take."""
    engine = Engine.open(tmp_path, OPTIONS, environment)
    task = asyncio.create_task(engine.run())
    await engine.deploy([NOTES], "one", b"archive")
    monkeypatch.setattr(LmdbStore, "has_room", lambda *_: True)
    filling = asyncio.create_task(fill(engine))
    await asyncio.wait([filling], timeout=1.5)
    assert not filling.done(), "those of the batch that is held have no answer"
    seen = names(engine)
    with pytest.raises(TransientError, match="store_limit_bytes"):
        await note(engine, -1, 10)
    engine.stop()
    with pytest.raises(TransientError, match="store_limit_bytes"):
        await task
    with pytest.raises(OutcomeUnknown):
        await filling
    engine.close(clean=False)
    larger = Engine.open(tmp_path, with_limit(2 * LIMIT), environment)
    async with larger.running():
        assert names(larger) > seen, "what was durable is applied once there is room"
        assert check(larger.store) == []


async def overwrites_after_a_long_reader(engine: Engine) -> None:
    """Fill the file up to its limit by a snapshot that keeps what was overwritten; release it and go on."""
    await engine.deploy([NOTES], "one", b"archive")
    ids = [await note(engine, name) for name in range(20)]
    snapshot = engine.snapshot()
    writes = asyncio.create_task(_rewrites(engine, ids, 200))
    while engine.store.used_bytes() < LIMIT - RESERVE and not writes.done():
        await asyncio.sleep(0.005)
    assert not writes.done()
    await asyncio.wait([writes], timeout=0.3)
    snapshot.close()
    del snapshot
    await writes
    for number in range(200):
        await rewrite(engine, ids, number)
    assert engine.store.used_bytes() <= LIMIT
    assert check(engine.store) == []


async def _rewrites(engine: Engine, ids: list[str], count: int) -> None:
    done = 0
    while done < count:
        try:
            await rewrite(engine, ids, done)
        except TransientError as error:
            if error.code != "disk_full":
                raise
            await asyncio.sleep(0.01)
        else:
            done += 1


async def test_free_pages_count_as_room_and_a_held_batch_goes_on_without_a_restart(
    tmp_path: Path, environment: Environment
) -> None:
    engine = Engine.open(tmp_path, OPTIONS, environment)
    async with engine.running():
        await overwrites_after_a_long_reader(engine)


async def test_they_would_be_lost_if_only_the_end_of_the_file_counted(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    def everything(store: Any) -> int:
        return store.used_bytes() // store.page_bytes  # type: ignore[no-any-return]

    monkeypatch.setattr(LmdbStore, "_pages_in_use", everything)
    engine = Engine.open(tmp_path, OPTIONS, environment)
    async with engine.running():
        with pytest.raises((TransientError, TimeoutError)):
            async with asyncio.timeout(1.5):
                await overwrites_after_a_long_reader(engine)


def mapped_bytes(pid: int) -> int:
    """Return how much address space a process has reserved for the store."""
    rows = [row.split() for row in Path(f"/proc/{pid}/maps").read_text().splitlines()]
    ranges = [row[0].split("-") for row in rows if row[-1].endswith("/data.mdb")]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def test_the_real_daemon_and_its_workers_keep_to_the_setting(tmp_path: Path) -> None:
    limit = 24 << 20
    options = ("--disk-reserve-bytes", str(4 << 20), "--store-limit-bytes")
    with running(tmp_path, *options, str(limit), deploy="disk") as daemon:
        assert daemon.process is not None
        for pid in (daemon.process.pid, *daemon.worker_pids()):
            assert mapped_bytes(pid) == limit
        number, answer = 0, {"status": "success"}
        while answer["status"] == "success":
            number += 1
            arguments = {"writer": 1, "number": number, "size": 900_000}
            body = {"path": "disk:append", "args": arguments, "format": "json"}
            answer = daemon.post("/api/mutation", body).json
        assert answer["errorCode"] == "disk_full"
        assert "store_limit_bytes" in answer["errorMessage"]
        assert number * 900_000 > limit // 2
        assert daemon.call("query", "disk:newest", writer=1) == number - 1
        daemon.kill()
        daemon.start()
        assert daemon.call("query", "disk:newest", writer=1) == number - 1
        assert daemon.terminate() == 0
        daemon.options = (*options, str(2 * limit))
        daemon.start()
        daemon.call("mutation", "disk:append", **arguments)
        assert daemon.call("query", "disk:newest", writer=1) == number
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
