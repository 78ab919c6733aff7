"""How fast transactions become durable: the engine alone, without workers or network.

Each transaction inserts two documents of 1 kB with two indexes each. Ours: proposals
submitted to the engine so that each batch has exactly N of them: validation, log record,
append and fdatasync, index and document puts, publish. The limit: the same bytes appended
and fdatasynced, the same finished keys and values put into a bare LMDB environment with
sync off, without any code of Headwater.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import uvloop
from headwater_protocol.ids import created_us_of, make_suffix, table_prefix
from headwater_storage.catalog import FIRST_USER_TABLE
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import real_environment
from headwater_storage.keys import document_key, encode_fields, entry_key
from headwater_storage.proposal import CommitTs, Proposal, Write
from headwater_storage.stored import pack_stored

from benchmarks import slices
from benchmarks.bare import BarePipeline, Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater_protocol.errors import HeadwaterError
    from headwater_storage.committer import PublishedBatch

BATCHES = (1, 16, 64)
MAIN = 64
PADDING = 900


@dataclass(frozen=True)
class Index:
    """An index as the deployment wants it."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False


@dataclass(frozen=True)
class Table:
    """A table as the deployment wants it."""

    name: str = "events"
    shape: str = "{}"
    indexes: tuple[Index, ...] = (Index("by_topic", ("topic",)), Index("by_number", ("number",)))


class Writes:
    """Makes the writes of transactions: new documents, random topics, rising numbers."""

    def __init__(self, table: int, indexes: tuple[int, int]) -> None:
        self._table = table
        self._indexes = indexes
        self._numbers = itertools.count()
        self._suffix_start_us = 1_700_000_000_000_000

    def transaction(self) -> list[Write]:
        """Return two inserts."""
        return [self._insert(), self._insert()]

    def _insert(self) -> Write:
        number = next(self._numbers)
        suffix = make_suffix(self._suffix_start_us + number, 0, os.urandom(10))
        topic = f"topic-{os.urandom(3).hex()}"
        document = {
            "_id": table_prefix(self._table) + suffix,
            "_creationTime": created_us_of(suffix) / 1000,
            "topic": topic,
            "number": number,
            "body": os.urandom(PADDING),
        }
        raw = suffix.encode()
        entries = [
            entry_key(self._indexes[0], encode_fields([topic]), raw)[0],
            entry_key(self._indexes[1], encode_fields([number]), raw)[0],
        ]
        key = document_key(self._table, raw)
        return Write(key, pack_stored(1, msgspec.msgpack.encode(document), key), [], entries)


class Listener:
    """Wakes whoever waits for a batch."""

    def __init__(self) -> None:
        self.outstanding = 0
        self.done = asyncio.Event()

    def published(self, batch: PublishedBatch) -> None:
        """Count a batch's commits."""
        self.outstanding -= len(batch.commits)
        if self.outstanding <= 0:
            self.done.set()

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        """Nothing here may be rejected."""
        raise AssertionError(f"a proposal was rejected: {error}")


async def prepare(engine: Engine) -> Writes:
    """Make the table and return the source of its writes."""
    await engine.deploy([Table()], "benchmark", b"none")
    with engine.snapshot() as snapshot:
        catalog = engine.catalog(snapshot)
        definition = catalog.by_number[FIRST_USER_TABLE].definition
        numbers = {index.name: index.number for index in definition.indexes}
    return Writes(definition.number, (numbers["by_topic"], numbers["by_number"]))


async def ours(engine: Engine, listener: Listener, writes: Writes, size: int, seconds: float) -> float:
    """Return commits a second of the engine in batches of `size`; proposals are made outside the clock."""
    loop = asyncio.get_running_loop()
    done, spent = 0, 0.0
    while spent < seconds:
        begin = CommitTs(engine.published_ts)
        proposals = [Proposal(begin, [], [], writes.transaction()) for _ in range(size)]
        listener.outstanding = size
        listener.done.clear()
        start = loop.time()
        for proposal in proposals:
            engine.submit(proposal, None)
        await listener.done.wait()
        spent += loop.time() - start
        done += size
    return done / spent


def bare_batches(writes: Writes, size: int) -> Iterator[tuple[int, Batch]]:
    """Yield batches of the same bytes for the limit."""
    while True:
        batch = [write for _ in range(size) for write in writes.transaction()]
        documents = [(write.key, write.value or b"") for write in batch]
        entries = [(entry, b"") for write in batch for entry in write.new_entries]
        record = b"".join(key + value for key, value in documents)
        yield size, (record, documents, entries)


async def measure(folder: Path, count: int) -> dict[int, slices.Paired]:
    """Measure all batch sizes."""
    environment = real_environment()
    engine = Engine.open(folder / "ours", EngineOptions(), environment)
    listener = Listener()
    bare = BarePipeline(folder / "bare")
    results: dict[int, slices.Paired] = {}
    try:
        async with engine.running():
            writes = await prepare(engine)
            engine.listener = listener
            for size in BATCHES:
                result = slices.Paired([], [], more_is_better=True)
                batches = bare_batches(writes, size)
                await ours(engine, listener, writes, size, slices.SLICE_S / 2)
                bare.run(batches, slices.SLICE_S / 2)
                for _ in range(count):
                    result.ours.append(await ours(engine, listener, writes, size, slices.SLICE_S))
                    result.limit.append(bare.run(batches, slices.SLICE_S))
                results[size] = result
    finally:
        bare.close()
        environment.executor.close()
    return results


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        results = uvloop.run(measure(Path(folder), chosen.slices))
    report = slices.Report("commit", results[MAIN].row("commits/s"))
    for size in BATCHES:
        report.further[f"batch_{size}"] = results[size].row("commits/s")
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
