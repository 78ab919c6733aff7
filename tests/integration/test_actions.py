"""Actions in a real daemon: what they may do, who hears of their end, deploys, kills, cuts and stops."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import ApplicationError, HeadwaterError, OutcomeUnknown
from support.daemon import BUNDLES, RunningDaemon, kill_process, running, start_time, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = BUNDLES / "actions" / "functions"


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("actions")
    with running(folder, "--action-workers", "1", deploy="actions") as found:
        yield found


def refused(daemon: RunningDaemon, name: str, /, **arguments: Any) -> tuple[str, str]:
    """Return code and message of an action that must fail."""
    answer = daemon.post("/api/action", {"path": name, "args": arguments})
    assert answer.status == 200, answer.text
    assert answer.json["status"] == "error", answer.text
    return answer.json["errorCode"], answer.json["errorMessage"]


def texts(daemon: RunningDaemon) -> list[str]:
    found: list[str] = daemon.call("query", "works:texts")
    return found


# ------------------------------------------------------------------------------------------- what they may do


def test_queries_and_mutations_of_an_action_are_transactions_of_their_own(daemon: RunningDaemon) -> None:
    before = len(texts(daemon))
    assert daemon.call("action", "works:write", texts=["a", "b"]) == before + 2
    assert refused(daemon, "works:write", texts=["c", "", "d"])[0] == "application_error"
    assert texts(daemon)[before:] == ["a", "b", "c"], "what was committed stays"
    assert daemon.call("action", "works:write_many", count=200) == before + 203


def test_the_world_outside_is_open_to_actions(daemon: RunningDaemon, tmp_path: Path) -> None:
    assert daemon.call("action", "works:outside", path=str(tmp_path / "file")) == socket.gethostname()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            connection.sendall(b"hello\n")
            connection.close()

        threading.Thread(target=answer).start()
        assert daemon.call("action", "works:fetch", port=server.getsockname()[1]) == "hello"


def test_an_action_has_an_address_and_a_kind(daemon: RunningDaemon) -> None:
    answer = daemon.post("/api/run/works/nap", {"args": {"seconds": 0}})
    assert answer.json["status"] == "success"
    assert daemon.call("function", "works:nap", seconds=0) == answer.json["value"]
    assert refused(daemon, "works:add", text="x") == (
        "unknown_function",
        "works:add is a mutation, not an action",
    )
    assert refused(daemon, "works:naps")[1] == "there is no function 'works:naps'; did you mean `works:nap`?"
    assert refused(daemon, "works:notes")[0] == "unknown_function"
    code, message = refused(daemon, "works:nap")
    assert (code, message) == ("invalid_arguments", "works:nap: missing argument `seconds`")


def test_ids_are_checked_against_their_tables(daemon: RunningDaemon) -> None:
    note = daemon.call("mutation", "works:add", text="mine")
    assert daemon.call("action", "works:item", note=note) == note
    assert refused(daemon, "works:item", note="2" + note[1:])[0] == "invalid_arguments"


def test_a_stream_that_is_called_as_an_action_is_the_list_of_its_pieces(daemon: RunningDaemon) -> None:
    assert daemon.call("action", "works:count", upto=3) == [0, 1, 2]
    assert daemon.call("action", "works:count", upto=0) == []
    assert refused(daemon, "works:fails", after=2)[0] == "application_error"


def test_actions_are_counted(daemon: RunningDaemon) -> None:
    before = daemon.metric('headwater_calls_total{kind="action",outcome="success"}')
    daemon.call("action", "works:nap", seconds=0)
    assert daemon.metric('headwater_calls_total{kind="action",outcome="success"}') == before + 1
    assert daemon.metric("headwater_actions_running") == 0


def test_there_is_no_bundle_and_there_are_no_actions(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert refused(daemon, "works:nap", seconds=0)[0] == "no_bundle"
        daemon.must_deploy("bank")
        assert refused(daemon, "works:nap", seconds=0)[0] == "unknown_function"
        few = len(daemon.worker_pids())
        daemon.must_deploy("actions")
        wait_until(lambda: len(daemon.worker_pids()) == few + 2)
        assert daemon.call("action", "works:nap", seconds=0)
        daemon.must_deploy("bank")
        wait_until(lambda: len(daemon.worker_pids()) == few)


# ------------------------------------------------------------------------------------------- clients


async def test_a_client_runs_many_side_by_side(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        naps = [client.action("works:nap", seconds=0.5) for _ in range(500)]
        pids = await asyncio.gather(*naps)
        assert len(set(pids)) == 1, "one process"
        with pytest.raises(ApplicationError) as caught:
            await client.action("works:write", texts=[""])
        assert caught.value.data == {"code": "empty"}
        assert client.state.actions == 0


def test_a_blocking_client_runs_actions_too(daemon: RunningDaemon) -> None:
    with headwater.connect_blocking(daemon.tcp_url) as client:
        assert client.action("works:count", upto=2) == [0, 1]


async def test_what_an_action_has_written_is_on_the_screen(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client, client.subscribe("works:texts") as screen:
        await anext(screen)
        await client.action("works:write", texts=["seen"])
        while "seen" not in await anext(screen):
            pass


class Relay:
    """Passes bytes on between clients and a port; cuts all connections when it is told to."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._writers: list[asyncio.StreamWriter] = []
        self.port = 0

    async def __aenter__(self) -> Relay:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, out = await asyncio.open_connection("127.0.0.1", self._port)
        self._writers += [writer, out]
        await asyncio.gather(self._pass(reader, out), self._pass(there, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)


async def test_a_cut_loses_the_answer_and_runs_nothing_twice(daemon: RunningDaemon) -> None:
    """An action that was sent fails with its connection at once; it goes on, once. What was not sent is sent later."""
    async with Relay(daemon.port) as relay, headwater.connect(f"ws://127.0.0.1:{relay.port}") as client:
        lost = asyncio.create_task(client.action("works:remember", text="once", seconds=1.0))
        await asyncio.to_thread(wait_until, lambda: daemon.metric("headwater_actions_running") == 1)
        relay.cut()
        with pytest.raises(OutcomeUnknown) as caught:
            await lost
        assert caught.value.code == "connection_lost"
        assert await client.action("works:nap", seconds=0)
        await asyncio.to_thread(wait_until, lambda: "once" in texts(daemon))
        await asyncio.to_thread(wait_until, lambda: daemon.metric("headwater_actions_running") == 0)
        assert texts(daemon).count("once") == 1


@pytest.mark.parametrize("way", ["closes", "cancels", "http"])
async def test_who_goes_away_ends_what_wants_to_end_with_its_caller(daemon: RunningDaemon, way: str) -> None:
    stays, ends = f"stays {way}", f"ends {way}"
    if way == "http":
        for name, text, seconds in (("remember", stays, 0.8), ("remember_for", ends, 5)):
            body = f'{{"path": "works:{name}", "args": {{"text": "{text}", "seconds": {seconds}}}}}'.encode()
            head = f"POST /api/action HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            with socket.create_connection(("127.0.0.1", daemon.port)) as connection:
                connection.sendall(head + body)
                await asyncio.to_thread(wait_until, lambda: daemon.metric("headwater_actions_running") > 0)
                if text == ends:
                    await asyncio.to_thread(wait_until, lambda: f"{ends} began" in texts(daemon))
                await asyncio.sleep(0.1)
    else:
        async with headwater.connect(daemon.url) as client:
            calls = [
                asyncio.create_task(client.action("works:remember", text=stays, seconds=0.8)),
                asyncio.create_task(client.action("works:remember_for", text=ends, seconds=5.0)),
            ]
            await asyncio.to_thread(wait_until, lambda: f"{ends} began" in texts(daemon))
            if way == "cancels":
                for call in calls:
                    call.cancel()
                await asyncio.to_thread(wait_until, lambda: stays in texts(daemon))
        await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.to_thread(wait_until, lambda: {stays, f"{ends} was cancelled"} <= {*texts(daemon)}, 4.0)
    assert ends not in texts(daemon)
    assert daemon.metric('headwater_calls_total{kind="action",outcome="cancelled"}') >= 1


# ------------------------------------------------------------------------------------------- limits


def test_too_many_are_refused_and_those_that_wait_get_their_turn(tmp_path: Path) -> None:
    options = ("--action-workers", "1", "--action-worker-limit", "2", "--actions-waiting-limit", "3")
    with running(tmp_path, *options, deploy="actions") as daemon, ThreadPoolExecutor(8) as threads:
        body = {"path": "works:nap", "args": {"seconds": 0.5}}
        found = list(threads.map(lambda _: daemon.post("/api/action", body), range(8)))
        assert sorted(answer.status for answer in found) == [200] * 5 + [503] * 3
        assert {answer.json["code"] for answer in found if answer.status == 503} == {"overloaded"}


def test_an_action_ends_at_its_time_limit(tmp_path: Path) -> None:
    options = ("--action-workers", "1", "--action-time-limit-s", "0.5")
    with running(tmp_path, *options, deploy="actions") as daemon:
        began_s = time.monotonic()
        code, message = refused(daemon, "works:nap", seconds=100)
        assert code == "time_limit"
        assert "works:nap ran longer than 0.5 s" in message
        assert time.monotonic() - began_s < 5
        wait_until(lambda: daemon.metric("headwater_actions_running") == 0)


# ------------------------------------------------------------------------------------------- deploys, kills, stops


def test_an_action_ends_in_the_bundle_it_began_with_and_sees_the_one_that_is_active(tmp_path: Path) -> None:
    changed = tmp_path / "changed" / "functions"
    shutil.copytree(SOURCE, changed)
    works = (changed / "works.py").read_text()
    works = works.replace(
        "return ctx.db.insert(Note(text=text))", 'return ctx.db.insert(Note(text=f"new {text}"))'
    )
    works = works.replace("    return text\n", '    return f"new code: {text}"\n')
    (changed / "works.py").write_text(works)
    with running(tmp_path / "daemon", deploy="actions") as daemon, ThreadPoolExecutor(1) as threads:
        old_pids = set(daemon.worker_pids())
        file = tmp_path / "go"
        call = threads.submit(daemon.call, "action", "works:remember_when", text="t", path=str(file))
        wait_until(lambda: daemon.metric("headwater_actions_running") == 1)
        daemon.must_deploy(changed)
        assert daemon.call("action", "works:remember", text="u", seconds=0) == "new code: u"
        file.touch()
        assert call.result() == "t", "the code it began with"
        assert texts(daemon) == ["new u", "new t"], "its mutation is the active bundle's"
        wait_until(lambda: not old_pids & set(daemon.worker_pids()))


def test_a_killed_worker_fails_its_actions_at_once_and_another_comes(daemon: RunningDaemon) -> None:
    pid = daemon.call("action", "works:nap", seconds=0)
    with ThreadPoolExecutor(3) as threads:
        names = [f"killed {number}" for number in range(3)]
        calls = [
            threads.submit(refused, daemon, "works:remember_for", text=name, seconds=30) for name in names
        ]
        # One that the worker has not begun would run elsewhere, and not fail.
        wait_until(lambda: {f"{name} began" for name in names} <= {*texts(daemon)})
        began_s = time.monotonic()
        assert kill_process(pid)
        assert {call.result()[0] for call in calls} == {"worker_died"}
        assert time.monotonic() - began_s < 5
    assert daemon.call("action", "works:nap", seconds=0) != pid


def test_kills_of_everything_leave_each_mutation_once_or_not_at_all(tmp_path: Path) -> None:
    """Workers, the zygote and the daemon are killed under actions that write; no text comes twice."""
    chance = random.Random(5)
    with running(tmp_path, deploy="actions") as daemon:
        done: list[str] = []

        def write(number: int) -> None:
            for turn in range(12):
                text = f"{number}.{turn}"
                try:
                    daemon.call("action", "works:remember", text=text, seconds=0.05)
                except (AssertionError, OSError, ValueError):
                    continue
                done.append(text)

        with ThreadPoolExecutor(6) as threads:
            calls = [threads.submit(write, number) for number in range(6)]
            for kill in (daemon.kill_worker, daemon.kill_worker, lambda _: daemon.kill_zygote()):
                time.sleep(0.3)
                kill(chance)
            time.sleep(0.3)
            daemon.kill()
            daemon.start()
            for call in calls:
                call.result()
        found = texts(daemon)
        assert len(found) == len({*found})
        assert {*done} <= {*found}
        assert daemon.call("action", "works:nap", seconds=0)


async def test_a_daemon_that_stops_lets_actions_end_within_its_time(tmp_path: Path) -> None:
    with running(tmp_path, "--drain-limit-s", "2", deploy="actions") as daemon:
        async with headwater.connect(daemon.url) as client:
            short = asyncio.create_task(client.action("works:remember", text="kept", seconds=1.0))
            long = asyncio.create_task(client.action("works:remember", text="lost", seconds=60))
            await asyncio.to_thread(wait_until, lambda: daemon.metric("headwater_actions_running") == 2)
            daemon.signal(signal.SIGTERM)
            assert await short == "kept", "with its mutation, which came while the daemon was stopping"
            with pytest.raises(OutcomeUnknown):
                await long
        assert await asyncio.to_thread(daemon.wait_end) == 0
        daemon.start()
        assert texts(daemon) == ["kept"]


# ------------------------------------------------------------------------------------------- hostile

HARMLESS = {
    "floods": 1,
    "leaves_a_task": None,
    "leaves_a_thread": None,
    "storms": 2000,
}
"""Actions that cost nobody anything, and their result if it is known."""

CAUGHT = {
    "huge": "too_many_bytes",
    "itself": "internal_error",
}
"""Actions that fail alone."""

ENDED = {
    "endless": "time_limit",
    "sleeps": "time_limit",
    "leaves": "worker_died",
    "hoards": "worker_died",
    "segfaults": "worker_died",
    "regex": "worker_died",
    "stops": "worker_died",
}
"""Actions that cost their process, and so the others in it."""


@pytest.fixture(scope="module")
def attacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    options = (
        "--action-workers",
        "2",
        "--action-block-limit-s",
        "1",
        "--action-memory-limit-bytes",
        str(200 << 20),
    )
    with running(tmp_path_factory.mktemp("attacked"), *options, deploy="actions") as found:
        yield found


@pytest.mark.parametrize("name", [*HARMLESS, *CAUGHT, *ENDED])
def test_hostile_actions_beside_healthy_calls(attacked: RunningDaemon, name: str) -> None:
    """Queries and mutations notice nothing; the daemon stays; healthy actions work again at once."""
    daemon = attacked
    assert daemon.process is not None
    pid = daemon.process.pid
    over = threading.Event()

    def healthy() -> int:
        count = 0
        while not over.is_set():
            daemon.call("mutation", "works:add", text=name)
            daemon.call("query", "works:texts")
            count += 1
        return count

    with ThreadPoolExecutor(2) as threads:
        load = threads.submit(healthy)
        try:
            for _ in range(2):
                if name in HARMLESS:
                    value = daemon.call("action", f"hostile:{name}")
                    assert HARMLESS[name] in (None, value)
                else:
                    code = {**CAUGHT, **ENDED}[name]
                    assert refused(daemon, f"hostile:{name}")[0] == code
                wait_until(lambda: daemon.call("action", "works:nap", seconds=0) > 0)
        finally:
            over.set()
        assert load.result() > 0
    assert (daemon.process.pid, daemon.process.poll()) == (pid, None)
    wait_until(lambda: daemon.metric("headwater_actions_running") == 0)


def test_who_blocks_is_named_with_the_line(attacked: RunningDaemon) -> None:
    code, message = refused(attacked, "hostile:endless")
    assert code == "time_limit"
    assert "hostile:endless kept the others of its worker from going on" in message
    assert "asyncio.to_thread" in message
    assert "hostile.py" in attacked.log_text().rpartition("action_blocked")[2]


def test_processes_that_an_action_leaves_end_with_its_worker(attacked: RunningDaemon) -> None:
    left = attacked.call("action", "hostile:spawns")
    started = start_time(left)
    assert started is not None
    refused(attacked, "hostile:leaves")
    refused(attacked, "hostile:leaves")
    wait_until(lambda: start_time(left) != started)


def test_a_forked_child_is_no_worker(attacked: RunningDaemon) -> None:
    """What it says reaches nobody: the answer is the parent's, and comes once."""
    child = attacked.call("action", "hostile:forks")
    assert child > 0
    started = start_time(child)
    wait_until(lambda: started is None or start_time(child) != started)
    assert attacked.call("action", "works:nap", seconds=0.1)


def test_an_action_that_does_not_let_itself_be_cancelled_costs_its_own_place_alone(tmp_path: Path) -> None:
    options = ("--action-workers", "1", "--action-time-limit-s", "2")
    with running(tmp_path, *options, deploy="actions") as daemon, ThreadPoolExecutor(1) as threads:
        pid = daemon.call("action", "works:nap", seconds=0)
        bad = threads.submit(refused, daemon, "hostile:swallows")
        assert bad.result()[0] == "time_limit"
        assert daemon.call("action", "works:nap", seconds=0.1) == pid
        wait_until(lambda: daemon.call("action", "works:nap", seconds=0) != pid)
        wait_until(lambda: pid not in daemon.worker_pids())


async def test_an_error_of_an_action_is_an_error_of_its_kind(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        with pytest.raises(HeadwaterError) as caught:
            await client.action("works:nap", seconds="x")
        assert caught.value.code == "invalid_arguments"
