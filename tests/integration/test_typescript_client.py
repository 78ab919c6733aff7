"""Long forms of what the TypeScript client's own tests do in `make web`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tools.node import find_node
from tools.web import PACKAGE, installed

if TYPE_CHECKING:
    from support.runs import LongRun

HISTORIES = 10
HISTORIES_EACH = 10 + 2 + 3  # of the kinds in test/histories.test.ts
APPENDS = 400


def pass_in_node(test: str, name: str = "", **environment: str) -> None:
    """Run a file of the client's tests, or those in it that are called so."""
    node = find_node()
    if node is None or not installed(node, PACKAGE):
        pytest.skip("there is no Node.js with the client's packages")
    script = PACKAGE / "node_modules" / "vitest" / "vitest.mjs"
    words = ["run", f"test/{test}", "--testTimeout=0", "-t", name]
    code = node.run(script, *words, folder=PACKAGE, more=environment)
    assert code == 0, f"{test} with {environment}"


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_typescript_histories_at_length(long_run: LongRun) -> None:
    for seed in long_run.seeds():
        seeds = {"HEADWATER_FIRST_SEED": str(seed), "HEADWATER_HISTORIES": str(HISTORIES)}
        pass_in_node("histories.test.ts", "histories of the kind", **seeds)
        long_run.record("typescript", seed, histories=HISTORIES * HISTORIES_EACH)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_typescript_faults_at_length(long_run: LongRun) -> None:
    for seed in long_run.seeds():
        words = {"HEADWATER_LONG": "1", "HEADWATER_APPENDS": str(APPENDS), "HEADWATER_SEED": str(seed)}
        pass_in_node("faults.test.ts", **words)
        long_run.record("typescript", seed, mutations=APPENDS)
