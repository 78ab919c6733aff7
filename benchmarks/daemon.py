"""A real daemon for a benchmark: started on a free loopback port in a folder of its own, ended with the block."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.http_client import HttpClient
from headwater.packing import pack

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

FUNCTIONS = Path(__file__).parent / "functions"
_READY_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Daemon:
    """A running daemon.

    Attributes:
        pid: Its process.
        port: HTTP and WebSocket port on loopback.
        data: Its data folder.
    """

    pid: int
    port: int
    data: Path

    @property
    def url(self) -> str:
        """Address for clients."""
        return f"ws://127.0.0.1:{self.port}"


def free_port() -> int:
    """Return a loopback port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def kept_bytecode() -> Iterator[None]:
    """Let Python keep bytecode in a folder of its own, whatever the surroundings say of it."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        os.environ["PYTHONDONTWRITEBYTECODE"] = ""
        yield


@asynccontextmanager
async def running(functions: Path = FUNCTIONS, *options: str) -> AsyncIterator[Daemon]:
    """Start a daemon, deploy a bundle, and end both with the block."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
        data, port = Path(folder) / "data", free_port()
        command = [
            sys.executable,
            "-m",
            "headwater_server",
            "serve",
            "--data",
            str(data),
            "--port",
            str(port),
            "--heartbeat-s",
            "600",  # receivers of a load only read
        ]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen([*command, "--tcp-port", "0", *options], stderr=log)
        try:
            await _ready(process, port, Path(folder) / "log")
            key = (data / "admin-key").read_text().strip()
            async with HttpClient(f"http://127.0.0.1:{port}", key=key) as http:
                await http.deploy(pack(functions))
            yield Daemon(process.pid, port, data)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()


async def _ready(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    async with HttpClient(f"http://127.0.0.1:{port}") as http:
        for _ in range(int(_READY_TIMEOUT_S / 0.05)):
            if await http.ready():
                return
            if process.poll() is not None:
                break
            await asyncio.sleep(0.05)
    raise RuntimeError(f"the daemon did not start:\n{log.read_text(errors='replace')}")
