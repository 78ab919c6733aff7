"""The guide to environment variables, done as it is written: its commands on a real daemon, its tests, its types."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from support.daemon import RunningDaemon, daemon_environment
from support.guides import blocks, write_files

if TYPE_CHECKING:
    from pathlib import Path

NAME = re.compile(r"\b[0-9a-f]{12}\b")


def said_by(line: str, folder: Path, daemon: RunningDaemon) -> str:
    """Return what a command of the guide says on standard error."""
    program, *words = line.split()
    assert program == "headwater"
    done = subprocess.run(
        [sys.executable, "-m", "headwater.cli", *words],
        cwd=folder,
        env=daemon_environment() | {"HEADWATER_URL": f"http://127.0.0.1:{daemon.port}", "HEADWATER_KEY": daemon.key},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == ("error [" in done.stderr), done.stderr
    return NAME.sub(
        "…", "".join(f"{text}\n" for text in done.stderr.splitlines() if not text.startswith("{"))
    )


def test_the_guide_says_what_the_commands_say(tmp_path: Path) -> None:
    write_files("environment", tmp_path)
    (tmp_path / "payment-key").write_text("sk-of-nobody\n")
    daemon = RunningDaemon(tmp_path / "daemon")
    compared = 0
    try:
        daemon.start()
        said = ""
        for block in blocks("environment"):
            if block.language == "sh":
                said = "".join(said_by(line, tmp_path, daemon) for line in block.text.splitlines())
            elif block.language == "text":
                assert said == block.text
                compared += 1
        assert daemon.call("action", "orders:authorize") == "test: a key of 12 characters"
    finally:
        daemon.end()
    assert compared == 3


def test_the_tests_of_the_guide_pass_and_its_code_type_checks(tmp_path: Path) -> None:
    write_files("environment", tmp_path)
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "asyncio_mode=auto"]
    types = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.13", "--config-file", "", "."]
    for command in (tests, types):
        run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
        assert run.returncode == 0, run.stdout + run.stderr
