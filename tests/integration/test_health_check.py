"""The health check of the image, beside a real daemon: with TLS and without, wherever its settings come from."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from support.certificates import Authority
from support.daemon import RunningDaemon, daemon_environment, free_port, running, wait_until

if TYPE_CHECKING:
    from pathlib import Path


def check(folder: Path, **settings: str) -> tuple[int, str]:
    """Return exit code and what was told."""
    environment = daemon_environment() | {f"HEADWATER_{name.upper()}": settings[name] for name in settings}
    done = subprocess.run(
        [sys.executable, "-m", "headwater_server.health_check"],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, done.stderr


def test_a_daemon_that_is_ready_and_one_that_is_not(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    with running(tmp_path) as daemon:
        assert check(tmp_path, port=str(daemon.port)) == (0, "")
        assert check(tmp_path, port=str(daemon.port), host="0.0.0.0") == (0, "")
        (tmp_path / "elsewhere" / "headwater.toml").write_text(f"port = {daemon.port}\n")
        assert check(tmp_path / "elsewhere") == (0, ""), "its settings may stand in the file"
    code, told = check(tmp_path, port=str(daemon.port))
    assert code == 1
    assert "refused" in told
    assert check(tmp_path, port="many")[0] == 2


def test_a_daemon_that_speaks_tls(tmp_path: Path) -> None:
    authority = Authority.make(tmp_path)
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    authority.issue(certificate, key, "db.example")  # not what it is asked by
    daemon = RunningDaemon(
        tmp_path, ("--tls-certificate-file", str(certificate), "--tls-key-file", str(key)), port=free_port()
    )
    settings = {"port": str(daemon.port), "tls_certificate_file": str(certificate)}
    try:
        daemon.launch()
        wait_until(lambda: check(tmp_path, **settings)[0] == 0, 60)
        assert check(tmp_path, port=str(daemon.port))[0] == 1, "what it did before"
    finally:
        daemon.end()
    assert check(tmp_path, **settings)[0] == 1


def test_it_loads_little(tmp_path: Path) -> None:
    """It runs every few seconds, beside a daemon that has better things to do."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "headwater_server.health_check"],
        cwd=tmp_path, env=os.environ | {"HEADWATER_PORT": "1"}, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    for name in ("aiohttp", "asyncio", "uvloop", "headwater_server.app"):
        assert f"| {name}\n" not in done.stderr.replace("  ", ""), name
