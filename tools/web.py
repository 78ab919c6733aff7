"""`make web`: install what clients/typescript needs, then its linter, its type checker, its tests and an example's build.

Says so and succeeds where there is no Node.js that can run them.
"""

from __future__ import annotations

import fcntl
import sys
from typing import TYPE_CHECKING

from tools.checkout import ROOT
from tools.node import MAJOR_MIN, Node, find_node

if TYPE_CHECKING:
    from pathlib import Path

PACKAGE = ROOT / "clients" / "typescript"
EXAMPLE = ROOT / "examples" / "departures" / "web"
STEPS = ("lint", "types", "test")


def installed(node: Node, package: Path) -> bool:
    """Install what the lock of a package names, unless that is there; return whether it is there now."""
    lock, made = package / "package-lock.json", package / "node_modules" / ".package-lock.json"
    # Tests of several processes ask at the same time, and npm must not install twice into one folder.
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if made.exists() and made.stat().st_mtime >= lock.stat().st_mtime:
            return True
        return node.run(node.npm, "ci", "--no-audit", "--no-fund", folder=package) == 0


def prepared(node: Node) -> bool:
    """Install and build the client, and install the example that uses it; return whether all is there."""
    return (
        installed(node, PACKAGE)
        and node.run(node.npm, "run", "--silent", "build", folder=PACKAGE) == 0
        and installed(node, EXAMPLE)
    )


def main() -> int:
    """Run the steps; return the exit code."""
    node = find_node()
    if node is None:
        print(
            f"web: SKIPPED, there is no Node.js {MAJOR_MIN} or later, neither on the PATH nor of pyright's wheel"
        )
        return 0
    if not prepared(node):
        return 1
    for step in STEPS:
        code = node.run(node.npm, "run", "--silent", step, folder=PACKAGE)
        if code != 0:
            print(f"web: {step} failed", file=sys.stderr)
            return code
    return node.run(node.npm, "run", "--silent", "build", folder=EXAMPLE)


if __name__ == "__main__":
    sys.exit(main())
