"""The guide to logs, done as it is written: its bundle, its commands on a real daemon and what they print, its receiver."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from multidict import CIMultiDict
from support.collector import SECRET, collecting, webhook_options
from support.daemon import RunningDaemon, daemon_environment, running, wait_until
from support.guides import blocks, write_files

if TYPE_CHECKING:
    from pathlib import Path

CHANGING = {
    re.compile(r"\d\d:\d\d:\d\d\.\d{3}"): "12:00:00.000",
    re.compile(r"\d+\.\d ms"): "1.2 ms",
    re.compile(r"\b[0-9a-f]{12}\b"): "…",
    re.compile(r'File ".*/shop/'): 'File "…/shop/',
}
"""What is another one each time, and what the guide writes for it."""


def said_by(line: str, folder: Path, daemon: RunningDaemon) -> str:
    """Return what a command of the guide prints, with its errors."""
    program, *words = line.split()
    assert program == "headwater"
    environment = daemon_environment() | {
        "HEADWATER_URL": daemon.url.replace("ws://", "http://"),
        "HEADWATER_KEY": daemon.key,
    }
    done = subprocess.run(
        [sys.executable, "-m", "headwater.cli", *words],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == ("error [" in done.stderr), done.stderr
    return done.stderr + done.stdout.removeprefix("null\n")


def test_the_guide_to_logs_shows_what_the_commands_print(tmp_path: Path) -> None:
    write_files("logs", tmp_path)
    daemon = RunningDaemon(tmp_path / "daemon", ("--production",))
    compared = 0
    try:
        daemon.start()
        daemon.must_deploy(tmp_path / "shop")
        said = request_id = ""
        for block in blocks("logs"):
            if block.language == "sh":
                lines = block.text.replace("…", request_id).splitlines()
                said = "".join(said_by(line, tmp_path, daemon) for line in lines)
                found = re.search(r"request id (\w+)", said)
                request_id = found[1] if found else request_id
                for pattern, text in CHANGING.items():
                    said = pattern.sub(text, said)
            elif block.language == "text":
                assert said == block.text
                compared += 1
    finally:
        daemon.end()
    assert compared == 3


def test_the_code_of_the_guide_type_checks(tmp_path: Path) -> None:
    write_files("logs", tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.13", "--config-file", "", "."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout


def test_the_receiver_of_the_guide_takes_what_the_daemon_sends_and_nothing_else(tmp_path: Path) -> None:
    write_files("logs", tmp_path)
    names: dict[str, Any] = {}
    exec((tmp_path / "receiver.py").read_text(), names)
    events = names["events"]
    with collecting() as collector:
        options = webhook_options(collector, tmp_path)
        with running(tmp_path / "daemon", *options, deploy=tmp_path / "shop") as daemon:
            daemon.call("mutation", "orders:place", item="boat", price=1.0)
            wait_until(lambda: collector.batches)
    lower, body = collector.batches[0]
    headers = CIMultiDict(lower)
    now_s = float(headers["Headwater-Timestamp"])
    (event,) = events(headers, body, SECRET, now_s)
    assert event["lines"][0]["text"] == "an order of boat"
    later = CIMultiDict(headers)
    later["Headwater-Timestamp"] = str(int(now_s) + 1)
    for other in (
        (headers, body + b" ", SECRET, now_s),
        (headers, body, SECRET + "x", now_s),
        (headers, body, SECRET, now_s + 301),
        (later, body, SECRET, now_s),
    ):
        with pytest.raises(PermissionError):
            events(*other)
