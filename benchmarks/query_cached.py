"""A query whose result is there, since somebody else looks at it: 50 rows, over WebSocket, one at a time.

Ours: from the call of `query` to its decoded result. The limit: a message to a plain aiohttp server, which answers it with
as many bytes, to which the client decodes the same result from msgpack.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import aiohttp
import headwater
import msgspec

from benchmarks import slices
from benchmarks.child import Child
from benchmarks.daemon import free_port, running

ROWS = 50
BODY = "x" * 250
TOPIC = "cached"
REQUEST = b"x" * 60


async def ours(client: headwater.Client, seconds: float) -> list[float]:
    """Return how long each query took, in ms."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        rows = await client.query("feed:newest", topic=TOPIC)
        taken.append((time.perf_counter() - start) * 1000)
        assert len(rows) == ROWS
    return taken


async def plain(socket: aiohttp.ClientWebSocketResponse, content: bytes, seconds: float) -> list[float]:
    """Return how long each round trip to the plain server took, in ms."""
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        await socket.send_bytes(REQUEST)
        await socket.receive_bytes()
        msgspec.msgpack.decode(content)
        taken.append((time.perf_counter() - start) * 1000)
    return taken


async def measure(slice_count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure both in turns."""
    result = slices.Paired([], [], more_is_better=False)
    all_ms: list[float] = []
    async with (
        running() as daemon,
        headwater.connect(daemon.url) as client,
        headwater.connect(daemon.url) as other,
        other.subscribe("feed:newest", topic=TOPIC) as values,
    ):
        for _ in range(ROWS):
            await client.mutation("feed:add", topic=TOPIC, body=BODY)
        while len(rows := await anext(values)) < ROWS:
            pass
        content = msgspec.msgpack.encode(rows)
        port = free_port()
        server = await Child.start("benchmarks.plain_answers", port, len(content))
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://127.0.0.1:{port}/", compress=0) as socket,
        ):
            await ours(client, slices.SLICE_S / 2)
            await plain(socket, content, slices.SLICE_S / 2)
            for _ in range(slice_count):
                taken = await ours(client, slices.SLICE_S)
                all_ms += taken
                result.ours.append(statistics.median(taken))
                result.limit.append(statistics.median(await plain(socket, content, slices.SLICE_S)))
        await server.close()
    all_ms.sort()
    return result, {
        "queries": len(all_ms),
        "p99_ms": round(all_ms[len(all_ms) * 99 // 100], 2),
        "bytes": len(content),
    }


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    report = slices.Report("query_cached", result.row("ms, call to result, p50"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
