"""How many scheduled jobs a second are done when 10,000 are due at once.

Each job is a transfer between two of 1,000 accounts; a slice is from the time at which they are due to the end of the last. The
limit: the same transfers called by 64 clients over WebSocket, on the same daemon. Then, on the idle daemon, how late jobs
begin that are due one by one; and with `--waiting`, what so many jobs that wait cost the daemon in memory and at its start.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import headwater

from benchmarks import slices
from benchmarks.child import Child
from benchmarks.daemon import running
from benchmarks.processes import tree_pss_bytes

JOBS = 10_000
ACCOUNTS = 1_000
PLANNED_AT_ONCE = 500
CLIENTS, IN_FLIGHT = 64, 40
DRIFT_JOBS = 300
DRIFT_APART_MS = 100.0
BUNDLE = Path(__file__).parent / "scheduled"


async def plan(client: headwater.Client, count: int, at_ms: float, chance: random.Random) -> None:
    """Schedule so many transfers for one time."""
    for first in range(0, count, PLANNED_AT_ONCE):
        pairs = [chance.sample(range(ACCOUNTS), 2) for _ in range(min(PLANNED_AT_ONCE, count - first))]
        await client.mutation("work:plan", pairs=pairs, at_ms=at_ms)


async def run_jobs(client: headwater.Client, chance: random.Random) -> float:
    """Have the jobs run and return how many a second that were."""
    at_ms = time.time() * 1000 + 6_000
    await plan(client, JOBS, at_ms, chance)
    if time.time() * 1000 > at_ms:
        raise AssertionError("planning took longer than the jobs had to wait")
    await asyncio.sleep(max(0.0, at_ms / 1000 - time.time()))
    while await client.query("work:waiting"):
        await asyncio.sleep(0.02)
    seconds = (await client.query("work:last_end_ms") - at_ms) / 1000
    return JOBS / seconds


async def drift(client: headwater.Client, chance: random.Random) -> list[float]:
    """Return by how much jobs begin later than they are due that come one by one, ms."""
    begin_ms = time.time() * 1000 + 2_000
    for number in range(DRIFT_JOBS):
        await plan(client, 1, begin_ms + number * DRIFT_APART_MS, chance)
    await asyncio.sleep(max(0.0, (begin_ms + DRIFT_JOBS * DRIFT_APART_MS) / 1000 + 0.5 - time.time()))
    return sorted(await client.query("work:delays", limit=DRIFT_JOBS))


async def measure(count: int) -> tuple[slices.Paired, dict[str, Any]]:
    """Measure jobs and calls in turns, then single jobs."""
    result = slices.Paired([], [], more_is_better=True)
    chance = random.Random(1)
    async with running(BUNDLE) as daemon, headwater.connect(daemon.url) as client:
        await client.mutation("work:open_accounts", first=0, count=ACCOUNTS)
        load = await Child.start(
            "benchmarks.mutators", daemon.port, CLIENTS, IN_FLIGHT, 0, ACCOUNTS, 1, "work:transfer"
        )
        await load.ask("1.0 0.0")
        for _ in range(count):
            result.ours.append(await run_jobs(client, chance))
            slice_: dict[str, float] = json.loads(await load.ask("2.0 0.0"))
            result.limit.append(slice_["answers"] / slice_["seconds"])
        await load.close()
        late = await drift(client, chance)
        failed = await client.query("work:failed")
    if failed:
        raise AssertionError(f"{failed} jobs or more have failed")
    further = {
        "jobs": JOBS,
        "late_p50_ms": round(statistics.median(late), 2),
        "late_p99_ms": round(late[int(len(late) * 0.99) - 1], 2),
        "late_max_ms": round(late[-1], 2),
    }
    return result, further


async def measure_waiting(count: int) -> dict[str, Any]:
    """Return memory and start of a daemon with many jobs that wait, beside those of one without."""
    chance = random.Random(1)
    far_ms = time.time() * 1000 + 30 * 86_400_000.0
    found: dict[str, Any] = {"waiting": count}
    async with running(BUNDLE) as daemon, headwater.connect(daemon.url) as client:
        found["daemon_mb_without"] = round(tree_pss_bytes(daemon.pid, ("Pss_Anon:",)) / 1e6, 1)
        start_s = time.perf_counter()
        await plan(client, count, far_ms, chance)
        found["planned_per_s"] = round(count / (time.perf_counter() - start_s))
        await asyncio.sleep(3)
        found["daemon_mb_with"] = round(tree_pss_bytes(daemon.pid, ("Pss_Anon:",)) / 1e6, 1)
        found["store_bytes_each"] = round((daemon.data / "store" / "data.mdb").stat().st_size / count)
        at_ms = time.time() * 1000 + 500
        await plan(client, 1, at_ms, chance)
        await asyncio.sleep(1)
        found["late_ms_of_one_beside_them"] = round((await client.query("work:delays", limit=1))[0], 2)
    return found


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument("--waiting", type=int, default=0, help="also measure so many jobs that wait")
    chosen = parser.parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    if chosen.waiting:
        further |= asyncio.run(measure_waiting(chosen.waiting))
    report = slices.Report("scheduler", result.row("jobs/s"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
