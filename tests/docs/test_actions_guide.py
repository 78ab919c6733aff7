"""The guide to actions: its code type-checks, and its bundle and programs run as written, over a real daemon and service."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest
from support.daemon import RunningDaemon, daemon_environment
from support.guides import GUIDES, blocks, write_files

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Service(socketserver.StreamRequestHandler):
    """Answers a line with three."""

    def handle(self) -> None:
        question = self.rfile.readline().decode().strip()
        for word in ("because", "of", question):
            self.wfile.write(word.encode() + b"\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("guide")
    write_files("actions", folder)
    return folder


@pytest.fixture(scope="module")
def daemon(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Service) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        found = RunningDaemon(tmp_path_factory.mktemp("daemon"))
        found.environment = {"SERVICE_PORT": str(service.server_address[1])}
        try:
            found.start()
            found.must_deploy(folder / "desk")
            yield found
        finally:
            found.end()
            service.shutdown()


def printed(folder: Path, program: str, daemon: RunningDaemon, question: str) -> list[str]:
    command = [sys.executable, program, daemon.url, question]
    run = subprocess.run(
        command,
        cwd=folder,
        env=daemon_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_programs_print_what_the_service_says(folder: Path, daemon: RunningDaemon) -> None:
    assert printed(folder, "ask.py", daemon, "x") == ["because of x"]
    assert printed(folder, "ask.py", daemon, "x") == ["because of x"]
    kept = [note["question"] for note in daemon.call("query", "notes:recent")]
    assert kept.count("x") == 1, "the second time it was known"
    assert printed(folder, "follow.py", daemon, "y") == ["because", "of", "y"]
    assert daemon.call("query", "notes:recent")[0]["answer"] == "because of y"


def test_the_answer_over_http_looks_as_shown(daemon: RunningDaemon) -> None:
    body = json.dumps({"args": {"question": "z"}}).encode()
    answer = daemon.request("POST", "/api/run/answers/stream", body, {"Accept": "text/event-stream"})
    assert answer.text.splitlines()[:2] == ['data: "because"', ""]
    shown = (GUIDES / "actions.md").read_text()
    end = "event: done\ndata: null\n"
    assert answer.text.endswith(f"{end}\n")
    assert "".join(f"    {line}\n" for line in end.splitlines()) in shown


def test_the_code_of_the_guide_type_checks(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.13", "--config-file", ""]
    command += ["--cache-dir", str(tmp_path), "."]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode == 0, run.stdout


def test_every_python_block_is_a_file() -> None:
    assert [block.text for block in blocks("actions") if block.language == "python" and not block.file] == []
