"""What 50 updates a second cost a page with 1,000 rows in Chromium, and whose work that is.

Ours: processor time of the page's main thread for each update, with the rows live over a daemon. The limit: the same list with as
many changes of React's own state, without a server. Time of the processor, since frames by the clock are longer wherever the machine has
something else to do; they are told beside it. Needs Node.js and Chromium, see `make web`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import slices
from tools.checkout import ROOT
from tools.node import find_node
from tools.web import PACKAGE, installed

AIM_MS = 50
FIGURES = ROOT / "build" / "browser" / "frames.json"


def measured(count: int) -> dict[str, Any] | None:
    """Return what the pages measure; None where they cannot be opened."""
    node = find_node()
    if node is None or not installed(node, PACKAGE):
        return None
    FIGURES.unlink(missing_ok=True)
    vitest = str(PACKAGE / "node_modules" / "vitest" / "vitest.mjs")
    command = [str(node.program), vitest, "run", "--config", "bench/vitest.config.ts"]
    environment = {**node.environment(), "HEADWATER_TURNS": str(count)}
    done = subprocess.run(command, cwd=PACKAGE, env=environment, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stdout + done.stderr)
    if not FIGURES.exists():
        return None
    result: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8"))
    return result


def update_ms(turn: dict[str, Any], updates: int) -> float:
    """Return the processor time of an update in a turn."""
    return float(sum(turn["cpuMs"].values())) / updates


def told(turns: list[dict[str, Any]], updates: int) -> dict[str, Any]:
    """Return what a kind of page came to."""
    kinds = sorted({kind for turn in turns for kind in turn["cpuMs"]})
    parts = {
        kind: round(statistics.median(turn["cpuMs"].get(kind, 0.0) for turn in turns) / updates, 3)
        for kind in kinds
    }
    return {
        "update_cpu_ms": round(statistics.median(update_ms(turn, updates) for turn in turns), 3),
        "of_which": parts,
        "longest_task_cpu_ms": round(max(turn["longestTaskCpuMs"] for turn in turns), 1),
        "longest_frame_ms": [round(max(turn["frames"], default=0.0), 1) for turn in turns],
    }


def main() -> int:
    """Run the benchmark."""
    options = slices.arguments(__doc__).parse_args()
    found = measured(options.slices)
    if found is None:
        sys.stderr.write("web_frames: skipped, there is no Node.js or no Chromium\n")
        return 0
    turns, updates = found["turns"], found["updates"]
    ours = [update_ms(turn, updates) for turn in turns["page"]]
    limit = [update_ms(turn, updates) for turn in turns["local"]]
    ratios = [other / one for one, other in zip(ours, limit, strict=True)]
    report = slices.Report("web_frames")
    report.main = {
        "value": round(statistics.median(ours), 3),
        "unit": "ms of the processor an update",
        "limit": round(statistics.median(limit), 3),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }
    report.further = {
        "aim_task_ms": AIM_MS,
        **{kind: told(turns[kind], updates) for kind in ("page", "plain", "local", "bare")},
        "machine": slices.machine(),
    }
    report.print(as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
