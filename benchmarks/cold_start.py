"""How long a daemon takes from its launch on an empty folder until it is ready for clients.

Ours: from the start of the process to the first `/health` that says so, asked for every few milliseconds. The limit: the
same of a plain aiohttp server, until it says on its standard output that it listens.

Both have the bytecode of all modules from an uncounted start before, as what is installed by pip has it.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from headwater.http_client import HttpClient

from benchmarks import slices
from benchmarks.child import Child
from benchmarks.daemon import free_port, kept_bytecode

LOOK_S = 0.005
TIMEOUT_S = 30.0


async def ours() -> float:
    """Return the ms until a daemon on an empty folder is ready."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        port = free_port()
        words = ("serve", "--data", str(Path(folder) / "data"), "--port", str(port), "--tcp-port", "0")
        start = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater_server", *words], stderr=subprocess.DEVNULL
        )
        try:
            async with asyncio.timeout(TIMEOUT_S), HttpClient(f"http://127.0.0.1:{port}") as http:
                while not await http.ready():
                    await asyncio.sleep(LOOK_S)
            return (time.perf_counter() - start) * 1000
        finally:
            process.terminate()
            process.wait()


def ended_cpu_ms() -> float:
    """Return the CPU time of all processes that this one has started and that have ended, in ms."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (usage.ru_utime + usage.ru_stime) * 1000


async def plain() -> float:
    """Return the ms until the plain server is ready."""
    start = time.perf_counter()
    server = await Child.start("benchmarks.plain_answers", free_port(), 1)
    taken = (time.perf_counter() - start) * 1000
    await server.close()
    return taken


async def measure(slice_count: int) -> tuple[slices.Paired, float]:
    """Measure both in turns, after one uncounted start each: files are in the cache then."""
    result = slices.Paired([], [], more_is_better=False)
    cpu_ms: list[float] = []
    for _ in range(slice_count + 1):
        before_ms = ended_cpu_ms()
        result.ours.append(await ours())
        cpu_ms.append(ended_cpu_ms() - before_ms)
        result.limit.append(await plain())
    del result.ours[0], result.limit[0]
    return result, statistics.median(cpu_ms)


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    with kept_bytecode():
        result, cpu_ms = asyncio.run(measure(chosen.slices))
    report = slices.Report("cold_start", result.row("ms, launch to ready"))
    report.further["max_ms"] = round(max(result.ours))
    report.further["cpu_ms_with_its_end"] = round(cpu_ms)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
