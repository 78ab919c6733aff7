"""The guide to errors says what a client of a real daemon is told of a mistake: while one develops, and in production."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.daemon import running, wait_until
from support.guides import blocks, write_files

if TYPE_CHECKING:
    from pathlib import Path

DEVELOPING, PRODUCTION = (block.text.strip() for block in blocks("errors") if block.language == "text")


@pytest.mark.parametrize(
    ("options", "told", "traced"),
    [((), DEVELOPING, True), (("--production",), PRODUCTION, False)],
    ids=["developing", "production"],
)
def test_a_mistake_is_told_as_the_guide_says(
    tmp_path: Path, options: tuple[str, ...], told: str, *, traced: bool
) -> None:
    write_files("errors", tmp_path)
    with running(tmp_path / "daemon", *options, deploy=tmp_path / "polls") as daemon:
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", "run", "votes:share", "choice=tea"],
            cwd=tmp_path, env={"HEADWATER_URL": daemon.url.replace("ws://", "http://")},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        first, *trace = done.stderr.splitlines()
        assert re.sub(r"request id [0-9a-f]{12}", "request id …", first) == told
        assert any("votes.py" in line for line in trace) is traced
        wait_until(lambda: "ZeroDivisionError" in daemon.log_text())
