"""What it costs the daemon to push one update: 1,000 subscribers of one list of 50, one writer.

Value: CPU time of the daemon and all its processes together for each pushed update. The
limit: CPU time of a plain aiohttp server that writes the same bytes to as many sockets. The
receivers are one process that reads raw sockets with epoll.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

import headwater

from benchmarks import slices
from benchmarks.child import Child
from benchmarks.daemon import Daemon, free_port, running
from benchmarks.processes import tree_cpu_s
from benchmarks.subscribers import Subscribers

if TYPE_CHECKING:
    from benchmarks.subscribers import Call

SUBSCRIBERS = 1_000
BODY = "x" * 250
TOPIC = "fanout"


async def ours(
    daemon: Daemon, client: headwater.Client, receivers: Subscribers, seconds: float
) -> tuple[float, float, int]:
    """Return CPU µs for each update, updates a second, and bytes of an update."""
    before, cpu_before = await receivers.count(), tree_cpu_s(daemon.pid)
    start = time.perf_counter()
    writes = 0
    while time.perf_counter() - start < seconds:
        await client.mutation("feed:add", topic=TOPIC, body=BODY)
        writes += 1
        # The next write only when all have this one: each write is an update for each subscriber.
        after = await receivers.settled(before["frames"] + writes * SUBSCRIBERS)
    spent = time.perf_counter() - start
    updates = after["frames"] - before["frames"]
    cpu_us = (tree_cpu_s(daemon.pid) - cpu_before) / updates * 1e6
    return cpu_us, updates / spent, round((after["bytes"] - before["bytes"]) / updates)


async def plain(server: Child, receivers: Subscribers, size: int, seconds: float) -> float:
    """Return CPU µs for each message of the plain server."""
    before, cpu_before = await receivers.count(), tree_cpu_s(server.pid)
    expected = before["frames"]
    start = time.perf_counter()
    while time.perf_counter() - start < seconds:
        expected += int(await server.ask(size))
        await receivers.settled(expected)
    return (tree_cpu_s(server.pid) - cpu_before) / (expected - before["frames"]) * 1e6


async def measure(count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure slices in turns."""
    result = slices.Paired([], [], more_is_better=False)
    rates: list[float] = []
    looks: list[list[Call]] = [[("feed:newest", {"topic": TOPIC})]] * SUBSCRIBERS
    async with running() as daemon, headwater.connect(daemon.url) as client:
        for _ in range(50):
            await client.mutation("feed:add", topic=TOPIC, body=BODY)
        receivers = await Subscribers.start(daemon.port, "/sync", looks)
        await receivers.settled(2 * SUBSCRIBERS)  # welcome and first value
        port = free_port()
        server = await Child.start("benchmarks.plain_fanout", port)
        plain_receivers = await Subscribers.start(port, "/", looks)
        _, _, size = await ours(daemon, client, receivers, slices.SLICE_S / 2)
        await plain(server, plain_receivers, size, slices.SLICE_S / 2)
        for _ in range(count):
            cpu_us, rate, size = await ours(daemon, client, receivers, slices.SLICE_S * 2)
            result.ours.append(cpu_us)
            rates.append(rate)
            result.limit.append(await plain(server, plain_receivers, size, slices.SLICE_S * 2))
        for closing in (receivers, plain_receivers, server):
            await closing.close()
    further: dict[str, object] = {
        "subscribers": SUBSCRIBERS,
        "bytes_an_update": size,
        "updates_a_second": round(sorted(rates)[len(rates) // 2]),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    report = slices.Report("fanout", result.row("CPU µs an update"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
