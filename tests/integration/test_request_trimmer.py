"""What is remembered of clients that never came back goes, on a real engine under a clock of the test's own."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import pytest
from headwater_server.functions.request_trimmer import RequestTrimmer, TrimOptions
from headwater_server.observe.metrics import Metrics
from headwater_server.worker.messages import Request
from headwater_server.worker.request_row import (
    FORGOTTEN_AT_ONCE_MAX,
    Horizon,
    RequestMemory,
    RequestRow,
    Trimmed,
    decode_request_row,
    read_horizon,
)
from headwater_storage.catalog import REQUESTS
from headwater_storage.check import check
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.keys import table_range
from headwater_storage.recovery import StorageOptions
from msgspec import structs
from support.memory_store import MemoryStore
from support.storage_world import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from headwater_storage.proposal import CommitTs, Proposal
    from headwater_storage.transaction import Transaction

DAY_S = 86_400
OPTIONS = TrimOptions(retention_s=14 * DAY_S, rows_max=50, pause_s=0.0)


class Clock(FakeClock):
    """Its wall clock stands still until it is moved; its monotonic clock is the real one."""

    def __init__(self, environment: Environment) -> None:
        super().__init__()
        self.mono_s = environment.clock.mono_s  # type: ignore[method-assign]


class Watched:
    """An engine that remembers how large each commit was."""

    def __init__(self, engine: Engine) -> None:
        self.begin = engine.begin
        self.writes: list[int] = []
        self._engine = engine

    async def commit(self, proposal: Proposal) -> CommitTs:
        self.writes.append(len(proposal.writes))
        return await self._engine.commit(proposal)


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = real_environment()
    yield replace(environment, clock=Clock(environment))
    environment.executor.close()


@pytest.fixture
def clock(environment: Environment) -> Clock:
    assert isinstance(environment.clock, Clock)
    return environment.clock


@pytest.fixture
async def engine(tmp_path: Path, environment: Environment) -> AsyncIterator[Engine]:
    options = EngineOptions(
        storage=StorageOptions(
            log=FileLogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 16),
            checkpoint=CheckpointOptions(log_bytes=1 << 16, growth_bytes=1 << 20, interval_s=0.05),
        ),
        checkpoint_poll_s=0.02,
    )
    async with Engine.open(tmp_path / "data", options, environment).running() as engine:
        yield engine


def session(number: int) -> bytes:
    return number.to_bytes(16, "big")


async def decide(engine: Engine, *requests: tuple[int, int]) -> None:
    """Commit the rows of some requests (session, number) as one commit."""

    def write(transaction: Transaction) -> None:
        for of, number in requests:
            RequestMemory(transaction, Request(session(of), number, b"print")).keep(b"\xa6answer", None)

    await engine.transact(write)


def rows(engine: Engine) -> list[bytes]:
    with engine.snapshot() as snapshot:
        return [key for key, _ in snapshot.documents(*table_range(REQUESTS))]


async def test_a_pass_drops_what_is_past_its_retention_in_bounded_steps(
    engine: Engine, clock: Clock, tmp_path: Path
) -> None:
    for number in range(200):
        await decide(engine, (number, 1), (number, 2), (number, 3))
    horizon = engine.published_ts
    clock.sleep(10 * DAY_S)
    for number in range(150, 250):
        await decide(engine, (number, 7))
    watched, metrics = Watched(engine), Metrics()
    trimmer = RequestTrimmer(watched, OPTIONS, metrics)
    assert await trimmer.sweep() == Trimmed(None, kept=700, dropped=0)
    assert watched.writes == [], "nothing is written where nothing is due"
    clock.sleep(5 * DAY_S)
    assert await trimmer.sweep() == Trimmed(None, kept=100, dropped=600)
    assert max(watched.writes) <= OPTIONS.rows_max + 1
    assert len(watched.writes) >= 600 // OPTIONS.rows_max
    assert sum(watched.writes) <= 600 + len(watched.writes)
    assert len(rows(engine)) == 100
    with engine.begin(writable=False) as transaction:
        assert read_horizon(transaction) == Horizon(horizon)
    assert b"headwater_request_rows 100.0" in metrics.text()
    assert b"headwater_request_rows_dropped_total 600.0" in metrics.text()
    assert check(engine.store, engine.log, tmp_path / "scratch") == []


async def test_rows_from_before_they_had_a_time_are_kept_for_the_retention(
    engine: Engine, clock: Clock
) -> None:
    old = msgspec.msgpack.encode((b"print", b"\xa6answer"))
    await engine.transact(lambda transaction: transaction.put_row(REQUESTS, session(1) + bytes(8), old))
    trimmer = RequestTrimmer(engine, OPTIONS, Metrics())
    assert await trimmer.sweep() == Trimmed(None, kept=1, dropped=0)
    with engine.begin(writable=False) as transaction:
        stored = transaction.get_row(REQUESTS, session(1) + bytes(8))
    assert stored is not None
    row = decode_request_row(stored)
    assert clock.wall_us() <= row.decided_us < clock.wall_us() + 1_000
    dated = RequestRow(b"print", b"\xa6answer", begin_ts=engine.published_ts - 1)
    assert row == structs.replace(dated, decided_us=row.decided_us)
    clock.sleep(13 * DAY_S)
    assert await trimmer.sweep() == Trimmed(None, kept=1, dropped=0)
    clock.sleep(2 * DAY_S)
    assert await trimmer.sweep() == Trimmed(None, kept=0, dropped=1)


async def test_the_store_does_not_grow_with_clients_that_never_come_back(
    engine: Engine, clock: Clock
) -> None:
    trimmer = RequestTrimmer(engine, replace(OPTIONS, rows_max=500), Metrics())
    used_bytes = []
    for period in range(36):
        for first in range(period * 200, (period + 1) * 200, 100):
            await decide(engine, *[(client, 1) for client in range(first, first + 100)])
        clock.sleep(2 * DAY_S)
        await trimmer.sweep()
        await asyncio.sleep(0.05)  # checkpoints let pages be used again
        used_bytes.append(engine.store.used_bytes())
    assert len(rows(engine)) == 1_400
    assert used_bytes[-1] <= 1.3 * used_bytes[17], used_bytes


def test_a_session_that_goes_on_leaves_about_as_many_rows_as_it_has_in_flight() -> None:
    store, chance = MemoryStore(), random.Random(1)
    in_flight = answered = 0
    most = 0
    for number in range(1, 10_001):
        in_flight = chance.randrange(1, 30)
        answered = max(answered, number - in_flight)
        transaction = store.transaction()
        memory = RequestMemory(transaction, Request(session(1), number, b"print", answered, None))
        assert memory.answer is None
        memory.keep(b"\xc0", None)
        store.commit(transaction.proposal())
        most = max(most, len(store.document_values))
    assert most <= 30


def test_what_one_commit_drops_is_bounded_and_the_next_ones_drop_the_rest() -> None:
    store = MemoryStore()
    for number in range(1, 101):
        commit_row(store, number, 0)
    sizes = [len(commit_row(store, number, 101).writes) for number in range(101, 111)]
    assert sizes[0] == FORGOTTEN_AT_ONCE_MAX + 1
    assert len(store.document_values) == 10, "of 101 and later"


def commit_row(store: MemoryStore, number: int, forget_below: int) -> Proposal:
    transaction = store.transaction()
    request = Request(session(1), number, b"print", forget_below, None)
    RequestMemory(transaction, request).keep(b"\xc0", None)
    proposal = transaction.proposal()
    store.commit(proposal)
    return proposal
