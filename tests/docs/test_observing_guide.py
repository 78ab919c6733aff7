"""The guide to observing, done as it is written: its bundle, its commands on a terminal and what they print there."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING

import headwater
from headwater_config.settings import Settings
from headwater_server.observe.metrics import Metrics
from support.daemon import daemon_environment, run_server, running, wait_until
from support.guides import GUIDES, blocks, write_files

from tools.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import RunningDaemon

TEXT = (GUIDES / "observing.md").read_text("utf-8")
COLUMNS = 150
STYLES = re.compile(r"\x1b\[[0-9;]*m")
CHANGING = {
    re.compile(r"\d+\.\d ms"): "1.2 ms",
    re.compile(r"\b[0-9a-v]{33}\b"): "1" + "0a" * 16,
    re.compile(r"\b\d{16}\b"): "1790000000000000",
}
"""What is another one each time, and what the guide writes for it."""


def printed(line: str, folder: Path, daemon: RunningDaemon) -> str:
    """Return what a command of the guide prints on a terminal."""
    program, *words = line.split()
    assert program == "headwater"
    environment = daemon_environment() | {
        "HEADWATER_URL": daemon.url.replace("ws://", "http://"),
        "HEADWATER_KEY": daemon.key,
        "COLUMNS": str(COLUMNS),
        "TERM": "xterm",
        "NO_COLOR": "1",
    }
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "headwater.cli", *words],
            cwd=folder, env=environment, stdout=theirs, stderr=subprocess.PIPE,
        )  # fmt: skip
        os.close(theirs)
        shown = b""
        try:
            while part := os.read(ours, 1 << 16):
                shown += part
        except OSError:  # the other end is closed
            pass
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
    finally:
        os.close(ours)
    text = STYLES.sub("", shown.decode()).replace("\r\n", "\n")
    for pattern, instead in CHANGING.items():
        text = pattern.sub(instead, text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


async def test_the_guide_shows_what_the_commands_print(tmp_path: Path) -> None:
    write_files("observing", tmp_path)
    compared = 0
    with running(tmp_path / "daemon", deploy=tmp_path / "board") as daemon:
        for body in ("one", "two"):
            daemon.call("mutation", "messages:send", channel="news", body=body)
        async with headwater.connect(daemon.url) as client:
            updates = client.subscribe("messages:how_many", channel="news")
            assert await anext(updates) == 2
            for block in blocks("observing"):
                if block.language == "sh":
                    for number, line in enumerate(block.text.splitlines()):
                        said = await asyncio.to_thread(printed, line, tmp_path, daemon)
                        if "run messages:" in line:
                            await rerun(daemon, number + 1)
                elif block.language == "text":
                    assert said == block.text
                    compared += 1
    assert compared == 2


async def rerun(daemon: RunningDaemon, times: int) -> None:
    """Wait until the live query has been run again so often: runs for two commits at once are one."""

    def reruns() -> int:
        body = {"path": "messages:how_many", "args": {"channel": "news"}}
        answer = daemon.post("/api/admin/reruns", body, Authorization=f"Headwater {daemon.key}")
        count: int = answer.json["live"]["reruns"]
        return count

    await asyncio.to_thread(wait_until, lambda: reruns() == times)


def test_every_setting_metric_and_path_that_is_named_exists() -> None:
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))
    metrics = {name for name in names if name.startswith("headwater_")}
    exposed = Metrics().text().decode()
    assert metrics
    assert not [name for name in metrics if name.removesuffix("_total") not in exposed]
    settings = Settings.__dataclass_fields__.keys()
    assert {"rerun_causes_kept", "traces_url", "traces_waiting_spans"} <= settings & names
    assert {name for name in names if name.startswith("traces_")} <= settings


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    write_files("observing", tmp_path)
    done = run_server("config", folder=tmp_path)
    assert re.search(r"^traces_sample_percent +10.0 +.*headwater\.toml", done.stdout, re.MULTILINE), done


def test_the_spans_that_it_names_are_those_that_there_are() -> None:
    rows = re.findall(r"^\| `([a-z ]+)` \|", TEXT, re.MULTILINE)
    source = "".join(
        (ROOT / "server/headwater_server/observe" / name).read_text()
        for name in ("traces.py", "push_traces.py")
    )
    assert len(rows) == 7
    assert [name for name in rows if f'"{name}"' not in source] == []


def test_the_code_of_the_guide_type_checks(tmp_path: Path) -> None:
    write_files("observing", tmp_path)
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.13", "--config-file", "", "."]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout
