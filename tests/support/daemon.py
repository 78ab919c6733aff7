"""A real daemon in a folder of its own: started, deployed to, killed, restarted on the same data and ports, ended.

It produces no faults by itself; a test asks for them (`kill`, `kill_worker`, `kill_zygote`, `terminate`).
Every method blocks; asynchronous tests call them through `asyncio.to_thread` where their clients must
go on meanwhile.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headwater.packing import pack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

BUNDLES = Path(__file__).parent / "bundles"
BROKEN = Path(__file__).parent / "broken"
READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 20.0
_POLL_S = 0.01
# Below the ports that the system gives to outgoing connections: while the daemon is down, a client that
# tries again and again could otherwise be given the daemon's own port, and would connect to itself.
# Each test process has a share of its own and gives no port twice before it has given them all: a daemon keeps
# its ports while it is down, when a port seems free to everybody else.
_PORTS = range(20_000, 32_000)


@dataclass(frozen=True)
class Answer:
    """An HTTP answer.

    Attributes:
        status: HTTP status.
        headers: Header fields, names in lower case.
        content: Body.
    """

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode()

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.content)


@dataclass
class RunningDaemon:
    """One data directory and the daemon that has it, if it runs at present.

    Attributes:
        folder: Everything of it; the daemon's standard error is in `log`.
        options: Further flags of `serve`.
        port: HTTP and WebSocket, on loopback.
        tcp_port: The protocol over TCP.
        process: The running daemon, None while there is none.
        seen: Every process of it that was ever looked at, with its start time (numbers are used again): all
            have to be gone at the end.
        launched_s: Monotonic time of the last `launch`.
        environment: Further environment of the daemon, which its workers see too.
    """

    folder: Path
    options: tuple[str, ...] = ()
    port: int = field(default_factory=lambda: free_port())
    tcp_port: int = field(default_factory=lambda: free_port())
    process: subprocess.Popen[bytes] | None = None
    seen: dict[int, int] = field(default_factory=dict)
    launched_s: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        """The data directory."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """Standard error of all daemons that have run here."""
        return self.folder / "daemon.log"

    @property
    def url(self) -> str:
        """WebSocket address."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def tcp_url(self) -> str:
        """TCP address."""
        return f"tcp://127.0.0.1:{self.tcp_port}"

    @property
    def key(self) -> str:
        """The admin key as it stands in its file."""
        return (self.data / "admin-key").read_text().strip()

    def log_text(self) -> str:
        """Return what the daemons have logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    # ------------------------------------------------------------------ life

    def launch(self) -> None:
        """Start the process without waiting for anything."""
        assert self.process is None, "it runs already"
        command = [*serve_command(self.data), "--port", str(self.port), "--tcp-port", str(self.tcp_port)]
        self.folder.mkdir(parents=True, exist_ok=True)
        self.launched_s = time.monotonic()
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *self.options],
                cwd=self.folder,
                env=daemon_environment() | self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._note([self.process.pid])

    def break_rule(self, name: str) -> None:
        """Take a rule out of the daemon that is launched next; see `support/broken`."""
        self.environment |= {"PYTHONPATH": str(BROKEN), "BROKEN_RULE": name}

    def start(self) -> None:
        """Start it and return once it is ready."""
        self.launch()
        self.wait_ready()

    def wait_ready(self) -> float:
        """Return once `/health` says so, with the seconds since the launch; fails if the process ends instead."""
        process = self.process
        assert process is not None, "it does not run"
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not self.is_ready():
            if process.poll() is not None or time.monotonic() > deadline_s:
                raise AssertionError(f"the daemon did not start (exit {process.poll()}):\n{self.log_text()}")
            time.sleep(_POLL_S)
        ready_s = time.monotonic() - self.launched_s
        self.worker_pids()
        return ready_s

    def is_ready(self) -> bool:
        """Tell whether `/health` answers 200."""
        try:
            return self.get("/health").status == 200
        except (OSError, http.client.HTTPException):
            return False

    def kill(self) -> None:
        """End it with SIGKILL, at whatever it is doing."""
        process = self._take()
        process.kill()
        process.wait()

    def terminate(self) -> int:
        """Ask it to stop and return its exit code."""
        self.signal(signal.SIGTERM)
        return self.wait_end()

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self.process is not None, "it does not run"
        self.process.send_signal(number)

    def wait_end(self) -> int:
        """Wait until it ends and return its exit code."""
        process = self._take()
        try:
            return process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"the daemon did not end:\n{self.log_text()}") from None

    def end(self) -> None:
        """End whatever still runs, and fail if a process outlives its daemon."""
        if self.process is not None:
            self.worker_pids()
            self.kill()
        left = self.wait_for_children(END_TIMEOUT_S)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not left, f"processes outlived their daemon: {left}"

    def wait_for_children(self, seconds: float) -> list[int]:
        """Wait until no process of a daemon that has ended is left; return those that are."""
        deadline_s = time.monotonic() + seconds
        while (left := self._left()) and time.monotonic() < deadline_s:
            time.sleep(_POLL_S)
        return left

    def _left(self) -> list[int]:
        return [pid for pid, started in self.seen.items() if start_time(pid) == started]

    def _note(self, pids: list[int]) -> list[int]:
        for pid in pids:
            started = start_time(pid)
            if started is not None:
                self.seen[pid] = started
        return pids

    def _take(self) -> subprocess.Popen[bytes]:
        process, self.process = self.process, None
        assert process is not None, "it does not run"
        return process

    # ------------------------------------------------------------------ processes

    def zygote_pid(self) -> int | None:
        """Return the process that forks workers, None if there is none at present."""
        assert self.process is not None, "it does not run"
        pids = self._note(children_of(self.process.pid))
        return pids[0] if pids else None

    def worker_pids(self) -> list[int]:
        """Return the worker processes."""
        zygote = self.zygote_pid()
        return [] if zygote is None else self._note(children_of(zygote))

    def kill_worker(self, chance: random.Random) -> bool:
        """Kill one worker; tell whether there was one."""
        pids = self.worker_pids()
        return bool(pids) and kill_process(chance.choice(pids))

    def kill_zygote(self) -> bool:
        """Kill the zygote, and its workers with it; tell whether there was one."""
        self.worker_pids()
        pid = self.zygote_pid()
        return pid is not None and kill_process(pid)

    # ------------------------------------------------------------------ requests

    def get(self, path: str, **headers: str) -> Answer:
        """Return the answer to GET."""
        return self.request("GET", path, None, headers)

    def post(self, path: str, body: Any, **headers: str) -> Answer:
        """Return the answer to POST; `body` is bytes as they are, or becomes JSON."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.request("POST", path, content, headers)

    def request(self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Answer:
        """Return the answer to one request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method, path, body, {name.replace("_", "-"): headers[name] for name in headers}
            )
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return Answer(response.status, fields, response.read())
        finally:
            connection.close()

    def deploy(self, bundle: str | Path | bytes) -> Answer:
        """Deploy one of `support/bundles`, a folder, or finished bytes; return the answer."""
        if isinstance(bundle, str):
            bundle = BUNDLES / bundle / "functions"
        content = bundle if isinstance(bundle, bytes) else pack(bundle)
        return self.post("/api/admin/deploy", content, Authorization=f"Headwater {self.key}")

    def must_deploy(self, bundle: str | Path | bytes) -> str:
        """Deploy and return the bundle's hash."""
        answer = self.deploy(bundle)
        assert answer.status == 200, answer.text
        name: str = answer.json["bundle"]
        return name

    def call(self, kind: str, name: str, /, **arguments: Any) -> Any:
        """Run a function over HTTP and return its result."""
        answer = self.post(f"/api/{kind}", {"path": name, "args": arguments, "format": "json"})
        assert answer.status == 200, answer.text
        assert answer.json["status"] == "success", answer.text
        return answer.json["value"]

    def metric(self, name: str) -> float:
        """Return the value of one metric, named with its labels as `/metrics` prints it; 0 if it is not there yet."""
        lines = self.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} ")), 0.0)

    def doctor(self) -> list[str]:
        """Return what `doctor` finds in the data directory of a daemon that is not running."""
        done = run_server("doctor", "--data", str(self.data), "--json", folder=self.folder)
        assert done.stdout, f"doctor printed nothing (exit {done.returncode}):\n{done.stderr}"
        findings: list[str] = [
            ": ".join(str(part) for part in finding.values() if part is not None)
            for finding in json.loads(done.stdout)["findings"]
        ]
        assert (done.returncode == 0) == (not findings), done
        return findings


@contextlib.contextmanager
def running(folder: Path, *options: str, deploy: str | Path | None = None) -> Iterator[RunningDaemon]:
    """Start a daemon, deploy a bundle, and end all of it with the block."""
    daemon = RunningDaemon(folder, options)
    try:
        daemon.start()
        if deploy is not None:
            daemon.must_deploy(deploy)
        yield daemon
    finally:
        daemon.end()


def serve_command(data: Path) -> list[str]:
    """Return the beginning of a command that serves a data directory."""
    return [sys.executable, "-m", "headwater_server", "serve", "--data", str(data)]


def run_server(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command of the daemon to its end."""
    return subprocess.run(
        [sys.executable, "-m", "headwater_server", *words],
        cwd=folder,
        env=daemon_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=READY_TIMEOUT_S,
        check=False,
    )


def daemon_environment() -> dict[str, str]:
    """Return this process's environment without what would change a daemon."""
    skipped = ("HEADWATER_", "PYTHONASYNCIODEBUG")
    return {name: value for name, value in os.environ.items() if not name.startswith(skipped)}


def free_port() -> int:
    """Return a loopback port that nothing listens on and that this process has not given lately."""
    for port in _ports:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError("unreachable: the ports go round")


def _rounds() -> Iterator[int]:
    """Yield the ports of this process's share again and again, from one drawn by chance."""
    share = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = _PORTS[share :: int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))]
    first = random.SystemRandom().randrange(len(ports))
    return itertools.cycle([*ports[first:], *ports[:first]])


_ports = _rounds()


def children_of(pid: int) -> list[int]:
    """Return the living children of a process, oldest first."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    statuses = [(child, _status(child)) for child in pids]
    found = [(int(status[19]), child) for child, status in statuses if status and int(status[1]) == pid]
    return [child for _, child in sorted(found)]


def start_time(pid: int) -> int | None:
    """Return when a process began, in the kernel's ticks; None if it is gone or a zombie."""
    fields = _status(pid)
    return int(fields[19]) if fields else None


def kill_process(pid: int) -> bool:
    """Kill a process; False if it was gone already."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def _status(pid: int) -> list[str]:
    """Return the fields of a living process's status behind its name; empty if it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [] if fields[0] == "Z" else fields


def wait_until(holds: Callable[[], Any], seconds: float = 20.0) -> None:
    """Wait until something holds; fails after the deadline."""
    deadline_s = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline_s, "waited in vain"
        time.sleep(_POLL_S)
