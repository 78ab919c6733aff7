"""Measure a thing and its limit in turns, so that a machine whose speed drifts still gives a fair ratio.

ours, limit, ours, limit …: each slice at least half a second, at least eight slices in all.
The ratio is taken pair by pair; 1 means as good as the limit, more is better.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

SLICE_S = 0.5
SLICES = 8


@dataclass(frozen=True)
class Paired:
    """Slices of the thing and of its limit, in pairs.

    Attributes:
        ours: What each slice of ours gave.
        limit: What the slice of the limit after it gave.
        more_is_better: True for rates, False for times, CPU and bytes.
    """

    ours: list[float]
    limit: list[float]
    more_is_better: bool

    @property
    def ratios(self) -> list[float]:
        """Pair by pair: ours / limit for rates, limit / ours for costs."""
        pairs = zip(self.ours, self.limit, strict=True)
        return [a / b if self.more_is_better else b / a for a, b in pairs]

    def row(self, unit: str) -> dict[str, Any]:
        """Return the fields of the result line."""
        ratios = self.ratios
        return {
            "value": round(statistics.median(self.ours), 4),
            "unit": unit,
            "limit": round(statistics.median(self.limit), 4),
            "ratio": round(statistics.median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        }


def in_turns(
    ours: Callable[[float], float],
    limit: Callable[[float], float],
    *,
    more_is_better: bool,
    slices: int = SLICES,
) -> Paired:
    """Run `ours(seconds)` and `limit(seconds)` in turns after one uncounted turn each; both return their figure."""
    ours(SLICE_S / 2)
    limit(SLICE_S / 2)
    result = Paired([], [], more_is_better)
    for _ in range(slices):
        result.ours.append(ours(SLICE_S))
        result.limit.append(limit(SLICE_S))
    return result


@dataclass
class Report:
    """The result of one benchmark: a table for people, one JSON line for machines."""

    name: str
    main: dict[str, Any] = field(default_factory=dict)
    further: dict[str, Any] = field(default_factory=dict)

    def print(self, *, as_json: bool) -> None:
        """Print it; with `as_json` the last line is one JSON object."""
        if not as_json:
            for key, value in {**self.main, **self.further}.items():
                sys.stdout.write(f"{key:<24} {value}\n")
            return
        sys.stdout.write(json.dumps({"name": self.name, **self.main, **self.further}) + "\n")


def arguments(description: str | None) -> argparse.ArgumentParser:
    """Return the parser that all benchmarks share."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", action="store_true", help="print one JSON object as the last line")
    parser.add_argument("--slices", type=int, default=SLICES, help=f"pairs of slices (default {SLICES})")
    return parser


def machine() -> str:
    """Return what the figures were measured on."""
    return f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
