"""Lives of the real engine on a disk that fails at a chosen call. A process with `native/faults.c` runs this.

Each life is a fork: it opens the database, commits from several tasks, one of them more than a segment holds, makes
checkpoints all the time, deploys indexes, and stops; another fork then looks, on a disk in order, at what is there.
What a life hears stands in a pipe. A life in which the disk was full and not failing has to end as if nothing had been.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import traceback
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import lmdb
from headwater_protocol.errors import (
    HeadwaterError,
    OutcomeUnknown,
    RequestError,
    StorageError,
    TransientError,
)
from headwater_storage import committer, file_log
from headwater_storage.check import check, reaches_back
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.committer import CommitterOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.files import RealFileSystem, SyncFailedError
from headwater_storage.recovery import StorageOptions

from support.disk_faults import PLANS, Faults, Plan, Tally, some
from support.memory_store import decode, insert
from support.tables import IndexOf, TableOf

STOPPED, CANNOT_START, FAILED = 0, 1, 4
LIFE_LIMIT_S = 60.0
WRITERS = 3
CALLS = 6
RESUME_ATTEMPTS = 200
STOP_WHILE_FULL = 0.15
BIG_ROWS = 40
BIG_TEXT = "x" * 4_000
FULL_CHECK_EVERY = 8
NEW_FOLDER_EVERY = 16
KEEP_BYTES = 1 << 20


def options(data: Path) -> EngineOptions:
    """Return how a database lies on disk: in some folders all of the log is kept, to be replayed, in others nothing.

    Where much is kept a start syncs every segment, and hardly a failing sync is met later than that.
    """
    keep_bytes = KEEP_BYTES if int(data.name) // NEW_FOLDER_EVERY % 4 == 0 else 0
    return EngineOptions(
        storage=StorageOptions(
            log=FileLogOptions(segment_bytes=1 << 16, first_segment_bytes=1 << 14, keep_bytes=keep_bytes),
            checkpoint=CheckpointOptions(interval_s=0.0),
            map_size_bytes=1 << 30,
        ),
        committer=CommitterOptions(retry_s=0.005),
        checkpoint_poll_s=0.004,
        sweep_retry_s=0.01,
    )


BUNDLES = (
    TableOf("rows", [IndexOf("by_call", ["call"])]),
    TableOf("rows", [IndexOf("by_call", ["call"]), IndexOf("by_text", ["text"])]),
)


ENDING = (OutcomeUnknown, lmdb.PanicError)
"""What is heard in a process whose storage has failed."""


class Wrong(Exception):  # noqa: N818 - it is a finding
    """The promise does not hold."""


class Life:
    """One process with the engine, from its start to its exit code."""

    def __init__(self, data: Path, faults: Faults, plan: Plan, pipe: int, first: int, chance: Random) -> None:
        self._data, self._faults, self._plan, self._pipe = data, faults, plan, pipe
        self._first, self._chance = first, chance

    def _tell(self, what: str, call: int) -> None:
        os.write(self._pipe, f"{what}{call}\n".encode())

    def run(self) -> int:
        environment = real_environment()
        try:
            try:
                engine = Engine.open(self._data, options(self._data), environment)
            except (TransientError, StorageError) as error:
                if self._plan.is_full and error.code != "disk_full":
                    raise Wrong(f"on a full disk a start said {error.code}: {error.message}") from error
                return {"disk_full": CANNOT_START, "disk_failed": FAILED}[error.code]
            return asyncio.run(self._serve(engine))
        finally:
            environment.executor.close()

    async def _serve(self, engine: Engine) -> int:
        running = asyncio.create_task(engine.run())
        work = asyncio.gather(
            self._deploy(engine),
            *[
                self._write(engine, range(self._first + i, self._first + CALLS, WRITERS))
                for i in range(WRITERS)
            ],
        )
        room = asyncio.create_task(self._give_room_later(engine, running))
        await asyncio.wait((work, running), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            await work
            if self._faults.full and self._chance.random() < STOP_WHILE_FULL:
                room.cancel()
            elif self._faults.fired and self._plan.is_full:
                await room
                await self._prove_resumed(engine)
            engine.stop()
            await asyncio.wait([running])
        room.cancel()
        if running.exception() is not None:
            work.cancel()
            with suppress(BaseException):
                await work
            engine.close(clean=False)
            if isinstance(running.exception(), StorageError):
                sys.stderr.write(f"failed: {running.exception()}\n")
                return FAILED
            if self._faults.full and isinstance(running.exception(), TransientError):
                return STOPPED  # what is durable waits for the next start
            raise running.exception()  # type: ignore[misc]
        try:
            engine.close(clean=self._chance.random() < 0.7)
        except StorageError:
            return FAILED
        return STOPPED

    async def _give_room_later(self, engine: Engine, running: asyncio.Task[None]) -> None:
        """Once the disk is full: read, be refused, and only then let there be room."""
        while not self._faults.full:
            await asyncio.sleep(0.001)
        for _ in range(self._chance.randrange(1, 4)):
            await asyncio.sleep(0.01)
            if running.done():
                return
            with suppress(RequestError, lmdb.PanicError), engine.begin(writable=False) as transaction:
                list(transaction.read_range("rows", "by_call", (), None, None, descending=False))
        self._faults.give_room()

    async def _prove_resumed(self, engine: Engine) -> None:
        """Write once more: now that there is room, it has to be taken, after a moment at most."""
        for _ in range(RESUME_ATTEMPTS):
            if await self._commit(engine, self._first + CALLS) is not False:
                return
        raise Wrong("there is room again, and writes are still refused")

    async def _deploy(self, engine: Engine) -> None:
        table = self._chance.choice(BUNDLES)
        name = f"{len(table.indexes)}-{self._first}"
        while True:
            try:
                await engine.deploy([table], name, os.urandom(300))
                return
            except TransientError as error:
                self._heard(error)
                await asyncio.sleep(0.002)
            except ENDING:
                return

    async def _write(self, engine: Engine, calls: range) -> None:
        with suppress(lmdb.PanicError):
            while not has_table(engine):
                await asyncio.sleep(0.002)
        for call in calls:
            if await self._commit(engine, call) is None:
                return

    async def _commit(self, engine: Engine, call: int) -> bool | None:
        """Commit one call; False if it was refused, None if the storage has failed."""
        rows, text = (BIG_ROWS, BIG_TEXT) if call % CALLS == 3 else (1 + call % 3, f"text {call}")

        def work(transaction: Any) -> None:
            for row in range(rows):
                insert(transaction, "rows", call=call, row=row, rows=rows, text=text)

        try:
            await engine.transact(work)
        except ENDING:
            return None
        except TransientError as error:
            self._heard(error)
            self._tell("r", call)
            await asyncio.sleep(0.004)
            return False
        self._tell("a", call)
        return True

    def _heard(self, error: HeadwaterError) -> None:
        if error.code not in ("disk_full", "unavailable"):
            raise Wrong(f"a write was answered with {error.code}: {error.message}") from error
        if error.code == "disk_full" and str(self._data) not in error.message:
            raise Wrong(f"the refusal does not name what is full: {error.message}")


def has_table(engine: Engine) -> bool:
    """Tell whether a first deploy has made the table."""
    with engine.snapshot() as snapshot:
        return "rows" in engine.catalog(snapshot).by_name


class Lives:
    """Life after life on one database, with a record of what was said in them."""

    def __init__(self, folder: Path, faults: Faults, chance: Random) -> None:
        self._folder, self._faults, self._chance = folder, faults, chance
        self.tally = Tally()
        self._lives = 0
        self._data = folder
        self._calls = 0
        self._acknowledged: set[int] = set()
        self._refused: set[int] = set()
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._data = self._folder / str(self._lives)
        self._acknowledged, self._refused = set(), set()

    def live(self, plan: Plan, at: int) -> bool:
        """Run one life and look at what it left; return whether the chosen call was met."""
        if self._lives and self._lives % NEW_FOLDER_EVERY == 0:
            self._begin_anew()
        self._lives += 1
        first, self._calls = self._calls, self._calls + CALLS + 1
        seed = self._chance.getrandbits(32)
        self._faults.arm(plan, at)
        status, heard = fork(
            lambda pipe: Life(self._data, self._faults, plan, pipe, first, Random(seed)).run()
        )
        self._faults.disarm()
        where = f"{plan} at {at}: {self._faults.place or 'not met'}"
        self._note(heard)
        if self._faults.fired:
            self.tally.note(plan, self._faults.place)
        self._judge(plan, status, where)
        self._look(where)
        return self._faults.fired

    def _note(self, heard: list[str]) -> None:
        said = {what: {int(line[1:]) for line in heard if line[0] == what} for what in "ar"}
        self._acknowledged |= said["a"]
        self._refused |= said["r"] - said["a"]
        self.tally.acknowledged += len(said["a"])
        self.tally.refused += len(said["r"])

    def _judge(self, plan: Plan, status: int, where: str) -> None:
        """Compare how the life ended with how it should."""
        faults = self._faults
        if not faults.fired:
            allowed = {STOPPED}
        elif plan.is_full:
            # At the start it may say that it cannot, whatever found no room, and when it serves it cannot go
            # on at LMDB's meta page.
            allowed = {STOPPED, CANNOT_START, FAILED} if faults.hit_meta else {STOPPED, CANNOT_START}
            if faults.has_room:
                allowed -= {CANNOT_START}
        else:
            # Nothing depends on a segment that is being made ahead; the next append would tell.
            allowed = {STOPPED, FAILED} if "next.prepared" in faults.place else {FAILED}
        if status not in allowed:
            raise Wrong(f"{where}: the life ended with {status}, not {sorted(allowed)}")

    def _look(self, where: str) -> None:
        """Open the database on a disk in order and compare it with the record."""
        whole = self._lives % FULL_CHECK_EVERY == 0
        status, found = fork(
            lambda pipe: look(self._data, pipe, whole=whole, clean=self._chance.random() < 0.5)
        )
        if status != STOPPED:
            raise Wrong(f"{where}: it cannot be opened afterwards ({status}): {found}")
        present = {int(line[1:]) for line in found if line[0] == "p"}
        if wrong := [line for line in found if line[0] != "p"]:
            raise Wrong(f"{where}: {wrong}")
        if lost := self._acknowledged - present:
            raise Wrong(f"{where}: acknowledged and lost: {sorted(lost)}")
        if back := self._refused & present:
            raise Wrong(f"{where}: refused and there: {sorted(back)}")
        self._acknowledged |= present  # what was unknown is certain now


def look(data: Path, pipe: int, *, whole: bool, clean: bool) -> int:
    """Tell which calls are in the database, and what is wrong with it."""
    environment = real_environment()
    engine = Engine.open(data, options(data), environment)

    async def tell() -> None:
        async with engine.running():
            counts: dict[int, list[int]] = {}
            with engine.begin(writable=False) as transaction, suppress(RequestError):
                for stored in transaction.read_range("rows", "by_call", (), None, None, descending=False):
                    row = decode(stored.document)
                    counts.setdefault(int(row["call"]), []).append(int(row["rows"]))
            for call, rows in counts.items():
                os.write(pipe, f"p{call}\n".encode())
                if len(rows) != rows[0]:
                    os.write(pipe, f"w call {call} has {len(rows)} of {rows[0]} rows\n".encode())
            with tempfile.TemporaryDirectory() as scratch:
                log = engine.log if whole and reaches_back(engine.log) else None
                for finding in check(engine.store, log, Path(scratch)) if log else check(engine.store):
                    os.write(pipe, f"w {finding}\n".encode())

    asyncio.run(tell())
    environment.executor.close()
    return STOPPED


def fork(work: Any) -> tuple[int, list[str]]:
    """Run work in a fork; return its exit code and the lines that it wrote. An exception is code 70."""
    with tempfile.TemporaryFile() as lines:
        pid = os.fork()
        if pid == 0:
            status = 70
            try:
                status = work(lines.fileno())
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        deadline_s = time.monotonic() + LIFE_LIMIT_S
        while (ended := os.waitpid(pid, os.WNOHANG))[0] == 0:
            if time.monotonic() > deadline_s:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                raise Wrong("a life did not end")
            time.sleep(0.002)
        lines.seek(0)
        return os.waitstatus_to_exitcode(ended[1]), lines.read().decode().splitlines()


def sweep(lives: Lives, plans: list[Plan], points_max: int) -> None:
    """Let the first call fail, the second, the third … until none is met any more, for each kind of fault."""
    for plan in plans:
        at = 1
        while lives.live(plan, at) and at < points_max:
            at += 1


def main(words: list[str]) -> int:
    """Run what the test asks for and print what was met, or what is wrong.

    Args:
        words: Folder, control file, seed, `sample` or `sweep`, how many points (of each kind), a mutant's name.
    """
    folder, control, seed, mode, count, *mutant = words
    if mutant:
        MUTANTS[mutant[0]]()
    Path(folder).mkdir(parents=True, exist_ok=True)
    lives = Lives(Path(folder), Faults(Path(folder), Path(control)), Random(int(seed)))
    wrong = ""
    try:
        if mode == "sample":
            for plan, at in some(int(count), Random(int(seed))):
                lives.live(plan, at)
        else:
            sweep(lives, list(PLANS), int(count))
    except Wrong as error:
        wrong = str(error)
    tally = lives.tally
    print(
        json.dumps(
            {
                "wrong": wrong,
                "points": tally.points,
                "acknowledged": tally.acknowledged,
                "refused": tally.refused,
                "text": tally.text(),
            }
        )
    )
    return 0


def _answer_before_the_append_is_checked() -> None:
    async def appended(_: Any, batch: Any) -> Any:
        await asyncio.wait([batch.append])
        return batch

    _replace(committer.Committer, "_appended", appended)


def _try_a_failed_sync_again() -> None:
    sync = RealFileSystem.fdatasync

    def twice(self: RealFileSystem, descriptor: int) -> None:
        try:
            sync(self, descriptor)
        except SyncFailedError:
            sync(self, descriptor)

    _replace(RealFileSystem, "fdatasync", twice)


def _go_on_behind_a_failed_record() -> None:
    def stay(log: Any) -> None:
        log._offset += 512

    _replace(file_log.FileLog, "_end_segment", stay)


def _answer_that_the_store_has_no_room() -> None:
    async def apply(self: Any, changes: Any, state: Any) -> None:
        try:
            self._store.apply(changes, state)
        except committer.lmdb.DiskError as error:
            raise TransientError("no room", code="disk_full") from error

    finish = committer.Committer._finish

    async def refuse(self: Any, batch: Any) -> None:
        try:
            await finish(self, batch)
        except TransientError as error:
            self._refuse([commit.owner for commit in batch.commits], batch.losers, error)

    _replace(committer.Committer, "_apply", apply)
    _replace(committer.Committer, "_finish", refuse)


def _replace(owner: type, name: str, function: Any) -> None:
    setattr(owner, name, function)


MUTANTS = {
    "answers before the append is checked": _answer_before_the_append_is_checked,
    "tries a failed sync again": _try_a_failed_sync_again,
    "goes on behind a failed record": _go_on_behind_a_failed_record,
    "answers that the store has no room": _answer_that_the_store_has_no_room,
}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
