"""How long a long run goes on, which seeds it takes, and where its figures are kept.

A long form of a promise loops over `LongRun.seeds()` and calls `LongRun.record` after each: the figures
of many runs add up in `docs/internals/runs.jsonl`, which `python -m tools.runs` sums.
"""

from __future__ import annotations

import json
import platform
import random
import subprocess
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
RUNS_FILE = ROOT / "docs" / "internals" / "runs.jsonl"


@dataclass
class LongRun:
    """One long form of a promise.

    Attributes:
        minutes: How long it goes on; a seed that was begun is finished.
        seed: The only seed to take, None to take new ones.
        file: Where figures are appended, None to keep none.
    """

    minutes: float
    seed: int | None
    file: Path | None
    began_s: float = field(default_factory=time.monotonic)
    seed_began_s: float = field(default_factory=time.monotonic)

    def seeds(self) -> Iterator[int]:
        """Yield seeds, each printed, until the time is up; at least one."""
        while True:
            self.seed_began_s = time.monotonic()
            seed = random.SystemRandom().randrange(2**32) if self.seed is None else self.seed
            print(f"seed {seed}", flush=True)
            yield seed
            if self.seed is not None or time.monotonic() - self.began_s >= self.minutes * 60:
                return

    def record(self, promise: str, seed: int, **figures: float) -> None:
        """Keep the figures of one seed that found nothing wrong.

        Args:
            promise: Its word in `docs/internals/testing.md`: `kills`, `power`, …
            seed: What it was run with.
            **figures: Counts to be added up over all runs; those named `max_…` are maxima.
        """
        line = {
            "at": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "commit": _commit(),
            "promise": promise,
            "seed": seed,
            "seconds": round(time.monotonic() - self.seed_began_s, 1),
            "figures": figures,
            "python": platform.python_version(),
        }
        print(json.dumps(line), flush=True)
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(json.dumps(line) + "\n")


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return done.stdout.strip()
