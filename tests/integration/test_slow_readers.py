"""Clients that stop reading cost the daemon a bounded amount of memory, and the others nothing they would notice."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.crowd import Member, allow_sockets
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from support.runs import LongRun

MIB = 1 << 20
EACH_MAX_BYTES = MIB
ALL_MAX_BYTES = 200 * MIB
LATENCY_FACTOR_MAX = 1.5
KERNEL_EACH_MAX_BYTES = 256 << 10
"""What the system may hold for each beside: half of what is set as the limit of the socket, doubled twice by the kernel."""
PATIENCE_S = 120.0
WRITERS = 64
OPTIONS = ("--session-stall-limit-s", "3600", "--heartbeat-s", "600", "--delta-memory-bytes", str(2 * MIB))
"""Nobody is closed for not reading; and memory that is shared by all is full before it is measured."""


@dataclass(frozen=True)
class Scale:
    """How much of it.

    Attributes:
        silent: Clients that stop reading; each second one has a document of its own, the others share one.
        healthy: Clients that go on reading: the shared document and one of the others'.
        value_bytes: Of what is written each time.
        writes_per_s: Over all documents.
        shared: What part of them goes to the shared one.
        before_s: How long all of them read.
        unread_s: How long some do not.
    """

    silent: int
    healthy: int
    value_bytes: int
    writes_per_s: int
    shared: float
    before_s: float
    unread_s: float


SHORT = Scale(
    silent=50, healthy=4, value_bytes=60_000, writes_per_s=200, shared=0.1, before_s=1.0, unread_s=5.0
)
LONG = Scale(
    silent=500, healthy=20, value_bytes=2_000, writes_per_s=1_000, shared=0.01, before_s=60.0, unread_s=300.0
)


def memory_bytes(daemon: RunningDaemon) -> int:
    """Return the daemon's proportional set size without its workers, and without the store's pages that it has mapped."""
    assert daemon.process is not None
    lines = Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon:")) * 1024


def kernel_bytes(daemon: RunningDaemon) -> int:
    """Return what the system holds of what the daemon has sent and nobody has taken."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ports = {daemon.port, daemon.tcp_port}
    return sum(int(row[4].split(":")[0], 16) for row in rows if int(row[1].split(":")[1], 16) in ports)


@dataclass
class Latencies:
    """From a write to its update, at clients that read."""

    seconds: list[float] = field(default_factory=list)

    def note(self, value: Any) -> None:
        if value:
            self.seconds.append(time.monotonic() - float(value.split()[0]))

    async def take(self) -> tuple[float, float]:
        """Return median and 99th percentile in ms since the last call; on a busy machine the first may come late."""
        async with asyncio.timeout(PATIENCE_S):
            while not self.seconds:
                await asyncio.sleep(0.05)
        found, self.seconds = sorted(self.seconds), []
        return statistics.median(found) * 1000, found[len(found) * 99 // 100] * 1000


@dataclass
class Writing:
    """What is written, at a rate if that can be kept.

    Attributes:
        written: How many writes were acknowledged.
    """

    scale: Scale
    chance: random.Random
    writers: list[Member]
    written: int = 0
    _ticket: int = 0

    async def run(self) -> None:
        began_s = time.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for writer in self.writers:
                tasks.create_task(self._write(writer, began_s))

    async def _write(self, writer: Member, began_s: float) -> None:
        while True:
            due_s = began_s + self._ticket / self.scale.writes_per_s
            self._ticket += 1
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            own = 1 + 2 * self.chance.randrange(self.scale.silent // 2)
            await self.write(writer, "shared" if self.chance.random() < self.scale.shared else f"own {own}")

    async def write(self, writer: Member, key: str) -> None:
        value = f"{time.monotonic()} ".ljust(self.scale.value_bytes, "x")
        await writer.mutation("probe:keep_value", key=key, value=value)
        self.written += 1


@dataclass
class Crowd:
    """All clients of a trial."""

    silent: list[Member]
    healthy: list[Member]
    writers: list[Member]
    latencies: Latencies

    @property
    def all(self) -> list[Member]:
        return [*self.silent, *self.healthy, *self.writers]


def crowd(daemon: RunningDaemon, scale: Scale, chance: random.Random) -> Crowd:
    """Make the clients, half of each kind over WebSocket."""

    def member(number: int) -> Member:
        websocket = number // 2 % 2 == 1
        return Member(daemon.port if websocket else daemon.tcp_port, chance, websocket=websocket)

    found = Crowd(
        [member(number) for number in range(scale.silent)],
        [member(number) for number in range(scale.healthy)],
        [member(number) for number in range(WRITERS)],
        Latencies(),
    )
    for number, one in enumerate(found.silent):
        one.receive_buffer_bytes = 64 << 10
        one.subscribe("probe:value_of", key=f"own {number}" if number % 2 else "shared")
    for number, one in enumerate(found.healthy):
        one.on_value = found.latencies.note
        one.subscribe("probe:value_of", key="shared")
        one.subscribe("probe:value_of", key=f"own {1 + 2 * (number % (scale.silent // 2))}")
    return found


async def unread_trial(daemon: RunningDaemon, scale: Scale, chance: random.Random) -> dict[str, float]:
    """Let clients stop reading, and compare memory and latency with those of before."""
    allow_sockets(2 * scale.silent + 500)
    clients = crowd(daemon, scale, chance)
    tasks = [asyncio.create_task(member.run()) for member in clients.all]
    writing = Writing(scale, chance, clients.writers)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not all(member.is_open for member in clients.all):
                await asyncio.sleep(0.05)
        load = asyncio.create_task(writing.run())
        tasks.append(load)
        await asyncio.sleep(scale.before_s)
        latency = await clients.latencies.take()
        before = memory_bytes(daemon), *latency
        for member in clients.silent:
            member.stop_reading()
        most, kernel = await watch_memory(daemon, scale.unread_s)
        during = await clients.latencies.take()
        blocked = await asyncio.to_thread(daemon.metric, "headwater_sessions_blocked")
        load.cancel()
        await asyncio.gather(load, return_exceptions=True)
        cost = max(0, most - before[0])
        figures = {
            "writes": writing.written,
            "clients": scale.silent,
            "blocked": blocked,
            "max_each_kib": cost // scale.silent // 1024,
            "max_all_mib": round(cost / MIB, 1),
            "max_kernel_each_kib": kernel // scale.silent // 1024,
            "max_latency_percent": round(100 * during[0] / before[1]),
            "max_p99_percent": round(100 * during[1] / before[2]),
        }
        print(figures)
        assert cost <= min(EACH_MAX_BYTES * scale.silent, ALL_MAX_BYTES), f"they cost too much: {figures}"
        assert kernel <= KERNEL_EACH_MAX_BYTES * scale.silent, f"the system holds too much: {figures}"
        await read_again(clients, writing)
        return figures
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def watch_memory(daemon: RunningDaemon, seconds: float) -> tuple[int, int]:
    """Return the most that the daemon, and the system for it, held in the next seconds."""
    deadline_s = time.monotonic() + seconds
    most = kernel = 0
    while time.monotonic() < deadline_s:
        await asyncio.sleep(0.25)
        most, kernel = max(most, memory_bytes(daemon)), max(kernel, kernel_bytes(daemon))
    return most, kernel


async def read_again(clients: Crowd, writing: Writing) -> None:
    """Let all read again: each goes on, on the connection it has, and shows the newest state."""
    since_s = time.monotonic()
    for number in range(len(clients.silent)):
        await writing.write(clients.writers[0], f"own {number}" if number % 2 else "shared")
    for member in clients.silent:
        member.read_on()
    async with asyncio.timeout(PATIENCE_S):
        for member in clients.silent:
            while not is_newer(member, since_s) and member.connections == 1:
                await asyncio.sleep(0.02)
    assert all(member.connections == 1 for member in clients.silent), "a client was cut off"


def is_newer(member: Member, since_s: float) -> bool:
    return any(value is not None and float(value.split()[0]) >= since_s for value in member.values.values())


def trial(folder: Path, seed: int, scale: Scale, broken: str | None = None) -> dict[str, float]:
    daemon = RunningDaemon(folder, OPTIONS)
    try:
        if broken is not None:
            daemon.break_rule(broken)
        daemon.start()
        daemon.must_deploy("probe")
        return asyncio.run(unread_trial(daemon, scale, random.Random(seed)))
    finally:
        daemon.end()


def test_clients_that_do_not_read_cost_little(tmp_path: Path) -> None:
    figures = trial(tmp_path, random.SystemRandom().randrange(2**32), SHORT)
    assert figures["blocked"] == SHORT.silent, "not all had more than they may"


def test_the_trial_finds_a_daemon_that_sends_on(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"cost too much|was cut off"):
        trial(tmp_path, random.SystemRandom().randrange(2**32), SHORT, "blocked")


@pytest.mark.slow
def test_unread_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        figures = trial(tmp_path / str(seed), seed, LONG)
        assert figures["max_latency_percent"] <= 100 * LATENCY_FACTOR_MAX, figures
        long_run.record("unread", seed, **figures)
