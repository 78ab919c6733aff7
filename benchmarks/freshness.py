"""How long from a write to its update at another client while the daemon does 70 % of the writes that it can.

64 clients write, each to a topic of its own, as fast as they are answered: that rate saturates the daemon. Then they
write at 70 % of it, and 20 others, each subscribed to one of the topics, note how old each update is: from the call
of `mutation`, which is before the commit, to the moment at which the value is in their hands. All of them are
asyncio clients in one process, whose own work is in the figure. The limit is 250 ms for 99 % of the updates.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import headwater

from benchmarks import slices
from benchmarks.daemon import running

if TYPE_CHECKING:
    from headwater.client.aio import Client

WRITERS = 64
WATCHERS = 20
SHARE = 0.7
LIMIT_MS = 250.0
SATURATED_S = 3.0
SLICE_S = 2.0
UPDATES_MIN = 20


class Writers:
    """Clients that write."""

    def __init__(self, clients: list[Client]) -> None:
        self._clients = clients

    async def write(self, seconds: float, rate: float) -> float:
        """Write at a rate, or as fast as answers come if it is infinite; return the rate that was kept."""
        end_s = time.perf_counter() + seconds
        counts = await asyncio.gather(
            *[self._write(number, end_s, rate / len(self._clients)) for number in range(len(self._clients))]
        )
        return sum(counts) / seconds

    async def _write(self, number: int, end_s: float, rate: float) -> int:
        begin_s = time.perf_counter() + number / len(self._clients) / rate
        count = 0
        while (now_s := time.perf_counter()) < end_s:
            pause_s = begin_s + count / rate - now_s
            if pause_s > 0:
                await asyncio.sleep(pause_s)
            body = repr(time.perf_counter())
            await self._clients[number].mutation("feed:add", topic=f"topic {number}", body=body)
            count += 1
        return count


async def watch(client: Client, number: int, ages_ms: list[float]) -> None:
    """Note the age of each update of a topic."""
    first = True
    async for items in client.subscribe("feed:newest", topic=f"topic {number}"):
        if items and not first:
            ages_ms.append((time.perf_counter() - float(items[0]["body"])) * 1000)
        first = False


async def measure(count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Find the rate that saturates, and measure at a part of it."""
    result = slices.Paired([], [], more_is_better=False)
    ages_ms: list[float] = []
    kept: list[float] = []
    every: list[float] = []
    async with running() as daemon, AsyncExitStack() as stack:
        clients: list[Any] = [
            await stack.enter_async_context(headwater.connect(daemon.url)) for _ in range(WRITERS + WATCHERS)
        ]
        writers = Writers(clients[:WRITERS])
        watching = [
            asyncio.create_task(watch(client, number, ages_ms))
            for number, client in enumerate(clients[WRITERS:])
        ]
        await writers.write(SATURATED_S, float("inf"))
        saturated = await writers.write(SATURATED_S, float("inf"))
        for _ in range(count):
            ages_ms.clear()
            kept.append(await writers.write(SLICE_S, SHARE * saturated))
            found = sorted(ages_ms)
            if len(found) < UPDATES_MIN:
                raise RuntimeError("updates are missing")
            every += found
            result.ours.append(found[len(found) * 99 // 100])
            result.limit.append(LIMIT_MS)
        for task in watching:
            task.cancel()
        await asyncio.gather(*watching, return_exceptions=True)
    every.sort()
    further: dict[str, object] = {
        "saturated_writes_s": round(saturated),
        "writes_s": round(statistics.median(kept)),
        "updates": len(every),
        "p50_ms": round(every[len(every) // 2], 1),
        "p99_of_all_ms": round(every[len(every) * 99 // 100], 1),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    report = slices.Report("freshness", result.row("ms, write to update, p99"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
