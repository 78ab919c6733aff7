"""More than the daemon can do: it refuses with a code that says to come back, goes on at its rate, and is soon as before."""

from __future__ import annotations

import asyncio
import http.client
import random
import socket
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING

import pytest
from headwater.client.aio import connect
from headwater_protocol.codec import encode_message
from headwater_protocol.frames import frame
from headwater_protocol.messages import Connect, Mutation
from headwater_protocol.values import pack_value
from support.daemon import RunningDaemon, running, wait_until
from support.flood import Flood
from support.wire_client import WireClient

if TYPE_CHECKING:
    from pathlib import Path

    from support.runs import LongRun

TIMES = 10
PEAK_KEPT = 0.8
NORMAL_AGAIN_S = 10.0
HEALTH_S = 1.0
PATIENCE_S = 120.0


@dataclass(frozen=True)
class Scale:
    """How much of it.

    Attributes:
        clients: Sessions.
        in_flight: At each of them, for the peak: what saturates the daemon.
        turns: How often the peak and the overload follow each other: the machine's speed may drift.
        peak_s: How long the peak is measured.
        overload_s: How long the overload lasts.
        options: Of the daemon.
    """

    clients: int
    in_flight: int
    turns: int
    peak_s: float
    overload_s: float
    options: tuple[str, ...] = ()


SHORT = Scale(16, 8, 1, 0.5, 1.0, ("--mutation-queue-limit", "300"))
LONG = Scale(64, 16, 5, 6.0, 12.0)


class Health:
    """Asks `/health` again and again, each time over a connection of its own.

    Attributes:
        slowest_s: The longest an answer took.
        asked: How often.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.slowest_s = 0.0
        self.asked = 0

    async def ask(self) -> None:
        while True:
            began_s = time.monotonic()
            async with asyncio.timeout(PATIENCE_S):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
                writer.close()
            assert b" 200 " in answer.split(b"\r\n")[0]
            self.slowest_s = max(self.slowest_s, time.monotonic() - began_s)
            self.asked += 1
            await asyncio.sleep(0.1)


async def one_by_one_s(polite: Flood, count: int) -> float:
    """Return the median of some mutations, one at a time; infinite if one of them was refused."""
    (spout,) = polite.spouts
    refused = spout.outcomes["overloaded"]
    for _ in range(count):
        spout.send(1)
        while spout.in_flight:
            await asyncio.sleep(0.0005)
    return inf if spout.outcomes["overloaded"] > refused else statistics.median(spout.latencies_s[-count:])


async def overload_trial(daemon: RunningDaemon, scale: Scale, chance: random.Random) -> dict[str, float]:
    """Find the peak and send ten times as much, in turns; see what is accepted, and how it is afterwards."""
    flood = await Flood.open(daemon.tcp_port, scale.clients, chance)
    polite = await Flood.open(daemon.tcp_port, 1, chance)
    health = Health(daemon.port)
    asking = asyncio.create_task(health.ask())
    kept, normal_again_s = [], []
    try:
        await flood.keep_in_flight(scale.in_flight, scale.peak_s / 4)
        for _ in range(scale.turns):
            await flood.settled(PATIENCE_S)
            before_s = await one_by_one_s(polite, 20)
            peak = await flood.keep_in_flight(scale.in_flight, scale.peak_s)
            accepted, _ = await flood.send_at(TIMES * peak, TIMES * scale.in_flight, scale.overload_s)
            over_s = time.monotonic()
            while await one_by_one_s(polite, 20) > 2 * before_s and time.monotonic() < over_s + PATIENCE_S:
                pass
            normal_again_s.append(time.monotonic() - over_s)
            kept.append(accepted / peak)
            print(f"peak {peak:.0f}/s, accepted in the overload {accepted:.0f}/s, {dict(flood.outcomes)}")
        await flood.settled(PATIENCE_S)
        assert not asking.done(), asking
        ended = [spout.ended for spout in flood.spouts if spout.ended]
        figures = {
            "accepted": flood.outcomes[""] + polite.outcomes[""],
            "shed": flood.outcomes["overloaded"],
            "kept_percent": round(100 * statistics.median(kept)),
            "max_normal_again_ms": round(1000 * max(normal_again_s)),
            "max_health_ms": round(1000 * health.slowest_s),
        }
        print(figures)
        assert not ended, f"the server ended connections: {ended}"
        assert flood.outcomes.keys() <= {"", "overloaded"}, flood.outcomes
        return figures
    finally:
        asking.cancel()
        flood.close()
        polite.close()


def trial(folder: Path, seed: int, scale: Scale, broken: str | None = None) -> dict[str, float]:
    daemon = RunningDaemon(folder, scale.options)
    try:
        if broken is not None:
            daemon.break_rule(broken)
        daemon.start()
        daemon.must_deploy("probe")
        figures = asyncio.run(overload_trial(daemon, scale, random.Random(seed)))
        kept = sum(daemon.call("query", "probe:count", text=f"spout {n}") for n in range(scale.clients))
        assert kept == figures["accepted"], "what was refused took effect, or what was accepted did not"
        return figures
    finally:
        daemon.end()


def test_an_overloaded_daemon_sheds_and_goes_on(tmp_path: Path) -> None:
    figures = trial(tmp_path, random.SystemRandom().randrange(2**32), SHORT)
    assert figures["shed"], "nothing was refused: it was no overload"


def test_without_a_limit_nothing_is_shed(tmp_path: Path) -> None:
    assert not trial(tmp_path, random.SystemRandom().randrange(2**32), SHORT, "shed")["shed"]


async def test_what_is_sent_again_is_answered_as_it_was_also_beyond_the_limit(tmp_path: Path) -> None:
    """A refusal says that a mutation had no effect: one that has had it must not be told so."""

    with running(tmp_path, "--mutation-queue-limit", "2", deploy="probe") as daemon:
        first = await WireClient.open(daemon.tcp_url, b"r" * 16)
        for n in range(3):
            await first.send(Mutation(n, "probe:keep", pack_value({"text": f"{n}"})))
            async with asyncio.timeout(PATIENCE_S):
                while n not in first.answers:
                    await first.received()
        await first.close()  # its answers count as lost
        again = await WireClient.open(daemon.tcp_url, b"r" * 16)
        await again.send(*[Mutation(n, "probe:keep", pack_value({"text": f"{n}"})) for n in range(3)])
        async with asyncio.timeout(PATIENCE_S):
            while len(again.answers) < 3:
                await again.received()
        await again.close()
    assert {n: (answer.value, answer.error) for n, answer in again.answers.items()} == {
        n: (answer.value, None) for n, answer in first.answers.items()
    }


# ------------------------------------------------------------------------------------------- memory


def test_large_mutations_of_many_clients_wait_within_one_bound(tmp_path: Path) -> None:
    """What is beyond it is refused, for sessions and over HTTP alike, and room comes back."""

    async def fill(daemon: RunningDaemon) -> None:
        clients = [await WireClient.open(daemon.tcp_url, bytes([n]) * 16) for n in range(6)]
        for client in clients:  # each has one that runs for long, and a large one behind it
            assert client.welcome is not None
            ts = client.welcome.ts
            await client.send(
                Mutation(0, "probe:keep_slowly", pack_value({"text": "slow", "seconds": 1.5}), 0, ts),
                Mutation(1, "probe:keep", pack_value({"text": "x" * 300_000}), 0, ts),
            )
            await client.received()
        refused = [n for n, client in enumerate(clients) if 1 in client.answers]
        assert refused == [3, 4, 5], "three of them are all that fits into a million bytes"
        body = {"path": "probe:keep", "args": {"text": "x" * 300_000}}
        answer = await asyncio.to_thread(daemon.post, "/api/mutation", body)
        assert answer.status == 503
        assert answer.json["code"] == "overloaded"
        async with asyncio.timeout(PATIENCE_S):
            while any(len(client.answers) < 2 for client in clients):
                await clients[0].received()
        for n, client in enumerate(clients):
            error = client.answers[1].error
            assert (error.code if error else "") == ("overloaded" if n in refused else "")
            await client.close()

    options = ("--mutation-queue-limit-bytes", "1000000", "--call-time-limit-s", "30")
    with running(tmp_path, *options, deploy="probe") as daemon:
        asyncio.run(fill(daemon))
        assert daemon.call("mutation", "probe:keep", text="x" * 300_000)
        assert daemon.call("query", "probe:count", text="x" * 300_000) == 4


@pytest.mark.parametrize("broken", [None, "paused"])
def test_mutations_of_a_client_that_does_not_read_its_answers_wait(
    broken: str | None, tmp_path: Path
) -> None:
    """Each answer has 100 kB, and the client takes none; what it may have unread bounds what is run for it."""

    async def send_unread(daemon: RunningDaemon) -> None:
        with socket.socket() as mute:
            mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            mute.connect(("127.0.0.1", daemon.tcp_port))
            mute.sendall(frame(encode_message(Connect((1,), b"m" * 16, 0, None, "mute"))))
            assert mute.recv(1), "it is welcome"
            for number in range(100):
                arguments = pack_value({"value": "x" * 100_000})
                mute.sendall(frame(encode_message(Mutation(number, "probe:keep_any", arguments))))
            client = await WireClient.open(daemon.tcp_url, b"w" * 16)
            for number in range(200):  # others go on
                await client.send(Mutation(number, "probe:keep", pack_value({"text": "beside"})))
                await client.received()
            async with asyncio.timeout(PATIENCE_S):
                while len(client.answers) < 200:
                    await client.received()
            await client.close()

    daemon = RunningDaemon(tmp_path)
    try:
        if broken is not None:
            daemon.break_rule(broken)
        daemon.start()
        daemon.must_deploy("probe")
        asyncio.run(send_unread(daemon))
        ran = daemon.call("query", "probe:count", text="any")
        assert ran
        assert (ran < 20) == (broken is None), f"{ran} were run, and nobody takes the answers"
    finally:
        daemon.end()


def test_connections_over_http_are_counted(tmp_path: Path) -> None:
    with running(tmp_path, "--max-http-connections", "20", deploy="probe") as daemon, ExitStack() as ends:
        for _ in range(20):
            idle = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
            ends.callback(idle.close)
            idle.request("GET", "/version")
            idle.getresponse().read()
        answer = daemon.get("/health")
        assert answer.status == 503
        assert answer.json["code"] == "overloaded"
        assert answer.headers["retry-after"]
        asyncio.run(see_a_value(daemon))  # clients with a session have a limit of their own
        ends.close()
        wait_until(daemon.is_ready)


async def see_a_value(daemon: RunningDaemon) -> None:
    async with connect(daemon.tcp_url) as client:
        assert await client.query("probe:notes") == []


@pytest.mark.slow
def test_overload_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        figures = trial(tmp_path / str(seed), seed, LONG)
        assert figures["kept_percent"] >= 100 * PEAK_KEPT, figures
        assert figures["max_normal_again_ms"] <= 1000 * NORMAL_AGAIN_S, figures
        assert figures["max_health_ms"] <= 1000 * HEALTH_S, figures
        del figures["kept_percent"]  # it does not add up
        long_run.record("overload", seed, **figures)
