"""How long from a write to its update at another client, on a machine that does nothing else.

Ours: one client writes, one at a time, after pauses; another is subscribed to what is written. The
time runs from the call of `mutation` to the moment at which the other has the new value in its hands;
both are asyncio clients in one process. The limit: one append of a sector and `fdatasync` to a file
of zeros on the same disk, just before each write, plus the 1.5 ms that the rest may take.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import headwater

from benchmarks import slices
from benchmarks.daemon import running

WRITES = 60
PAUSE_S = 0.005
ALLOWED_S = 0.0015
SECTOR_BYTES = 512
FILE_BYTES = 4 << 20


class Disk:
    """A file of zeros to append to."""

    def __init__(self, folder: Path) -> None:
        self._descriptor = os.open(folder / "zeros", os.O_RDWR | os.O_CREAT, 0o600)
        os.pwrite(self._descriptor, bytes(FILE_BYTES), 0)
        os.fsync(self._descriptor)
        self._offset = 0

    def sync_s(self) -> float:
        """Return the seconds of one durable append."""
        start = time.perf_counter()
        os.pwrite(self._descriptor, b"x" * SECTOR_BYTES, self._offset)
        os.fdatasync(self._descriptor)
        self._offset = (self._offset + SECTOR_BYTES) % FILE_BYTES
        return time.perf_counter() - start

    def close(self) -> None:
        """Close it."""
        os.close(self._descriptor)


async def measure(folder: Path, count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure writes and syncs in turns."""
    result = slices.Paired([], [], more_is_better=False)
    all_ms: list[float] = []
    disk = Disk(folder)
    async with (
        running() as daemon,
        headwater.connect(daemon.url) as writer,
        headwater.connect(daemon.url) as reader,
        reader.subscribe("feed:newest", topic="latency") as values,
    ):
        await anext(values)
        for _ in range(count + 1):
            ours, limit = [], []
            for number in range(WRITES):
                await asyncio.sleep(PAUSE_S)
                limit.append((disk.sync_s() + ALLOWED_S) * 1000)
                start = time.perf_counter()
                answer = asyncio.ensure_future(writer.mutation("feed:add", topic="latency", body=str(number)))
                await anext(values)
                ours.append((time.perf_counter() - start) * 1000)
                await answer
            result.ours.append(statistics.median(ours))
            result.limit.append(statistics.median(limit))
            all_ms += ours
    disk.close()
    del result.ours[0], result.limit[0], all_ms[:WRITES]  # to warm up
    all_ms.sort()
    further: dict[str, object] = {
        "writes": len(all_ms),
        "p99_ms": round(all_ms[len(all_ms) * 99 // 100], 2),
        "max_ms": round(all_ms[-1], 2),
        "fdatasync_p50_ms": round(statistics.median(result.limit) - ALLOWED_S * 1000, 3),
    }
    return result, further


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        result, further = asyncio.run(measure(Path(folder), chosen.slices))
    report = slices.Report("latency", result.row("ms, write to update, p50"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
