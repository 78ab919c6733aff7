"""What calls print, raise and are called, and faults of Headwater's own: no worker dies of it over and over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from headwater_server.functions.limits import PoolOptions
from headwater_server.worker.messages import Failure, Request
from support.worker_pool import PoolWorld, encode, requests_row, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CALLS = """
import gc, logging, signal, sys
from asyncio import CancelledError
from headwater import ApplicationError, MutationCtx, QueryCtx, mutation, query
from headwater_server.worker.link import FrameWriter, WorkerEnd
from headwater_server.worker.output import CallOutput
from headwater_server.worker.serve import Server

@query
def echo(ctx: QueryCtx, value: int) -> int:
    return value

@query
def surrogates(ctx: QueryCtx, how: str) -> str:
    if how == "print":
        print("file", "\\udcff")
    elif how == "log":
        logging.getLogger("mine").warning("file \\udcff")
    elif how == "result":
        return "\\udcff"
    elif how == "unprintable":
        raise Unprintable
    else:
        raise ValueError("bad file name \\udcff")
    return how

class Stop(BaseException):
    pass

@query
def interrupted(ctx: QueryCtx, how: str) -> int:
    raise {"KeyboardInterrupt": KeyboardInterrupt, "CancelledError": CancelledError, "Stop": Stop}[how]("now")

@query
def alarmed(ctx: QueryCtx, how: str) -> int:
    if how == "alarm":
        signal.alarm(1)
    elif how == "setitimer":
        signal.setitimer(signal.ITIMER_REAL, 0.001)
    else:
        signal.signal(signal.SIGALRM, lambda *_: sys.exit(3))
    return 1

class Unprintable(Exception):
    def __str__(self) -> str:
        raise KeyError("no text")

@query
def endless_error(ctx: QueryCtx) -> int:
    raise ApplicationError("x" * 20_000_000)

@query
def sabotage(ctx: QueryCtx, how: str) -> int:
    def fail(*_):
        raise MemoryError if how == "memory" else KeyError("a fault of Headwater's own")
    if how == "flush":
        WorkerEnd.flush = fail
    else:
        FrameWriter.add = fail
    return 1

@query
def longest_name(ctx: QueryCtx) -> int:
    (server,) = [item for item in gc.get_objects() if type(item) is Server]
    return max((len(name) for name in server._durations_ns), default=0)

@mutation
def unencodable(ctx: MutationCtx) -> int:
    real = CallOutput.take
    def take(self):
        CallOutput.take = real
        return [("info", "\\udcff")]
    CallOutput.take = take
    return 1
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PoolWorld]:
    async with PoolWorld(tmp_path, PoolOptions(workers=2)) as world:
        await world.deploy(calls=CALLS)
        yield world


@pytest.mark.parametrize("how", ["print", "log"])
async def test_output_that_is_no_utf_8_is_escaped(world: PoolWorld, how: str) -> None:
    for _ in range(3):
        done = await world.query("calls:surrogates", how=how)
        assert done.content == encode(how)
        assert [text for _, text in done.logs] == ["file \\udcff"]
    assert world.told.ended == []


async def test_errors_that_are_no_utf_8_are_escaped(world: PoolWorld) -> None:
    failure = await world.failure("calls:surrogates", how="raise")
    assert (failure.code, failure.message) == ("internal_error", "ValueError: bad file name \\udcff")
    assert failure.trace.endswith("ValueError: bad file name \\udcff\n")
    unprintable = await world.failure("calls:surrogates", how="unprintable")
    assert unprintable.message == "Unprintable, whose text cannot be had"
    assert (await world.failure("calls:surrogates", how="result")).code == "invalid_result"
    assert (await world.failure("calls:endless_error")).code == "too_many_bytes"
    assert world.told.ended == []


@pytest.mark.parametrize("how", ["KeyboardInterrupt", "CancelledError", "Stop"])
async def test_whatever_a_function_raises_ends_its_call_alone(world: PoolWorld, how: str) -> None:
    failure = await world.failure("calls:interrupted", how=how)
    assert (failure.code, failure.message) == ("internal_error", f"{how}: now")
    assert 'calls.py", line' in failure.trace
    assert await world.value("calls:echo", value=1) == 1
    assert world.told.ended == []


@pytest.mark.parametrize("how", ["alarm", "setitimer", "signal"])
async def test_no_call_has_a_signal_strike_the_calls_after_it(world: PoolWorld, how: str) -> None:
    failure = await world.failure("calls:alarmed", how=how)
    assert failure.code == "not_allowed_here"
    assert "asyncio.timeout" in failure.message
    assert await world.value("calls:echo", value=1) == 1
    assert world.told.ended == []


async def test_an_answer_that_cannot_be_encoded_is_an_internal_error(world: PoolWorld) -> None:
    done = await world.mutate("calls:unencodable", Request(b"session", 1, b"print"))
    assert done.failure.code == "internal_error"
    assert "UnicodeEncodeError" in done.failure.message
    assert (done.outcome, done.logs) == (None, [])
    assert requests_row(done).failure == done.failure
    assert await world.value("calls:echo", value=1) == 1
    assert world.told.ended == []


@pytest.mark.parametrize(("how", "reason"), [("memory", "memory"), ("fault", "exit code 70")])
async def test_a_worker_that_ends_while_it_answers_ends_over_that_call(
    world: PoolWorld, how: str, reason: str
) -> None:
    failure = await world.failure("calls:sabotage", how=how)
    assert failure.code == "worker_died"
    assert reason in failure.message
    assert await world.value("calls:echo", value=1) == 1
    assert len(world.told.ended) == 1


async def test_names_that_are_no_functions_are_not_kept(world: PoolWorld) -> None:
    name = "calls:" + "x" * 1_000_000
    for _ in range(2):
        failure = await world.failure(name)
        assert failure.code == "unknown_function"
        assert failure.message == f"there is no function '{name[:200]}…'"
    assert await world.value("calls:echo", value=1) == 1
    assert max(len(known) for known in world.pool._costs._by_name) < 100
    await asyncio.gather(*(world.query(name) for _ in range(4)))  # some of these in the other worker
    lengths = await asyncio.gather(*(world.value("calls:longest_name") for _ in range(4)))
    assert max(lengths) < 100


async def test_a_round_whose_worker_ends_between_calls_counts_that_against_its_oldest_query(
    world: PoolWorld,
) -> None:
    worker = await world.some_worker()
    world.pool.open_round(worker, 1)
    await world.told.rounds.get()
    world.pool.run_round_query(worker, 1, 8, "calls:sabotage", encode({"how": "flush"}), None, None)
    world.pool.run_round_query(worker, 1, 9, "calls:surrogates", encode({"how": "print"}), None, None)
    where = await world.told.round_queries.get()
    assert where[:3] == (worker, 1, 8)
    assert isinstance(where[3], Failure)
    assert where[3].code == "worker_died"
    await until(lambda: [number for number, _ in world.told.gone] == [worker])
    assert world.told.round_queries.empty()


async def test_queries_of_a_round_that_meets_another_bundle_are_dropped_and_the_worker_goes_on(
    world: PoolWorld,
) -> None:
    worker = await world.some_worker()
    prepared = await world.pool.prepare(world.packed(calls=CALLS + "\n# another one"))
    world.set_active(prepared)
    world.pool.open_round(worker, 1)
    world.pool.run_round_query(worker, 1, 8, "calls:echo", encode({"value": 1}), None, None)
    _, opened = await world.told.rounds.get()
    assert not opened.bundle_current
    await until(lambda: not world.pool._roster.workers[worker].in_flight)
    world.pool.activate(prepared)
    assert await world.value("calls:echo", value=3) == 3
    assert world.told.round_queries.empty()
    assert world.told.died == []
