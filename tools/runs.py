"""Adds up the figures of long runs: `python -m tools.runs [--json]`."""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from typing import TYPE_CHECKING

from tools.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable

RUNS_FILE = ROOT / "docs" / "internals" / "runs.jsonl"


def totals(lines: Iterable[str]) -> dict[str, dict[str, float]]:
    """Return the figures of each promise: sums, and for those named `max_…` the largest."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for line in lines:
        run = json.loads(line)
        row = found[run["promise"]]
        row["runs"] += 1
        row["seconds"] += run["seconds"]
        for name, value in run["figures"].items():
            row[name] = max(row[name], value) if name.startswith("max_") else row[name] + value
    return {promise: dict(row) for promise, row in sorted(found.items())}


def main() -> int:
    """Print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    chosen = parser.parse_args()
    lines = RUNS_FILE.read_text().splitlines() if RUNS_FILE.exists() else []
    found = totals(lines)
    if chosen.json:
        print(json.dumps(found))
        return 0
    for promise, row in found.items():
        print(f"{promise:<14} " + "  ".join(f"{name} {value:,.10g}" for name, value in row.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
