"""How fast transactions become durable: the engine alone, without workers or network.

Each transaction inserts two documents of 1 kB with two indexes each. Ours: proposals
submitted to the engine so that each batch has exactly N of them: validation, log record,
append and fdatasync, index and document puts, publish. As under load, the next batch is there
when one is published, and two are under way; with `--in-flight 1` each waits for the one before. The limit: the
same bytes appended and fdatasynced, the same finished keys and values put into a bare LMDB environment with
sync off, one batch after the other, without any code of Headwater.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import tempfile
from dataclasses import dataclass, field
from math import ceil
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
WARM_UP_BATCHES = 100


@dataclass(frozen=True)
class Index:
    """An index as the deployment wants it."""

    name: str
    fields: tuple[str, ...]
    unique: bool = False
    defaults: dict[str, bytes] = field(default_factory=dict)


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


class Load:
    """Keeps batches of one size under way, until all that were prepared are published."""

    def __init__(self, engine: Engine, batches: list[list[list[Write]]]) -> None:
        self._engine = engine
        self._batches = batches
        self._size = len(batches[0])
        self._left = len(batches)
        self.done = asyncio.Event()

    def submit(self) -> None:
        """Submit the next batch, if there is one."""
        if self._batches:
            begin = CommitTs(self._engine.published_ts)
            for writes in self._batches.pop():
                self._engine.submit(Proposal(begin, [], [], writes), None)

    def published(self, batch: PublishedBatch) -> None:
        """Follow a batch with the next."""
        if len(batch.commits) != self._size:
            raise AssertionError(f"a batch of {len(batch.commits)} instead of {self._size}")
        self._left -= 1
        if not self._left:
            self.done.set()
        self.submit()

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


async def ours(engine: Engine, writes: Writes, size: int, count: int, in_flight: int) -> float:
    """Return commits a second of the engine for so many batches of `size`; writes are made outside the clock."""
    load = Load(engine, [[writes.transaction() for _ in range(size)] for _ in range(count)])
    engine.listener = load
    loop = asyncio.get_running_loop()
    start = loop.time()
    for _ in range(in_flight):
        load.submit()
        await asyncio.sleep(0)  # the one before is sealed
    await load.done.wait()
    return size * count / (loop.time() - start)


def bare_batches(writes: Writes, size: int) -> Iterator[tuple[int, Batch]]:
    """Yield batches of the same bytes for the limit."""
    while True:
        batch = [write for _ in range(size) for write in writes.transaction()]
        documents = [(write.key, write.value or b"") for write in batch]
        entries = [(entry, b"") for write in batch for entry in write.new_entries]
        record = b"".join(key + value for key, value in documents)
        yield size, (record, documents, entries)


async def measure(folder: Path, count: int, in_flight: int) -> dict[int, slices.Paired]:
    """Measure all batch sizes."""
    environment = real_environment()
    engine = Engine.open(folder / "ours", EngineOptions(), environment)
    bare = BarePipeline(folder / "bare")
    results: dict[int, slices.Paired] = {}
    try:
        async with engine.running():
            writes = await prepare(engine)
            for size in BATCHES:
                result = slices.Paired([], [], more_is_better=True)
                batches = bare_batches(writes, size)
                rate = await ours(engine, writes, size, WARM_UP_BATCHES, in_flight)
                bare.run(batches, slices.SLICE_S / 2)
                for _ in range(count):
                    rate = await ours(engine, writes, size, ceil(rate * slices.SLICE_S / size), in_flight)
                    result.ours.append(rate)
                    result.limit.append(bare.run(batches, slices.SLICE_S))
                results[size] = result
    finally:
        bare.close()
        environment.executor.close()
    return results


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument(
        "--in-flight", type=int, choices=(1, 2), default=2, help="batches under way (default 2)"
    )
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        results = uvloop.run(measure(Path(folder), chosen.slices, chosen.in_flight))
    report = slices.Report("commit", results[MAIN].row("commits/s"))
    for size in BATCHES:
        report.further[f"batch_{size}"] = results[size].row("commits/s")
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
