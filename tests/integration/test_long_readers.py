"""Whoever holds a snapshot for long: the store's file grows no further than until its limit ends it."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import connect
from headwater.packing import pack
from headwater_protocol.errors import RequestError
from headwater_server.functions.limits import PoolOptions
from headwater_server.functions.pool import WorkerPool
from headwater_server.functions.roster import Roster
from headwater_server.functions.zygote_process import zygote_starter
from headwater_storage import deployment
from headwater_storage.check import check
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.committer import CommitterOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.lmdb_store import LmdbSnapshot
from headwater_storage.recovery import StorageOptions
from support.daemon import running as daemon_running
from support.memory_store import encode, insert
from support.tables import IndexOf, TableOf
from support.worker_pool import Outcomes, Told, until
from support.worker_pool import encode as pack_value

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from headwater_storage.catalog import Catalog
    from headwater_storage.store import StoreSnapshot

MIB = 1 << 20
HOT = TableOf("hot")
OPTIONS = EngineOptions(
    storage=StorageOptions(
        log=FileLogOptions(segment_bytes=MIB, first_segment_bytes=1 << 16),
        checkpoint=CheckpointOptions(log_bytes=MIB, growth_bytes=MIB // 2, interval_s=0.05),
    ),
    committer=CommitterOptions(free_bytes_min=0, wait_poll_s=0.002),
    checkpoint_poll_s=0.01,
    snapshot_limit_s=0.3,
    reader_poll_s=0.05,
)
ALLOWED_BYTES = 4 * MIB
"""Growth by what is written while nobody holds a snapshot: at most that between two checkpoints."""

WRITES_BYTES = 12 * MIB
FUNCTIONS = """
import os, signal
from headwater import QueryCtx, query

@query
def spin(ctx: QueryCtx) -> int:
    while True:
        pass

@query
def stop(ctx: QueryCtx) -> int:
    signal.raise_signal(signal.SIGSTOP)
    return 1

@query
def one(ctx: QueryCtx) -> int:
    return 1
"""


class Writer:
    """Writes a few large documents over and over."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.ids: list[str] = []
        self.written = 0

    async def prepare(self) -> None:
        for number in range(10):
            found, _ = await self.engine.transact(lambda t, n=number: insert(t, "hot", n=n))
            self.ids.append(found)
        await self.write(MIB)

    async def write(self, size: int) -> int:
        """Write that many bytes; return how much the file grew."""
        before = self.engine.store.used_bytes()
        for _ in range(size // 40_000):
            found = self.ids[self.written % len(self.ids)]
            self.written += 1
            document = encode(found, 1.0, n=self.written, text="x" * 40_000)
            await self.engine.transact(lambda t, i=found, d=document: t.put(i, d))
        return self.engine.store.used_bytes() - before


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = real_environment()
    yield environment
    environment.executor.close()


class World:
    """An engine, a worker, and a writer beside it."""

    def __init__(self, engine: Engine, pool: WorkerPool, told: Told) -> None:
        self.engine = engine
        self.pool = pool
        self.told = told
        self.writer = Writer(engine)
        self.query: asyncio.Future[Any] | None = None

    @property
    def worker(self) -> int:
        (worker,) = self.told.ready
        return worker

    @property
    def pid(self) -> int:
        return self.pool.process_ids[1]

    def call(self, name: str) -> None:
        """Begin a query."""
        self.query = asyncio.ensure_future(self.pool.query(f"functions:{name}", pack_value({})))

    async def growth(self) -> int:
        """Write until the worker has ended, if that ever happens; return how much the file grows after that."""
        async with asyncio.timeout(30):
            while not self.told.ended and self.writer.written < 400:
                await self.writer.write(80_000)
        return await self.writer.write(WRITES_BYTES)


@asynccontextmanager
async def running(
    folder: Path, environment: Environment, *, time_limit_s: float = 0.3, silence_limit_s: float = 20.0
) -> AsyncIterator[World]:
    engine = Engine.open(folder / "data", OPTIONS, environment)
    package = folder / "app"
    package.mkdir()
    (package / "functions.py").write_text(FUNCTIONS)
    bundle = pack(package)
    told = Told()
    async with engine.running():
        options = PoolOptions(workers=1, time_limit_s=time_limit_s, silence_limit_s=silence_limit_s)
        start = zygote_starter({"PATH": os.environ["PATH"]})
        roster = Roster(options, folder / "data", start, time.monotonic)
        pool = WorkerPool(options, roster, mono_s=time.monotonic, next_us=engine.next_us)
        pool.start(told, Outcomes())
        told.worker_ended = _also(told.worker_ended, engine.store.reader_check)  # type: ignore[method-assign]
        engine.end_reader = pool.end_reader
        world = World(engine, pool, told)
        try:
            name = await pool.prepare(bundle)
            await engine.deploy([HOT], name, bundle)
            pool.activate(name)
            await until(lambda: told.ready)
            await world.writer.prepare()
            yield world
        finally:
            await pool.close()
            if world.query is not None:
                await asyncio.wait([world.query])


def _also(first: Callable[..., None], second: Callable[[], object]) -> Callable[..., None]:
    def both(*args: Any, **named: Any) -> None:
        first(*args, **named)
        second()

    return both


async def stopped_in_a_round(world: World) -> None:
    """Stop the worker between two calls: nothing runs in it that a time limit could end."""
    world.pool.open_round(world.worker, 1)
    await world.told.rounds.get()
    os.kill(world.pid, signal.SIGSTOP)


async def test_without_a_reader_the_file_keeps_its_size(tmp_path: Path, environment: Environment) -> None:
    async with running(tmp_path, environment) as world:
        assert await world.writer.write(WRITES_BYTES) <= ALLOWED_BYTES


async def test_a_stopped_worker_that_holds_a_snapshot_is_ended(
    tmp_path: Path, environment: Environment
) -> None:
    async with running(tmp_path, environment) as world:
        await stopped_in_a_round(world)
        assert await world.growth() <= ALLOWED_BYTES
        assert len(world.told.ended) == 1
        assert world.engine.store.old_readers() == []
        await until(lambda: world.told.ready)
        world.call("one")
        assert (await world.query).content == pack_value(1)  # type: ignore[misc]


async def test_without_the_limit_of_snapshots_the_file_grows_by_all_that_is_written(
    tmp_path: Path, environment: Environment
) -> None:
    async with running(tmp_path, environment) as world:
        world.engine.end_reader = lambda process, age_s: False
        await stopped_in_a_round(world)
        assert await world.growth() > WRITES_BYTES // 2
        assert world.told.ended == []
        ((process, _),) = world.engine.store.old_readers()
        assert process == world.pid
        os.kill(world.pid, signal.SIGCONT)


@pytest.mark.parametrize("name", ["spin", "stop"])
async def test_a_call_ends_with_its_time_limit_and_its_snapshot_with_it(
    tmp_path: Path, environment: Environment, name: str
) -> None:
    async with running(tmp_path, environment) as world:
        world.engine.end_reader = lambda process, age_s: False
        world.call(name)
        assert await world.growth() <= ALLOWED_BYTES
        assert (await world.query).failure.code == "time_limit"  # type: ignore[misc]
        assert world.engine.store.old_readers() == []


async def test_without_the_time_limit_it_does_not(tmp_path: Path, environment: Environment) -> None:
    async with running(tmp_path, environment, time_limit_s=600) as world:
        world.engine.end_reader = lambda process, age_s: False
        world.call("spin")
        assert await world.growth() > WRITES_BYTES // 2


async def test_who_waits_in_a_stopped_worker_is_answered_by_another(
    tmp_path: Path, environment: Environment
) -> None:
    async with running(tmp_path, environment, silence_limit_s=0.3) as world:
        stopped = world.worker
        os.kill(world.pid, signal.SIGSTOP)
        world.pool.open_round(stopped, 1)
        world.call("one")
        assert (await world.query).content == pack_value(1)  # type: ignore[misc]
        assert [worker for worker, _ in world.told.gone] == [stopped], "its round is over"


async def test_a_stopped_worker_that_is_only_to_open_a_round_is_ended(
    tmp_path: Path, environment: Environment
) -> None:
    async with running(tmp_path, environment, silence_limit_s=0.3) as world:
        stopped = world.worker
        os.kill(world.pid, signal.SIGSTOP)
        world.pool.open_round(stopped, 1)
        await until(lambda: world.told.gone)
        assert world.told.gone[0][0] == stopped


async def test_without_the_limit_of_silence_they_wait_for_ever(
    tmp_path: Path, environment: Environment
) -> None:
    async with running(tmp_path, environment, silence_limit_s=600) as world:
        os.kill(world.pid, signal.SIGSTOP)
        world.call("one")
        assert world.query is not None
        done, _ = await asyncio.wait([world.query], timeout=1.0)
        assert not done


def test_a_worker_of_the_real_daemon_that_stops_with_a_snapshot_is_replaced(tmp_path: Path) -> None:
    """It has run a live query and stops before it says so: its round is open, and no time limit counts."""
    package, obstacle = tmp_path / "app", tmp_path / "obstacle"
    package.mkdir()
    obstacle.touch()
    (package / "functions.py").write_text(
        "import signal\n"
        "from pathlib import Path\n"
        "from headwater import QueryCtx, query\n"
        "from headwater_server.worker.link import WorkerEnd\n"
        f"obstacle = Path({str(obstacle)!r})\n"
        "@query\n"
        "def once(ctx: QueryCtx) -> int:\n"
        "    if obstacle.exists():\n"
        "        WorkerEnd.flush = lambda end: signal.raise_signal(signal.SIGSTOP)\n"
        "    return 42\n"
    )
    with daemon_running(tmp_path, "--snapshot-limit-s", "1", "--workers", "1", deploy=package) as daemon:
        (before,) = daemon.worker_pids()

        async def look() -> None:
            async with asyncio.timeout(30), connect(daemon.url) as client:
                first = asyncio.ensure_future(anext(client.subscribe("functions:once")))
                await until(lambda: state_of(before) == "T")
                obstacle.unlink()
                assert await first == 42

        asyncio.run(look())
        assert daemon.worker_pids() != [before]
        assert daemon.metric("headwater_worker_deaths_total") >= 1


def state_of(pid: int) -> str:
    """Return the kernel's letter for what a process does: T is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


class Between:
    """Lets something happen on the event loop after every so many entries that a thread reads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, every: int, action: Callable[[], Any]) -> None:
        self.times = 0
        loop, real = asyncio.get_running_loop(), LmdbSnapshot.entries

        def entries(snapshot: LmdbSnapshot, *bounds: Any, **named: Any) -> Iterator[tuple[bytes, bytes]]:
            for count, item in enumerate(real(snapshot, *bounds, **named)):
                if count and count % every == 0 and not _on_loop():
                    self.times += 1
                    asyncio.run_coroutine_threadsafe(action(), loop).result(30)
                yield item

        monkeypatch.setattr(LmdbSnapshot, "entries", entries)


def _on_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@pytest.mark.parametrize("in_parts", [True, False])
async def test_a_deploy_that_checks_a_large_table_does_not_hold_one_snapshot(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch, in_parts: bool
) -> None:
    monkeypatch.setattr(deployment, "_CHECK_ITEMS", 200 if in_parts else 1 << 40)
    engine = Engine.open(tmp_path, OPTIONS, environment)
    writer = Writer(engine)
    async with engine.running():
        await engine.deploy([HOT, TableOf("large")], "one", b"archive")
        for first in range(0, 4_000, 500):
            numbers = range(first, first + 500)
            await engine.transact(lambda t, ns=numbers: [insert(t, "large", key=n) for n in ns])
        await writer.prepare()
        between = Between(monkeypatch, 100, lambda: writer.write(WRITES_BYTES // 20))
        before = engine.store.used_bytes()
        await engine.deploy([HOT, TableOf("large", [IndexOf("by_key", ["key"], unique=True)])], "two", b"")
        assert between.times >= 20
        grown = engine.store.used_bytes() - before
        assert (grown <= ALLOWED_BYTES) is in_parts, grown
        assert check(engine.store) == []


class TestUniqueCheckInParts:
    """Each part sees the index as it is then: that is sound, whatever is written in between."""

    WANTED = (TableOf("notes", [IndexOf("by_key", ["key"], unique=True)]),)

    @pytest.fixture
    async def engine(
        self, tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> AsyncIterator[Engine]:
        monkeypatch.setattr(deployment, "_CHECK_ITEMS", 1)
        engine = Engine.open(tmp_path, OPTIONS, environment)
        async with engine.running():
            await engine.deploy([TableOf("notes")], "one", b"archive")
            yield engine

    async def insert(self, engine: Engine, *keys: object) -> list[str]:
        return [(await engine.transact(lambda t, k=key: insert(t, "notes", key=k)))[0] for key in keys]

    def after_part(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch, number: int, action: Callable[[], Any]
    ) -> None:
        """Let something be written after a part of the check."""
        real, parts = engine.read_blocking, 0

        async def read_blocking(function: Callable[[StoreSnapshot, Catalog], Any]) -> Any:
            nonlocal parts
            result = await real(function)
            if getattr(function, "__name__", "") == "advance":
                parts += 1
                if parts == number:
                    await action()
            return result

        monkeypatch.setattr(engine, "read_blocking", read_blocking)

    @pytest.mark.parametrize("key", ["b", "b" * 900, 7, [1, "x"]])
    async def test_equal_fields_in_different_parts_are_found(self, engine: Engine, key: object) -> None:
        await self.insert(engine, "a", key, "c" * 900, key, "d")
        with pytest.raises(RequestError) as refused:
            await engine.deploy(self.WANTED, "two", b"")
        assert refused.value.code == "unique_violation"
        assert check(engine.store) == []

    async def test_null_and_long_text_that_only_begins_alike_are_none(self, engine: Engine) -> None:
        await self.insert(engine, None, "b" * 900 + "1", None, "b" * 900 + "2", None, "b" * 900 + "3")
        await engine.deploy(self.WANTED, "two", b"")
        assert check(engine.store) == []

    @pytest.mark.parametrize("looked_up", [True, False])
    async def test_one_that_has_gone_and_one_that_came_later_are_none(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch, looked_up: bool
    ) -> None:
        first, _ = await self.insert(engine, "a", "b")

        async def replace() -> None:
            await engine.transact(lambda t: t.delete(first))
            await self.insert(engine, "a")

        self.after_part(engine, monkeypatch, 1, replace)
        if looked_up:
            await engine.deploy(self.WANTED, "two", b"")
        else:
            monkeypatch.setattr(LmdbSnapshot, "get_entry", lambda *_: b"")
            with pytest.raises(RequestError):
                await engine.deploy(self.WANTED, "two", b"")
        assert check(engine.store) == []

    async def test_what_was_looked_at_cannot_come_to_have_equals(
        self, engine: Engine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        _, _, last = await self.insert(engine, "a", "b", "c")
        codes = []

        async def try_both() -> None:
            for change in (
                lambda t: t.put(last, encode(last, 1.0, key="a")),
                lambda t: insert(t, "notes", key="a"),
            ):
                with pytest.raises(RequestError) as refused:
                    await engine.transact(change)
                codes.append(refused.value.code)

        self.after_part(engine, monkeypatch, 1, try_both)
        await engine.deploy(self.WANTED, "two", b"")
        assert codes == ["unique_violation"] * 2
        assert check(engine.store) == []
