"""The guide to deploying, done as it is written: its files, its commands on a real daemon, and what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support.daemon import RunningDaemon
from support.guides import blocks

if TYPE_CHECKING:
    from pathlib import Path

NAMES = re.compile(r"\b([0-9a-f]{12}|[0-9a-v]{32,36})\b")
"""Names of bundles and ids of documents: others each time."""


def said_by(line: str, folder: Path, daemon: RunningDaemon) -> str:
    """Return what a command of the guide says on standard error."""
    program, *words = line.split()
    assert program == "headwater"
    environment = {
        "HEADWATER_URL": daemon.url.replace("ws://", "http://"),
        "HEADWATER_KEY": daemon.key,
        "USER": "ada",
    }
    done = subprocess.run(
        [sys.executable, "-m", "headwater.cli", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == ("error [" in done.stderr), done.stderr
    lines = [text for text in done.stderr.splitlines() if not text.startswith("{")]  # progress
    return NAMES.sub("…", "\n".join(lines))


def test_the_guide_to_deploying_says_what_the_commands_say(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path / "daemon")
    daemon.start()
    compared = 0
    try:
        said: list[str] = []
        for block in blocks("deploying"):
            if block.file is not None:  # each is the whole file, edited
                path = tmp_path / block.file
                path.parent.mkdir(exist_ok=True)
                (path.parent / "__init__.py").touch()
                path.write_text(block.text)
            elif block.language == "sh":
                said = [said_by(line, tmp_path, daemon) for line in block.text.splitlines()]
            else:
                assert block.language == "text"
                assert "\n".join(filter(None, said)) == block.text.rstrip("\n")
                compared += 1
    finally:
        daemon.end()
    assert compared == 4
