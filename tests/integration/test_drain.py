"""A daemon that is told to stop: it answers what it has accepted, tells its clients to come back, and ends with 0 in time."""

from __future__ import annotations

import asyncio
import http.client
import json
import random
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import ClientError
from headwater_protocol.codec import encode_message
from headwater_protocol.frames import frame
from headwater_protocol.messages import AddQuery, Connect, ModifyQuerySet, Mutation
from headwater_protocol.values import pack_value
from support.daemon import RunningDaemon, running, wait_until
from support.wire_client import UPGRADE, WireClient, masked_frame

if TYPE_CHECKING:
    from headwater_protocol.messages import ClientMessage
    from support.runs import LongRun

STOP_LIMIT_S = 10.0
"""What is promised, from the signal to the end of the process."""
CLIENTS = 32
BURST = 6
CALL_S = 0.003
PAUSE_S = 0.04
QUERY_S = 0.1
FURTHER_SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGTERM, signal.SIGINT]
COME_BACK = ("unavailable", 1012)


def stop(daemon: RunningDaemon, *signals: signal.Signals) -> float:
    """Send signals, a moment apart, and return how long the daemon took to end; it must end in time, with 0."""
    process = daemon.process
    assert process is not None
    began_s = time.monotonic()
    for number in signals or (signal.SIGTERM,):
        daemon.signal(number)
        time.sleep(0.05)
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_LIMIT_S)
    took_s = time.monotonic() - began_s
    assert process.poll() is not None, f"it did not end within {STOP_LIMIT_S} s:\n{daemon.log_text()}"
    assert daemon.wait_end() == 0, daemon.log_text()
    return took_s


# ------------------------------------------------------------------------------------------- under load


@dataclass
class Session:
    """A client that never stops sending, and its record.

    Attributes:
        sent: Its mutations; they put its number and theirs into the database.
        accepted: So many of them had reached the daemon before it was told to stop.
        answered: Which were answered with a success.
    """

    number: int
    url: str
    sent: list[Mutation] = field(default_factory=list)
    accepted: int = 0
    answered: set[int] = field(default_factory=set)

    @property
    def name(self) -> bytes:
        return self.number.to_bytes(16, "big")

    def texts(self) -> list[str]:
        return [f"{self.number:03}/{mutation.request:06}" for mutation in self.sent]

    def next_mutation(self) -> Mutation:
        request = len(self.sent)
        arguments = pack_value({"text": f"{self.number:03}/{request:06}", "seconds": CALL_S})
        self.sent.append(Mutation(request, "probe:keep_slowly", arguments))
        return self.sent[-1]

    async def load(self) -> WireClient:
        """Connect, ask for more than the daemon does at once, and return when it has all of it."""
        client = await WireClient.open(self.url, self.name)
        query = AddQuery(1, "probe:count_slowly", pack_value({"text": "", "seconds": QUERY_S}), None, None)
        await client.send(ModifyQuerySet(0, 1, (query,), ()))
        await client.send(*[self.next_mutation() for _ in range(BURST)])
        await client.received()
        self.accepted = BURST
        return client

    async def go_on(self, client: WireClient) -> None:
        """Send more until the daemon has ended the connection, which must be as it was promised."""
        with suppress(OSError, ClientError):
            while client.end is None:
                await client.send(self.next_mutation())
                await asyncio.sleep(PAUSE_S)
        await client.ended()
        assert client.end is not None, "it was cut off without a word"
        assert (client.end.code, client.close_code or COME_BACK[1]) == COME_BACK
        self.note(client)
        left = set(range(self.accepted)) - self.answered
        assert not left, f"client {self.number}: accepted and not answered: {left}"
        assert 1 in client.changed, "a query was accepted and not answered"

    def note(self, client: WireClient) -> None:
        for request, answer in client.answers.items():
            assert answer.error is None, answer.error
            self.answered.add(request)

    async def send_again(self, daemon: RunningDaemon) -> None:
        """Ask the next daemon for what was not answered."""
        client = await WireClient.open(daemon.tcp_url, self.name)
        open_ = [mutation for mutation in self.sent if mutation.request not in self.answered]
        await client.send(*open_)
        async with asyncio.timeout(60):
            while len(client.answers) < len(open_):
                await client.received()
        self.note(client)
        await client.close()


async def load_and_stop(
    daemon: RunningDaemon, chance: random.Random
) -> tuple[list[Session], dict[str, float]]:
    sessions = [
        Session(number, daemon.url if number % 2 else daemon.tcp_url)
        for number in chance.sample(range(1, 1_000), CLIENTS)
    ]
    async with AsyncExitStack() as ends:
        clients = await asyncio.gather(*[session.load() for session in sessions])
        for client in clients:
            ends.push_async_callback(client.close)
        return sessions, await stop_under_load(daemon, chance, sessions, clients)


async def stop_under_load(
    daemon: RunningDaemon, chance: random.Random, sessions: list[Session], clients: list[WireClient]
) -> dict[str, float]:
    going_on = [
        asyncio.create_task(session.go_on(client)) for session, client in zip(sessions, clients, strict=True)
    ]
    await asyncio.sleep(chance.uniform(0, 0.2))
    open_before = sum(
        session.accepted - len(client.answers) for session, client in zip(sessions, clients, strict=True)
    )
    took_s = await asyncio.to_thread(stop, daemon)
    await asyncio.gather(*going_on)
    return {
        "stops": 1,
        "answered": sum(len(session.answered) for session in sessions),
        "open_at_the_signal": open_before,
        "max_stop_ms": round(took_s * 1000),
    }


def drain_trial(folder: Path, seed: int, broken: str | None = None) -> dict[str, float]:
    """Stop a daemon under load, start it again, and look at what came of every call."""
    chance = random.Random(seed)
    daemon = RunningDaemon(folder)
    try:
        if broken is not None:
            daemon.break_rule(broken)
        daemon.start()
        daemon.must_deploy("probe")
        sessions, figures = asyncio.run(load_and_stop(daemon, chance))
        assert figures["open_at_the_signal"], "nothing was in flight"
        daemon.start()

        async def send_again() -> None:
            await asyncio.gather(*[session.send_again(daemon) for session in sessions])

        asyncio.run(send_again())
        notes = sorted(daemon.call("query", "probe:notes"), key=lambda note: note["_creationTime"])
        for session in sessions:
            prefix = f"{session.number:03}/"
            kept = [note["text"] for note in notes if note["text"].startswith(prefix)]
            assert kept == session.texts(), f"client {session.number}: lost, doubled or out of order"
        figures["sent_again"] = sum(len(session.sent) for session in sessions) - figures["answered"]
        return figures
    finally:
        daemon.end()


def test_a_stop_under_load_answers_what_was_accepted(tmp_path: Path) -> None:
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    print(drain_trial(tmp_path, seed))


@pytest.mark.parametrize(
    ("broken", "found"), [("drained", "accepted and not answered"), ("farewell", "without a word")]
)
def test_the_trial_finds_a_daemon_that(broken: str, found: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=found):
        drain_trial(tmp_path, random.SystemRandom().randrange(2**32), broken)


# ------------------------------------------------------------------------------- what does not end by itself


def test_a_call_that_runs_longer_than_the_limit_has_no_effect(tmp_path: Path) -> None:
    mutation = Mutation(0, "probe:keep_slowly", pack_value({"text": "slow", "seconds": 30.0}))

    async def begin_and_stop(daemon: RunningDaemon) -> None:
        client = await WireClient.open(daemon.tcp_url, b"s" * 16)
        await client.send(mutation)
        await client.received()
        await asyncio.to_thread(stop, daemon)
        await client.ended()
        assert client.end is not None
        assert client.end.code == "unavailable"
        assert not client.answers
        await client.close()

    with running(tmp_path, "--drain-limit-s", "0.2", "--call-time-limit-s", "60", deploy="probe") as daemon:
        asyncio.run(begin_and_stop(daemon))
        daemon.start()
        assert daemon.call("query", "probe:count", text="slow") == 0


def test_calls_over_http_are_answered_and_no_more_are_taken(tmp_path: Path) -> None:
    """However many signals come meanwhile."""
    with (
        running(tmp_path, "--call-time-limit-s", "60", deploy="probe") as daemon,
        ThreadPoolExecutor() as threads,
    ):
        keep = threads.submit(daemon.call, "mutation", "probe:keep_slowly", text="kept", seconds=1.0)
        look = threads.submit(daemon.call, "query", "probe:count_slowly", text="kept", seconds=1.0)
        idle = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
        with closing(idle):
            for _ in range(20):  # so that the daemon has had what came before
                idle.request("GET", "/health")
                assert idle.getresponse().read()
            wait_until(lambda: daemon.metric("headwater_calls_running") == 2)
            stopping = threads.submit(stop, daemon, *FURTHER_SIGNALS)
            wait_until(lambda: daemon.log_text().count('"stopping"'))
            idle.request("POST", "/api/mutation", b'{"path": "probe:keep", "args": {"text": "late"}}')
            refused = idle.getresponse()
            assert refused.status == 503
            assert json.loads(refused.read())["code"] == "unavailable"
            assert refused.headers["Retry-After"]
        assert keep.result()
        assert look.result() == 0
        stopping.result()
        daemon.start()
        assert [note["text"] for note in daemon.call("query", "probe:notes")] == ["kept"]


def test_clients_that_do_not_read_or_are_gone_hold_nothing_up(tmp_path: Path) -> None:
    """Several hundred kB are on their way to some, nothing to others, and none of them ever closes its end."""
    with running(tmp_path, deploy="probe") as daemon, ExitStack() as ends:
        daemon.call("mutation", "probe:keep", text="x" * 500_000)
        look = ModifyQuerySet(0, 1, (AddQuery(1, "probe:notes", pack_value({}), None, None),), ())
        for number in range(8):
            connection = ends.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.connect(("127.0.0.1", daemon.tcp_port if number % 2 else daemon.port))
            hello: list[ClientMessage] = [Connect((1,), number.to_bytes(16, "big"), 0, None, "mute")]
            hello += [look] * (number < 4)
            if number % 2:
                connection.sendall(b"".join(frame(encode_message(message)) for message in hello))
            else:
                connection.sendall(UPGRADE.encode())
                connection.sendall(b"".join(masked_frame(encode_message(message)) for message in hello))
        wait_until(lambda: daemon.metric("headwater_sessions") == 8)
        wait_until(lambda: daemon.metric("headwater_sent_bytes_total") > 4 * 500_000)
        half = ends.enter_context(socket.create_connection(("127.0.0.1", daemon.port)))
        half.sendall(b"POST /api/mutation HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
        assert stop(daemon) < 5, "there was nothing to wait for"


# ------------------------------------------------------------------------------------- signals at odd times


def test_a_signal_during_the_start(tmp_path: Path) -> None:
    """From the moment on at which the daemon handles it, at several places of the start."""
    with running(tmp_path, deploy="probe") as daemon:
        daemon.call("mutation", "probe:keep", text="kept")
        daemon.kill()
        chance = random.SystemRandom()
        for number, pause_s in ((signal.SIGTERM, 0.0), (signal.SIGINT, chance.uniform(0.0, 0.4))):
            daemon.launch()
            wait_until(lambda: handles(daemon, signal.SIGTERM))
            time.sleep(pause_s)
            stop(daemon, number)
        daemon.start()
        assert daemon.call("query", "probe:count", text="kept") == 1
        stop(daemon)
        assert daemon.doctor() == []


def handles(daemon: RunningDaemon, number: signal.Signals) -> bool:
    """Tell whether a process has a handler for a signal."""
    assert daemon.process is not None
    status = Path(f"/proc/{daemon.process.pid}/status").read_text()
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


@pytest.mark.parametrize(("import_s", "ends"), [(0.3, "deployed"), (2.5, "refused")])
def test_a_signal_during_a_deploy(import_s: float, ends: str, tmp_path: Path) -> None:
    """A deploy is finished if the limit allows it, else nothing has changed; the functions stand for which one it is."""
    late = tmp_path / "late" / "functions"
    late.mkdir(parents=True)
    source = f"import time\nfrom headwater import QueryCtx, query\ntime.sleep({import_s})\n"
    (late / "__init__.py").write_text("")
    (late / "late.py").write_text(source + "@query\ndef new(ctx: QueryCtx) -> int:\n    return 1\n")
    with (
        running(tmp_path / "daemon", "--drain-limit-s", "1.5", deploy="probe") as daemon,
        ThreadPoolExecutor() as threads,
    ):
        deploy = threads.submit(daemon.deploy, late)
        wait_until(lambda: len(daemon.worker_pids()) > 2)
        stop(daemon)
        try:
            deployed = deploy.result().status == 200
        except (OSError, http.client.HTTPException):
            deployed = False
        assert deployed == (ends == "deployed")
        daemon.start()
        if deployed:
            assert daemon.call("query", "late:new") == 1
        else:
            assert daemon.call("query", "probe:notes") == []


# ---------------------------------------------------------------------------------------------- at length


@pytest.mark.slow
def test_drains_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        long_run.record("drain", seed, **drain_trial(tmp_path / str(seed), seed))
