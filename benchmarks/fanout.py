"""What it costs the daemon to push one update: 1,000 subscribers of one list of 50, one writer.

Value: CPU time of the daemon and all its processes together for each pushed update. The
limit: CPU time of a plain aiohttp server that writes the same bytes to as many sockets. The
receivers are one process that reads raw sockets with epoll.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from dataclasses import dataclass
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


@dataclass
class Slice:
    """What one slice gave.

    Attributes:
        cpu_us: CPU of the daemon for each update.
        rate: Updates a second.
        size: Bytes of an update.
        last_ms: From sending each write until the last subscriber had it.
    """

    cpu_us: float
    rate: float
    size: int
    last_ms: list[float]


async def ours(
    daemon: Daemon, client: headwater.Client, receivers: Subscribers, count: int, seconds: float
) -> Slice:
    """Write for so long, each time to all subscribers."""
    before, cpu_before = await receivers.count(), tree_cpu_s(daemon.pid)
    start = time.perf_counter()
    last_ms: list[float] = []
    while time.perf_counter() - start < seconds:
        sent_s = time.monotonic()
        await client.mutation("feed:add", topic=TOPIC, body=BODY)
        # The next write only when all have this one: each write is an update for each subscriber.
        after = await receivers.settled(before["frames"] + (len(last_ms) + 1) * count)
        last_ms.append((after["last_s"] - sent_s) * 1000)
    spent = time.perf_counter() - start
    updates = after["frames"] - before["frames"]
    cpu_us = (tree_cpu_s(daemon.pid) - cpu_before) / updates * 1e6
    return Slice(cpu_us, updates / spent, round((after["bytes"] - before["bytes"]) / updates), last_ms)


async def plain(
    server: Child, receivers: Subscribers, size: int, seconds: float
) -> tuple[float, list[float]]:
    """Return CPU µs for each message of the plain server, and ms until the last had each of what it was told to send."""
    before, cpu_before = await receivers.count(), tree_cpu_s(server.pid)
    expected = before["frames"]
    start = time.perf_counter()
    last_ms: list[float] = []
    while time.perf_counter() - start < seconds:
        sent_s = time.monotonic()
        expected += int(await server.ask(size))
        last_ms.append(((await receivers.settled(expected))["last_s"] - sent_s) * 1000)
    return (tree_cpu_s(server.pid) - cpu_before) / (expected - before["frames"]) * 1e6, last_ms


async def measure(count: int, subscribers: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure slices in turns."""
    result = slices.Paired([], [], more_is_better=False)
    ours_: list[Slice] = []
    plain_ms: list[float] = []
    looks: list[list[Call]] = [[("feed:newest", {"topic": TOPIC})]] * subscribers
    async with running() as daemon, headwater.connect(daemon.url) as client:
        for _ in range(50):
            await client.mutation("feed:add", topic=TOPIC, body=BODY)
        receivers = await Subscribers.start(daemon.port, "/sync", looks)
        await receivers.settled(2 * subscribers)  # welcome and first value
        port = free_port()
        server = await Child.start("benchmarks.plain_fanout", port)
        plain_receivers = await Subscribers.start(port, "/", looks)
        size = (await ours(daemon, client, receivers, subscribers, slices.SLICE_S / 2)).size
        await plain(server, plain_receivers, size, slices.SLICE_S / 2)
        for _ in range(count):
            ours_.append(await ours(daemon, client, receivers, subscribers, slices.SLICE_S * 2))
            result.ours.append(ours_[-1].cpu_us)
            limit_us, last_ms = await plain(server, plain_receivers, size, slices.SLICE_S * 2)
            result.limit.append(limit_us)
            plain_ms += last_ms
        for closing in (receivers, plain_receivers, server):
            await closing.close()
    further: dict[str, object] = {
        "subscribers": subscribers,
        "bytes_an_update": size,
        "updates_a_second": round(statistics.median(slice_.rate for slice_ in ours_)),
        "last_has_it_after_ms": round(statistics.median(ms for slice_ in ours_ for ms in slice_.last_ms), 1),
        "plain_last_has_it_after_ms": round(statistics.median(plain_ms), 1),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument(
        "--subscribers", type=int, default=SUBSCRIBERS, help=f"clients that look (default {SUBSCRIBERS})"
    )
    chosen = parser.parse_args()
    result, further = asyncio.run(measure(chosen.slices, chosen.subscribers))
    report = slices.Report("fanout", result.row("CPU µs an update"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
