"""The daemon as a process: its first start, its key, its end, its limits, and one client across restarts."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import stat
import time
from pathlib import Path
from threading import Thread
from typing import Any

import aiohttp
import pytest
from headwater.client.aio import connect
from headwater_protocol.codec import decode_server_message, encode_message
from headwater_protocol.errors import HeadwaterError
from headwater_protocol.frames import FrameDecoder, frame
from headwater_protocol.messages import Connect, FatalError, Mutation, MutationAnswer, Transition, Welcome
from headwater_protocol.values import pack_value, unpack_value
from support.daemon import RunningDaemon, run_server, running, wait_until
from support.damage import Original

WAIT_S = 30.0


# ---------------------------------------------------------------------------------------------- the key


def test_the_first_start_writes_the_key_once_and_tells_nobody(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        path = daemon.data / "admin-key"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        key, written_ns = daemon.key, path.stat().st_mtime_ns
        assert len(key) >= 32
        assert str(path) in daemon.log_text()
        assert daemon.deploy("probe").status == 200
        assert daemon.deploy(b"no zip").status == 400
        assert daemon.terminate() == 0
        daemon.start()
        assert (daemon.key, path.stat().st_mtime_ns) == (key, written_ns)
        for told in (daemon.log_text(), daemon.get("/health").text, daemon.get("/metrics").text):
            assert key not in told
        assert daemon.terminate() == 0
        stored = [path for path in daemon.data.rglob("*") if path.is_file() and path.name != "admin-key"]
        assert not [path for path in stored if key.encode() in path.read_bytes()], "only a hash may be stored"


def test_a_rotated_key_is_the_only_one_from_then_on(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        old = daemon.key
        answer = daemon.post("/api/admin/rotate-key", {}, Authorization=f"Headwater {old}")
        new = answer.json["key"]
        assert new != old
        assert daemon.key == new
        assert stat.S_IMODE((daemon.data / "admin-key").stat().st_mode) == 0o600
        assert daemon.post("/api/admin/deploy", b"", Authorization=f"Headwater {old}").status == 401
        daemon.kill()
        daemon.start()
        assert daemon.post("/api/admin/deploy", b"", Authorization=f"Headwater {old}").status == 401
        assert daemon.deploy("probe").status == 200
        assert new not in daemon.log_text()


def test_a_key_can_be_given(tmp_path: Path) -> None:
    key = tmp_path / "my-key"
    key.write_text("a-key-of-my-own-that-is-long-enough\n")
    with running(tmp_path / "run", "--admin-key-file", str(key)) as daemon:
        assert not (daemon.data / "admin-key").exists()
        headers = {"Authorization": f"Headwater {key.read_text().strip()}"}
        assert daemon.post("/api/admin/deploy", b"no zip", **headers).status == 400
        assert daemon.post("/api/admin/deploy", b"no zip", Authorization="Headwater other").status == 401


def test_a_key_file_that_is_no_text_ends_the_start(tmp_path: Path) -> None:
    key = tmp_path / "my-key"
    key.write_bytes(b"\xff\xfe" * 40)
    data = str(tmp_path / "data")
    done = run_server("serve", "--data", data, "--port", "0", "--admin-key-file", str(key), folder=tmp_path)
    assert done.returncode == 1
    assert str(key) in done.stderr
    assert "Traceback" not in done.stderr


# ---------------------------------------------------------------------------------------------- start and end


def test_a_data_directory_can_be_named_relative_to_where_it_is_started(tmp_path: Path) -> None:
    with running(tmp_path, "--data", "data", deploy="probe") as daemon:  # the later flag counts
        note = daemon.call("mutation", "probe:keep", text="here")
        assert daemon.call("query", "probe:find", note=note)["text"] == "here"


@pytest.mark.parametrize("stop", ["terminate", "kill"])
def test_data_and_bundle_are_there_after_a_restart(tmp_path: Path, stop: str) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        note = daemon.call("mutation", "probe:keep", text="still here")
        if stop == "terminate":
            assert daemon.terminate() == 0
        else:
            daemon.kill()
        assert daemon.wait_for_children(10) == []
        assert daemon.doctor() == []
        daemon.start()
        assert daemon.call("query", "probe:find", note=note)["text"] == "still here"
        assert daemon.deploy("probe").json["changed"] is False


def test_the_same_bundle_again_serves_after_it_could_not_be_restored(tmp_path: Path) -> None:
    obstacle = tmp_path / "obstacle"
    functions = tmp_path / "functions"
    functions.mkdir()
    (functions / "app.py").write_text(
        "from pathlib import Path\n"
        "from headwater import QueryCtx, query\n"
        f"assert not Path({str(obstacle)!r}).exists(), 'an obstacle'\n"
        "@query\n"
        "def answer(ctx: QueryCtx) -> int:\n"
        "    return 42\n"
    )
    with running(tmp_path / "run", deploy=functions) as daemon:
        assert daemon.terminate() == 0
        obstacle.touch()
        daemon.start()
        assert "an obstacle" in daemon.log_text()
        assert daemon.post("/api/query", {"path": "app:answer"}).json["errorCode"] == "no_bundle"
        obstacle.unlink()

        async def wait_for_the_deploy() -> None:
            async with asyncio.timeout(WAIT_S), connect(daemon.url) as client:
                updates = client.subscribe("app:answer")
                first = asyncio.create_task(anext(updates))
                await asyncio.to_thread(wait_until, lambda: daemon.metric("headwater_sessions") == 1)
                answer = await asyncio.to_thread(daemon.deploy, functions)
                assert answer.json["changed"] is True
                assert await first == 42

        asyncio.run(wait_for_the_deploy())
        assert daemon.call("query", "app:answer") == 42
        assert daemon.deploy(functions).json["changed"] is False


def test_sigterm_tells_clients_and_waits_for_running_mutations(tmp_path: Path) -> None:
    with running(tmp_path, "--call-time-limit-s", "5", deploy="probe") as daemon:

        async def stop_meanwhile() -> tuple[Any, int]:
            async with asyncio.timeout(WAIT_S), connect(daemon.url) as client, asyncio.TaskGroup() as tasks:
                slow = tasks.create_task(client.mutation("probe:keep_slowly", text="slow", seconds=1.0))
                await asyncio.to_thread(wait_until, lambda: daemon.metric("headwater_sessions") == 1)
                await asyncio.sleep(0.2)
                code = await asyncio.to_thread(daemon.terminate)
                daemon.launch()
                return await slow, code

        note, code = asyncio.run(stop_meanwhile())
        assert code == 0
        daemon.wait_ready()
        assert daemon.call("query", "probe:find", note=note)["text"] == "slow"
        assert daemon.call("query", "probe:count", text="slow") == 1


def test_nothing_answers_before_it_is_ready(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        daemon.kill()
        daemon.launch()
        statuses = set()
        deadline_s = time.monotonic() + WAIT_S
        while 200 not in statuses and time.monotonic() < deadline_s:
            try:
                answer = daemon.get("/health")
            except OSError:
                continue
            statuses.add(answer.status)
            if answer.status == 200:
                assert daemon.call("query", "probe:notes") == []
        assert statuses <= {200, 503}


def test_a_daemon_without_a_bundle_says_so(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        answer = daemon.post("/api/query", {"path": "probe:notes", "args": {}})
        fields = answer.json
        assert fields.get("errorCode", fields.get("code")) == "no_bundle", answer.text


def test_doctor_config_and_version(tmp_path: Path) -> None:
    with running(tmp_path) as daemon:
        assert daemon.get("/version").text == run_version(tmp_path)
        assert daemon.get("/health").json["status"] == "ready"
        busy = run_server("doctor", "--data", str(daemon.data), folder=tmp_path)
        assert busy.returncode == 1
        assert "directory_in_use" in busy.stdout
    shown = run_server("config", "--json", "--data", str(daemon.data), folder=tmp_path)
    rows = json.loads(shown.stdout)
    assert rows["data"]["value"] == str(daemon.data)
    assert rows["workers"]["origin"] == "default"


@pytest.mark.parametrize("put", ["file for the log", "folder for a side file", "file for all of it"])
def test_a_directory_that_cannot_be_used_is_no_failed_disk(tmp_path: Path, put: str) -> None:
    with running(tmp_path) as daemon:
        assert daemon.terminate() == 0
    if put == "file for the log":
        shutil.rmtree(daemon.data / "log")
        (daemon.data / "log").touch()
    elif put == "folder for a side file":
        (daemon.data / "checkpoint").unlink()
        (daemon.data / "checkpoint").mkdir()
    else:
        shutil.rmtree(daemon.data)
        daemon.data.touch()
    for words in (["serve", "--port", "0", "--tcp-port", "0"], ["doctor"], ["doctor", "--repair"]):
        done = run_server(*words, "--data", str(daemon.data), folder=tmp_path)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "directory_unusable" in said
        assert str(daemon.data) in said
        assert "Traceback" not in said


def test_a_worker_that_heeds_nothing_ends_with_those_who_started_it(tmp_path: Path) -> None:
    with running(
        tmp_path, "--call-time-limit-s", "60", "--snapshot-limit-s", "120", deploy="probe"
    ) as daemon:

        def call() -> None:
            with contextlib.suppress(OSError, http.client.HTTPException):  # no answer comes
                daemon.post("/api/query", {"path": "probe:spin_query", "args": {"number": 1}})

        caller = Thread(target=call)
        caller.start()
        workers = daemon.worker_pids()
        wait_until(lambda: any(cpu_s(pid) > 0.4 for pid in workers))
        assert daemon.kill_zygote()
        daemon.kill()
        caller.join()
        assert daemon.wait_for_children(10) == []


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_version(folder: Path) -> str:
    return run_server("--version", folder=folder).stdout.strip()


def test_damage_is_refused_found_and_repaired(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        for number in range(30):
            daemon.call("mutation", "probe:keep", text=f"note {number} " * 60)
        notes = daemon.call("query", "probe:notes")
        assert len(notes) == 30
        assert daemon.terminate() == 0
        store = daemon.data / "store" / "data.mdb"
        data = bytearray(store.read_bytes())
        pages = Original.of(daemon.data).used_pages
        page = next(
            page * 4096 for page in pages if data[page * 4096 :].startswith(page.to_bytes(8, "little"))
        )
        data[page : page + 16] = bytes(16)
        store.write_bytes(data)
        refused = run_server("serve", "--data", str(daemon.data), "--port", "0", folder=tmp_path)
        assert refused.returncode == 1
        assert f"damaged: {store}, offset " in refused.stderr
        assert any("offset" in finding or str(store) in finding for finding in daemon.doctor())
        repaired = run_server("doctor", "--repair", "--data", str(daemon.data), folder=tmp_path)
        assert (repaired.returncode, repaired.stdout) == (0, "no findings\n"), repaired
        assert (daemon.data / "damaged-1" / "store" / "data.mdb").read_bytes() == data
        daemon.start()
        assert daemon.call("query", "probe:notes") == notes


def test_a_damaged_document_is_an_error_of_its_readers_alone(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        daemon.call("mutation", "probe:keep", text="x" * 2000)
        assert daemon.terminate() == 0
        store = daemon.data / "store" / "data.mdb"
        data = store.read_bytes()
        store.write_bytes(data.replace(b"x" * 1000, b"x" * 999 + b"y"))
        daemon.start()
        for _ in range(3):
            answer = daemon.post("/api/query", {"path": "probe:notes", "args": {}})
            assert answer.json.get("code", answer.json.get("errorCode")) == "damaged", answer.text
        daemon.call("mutation", "probe:keep", text="sound")
        assert (
            daemon.call("query", "probe:find", note=daemon.call("mutation", "probe:keep", text="z"))["text"]
            == "z"
        )
        assert daemon.terminate() == 0
        assert any("document" in finding for finding in daemon.doctor())


# ---------------------------------------------------------------------------------------------- functions


def test_an_endless_loop_is_ended_and_nobody_else_notices(tmp_path: Path) -> None:
    with running(tmp_path, "--call-time-limit-s", "0.5", deploy="probe") as daemon:
        deaths = daemon.metric("headwater_worker_deaths_total")
        asyncio.run(loop_beside_others(daemon))
        assert daemon.call("query", "probe:count", text="endless") == 0
        assert daemon.metric("headwater_worker_deaths_total") == deaths + 3
        wait_until(lambda: len(daemon.worker_pids()) == 2)
        assert daemon.terminate() == 0


async def loop_beside_others(daemon: RunningDaemon) -> None:
    async def measure(client: Any, slowest: list[float]) -> None:
        while True:
            began_s = time.monotonic()
            await client.mutation("probe:keep", text="short")
            slowest.append(time.monotonic() - began_s)

    async with asyncio.timeout(WAIT_S), connect(daemon.url) as looping, connect(daemon.url) as other:
        await other.mutation("probe:keep", text="short")
        durations: list[float] = []
        measuring = asyncio.create_task(measure(other, durations))
        for _ in range(2):
            began_s = time.monotonic()
            with pytest.raises(HeadwaterError) as ended:
                await looping.mutation("probe:spin", text="endless")
            assert ended.value.code == "time_limit"
            assert "probe:spin" in ended.value.message
            assert "0.5 s" in ended.value.message
            assert 0.4 < time.monotonic() - began_s < 3
        with pytest.raises(HeadwaterError) as query_ended:
            await looping.query("probe:spin_query", number=1)
        assert query_ended.value.code == "time_limit"
        assert await looping.query("probe:typed", number=1, name="x") == [1, "x", 1.5]
        measuring.cancel()
        assert len(durations) > 50
        assert max(durations) < 0.4, "somebody waited behind the endless loop"


def test_a_call_that_needs_too_much_memory(tmp_path: Path) -> None:
    with running(tmp_path, "--call-memory-limit-bytes", str(128 << 20), deploy="probe") as daemon:
        answer = daemon.post("/api/query", {"path": "probe:hog", "args": {"size": 1 << 30}}).json
        assert answer["errorCode"] == "worker_died"
        assert "memory" in answer["errorMessage"]
        assert daemon.call("query", "probe:hog", size=1000) == 1000


@pytest.mark.parametrize("whom", ["a worker", "the zygote"])
def test_killed_function_processes_are_replaced(tmp_path: Path, whom: str) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        daemon.call("mutation", "probe:keep", text="before")
        before = set(daemon.worker_pids())
        assert len(before) == 2
        if whom == "a worker":
            os.kill(min(before), 9)
        else:
            assert daemon.kill_zygote()
        wait_until(lambda: len(daemon.worker_pids()) == 2 and set(daemon.worker_pids()) != before)
        assert daemon.call("query", "probe:count", text="before") == 1
        assert daemon.call("mutation", "probe:keep", text="after")
        assert daemon.terminate() == 0


def test_faults_show_their_text_in_development_and_an_id_in_production(tmp_path: Path) -> None:
    body = {"path": "probe:stumble", "args": {"text": "a secret"}}
    with running(tmp_path / "development", deploy="probe") as daemon:
        answer = daemon.post("/api/mutation", body).json
        assert answer["errorCode"] == "internal_error"
        assert "stumbled over a secret" in answer["errorMessage"]
    with running(tmp_path / "production", "--production", deploy="probe") as daemon:
        answer = daemon.post("/api/mutation", body).json
        assert answer["errorCode"] == "internal_error"
        assert "secret" not in answer["errorMessage"]
        request_id = answer["errorMessage"].rpartition(" ")[2].rstrip("].")
        wait_until(lambda: request_id in daemon.log_text())
        (line,) = [line for line in daemon.log_text().splitlines() if request_id in line]
        assert "stumbled over a secret" in json.loads(line)["error"]


# ---------------------------------------------------------------------------------------------- clients


def test_every_answer_comes_also_while_others_commit(tmp_path: Path) -> None:
    """A failed call may have seen a snapshot that was not published yet: its answer is held, and then it goes."""
    with running(tmp_path, deploy="probe") as daemon:
        asyncio.run(fail_beside_writers(daemon))


async def fail_beside_writers(daemon: RunningDaemon) -> None:
    async with aiohttp.ClientSession() as http, asyncio.timeout(60):

        async def refused(number: int) -> None:
            body = {"path": "probe:refuse", "args": {"text": str(number)}}
            async with http.post(f"http://127.0.0.1:{daemon.port}/api/mutation", json=body) as answer:
                assert (await answer.json())["errorData"] == {"why": str(number)}

        async def write(client: Any) -> None:
            while True:
                await client.mutation("probe:keep", text="beside")

        async with connect(daemon.url) as one, connect(daemon.url) as two:
            writers = [asyncio.create_task(write(client)) for client in (one, two) for _ in range(4)]
            for first in range(0, 600, 12):
                async with asyncio.timeout(10):
                    await asyncio.gather(*[refused(first + number) for number in range(12)])
            for task in writers:
                task.cancel()


def test_a_mutation_that_is_sent_again_after_a_restart_takes_effect_once(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        first = asyncio.run(talk(daemon, KEEP))
        assert len(first) == 1
        assert first[0].value is not None
        daemon.kill()
        daemon.start()
        again = asyncio.run(talk(daemon, KEEP))
        assert unpack_value(again[0].value or b"") == unpack_value(first[0].value)
        assert daemon.call("query", "probe:count", text="once") == 1

        refused = asyncio.run(talk(daemon, REFUSE))
        daemon.kill()
        daemon.start()
        assert asyncio.run(talk(daemon, REFUSE))[0].error == refused[0].error
        assert daemon.call("query", "probe:count", text="never") == 0


def test_a_request_number_with_other_arguments_is_another_clients(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        asyncio.run(talk(daemon, KEEP))
        other = Mutation(KEEP.request, KEEP.name, pack_value({"text": "another"}))
        with pytest.raises(AssertionError, match="session_in_use"):  # a client takes another session then
            asyncio.run(talk(daemon, other))
        assert daemon.call("query", "probe:count", text="another") == 0


def test_a_refused_mutation_that_is_sent_again_does_not_overtake_later_ones(tmp_path: Path) -> None:
    first, second = KEEP, Mutation(2, "probe:keep", pack_value({"text": "second"}))
    with running(tmp_path) as daemon:
        (refused,) = asyncio.run(talk(daemon, first))
        assert refused.error is not None
        assert refused.error.code == "no_bundle"
        daemon.must_deploy("probe")
        (kept,) = asyncio.run(talk(daemon, second))
        assert kept.error is None
        # The answers were lost, say: the client sends both again.
        again, known = asyncio.run(talk(daemon, first, second))
        assert again.error is not None
        assert again.error.code == "unavailable"
        assert known.value == kept.value
        assert daemon.call("query", "probe:count", text="once") == 0
        assert daemon.call("query", "probe:count", text="second") == 1


SESSION = bytes(range(16))
KEEP = Mutation(1, "probe:keep", pack_value({"text": "once"}))
REFUSE = Mutation(2, "probe:refuse", pack_value({"text": "never"}))


async def talk(daemon: RunningDaemon, *mutations: Mutation) -> list[MutationAnswer]:
    """Connect as the same session each time, send, and return the answers."""
    async with asyncio.timeout(WAIT_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", daemon.tcp_port)
        with contextlib.closing(writer):
            return await converse(reader, writer, mutations)


async def converse(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mutations: tuple[Mutation, ...]
) -> list[MutationAnswer]:
    for message in (Connect((1,), SESSION, 0, None, "test"), *mutations):
        writer.write(frame(encode_message(message)))
    decoder = FrameDecoder(1 << 20)
    answers: list[MutationAnswer] = []
    covered = 0
    while len(answers) < len(mutations) or covered < max(answer.ts for answer in answers):
        data = await reader.read(1 << 16)
        assert data, "the daemon closed the connection"
        for piece in decoder.feed(data):
            match decode_server_message(piece):
                case MutationAnswer() as answer:
                    answers.append(answer)
                case Transition(_, end):
                    covered = end.ts
                case FatalError(error):
                    raise AssertionError(f"{error.code}: {error.message}")
                case Welcome():
                    pass
    return answers


def test_a_newer_connection_of_a_session_takes_over(tmp_path: Path) -> None:
    async def connect_twice(daemon: RunningDaemon) -> Any:
        async with asyncio.timeout(WAIT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", daemon.tcp_port)
            writer.write(frame(encode_message(Connect((1,), SESSION, 0, None, "test"))))
            greeting = await reader.readexactly(4)
            assert (await talk(daemon, KEEP))[0].error is None
            messages = FrameDecoder(1 << 20).feed(greeting + await reader.read())
            writer.close()
            await writer.wait_closed()
            return decode_server_message(messages[-1])

    with running(tmp_path, deploy="probe") as daemon:
        fatal = asyncio.run(connect_twice(daemon))
        assert isinstance(fatal, FatalError)
        assert fatal.error.code == "unavailable"
        assert "newer connection" in fatal.error.message


@pytest.mark.parametrize("order", [("tcp", "websocket"), ("websocket", "tcp")])
def test_tcp_and_websocket_give_the_same(tmp_path: Path, order: tuple[str, str]) -> None:
    async def compare(daemon: RunningDaemon) -> None:
        urls = {"tcp": daemon.tcp_url, "websocket": daemon.url}
        async with (
            asyncio.timeout(WAIT_S),
            connect(urls[order[0]]) as writing,
            connect(urls[order[1]]) as reading,
        ):
            updates = reading.subscribe("probe:notes")
            assert await anext(updates) == []
            note = await writing.mutation("probe:keep", text="seen by both")
            expected = [await writing.query("probe:find", note=note)]
            assert await anext(updates) == expected == await writing.query("probe:notes")
            for value in (
                None,
                -(2**63),
                2**63 - 1,
                1.5,
                float("inf"),
                "é\x00",
                b"\xff",
                [[]],
                {"a": {"b": [1]}},
            ):
                assert await writing.query("probe:echo", value=value) == value
                assert await reading.query("probe:echo", value=value) == value

    with running(tmp_path, deploy="probe") as daemon:
        asyncio.run(compare(daemon))


def test_metrics_count_what_was_done(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        commits = daemon.metric("headwater_commits_total")
        for number in range(5):
            daemon.call("mutation", "probe:keep", text=str(number))
        daemon.post("/api/mutation", {"path": "probe:refuse", "args": {"text": "no"}})
        daemon.call("query", "probe:notes")
        assert daemon.metric("headwater_commits_total") == commits + 5
        assert daemon.metric('headwater_calls_total{kind="mutation",outcome="success"}') == 5
        assert daemon.metric('headwater_calls_total{kind="mutation",outcome="application_error"}') == 1
        assert daemon.metric('headwater_calls_total{kind="query",outcome="success"}') == 1
        assert daemon.metric('headwater_deploys_total{outcome="changed"}') == 1
        assert daemon.metric("headwater_mutation_duration_seconds_count") == 6
        assert daemon.metric("headwater_workers") == 2
        assert daemon.metric("headwater_published_ts") == daemon.get("/health").json["ts"]
