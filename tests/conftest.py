"""What every test may rely on: the checkout on the path, and options of the house."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
sys.path.insert(
    0, str(ROOT)
)  # `tools`, `benchmarks` and `examples` are packages of the checkout, not of the wheel


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seed`, which replays one run of a simulation."""
    parser.addoption("--seed", type=int, default=None, help="replay this seed of a simulation")


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Callable[[range], Iterable[int]]:
    """What a simulation loops over: `for seed in seeds(range(100))` runs only the seed that `--seed` names, if any."""
    chosen: int | None = request.config.getoption("--seed")
    return lambda usual: usual if chosen is None else [chosen]
