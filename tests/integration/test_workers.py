"""Real zygote, real worker processes, a real store; only the committer is left out."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.errors import RequestError, TransientError
from headwater_server.functions.limits import MIB, PoolOptions, WorkerLimits
from headwater_server.worker.messages import Failure, QueryDone, Request
from headwater_storage.catalog import ACTIVE_BUNDLE_KEY, TableDefinition
from headwater_storage.directory import DataDirectory
from msgspec.structs import replace as changed
from support.worker_pool import PoolWorld, decode, is_alive, requests_row, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIMIT_S = 0.5
ONE = Request(b"session", 1, b"print")
OPTIONS = PoolOptions(workers=2, time_limit_s=LIMIT_S, worker=WorkerLimits(memory_limit_bytes=256 * MIB))

CALLS = """
import ctypes, logging, os, socket, subprocess, sys, threading, time
from headwater import ApplicationError, QueryCtx, mutation, query, MutationCtx

@query
def echo(ctx: QueryCtx, value: int) -> int:
    return value

@query
def size(ctx: QueryCtx, text: str) -> int:
    return len(text)

@query
def letters(ctx: QueryCtx, count: int) -> str:
    return "x" * count

@query
def forever(ctx: QueryCtx) -> int:
    while True:
        pass

@query
def nap(ctx: QueryCtx, seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()

@query
def pid(ctx: QueryCtx) -> int:
    return os.getpid()

@query
def leave(ctx: QueryCtx) -> int:
    os._exit(3)

@query
def sys_exit(ctx: QueryCtx) -> int:
    sys.exit(3)

@query
def hang_up(ctx: QueryCtx) -> int:
    os.closerange(3, 100)
    time.sleep(100)
    return 1

@query
def segfault(ctx: QueryCtx) -> int:
    ctypes.string_at(0)
    return 1

@query
def hoard(ctx: QueryCtx) -> int:
    kept = []
    while True:
        kept.append(bytearray(4 << 20))

@query
def flood(ctx: QueryCtx) -> int:
    for i in range(20000):
        print("line", i)
    print("x" * 10_000_000)
    os.write(1, b"y" * 1_000_000)
    logging.getLogger("mine").warning("not kept any more")
    return 1

@query
def say(ctx: QueryCtx) -> int:
    print("hello")
    logging.getLogger("mine").warning("careful")
    return 1

@query
def huge(ctx: QueryCtx) -> str:
    return "x" * 20_000_000

@query
def fail(ctx: QueryCtx) -> int:
    raise ApplicationError({"code": "no"})

@query
def crash(ctx: QueryCtx) -> int:
    return 1 // 0

@query
def touch(ctx: QueryCtx, how: str, path: str = "") -> int:
    if how == "write":
        open(path, "w")
    elif how == "os.open":
        os.open(path, os.O_WRONLY | os.O_CREAT)
    elif how == "socket":
        socket.create_connection(("127.0.0.1", 9))
    elif how == "process":
        subprocess.run(["true"])
    elif how == "fork":
        os.fork()
    elif how == "system":
        os.system("true")
    elif how == "thread":
        threading.Thread(target=print).start()
    elif how == "read":
        return len(open("/etc/passwd").read())
    return 0

@query
def seen(ctx: QueryCtx) -> str:
    return os.environ.get("SEEN_BY_USER_CODE", "") + os.environ.get("HEADWATER_KEY", "")

@mutation
def forever_write(ctx: MutationCtx) -> int:
    while True:
        pass
"""

NOTES = """
from headwater import ApplicationError, Id, MutationCtx, QueryCtx, Table, mutation, query

class Note(Table, name="notes"):
    text: str

@query
def all_(ctx: QueryCtx) -> list[Note]:
    return ctx.db.scan(Note).collect()

@query
def count(ctx: QueryCtx) -> int:
    return len(ctx.db.scan(Note).collect())

@mutation
def add(ctx: MutationCtx, text: str) -> Id[Note]:
    return ctx.db.insert(Note(text=text))

@mutation
def add_and_fail(ctx: MutationCtx, text: str) -> Id[Note]:
    ctx.db.scan(Note).collect()
    ctx.db.insert(Note(text=text))
    raise ApplicationError({"code": "changed my mind"})

@mutation
def look(ctx: MutationCtx) -> int:
    return len(ctx.db.scan(Note).collect())
"""


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[PoolWorld]:
    async with PoolWorld(tmp_path, OPTIONS) as world:
        await world.deploy(calls=CALLS)
        yield world


@pytest.fixture
async def patient(tmp_path: Path) -> AsyncIterator[PoolWorld]:
    """Calls may take long, so that only their deaths end them."""
    async with PoolWorld(tmp_path, replace(OPTIONS, time_limit_s=20.0)) as world:
        await world.deploy(calls=CALLS)
        yield world


@pytest.fixture
async def notes(tmp_path: Path) -> AsyncIterator[PoolWorld]:
    async with PoolWorld(tmp_path, PoolOptions(workers=1, time_limit_s=2.0)) as world:
        world.add_table(TableDefinition(32, "notes", 1, "{}"))
        await world.deploy(notes=NOTES)
        yield world


# ------------------------------------------------------------------------------- queries


async def test_a_query_returns_its_encoded_result(world: PoolWorld) -> None:
    done = await world.query("calls:echo", value=7)
    assert done.content == b"\x07"
    assert done.ts == world.state.ts
    assert ACTIVE_BUNDLE_KEY in done.points
    assert not done.identity_read
    assert await asyncio.gather(*(world.value("calls:echo", value=i) for i in range(500))) == list(range(500))


async def test_arguments_and_results_larger_than_a_socket_takes_at_once(world: PoolWorld) -> None:
    sizes = [3_000_000, 5, 1_000_000, 1, 700_000]
    assert await asyncio.gather(*(world.value("calls:size", text="x" * size) for size in sizes)) == sizes
    done = await asyncio.gather(*(world.query("calls:letters", count=size) for size in sizes))
    assert [len(decode(one.content or b"")) for one in done] == sizes


async def test_failures_are_told_by_code_and_keep_their_read_set(world: PoolWorld) -> None:
    assert (await world.failure("calls:missing")).code == "unknown_function"
    assert (await world.failure("calls:echo", value="x")).code == "invalid_arguments"
    failed = await world.query("calls:fail")
    assert failed.failure is not None
    assert failed.failure.code == "application_error"
    assert failed.failure.data is not None
    assert decode(failed.failure.data) == {"code": "no"}
    assert ACTIVE_BUNDLE_KEY in failed.points
    crashed = await world.failure("calls:crash")
    assert crashed.code == "internal_error"
    assert "ZeroDivisionError" in crashed.trace
    assert (await world.failure("calls:sys_exit")).code == "internal_error"
    assert (await world.failure("calls:huge")).code == "too_many_bytes"


async def test_output_is_kept_for_the_call_and_bounded(world: PoolWorld) -> None:
    said = await world.query("calls:say")
    assert said.logs == [("info", "hello"), ("warning", "careful")]
    flood = await world.query("calls:flood")
    assert flood.content == b"\x01"
    assert len(flood.logs) == OPTIONS.worker.log_lines_max + 1
    assert (await world.query("calls:echo", value=1)).logs == []


@pytest.mark.parametrize("how", ["write", "os.open", "socket", "process", "fork", "system", "thread"])
async def test_queries_cannot_act_on_the_world(world: PoolWorld, tmp_path: Path, how: str) -> None:
    forbidden = tmp_path / "forbidden"
    failure = await world.failure("calls:touch", how=how, path=str(forbidden))
    assert failure.code == "not_allowed_here"
    assert "action" in failure.message
    assert not forbidden.exists()
    assert await world.value("calls:touch", how="read") > 0


async def test_user_code_sees_the_environment_that_was_given(world: PoolWorld) -> None:
    assert await world.value("calls:seen") == "yes"


# ------------------------------------------------------------------------------- mutations


async def test_a_mutation_proposes_and_a_later_query_sees_it(notes: PoolWorld) -> None:
    done = await notes.mutate("notes:add", text="one")
    assert len(done.proposal.writes) == 1
    assert done.proposal.begin_ts == notes.state.ts
    assert ACTIVE_BUNDLE_KEY in done.proposal.points
    assert await notes.value("notes:count") == 0
    notes.commit(done.proposal)
    listed = await notes.query("notes:all")
    assert listed.content is not None
    assert [note["text"] for note in decode(listed.content)] == ["one"]
    assert listed.ids == [decode(done.outcome)]
    assert listed.bounds is not None
    assert len(listed.bounds) == 8
    assert len(listed.ranges) == 1


async def test_a_remembered_mutation_is_answered_once(notes: PoolWorld) -> None:
    done = await notes.mutate("notes:add", ONE, text="one")
    row = requests_row(done)
    assert (row.outcome, row.fingerprint, row.failure) == (done.outcome, b"print", None)
    assert not done.duplicate
    notes.commit(done.proposal)
    again = await notes.mutate("notes:add", ONE, text="one")
    assert (again.duplicate, again.outcome, again.proposal) == (True, done.outcome, None)
    assert again.ts == notes.state.ts
    other = await notes.mutate("notes:add", changed(ONE, fingerprint=b"other"), text="two")
    assert other.failure.code == "session_in_use"
    assert other.outcome is None
    assert other.proposal is None


async def test_a_failure_is_remembered_without_its_writes(notes: PoolWorld) -> None:
    done = await notes.mutate("notes:add_and_fail", ONE, text="one")
    assert done.failure.code == "application_error"
    assert len(done.proposal.writes) == 1
    assert done.proposal.ranges
    assert requests_row(done).failure.data == done.failure.data
    notes.commit(done.proposal)
    again = await notes.mutate("notes:add_and_fail", ONE, text="one")
    assert again.duplicate
    assert again.failure.code == "application_error"
    assert again.failure.data == done.failure.data
    assert await notes.value("notes:count") == 0
    unremembered = await notes.mutate("notes:add_and_fail", text="one")
    assert unremembered.failure.code == "application_error"
    assert unremembered.proposal is None


async def test_a_read_only_success_is_remembered(notes: PoolWorld) -> None:
    done = await notes.mutate("notes:look", ONE)
    assert len(done.proposal.writes) == 1
    assert requests_row(done).outcome == done.outcome
    assert (await notes.mutate("notes:look")).proposal is None


# ------------------------------------------------------------------------------- limits and deaths


async def test_an_endless_loop_is_ended_while_others_go_on(world: PoolWorld) -> None:
    killed = asyncio.create_task(world.query("calls:forever"))
    started = time.monotonic()
    longest = 0.0
    while not killed.done():
        before = time.monotonic()
        await asyncio.gather(*(world.value("calls:echo", value=i) for i in range(50)))
        longest = max(longest, time.monotonic() - before)
    failure = killed.result().failure
    assert failure is not None
    assert failure.code == "time_limit"
    assert LIMIT_S <= time.monotonic() - started < LIMIT_S + 1.0
    assert longest < LIMIT_S
    await until(lambda: len(world.told.ready) == 2)


async def test_a_mutation_that_is_ended_is_told(world: PoolWorld) -> None:
    outcome = await world.mutate("calls:forever_write", ONE)
    assert isinstance(outcome, Failure)
    assert outcome.code == "time_limit"
    assert "calls:forever_write" in outcome.message


async def test_many_endless_loops_do_not_stop_the_rest_for_good(world: PoolWorld) -> None:
    loops = [asyncio.create_task(world.query("calls:forever")) for _ in range(4)]
    echoes = [asyncio.create_task(world.value("calls:echo", value=i)) for i in range(100)]
    assert await asyncio.gather(*echoes) == list(range(100))
    codes = [(await loop).failure.code for loop in loops]  # type: ignore[union-attr]
    assert codes == ["time_limit"] * 4


async def test_calls_that_were_sent_behind_a_slow_one_run_elsewhere(world: PoolWorld) -> None:
    for _ in range(20):
        await world.value("calls:nap", seconds=0.0)  # now it is taken for a short one
    nap = asyncio.create_task(world.value("calls:nap", seconds=LIMIT_S * 0.8))
    pids = [asyncio.create_task(world.value("calls:pid")) for _ in range(40)]
    done, _ = await asyncio.wait([nap, *pids], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*pids)
    assert not nap.done(), "the short calls waited for the slow one"
    assert done
    assert await nap not in [pid.result() for pid in pids][20:]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("leave", "exit code 3"), ("segfault", "SIGSEGV"), ("hoard", "memory"), ("hang_up", "SIGKILL")],
)
async def test_a_death_fails_its_call_only(patient: PoolWorld, name: str, reason: str) -> None:
    world = patient
    others = [asyncio.create_task(world.value("calls:echo", value=i)) for i in range(30)]
    failing = asyncio.create_task(world.failure(f"calls:{name}"))
    others += [asyncio.create_task(world.value("calls:echo", value=i)) for i in range(30, 60)]
    failure = await failing
    assert failure.code == "worker_died"
    assert reason in failure.message
    assert await asyncio.gather(*others) == list(range(60))
    await until(lambda: len(world.told.ready) == 2)
    await until(lambda: len(world.told.ended) == 1)
    assert world.told.died == world.told.ended
    assert len(world.told.gone) == 1


async def test_a_worker_killed_from_outside_costs_nothing_but_its_running_call(world: PoolWorld) -> None:
    for pid in world.pool.process_ids[1:]:
        os.kill(pid, signal.SIGKILL)
    assert await asyncio.gather(*(world.value("calls:echo", value=i) for i in range(50))) == list(range(50))


async def test_a_zygote_that_dies_is_started_again(world: PoolWorld) -> None:
    workers = world.pool.process_ids[1:]
    os.kill(world.pool.process_ids[0], signal.SIGKILL)
    # The workers end a moment later, and a call that runs in that moment is lost. None shall run then; nor
    # may the pool notice yet, so the loop has to stand still.
    while any(is_alive(pid) for pid in workers):
        time.sleep(0.001)
    assert len(world.told.ready) == 2
    assert await world.value("calls:echo", value=1) == 1
    await until(lambda: len(world.told.ended) >= 2)
    assert await world.value("calls:echo", value=2) == 2
    await until(lambda: not any(is_alive(pid) for pid in workers))


async def test_workers_do_not_outlive_their_zygote_whatever_they_do(patient: PoolWorld) -> None:
    loops = [asyncio.create_task(patient.query("calls:forever")) for _ in range(2)]
    await asyncio.sleep(0.05)
    zygote, *workers = patient.pool.process_ids
    os.kill(zygote, signal.SIGKILL)
    for loop in loops:
        failure = (await loop).failure
        assert failure is not None
        assert failure.code == "worker_died"
    await until(lambda: not any(is_alive(pid) for pid in workers))


# ------------------------------------------------------------------------------- rounds


async def test_a_round_reads_one_snapshot_while_others_commit(notes: PoolWorld) -> None:
    worker = await notes.some_worker()
    notes.pool.open_round(worker, 5)
    opened = (await notes.told.rounds.get())[1]
    assert (opened.round, opened.ts, opened.bundle_current) == (5, notes.state.ts, True)
    notes.commit((await notes.mutate("notes:add", text="one")).proposal)
    for call in (1, 2):
        notes.pool.run_round_query(worker, 5, call, "notes:count", b"\x80", None, None)
    for call in (1, 2):
        where = await notes.told.round_queries.get()
        assert where[:3] == (worker, 5, call)
        assert isinstance(where[3], QueryDone)
        assert (where[3].content, where[3].ts) == (b"\x00", opened.ts)
    assert await notes.value("notes:count") == 1
    notes.pool.close_round(worker, 5)
    notes.pool.open_round(worker, 6)
    assert (await notes.told.rounds.get())[1].ts == notes.state.ts


async def test_a_round_whose_query_is_ended_tells_that_before_the_worker_goes(world: PoolWorld) -> None:
    worker = await world.some_worker()
    world.pool.open_round(worker, 1)
    await world.told.rounds.get()
    world.pool.run_round_query(worker, 1, 9, "calls:forever", b"\x80", None, None)
    where = await world.told.round_queries.get()
    assert where[:3] == (worker, 1, 9)
    assert isinstance(where[3], Failure)
    assert where[3].code == "time_limit"
    await until(lambda: [number for number, _ in world.told.gone] == [worker])
    world.pool.run_round_query(worker, 1, 10, "calls:echo", b"\x80", None, None)
    world.pool.close_round(worker, 1)
    assert await world.value("calls:echo", value=1) == 1


async def test_a_round_of_workers_that_are_let_go_is_lost_without_blame(notes: PoolWorld) -> None:
    worker = await notes.some_worker()
    notes.pool.open_round(worker, 1)
    await notes.told.rounds.get()
    prepared = await notes.pool.prepare(notes.packed(calls=CALLS))
    notes.pool.run_round_query(worker, 1, 9, "notes:count", b"\x80", None, None)
    notes.pool.activate(prepared)
    await until(lambda: notes.told.ended == [worker])
    assert [number for number, _ in notes.told.gone] == [worker]
    assert notes.told.round_queries.empty()
    assert notes.told.died == []


# ------------------------------------------------------------------------------- bundles


async def test_describe_returns_the_manifest_and_leaves_nothing(world: PoolWorld) -> None:
    before = sorted(path.name for path in (world.data / "bundles").iterdir())
    manifest = await world.pool.describe(world.packed(notes=NOTES))
    assert b"notes:add" in manifest
    await until(lambda: len(world.told.ended) == 1)
    assert world.told.died == []
    await until(lambda: sorted(path.name for path in (world.data / "bundles").iterdir()) == before)
    assert await world.value("calls:echo", value=1) == 1


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("import no_such_module", "no_such_module"),
        ("def broken(:", "SyntaxError"),
        ("import os; os._exit(4)", "exit code 4"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("raise SystemExit", "SystemExit"),
        ("x = [bytearray(1 << 22) for _ in range(10000)]", "memory"),
        ("while True: pass", "did not import"),
    ],
)
async def test_a_bundle_that_does_not_load_changes_nothing(tmp_path: Path, text: str, named: str) -> None:
    limit_s = (
        1.0 if named == "did not import" else 20.0
    )  # the others end by themselves, on a busy machine later
    options = PoolOptions(
        workers=1,
        start_limit_s=limit_s,
        worker=WorkerLimits(memory_limit_bytes=256 * MIB),
        restart_pause_s=0.02,
    )
    async with PoolWorld(tmp_path, options) as world:
        await world.deploy(calls=CALLS)
        for attempt in (world.pool.describe, world.pool.prepare):
            with pytest.raises(RequestError) as caught:
                await attempt(world.packed(bad=text))
            assert caught.value.code == "invalid_bundle"
            assert named in caught.value.message
        assert await world.value("calls:echo", value=1) == 1


async def test_a_switch_moves_calls_over_and_ends_the_old_workers(world: PoolWorld) -> None:
    old = set(world.told.ready)
    old_pids = world.pool.process_ids[1:]
    nap = asyncio.create_task(world.query("calls:nap", seconds=LIMIT_S / 2))
    await asyncio.sleep(0.02)
    new = CALLS.replace("return value", "return value + 1000")
    prepared = await world.pool.prepare(world.packed(calls=new))
    assert await world.value("calls:echo", value=1) == 1
    world.set_active(prepared)
    late = [asyncio.create_task(world.value("calls:echo", value=i)) for i in range(20)]
    await asyncio.sleep(0)
    world.pool.activate(prepared)
    assert await asyncio.gather(*late) == [1000 + i for i in range(20)]
    assert (await nap).failure is None
    assert not old & world.told.ready
    assert {number for number, _ in world.told.gone} == old
    await until(lambda: not any(is_alive(pid) for pid in old_pids))
    await until(lambda: len(world.told.ended) == 2)
    assert world.told.died == []
    assert await world.pool.prepare(world.packed(calls=new)) == prepared


async def test_a_prepared_bundle_can_be_let_go(world: PoolWorld) -> None:
    prepared = await world.pool.prepare(world.packed(notes=NOTES))
    assert len(world.pool.process_ids) == 5
    world.pool.discard(prepared)
    await until(lambda: len(world.pool.process_ids) == 3)
    assert not (world.data / "bundles" / prepared).exists()
    assert await world.value("calls:echo", value=1) == 1


async def test_without_a_bundle_and_after_the_end_calls_are_refused(tmp_path: Path) -> None:
    world = PoolWorld(tmp_path, OPTIONS)
    async with world:
        assert (await world.failure("calls:echo", value=1)).code == "no_bundle"
        refused = await world.mutate("calls:echo", value=1)
        assert isinstance(refused, TransientError)
        assert refused.code == "no_bundle"
        await world.deploy(calls=CALLS)
        cut = asyncio.create_task(world.query("calls:nap", seconds=10))
        await asyncio.sleep(0.05)
        pids = world.pool.process_ids
    assert (await cut).failure.code == "unavailable"  # type: ignore[union-attr]
    assert (await world.failure("calls:echo", value=1)).code == "unavailable"
    assert not any(is_alive(pid) for pid in pids)
    with DataDirectory(world.data).workers_lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


async def test_too_many_waiting_calls_are_refused(tmp_path: Path) -> None:
    options = PoolOptions(workers=1, time_limit_s=LIMIT_S, waiting_max=10)
    async with PoolWorld(tmp_path, options) as world:
        await world.deploy(calls=CALLS)
        calls = [asyncio.create_task(world.query("calls:nap", seconds=0.05)) for _ in range(30)]
        await asyncio.sleep(0)
        codes = [done.failure.code for done in await asyncio.gather(*calls) if done.failure]
        assert "overloaded" in codes
        assert len(codes) < 30


# ------------------------------------------------------------------------------- the daemon's death


DAEMON = """
import asyncio, sys, pathlib
sys.path.insert(0, sys.argv[1])
from support.worker_pool import PoolWorld, encode
from headwater_server.functions.limits import PoolOptions

async def main() -> None:
    async with PoolWorld(pathlib.Path(sys.argv[2]), PoolOptions(workers=2, time_limit_s=1000)) as world:
        await world.deploy(calls=pathlib.Path(sys.argv[3]).read_text())
        for _ in range(2):
            asyncio.create_task(world.pool.query("calls:forever", encode({})))
        await asyncio.sleep(0.1)
        print(*world.pool.process_ids, flush=True)
        await asyncio.sleep(1000)

asyncio.run(main())
"""


async def test_no_process_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "calls.py").write_text(CALLS)
    tests = os.path.dirname(os.path.dirname(__file__))
    daemon = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(DAEMON), tests, str(tmp_path), str(tmp_path / "calls.py")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert daemon.stdout is not None
        line = await asyncio.to_thread(daemon.stdout.readline)
        pids = [int(pid) for pid in line.split()]
        assert len(pids) == 3
        assert all(is_alive(pid) for pid in pids)
    finally:
        daemon.kill()
        daemon.wait()
        if daemon.stdout is not None:
            daemon.stdout.close()
    await until(lambda: not any(is_alive(pid) for pid in pids), 3.0)
    with DataDirectory(tmp_path / "data").workers_lock_file.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
