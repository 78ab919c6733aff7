"""What every test may rely on: the checkout on the path, and options of the house."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from support.runs import RUNS_FILE, LongRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

ROOT = Path(__file__).parents[1]
sys.path.insert(
    0, str(ROOT)
)  # `tools`, `benchmarks` and `examples` are packages of the checkout, not of the wheel

# What a test says may not depend on how fast the machine is at the moment.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--seed`, which repeats one run, and what long runs are told."""
    parser.addoption("--seed", type=int, default=None, help="repeat this seed of a simulation or long run")
    parser.addoption("--minutes", type=float, default=0.0, help="how long each long run goes on")
    parser.addoption("--record", action="store_true", help="append figures to docs/internals/runs.jsonl")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together: they share a daemon, which starts once that way."""
    for item in items:
        if item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(str(item.path.relative_to(ROOT))))


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Callable[[range], Iterable[int]]:
    """What a simulation loops over: `for seed in seeds(range(100))` runs only the seed that `--seed` names, if any."""
    chosen: int | None = request.config.getoption("--seed")
    return lambda usual: usual if chosen is None else [chosen]


@pytest.fixture
def long_run(request: pytest.FixtureRequest) -> LongRun:
    """How long a long form goes on, and where its figures go; see `support/runs.py`."""
    config = request.config
    file = RUNS_FILE if config.getoption("--record") else None
    return LongRun(config.getoption("--minutes"), config.getoption("--seed"), file)
