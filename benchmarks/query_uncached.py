"""A query that nobody has asked before: 50 rows by an index, over WebSocket, one at a time.

Ours: from the call of `query` to its decoded result in an asyncio client beside the daemon; each call has another argument,
so it is run. The limit: the same function of the same bundle in this process, over the same store,
from encoded arguments to the encoded result, without network and processes.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from itertools import count
from typing import TYPE_CHECKING

import headwater
import msgspec
from headwater.bundle import Bundle
from headwater_storage.catalog import CatalogCache
from headwater_storage.limits import CallLimits
from headwater_storage.lmdb_store import LmdbStore
from headwater_storage.transaction import Transaction

import benchmarks.functions
from benchmarks import slices
from benchmarks.daemon import running

if TYPE_CHECKING:
    from collections.abc import Iterator

TOPICS = 40
ROWS = 100
BODY = "x" * 250
IN_FLIGHT = 16


async def one_at_a_time(client: headwater.Client, viewers: Iterator[int], seconds: float) -> list[float]:
    """Return how long each of the queries took, in ms, that fit into so many seconds."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        viewer = next(viewers)
        rows = await client.query("feed:newest_for", topic=f"topic {viewer % TOPICS}", viewer=viewer)
        taken.append((time.perf_counter() - start) * 1000)
        assert len(rows) == 50
    return taken


async def many_at_a_time(client: headwater.Client, viewers: Iterator[int], seconds: float) -> float:
    """Return how many queries a second there were with some in flight."""
    found = await asyncio.gather(*(one_at_a_time(client, viewers, seconds) for _ in range(IN_FLIGHT)))
    return sum(map(len, found)) / seconds


def in_process(store: LmdbStore, bundle: Bundle, viewers: Iterator[int], seconds: float) -> float:
    """Return how long such a query takes in this process, in ms."""
    taken: list[float] = []
    catalogs = CatalogCache()
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        viewer = next(viewers)
        arguments = msgspec.msgpack.encode({"topic": f"topic {viewer % TOPICS}", "viewer": viewer})
        with store.snapshot() as snapshot:
            transaction = Transaction(
                snapshot,
                catalogs.get(snapshot, snapshot.state.catalog_ts),
                CallLimits(),
                now_us=1,
                random_bytes=os.urandom,
                writable=False,
            )
            outcome = bundle.call_query("feed:newest_for", arguments, transaction)
        taken.append((time.perf_counter() - start) * 1000)
        assert outcome.result is not None
    return statistics.median(taken)


async def measure(slice_count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure calls and reads in turns."""
    result = slices.Paired([], [], more_is_better=False)
    all_ms: list[float] = []
    viewers = count()
    async with running() as daemon, headwater.connect(daemon.url) as client:
        for number in range(TOPICS * ROWS):
            await client.mutation("feed:add", topic=f"topic {number % TOPICS}", body=BODY)
        store = LmdbStore.open(daemon.data / "store", readonly=True)
        bundle = Bundle.load(benchmarks.functions)
        await one_at_a_time(client, viewers, slices.SLICE_S)
        in_process(store, bundle, viewers, slices.SLICE_S)
        for _ in range(slice_count):
            ours = await one_at_a_time(client, viewers, slices.SLICE_S)
            all_ms += ours
            result.ours.append(statistics.median(ours))
            result.limit.append(in_process(store, bundle, viewers, slices.SLICE_S))
        rate = await many_at_a_time(client, viewers, 4 * slices.SLICE_S)
        store.close()
    all_ms.sort()
    further: dict[str, object] = {
        "queries": len(all_ms),
        "p99_ms": round(all_ms[len(all_ms) * 99 // 100], 2),
        f"queries_a_second_{IN_FLIGHT}_in_flight": round(rate),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    report = slices.Report("query_uncached", result.row("ms, call to result, p50"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
