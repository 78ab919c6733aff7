"""How long 500 actions take that are called at once and wait 100 ms each, in one process of actions.

Ours: one client calls them over one connection and has all results; wall time. The limit: as many waits in
this process, without a server. The aim is 0.3 s, of which 0.1 s is the waiting.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import headwater

from benchmarks import slices
from benchmarks.daemon import running

ACTIONS = 500
WAIT_S = 0.1
BUNDLE = Path(__file__).parent / "waits"


async def measure(count: int) -> tuple[slices.Paired, dict[str, object]]:
    """Measure the actions and the bare waits in turns."""
    result = slices.Paired([], [], more_is_better=False)
    async with (
        running(BUNDLE, "--action-workers", "1") as daemon,
        headwater.connect(daemon.url) as client,
    ):
        for _ in range(count + 1):
            start = time.perf_counter()
            await asyncio.gather(*(client.action("outside:wait", seconds=WAIT_S) for _ in range(ACTIONS)))
            result.ours.append(time.perf_counter() - start)
            start = time.perf_counter()
            await asyncio.gather(*(asyncio.sleep(WAIT_S) for _ in range(ACTIONS)))
            result.limit.append(time.perf_counter() - start)
    del result.ours[0], result.limit[0]  # to warm up
    return result, {"actions": ACTIONS, "wait_s": WAIT_S, "max_s": round(max(result.ours), 3)}


def main() -> int:
    """Run the benchmark."""
    chosen = slices.arguments(__doc__).parse_args()
    result, further = asyncio.run(measure(chosen.slices))
    report = slices.Report("action_concurrency", result.row("s, all 500 actions"), further)
    report.further["machine"] = slices.machine()
    report.print(as_json=chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
