"""The guide to operations: the service unit, the settings and the flags that it names are those that there are."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from configparser import ConfigParser
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from headwater_config.settings import Settings
from headwater_server.lifecycle import ExitCode
from headwater_server.observe.metrics import Metrics
from support.guides import GUIDES, blocks

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (GUIDES / "operations.md").read_text("utf-8")


def block(language: str) -> str:
    (found,) = [block.text for block in blocks("operations") if block.language == language]
    return found


def config(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "headwater_server", "config", *words],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_service_starts_what_there_is(tmp_path: Path) -> None:
    unit = ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block("ini"))
    service = unit["Service"]
    _, command, *flags = shlex.split(service["ExecStart"])
    assert command == "serve"
    assert "/var/lib/headwater" in config(tmp_path, *flags)
    kept_down = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert kept_down == {ExitCode.USAGE, ExitCode.TAKEN}
    (drain,) = [field for field in fields(Settings) if field.name == "drain_limit_s"]
    assert int(service["TimeoutStopSec"]) > drain.default  # type: ignore[operator]


def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    file = tmp_path / "headwater.service"
    file.write_text(block("ini").replace("/opt/headwater/bin/headwater", sys.executable))
    try:
        done = subprocess.run(
            ["systemd-analyze", "verify", file], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no systemd-analyze here")
    assert "headwater.service:" not in done.stderr, done.stderr


def test_the_settings_file_is_one(tmp_path: Path) -> None:
    (tmp_path / "headwater.toml").write_text(block("toml"))
    told = config(tmp_path)
    assert re.search(r"^workers +4 +.*headwater\.toml", told, re.MULTILINE)


def test_every_setting_and_metric_that_is_named_exists() -> None:
    names = set(re.findall(r"`([a-z]+(?:_[a-z]+)+)`", TEXT))
    metrics = {name for name in names if name.startswith("headwater_")}
    units = {"_s", "_bytes", "_limit", "_kept"}
    settings = {name for name in names if any(name.endswith(unit) for unit in units)} - metrics
    assert settings
    assert settings <= {field.name for field in fields(Settings)}
    exposed = Metrics().text().decode()
    assert metrics
    assert not [name for name in metrics if name not in exposed]
