"""`make run-web`: the page of the departures example, served by Vite to a browser while `make run` goes on."""

from __future__ import annotations

import contextlib
import sys

from tools.node import MAJOR_MIN, find_node
from tools.web import EXAMPLE, prepared


def main() -> int:
    """Serve until an interrupt; return the exit code."""
    node = find_node()
    if node is None:
        print(f"web: there is no Node.js {MAJOR_MIN} or later, neither on the PATH nor of pyright's wheel")
        return 1
    if not prepared(node):
        return 1
    with contextlib.suppress(KeyboardInterrupt):
        return node.run(node.npm, "run", "--silent", "dev", folder=EXAMPLE)
    return 0


if __name__ == "__main__":
    sys.exit(main())
