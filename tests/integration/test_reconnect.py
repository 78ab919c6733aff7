"""Connections that fail in every way a network knows: both sides notice, and the client soon shows the newest state."""

from __future__ import annotations

import asyncio
import contextlib
import random
import resource
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import Client, connect
from support.crowd import Member, allow_sockets
from support.daemon import RunningDaemon, running
from support.ill_proxy import Illness, IllProxy

if TYPE_CHECKING:
    from pathlib import Path

    from support.runs import LongRun

HEARTBEAT_S = 1.0
OPTIONS = ("--heartbeat-s", str(HEARTBEAT_S))
CONVERGED_S = 5.0
"""What is promised, with heartbeats of a second: three of them to notice, and the rest to come back."""
ALL_BACK_S = 30.0
"""What is promised for 2,000 clients at once."""
PATIENCE_S = 60.0
"""Of a trial whose machine does other things as well."""
NEWEST = 1_000


@dataclass
class Patient:
    """A client behind a proxy of its own.

    Attributes:
        shown: What it showed last.
        converged_s: When it had the newest state and its own call was decided, from the illness on.
    """

    illness: Illness
    transport: str
    client: Client
    proxy: IllProxy
    shown: int | None = None
    converged_s: float | None = None

    @property
    def name(self) -> str:
        return f"{self.transport}, {self.illness.value}"

    async def watch(self) -> None:
        async for value in self.client.subscribe("probe:value_of", key="shared"):
            self.shown = value

    async def come_back(self, began_s: float) -> None:
        """Return once it shows the newest state and its call, made while it was ill, is decided."""
        await self.client.mutation("probe:keep", text=self.name)
        while self.shown != NEWEST:
            await asyncio.sleep(0.01)
        self.converged_s = time.monotonic() - began_s


@contextlib.asynccontextmanager
async def patient(daemon: RunningDaemon, illness: Illness, transport: str) -> Any:
    """A client that is connected and shows what there is."""
    async with (
        IllProxy(daemon.tcp_port if transport == "tcp" else daemon.port) as proxy,
        connect(f"{transport}://127.0.0.1:{proxy.port}", connect_timeout_s=PATIENCE_S) as client,
    ):
        one = Patient(illness, transport, client, proxy)
        watching = asyncio.create_task(one.watch())
        async with asyncio.timeout(PATIENCE_S):
            while one.shown is None:
                await asyncio.sleep(0.01)
        yield one
        watching.cancel()


def without_heartbeat(client: Client) -> None:
    client._session.tick = lambda now_mono: []  # type: ignore[method-assign]


async def reconnect_trial(daemon: RunningDaemon) -> dict[str, float]:
    """Let clients fall ill at one moment, each in its way, write once more, and see when they have it.

    Returns:
        When the last of each illness had converged, in ms.
    """
    async with AsyncExitStack() as ends, connect(daemon.url, connect_timeout_s=PATIENCE_S) as healthy:
        await healthy.mutation("probe:keep_value", key="shared", value=0)
        patients: list[Patient] = [
            await ends.enter_async_context(patient(daemon, illness, transport))
            for illness in Illness
            for transport in ("tcp", "ws")
        ]
        hopeless = await ends.enter_async_context(patient(daemon, Illness.HALF_OPEN, "tcp"))
        without_heartbeat(hopeless.client)
        began_s = time.monotonic()
        for one in (*patients, hopeless):
            one.proxy.fall_ill(one.illness)
        coming_back = [asyncio.create_task(one.come_back(began_s)) for one in (*patients, hopeless)]
        last = coming_back.pop()
        await healthy.mutation("probe:keep_value", key="shared", value=NEWEST)
        done, late = await asyncio.wait(coming_back, timeout=PATIENCE_S)
        assert not late, f"did not converge: {[one.name for one in patients if one.converged_s is None]}"
        await asyncio.gather(*done)
        assert not last.done(), "a client without heartbeats noticed that it was stalled"
        last.cancel()
        await asyncio.gather(last, return_exceptions=True)
        return {
            f"max_{illness.name.lower()}_ms": max(
                round(1000 * (one.converged_s or 0.0)) for one in patients if one.illness is illness
            )
            for illness in Illness
        }


def test_ill_connections_converge(tmp_path: Path) -> None:
    with running(tmp_path, *OPTIONS, deploy="probe") as daemon:
        print(asyncio.run(reconnect_trial(daemon)))
        kept = [note["text"] for note in daemon.call("query", "probe:notes")]
        wanted = [f"{transport}, {illness.value}" for illness in Illness for transport in ("tcp", "ws")]
        assert sorted(kept) == sorted(wanted), "a call was lost or took effect twice"


async def lose_clients(daemon: RunningDaemon, patience_s: float) -> bool:
    """Let two clients go without an end of their connections; tell whether the daemon notices."""
    async with AsyncExitStack() as proxies, AsyncExitStack() as clients:
        for port, scheme in ((daemon.tcp_port, "tcp"), (daemon.port, "ws")):
            proxy = await proxies.enter_async_context(IllProxy(port))
            await clients.enter_async_context(connect(f"{scheme}://127.0.0.1:{proxy.port}"))
            proxy.fall_ill(Illness.HALF_OPEN)
        assert await asyncio.to_thread(daemon.metric, "headwater_sessions") == 2
        await clients.aclose()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                while await asyncio.to_thread(daemon.metric, "headwater_sessions"):
                    await asyncio.sleep(0.05)
                return True
        return False


def test_a_half_open_client_is_dropped(tmp_path: Path) -> None:
    with running(tmp_path, *OPTIONS, deploy="probe") as daemon:
        assert asyncio.run(lose_clients(daemon, PATIENCE_S))


def test_without_the_servers_heartbeat_a_half_open_client_stays(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path, OPTIONS)
    daemon.break_rule("heartbeat")
    try:
        daemon.start()
        assert not asyncio.run(lose_clients(daemon, CONVERGED_S + HEARTBEAT_S))
    finally:
        daemon.end()


# ------------------------------------------------------------------------------------ all of them at once


async def restart_trial(daemon: RunningDaemon, count: int, chance: random.Random) -> dict[str, float]:
    """Kill a daemon that has many clients, start another, and see when all show its newest state.

    Each has a query that all share, and one of its own.
    """
    allow_sockets(2 * count + 500)
    members = [
        Member(
            *((daemon.port, chance) if number % 2 else (daemon.tcp_port, chance)), websocket=number % 2 == 1
        )
        for number in range(count)
    ]
    for number, member in enumerate(members):
        member.subscribe("probe:value_of", key="shared")
        member.subscribe("probe:count", text=str(number))
    running_members = [asyncio.create_task(member.run()) for member in members]
    try:
        await asyncio.to_thread(daemon.call, "mutation", "probe:keep_value", key="shared", value=0)
        await all_show(members, 0)
        await asyncio.to_thread(daemon.kill)
        await asyncio.to_thread(daemon.start)
        began_s = time.monotonic()
        await asyncio.to_thread(daemon.call, "mutation", "probe:keep_value", key="shared", value=NEWEST)
        await all_show(members, NEWEST)
        took_s = time.monotonic() - began_s
    finally:
        for task in running_members:
            task.cancel()
        await asyncio.gather(*running_members, return_exceptions=True)
    assert not [member.ended for member in members if member.ended], "clients were refused"
    return {
        "clients": count,
        "max_all_back_ms": round(took_s * 1000),
        "max_connections": max(m.connections for m in members),
    }


async def all_show(members: list[Member], value: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while any(value not in member.values.values() or len(member.values) < 2 for member in members):
            await asyncio.sleep(0.05)


def test_all_clients_come_back_at_once(tmp_path: Path) -> None:
    """More of them than a process may have open files where nobody has raised the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    daemon = RunningDaemon(tmp_path)
    try:
        daemon.start()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        daemon.must_deploy("probe")
        print(asyncio.run(restart_trial(daemon, 150, random.Random(1))))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        daemon.end()


@pytest.mark.slow
def test_reconnects_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        with running(tmp_path / str(seed), *OPTIONS, deploy="probe") as daemon:
            figures = asyncio.run(reconnect_trial(daemon))
        assert max(figures.values()) <= CONVERGED_S * 1000, figures
        long_run.record("reconnect", seed, connections=2 * len(Illness), **figures)


@pytest.mark.slow
def test_two_thousand_clients_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        with running(tmp_path / str(seed), deploy="probe") as daemon:
            figures = asyncio.run(restart_trial(daemon, 2_000, random.Random(seed)))
        assert figures["max_all_back_ms"] <= ALL_BACK_S * 1000, figures
        long_run.record("crowd", seed, **figures)
