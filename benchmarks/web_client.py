"""What the TypeScript client costs a page: bytes to load, and time to apply a change to 1,000 rows.

Ours: one transition with a delta (one row in, one out, one field of one changed), from the frame to the event. The
limit: `JSON.parse` of the whole list, which is the least that a client does to which results are sent anew. Sizes are
minified and gzipped. Needs Node.js, see `make web`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks import slices
from tools.node import find_node
from tools.web import PACKAGE, installed

AIM_MS = 0.2
AIM_BYTES = 12_000


def measured(count: int) -> dict[str, Any] | None:
    """Build the package and return what its own program measures; None where that cannot run."""
    node = find_node()
    if node is None or not installed(node, PACKAGE):
        return None
    if node.run(node.npm, "run", "--silent", "build", folder=PACKAGE) != 0:
        return None
    command = [str(node.program), str(PACKAGE / "bench" / "client.mjs"), str(count)]
    done = subprocess.run(command, env=node.environment(), check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> int:
    """Run the benchmark."""
    options = slices.arguments(__doc__).parse_args()
    found = measured(options.slices)
    if found is None:
        sys.stderr.write("web_client: skipped, there is no Node.js to build and run the client with\n")
        return 0
    ratios = found["ratios"]
    report = slices.Report("web_client")
    report.main = {
        "value": round(found["delta_ms"], 4),
        "unit": "ms a delta",
        "limit": round(found["json_ms"], 4),
        "ratio": round(statistics.median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
    }
    report.further = {
        "aim_ms": AIM_MS,
        "whole_list_ms": round(found["whole_ms"], 3),
        "delta_bytes": found["delta_bytes"],
        "json_bytes": found["json_bytes"],
        "core_gzipped_bytes": found["core"]["gzipped"],
        "core_without_msgpack_gzipped_bytes": found["core_without_msgpack"]["gzipped"],
        "aim_bytes": AIM_BYTES,
        "node": found["node"],
        "machine": slices.machine(),
    }
    report.print(as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
