"""A worker pool over a real store, without the rest of the daemon.

Nothing here fails by itself: the store is made by hand and commits are applied as they are
proposed, so whatever goes wrong is the pool's, the zygote's or a worker's doing.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import msgspec
from headwater.packing import bundle_hash, pack
from headwater_server.functions.mutations import MutationCall
from headwater_server.functions.pool import WorkerPool
from headwater_server.functions.roster import Roster
from headwater_server.functions.zygote_process import zygote_starter
from headwater_server.worker.request_row import decode_request_row
from headwater_storage.catalog import (
    ACTIVE_BUNDLE_KEY,
    REQUESTS,
    SYSTEM_SHAPE,
    TABLES,
    ActiveBundle,
    TableDefinition,
    encode_table,
)
from headwater_storage.directory import DataDirectory
from headwater_storage.keys import document_key
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.store import EMPTY_STATE, AppliedBatch
from headwater_storage.stored import pack_stored, unpack_stored

if TYPE_CHECKING:
    from headwater_protocol.errors import HeadwaterError
    from headwater_server.functions.limits import PoolOptions
    from headwater_server.worker.messages import Failure, MutationDone, QueryDone, Request, RoundOpened
    from headwater_server.worker.request_row import RequestRow
    from headwater_storage.proposal import Proposal

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


@dataclass
class Told:
    """What the pool told its listener."""

    ready: set[int] = field(default_factory=set)
    gone: list[tuple[int, str]] = field(default_factory=list)
    ended: list[int] = field(default_factory=list)
    died: list[int] = field(default_factory=list)
    rounds: asyncio.Queue[tuple[int, RoundOpened]] = field(default_factory=asyncio.Queue)
    round_queries: asyncio.Queue[tuple[int, int, int, Any]] = field(default_factory=asyncio.Queue)

    def worker_ready(self, worker: int) -> None:
        self.ready.add(worker)

    def worker_gone(self, worker: int, reason: str) -> None:
        self.ready.discard(worker)
        self.gone.append((worker, reason))

    def worker_ended(self, worker: int, *, planned: bool) -> None:
        self.ended.append(worker)
        if not planned:
            self.died.append(worker)

    def round_opened(self, worker: int, message: RoundOpened) -> None:
        self.rounds.put_nowait((worker, message))

    def round_query_done(self, worker: int, round_number: int, call: int, name: str, done: QueryDone) -> None:
        self.round_queries.put_nowait((worker, round_number, call, done))

    def round_query_killed(
        self, worker: int, round_number: int, call: int, name: str, failure: Failure
    ) -> None:
        self.round_queries.put_nowait((worker, round_number, call, failure))


class Outcomes:
    """Gives each mutation's end to its own future."""

    def ran(self, call: MutationCall, done: MutationDone) -> None:
        call.decided(call, done)  # type: ignore[arg-type]

    def killed(self, call: MutationCall, failure: Failure) -> None:
        call.decided(call, failure)  # type: ignore[arg-type]

    def refused(self, call: MutationCall, error: HeadwaterError) -> None:
        call.decided(call, error)  # type: ignore[arg-type]


class PoolWorld:
    """A data directory, a store and a pool. Use as an async context manager."""

    def __init__(self, folder: Path, options: PoolOptions) -> None:
        self.data = folder / "data"
        self.sources = folder / "sources"
        directory = DataDirectory(self.data)
        directory.store_folder.mkdir(parents=True)
        self.store = LmdbStore.open(directory.store_folder, create=True)
        self.state = EMPTY_STATE
        self.told = Told()
        self.now_us = 1_700_000_000_000_000
        environment = {
            "PATH": os.environ["PATH"],
            "SEEN_BY_USER_CODE": "yes",
        }
        self.roster = Roster(options, self.data, zygote_starter(environment), time.monotonic)
        self.pool = WorkerPool(options, self.roster, mono_s=time.monotonic, next_us=lambda: self.now_us)

    async def __aenter__(self) -> Self:
        self.pool.start(self.told, Outcomes())
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.pool.close()
        self.store.close()

    def packed(self, **modules: str) -> bytes:
        """Return a bundle `app` of these modules."""
        folder = self.sources / str(len(list(self.sources.glob("*")))) / "app"
        folder.mkdir(parents=True)
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        return pack(folder)

    async def deploy(self, **modules: str) -> str:
        """Make a bundle of these modules the active one."""
        bundle = self.packed(**modules)
        prepared = await self.pool.prepare(bundle)
        assert prepared == bundle_hash(bundle)
        self.set_active(prepared)
        self.pool.activate(prepared)
        return prepared

    def set_active(self, bundle: str) -> None:
        """Commit the row "active bundle"."""
        row = encode(ActiveBundle(bundle, 1))
        self.apply({ACTIVE_BUNDLE_KEY: pack_stored(SYSTEM_SHAPE, row, ACTIVE_BUNDLE_KEY)}, {})

    def add_table(self, definition: TableDefinition) -> None:
        """Commit a table's row."""
        key = document_key(TABLES, definition.row_suffix)
        self.apply({key: pack_stored(SYSTEM_SHAPE, encode_table(definition), key)}, {}, catalog=True)

    def commit(self, proposal: Proposal) -> None:
        """Apply a proposal as it is."""
        entries: dict[bytes, bytes | None] = {}
        for write in proposal.writes:
            entries.update(dict.fromkeys(write.old_entries))
            entries.update({entry: write.overflow.get(entry, b"") for entry in write.new_entries})
        self.apply({write.key: write.value for write in proposal.writes}, entries)

    def apply(
        self,
        documents: dict[bytes, bytes | None],
        entries: dict[bytes, bytes | None],
        *,
        catalog: bool = False,
    ) -> None:
        ts = self.state.ts + 1
        changed = {"ts": ts, "record_number": ts} | ({"catalog_ts": ts} if catalog else {})
        self.state = self.state._replace(**changed)
        self.store.apply(AppliedBatch(documents, entries), self.state)

    async def query(self, name: str, **arguments: Any) -> QueryDone:
        async with asyncio.timeout(20):
            return await self.pool.query(name, encode(arguments))

    async def value(self, name: str, **arguments: Any) -> Any:
        """Return the decoded result of a query that must succeed."""
        done = await self.query(name, **arguments)
        assert done.failure is None, done.failure
        assert done.content is not None
        return decode(done.content)

    async def failure(self, name: str, **arguments: Any) -> Failure:
        """Return the failure of a query that must fail."""
        done = await self.query(name, **arguments)
        assert done.failure is not None, done
        assert done.content is None
        return done.failure

    async def mutate(self, name: str, request: Request | None = None, **arguments: Any) -> Any:
        """Run a mutation; returns a MutationDone, a Failure when it was killed, an error when refused."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def decided(_call: MutationCall, outcome: Any) -> None:
            future.set_result(outcome)

        call = MutationCall(
            name=name,
            arguments=encode(arguments),
            identity=None,
            internal=False,
            decided=decided,
            request=request,
        )
        self.pool.run_mutation(call)
        async with asyncio.timeout(20):
            return await future

    async def some_worker(self) -> int:
        """Return a worker that takes rounds."""
        async with asyncio.timeout(20):
            while not self.told.ready:
                await asyncio.sleep(0.005)
        return min(self.told.ready)


def requests_row(done: MutationDone) -> RequestRow:
    """Return the row that a mutation proposes to remember its request by."""
    assert done.proposal is not None
    (row,) = [w for w in done.proposal.writes if w.key.startswith(document_key(REQUESTS, b""))]
    assert row.value is not None
    return decode_request_row(unpack_stored(row.value, row.key)[1])


async def until(condition: Any, seconds: float = 10.0) -> None:
    """Wait until a condition holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)


def is_alive(pid: int) -> bool:
    """Tell whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
