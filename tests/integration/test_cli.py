"""The command `headwater` as a process, against small servers, and `headwater dev` around a stand-in daemon."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import socket
import stat
import sys
from asyncio.subprocess import PIPE
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web
from headwater.cli.deployment import Surroundings
from headwater.cli.dev import Project, _dev
from headwater.cli.output import Output
from headwater_protocol.errors import HeadwaterError
from rich.console import Console
from support.toy_server import ToyServer, toy_server

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Callable

WAIT_S = 20.0
SUPPORT = Path(__file__).parents[1] / "support"


async def start(folder: Path, *words: str, **variables: str) -> Process:
    # asyncio's debug mode would add its remarks about slow steps to the stderr that tests compare.
    ours = {"HEADWATER_KEY", "HEADWATER_URL", "PYTHONASYNCIODEBUG"}
    environ = {name: value for name, value in os.environ.items() if name not in ours}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "headwater.cli",
        *words,
        cwd=folder,
        env=environ | variables,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def headwater(folder: Path, *words: str, **variables: str) -> tuple[int | None, str, str]:
    """Run the command; returns exit code, stdout and stderr."""
    process = await start(folder, *words, **variables)
    async with asyncio.timeout(WAIT_S):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def ending(process: Process) -> tuple[bytes, bytes]:
    """Return what a process still writes until its end; one that does not end is killed."""
    try:
        async with asyncio.timeout(WAIT_S):
            return await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise


@asynccontextmanager
async def answering(answers: dict[str, tuple[int, Any]]) -> AsyncIterator[tuple[str, list[str | None]]]:
    """Serve fixed answers; yields the URL and the list of keys that come in."""
    keys: list[str | None] = []

    async def handle(request: web.Request) -> web.Response:
        keys.append(request.headers.get("Authorization"))
        status, body = answers[request.path]
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}", keys
    finally:
        await runner.cleanup()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def until(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.02)


# ---------------------------------------------------------------------------------------------- calls


async def test_run_prints_the_result_as_data_and_exits_with_0(tmp_path: Path) -> None:
    answer = 200, {"status": "success", "value": [{"body": "hi"}]}
    async with answering({"/api/function": answer}) as (url, keys):
        code, out, err = await headwater(tmp_path, "run", "messages:list", "limit=1", "--url", url)
    assert (code, json.loads(out), err) == (0, [{"body": "hi"}], "")
    assert keys == [None]


async def test_run_reports_a_failure_in_one_line_and_exits_with_1(tmp_path: Path) -> None:
    answer = (
        200,
        {"status": "error", "errorMessage": "no", "errorCode": "application_error", "errorData": {"why": 1}},
    )
    async with answering({"/api/function": answer}) as (url, _):
        code, out, err = await headwater(tmp_path, "run", "messages:send", "--url", url, "--json")
    assert (code, out) == (1, "")
    assert err == 'error [application_error]: no {"why":1}\n'


async def test_nobody_there_exits_with_3(tmp_path: Path) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    code, out, err = await headwater(tmp_path, "run", "messages:list", "--url", url)
    assert (code, out) == (3, "")
    error, advice = err.splitlines()
    assert error == f"error [unavailable]: cannot connect to {url}: Connection refused"
    assert "headwater serve" in advice
    assert "--url" in advice


async def test_a_result_that_cannot_be_written_is_an_error_of_one_line(tmp_path: Path) -> None:
    answer = (200, {"status": "success", "value": [1]})
    async with answering({"/api/function": answer}) as (url, _):
        words = [sys.executable, "-m", "headwater.cli", "run", "messages:list", "--url", url]
        with Path("/dev/full").open("wb") as full:
            process = await asyncio.create_subprocess_exec(*words, cwd=tmp_path, stdout=full, stderr=PIPE)
            _, err = await ending(process)
    assert process.returncode == 1
    assert err == b"error: [Errno 28] No space left on device\n"


async def test_the_key_comes_from_flag_environment_or_project(tmp_path: Path) -> None:
    own = tmp_path / ".headwater" / "data"
    own.mkdir(parents=True)
    (own / "admin-key").write_text("project-key\n")
    (tmp_path / "flag").write_text("flag-key\n")
    async with answering({"/api/function": (200, {"status": "success", "value": None})}) as (url, keys):
        await headwater(tmp_path, "run", "a:b", "--url", url)
        await headwater(tmp_path, "run", "a:b", "--url", url, HEADWATER_KEY="variable-key")
        await headwater(
            tmp_path, "run", "a:b", "--url", url, "--key-file", "flag", HEADWATER_KEY="variable-key"
        )
    assert keys == ["Headwater project-key", "Headwater variable-key", "Headwater flag-key"]


async def test_watch_prints_each_update_also_over_a_lost_connection(tmp_path: Path) -> None:
    async with toy_server(ToyServer()) as toy:
        process = await start(tmp_path, "watch", "messages:list", "channel=c", "--json", "--url", toy.ws_url)
        assert process.stdout is not None
        try:
            async with asyncio.timeout(WAIT_S):
                assert json.loads(await process.stdout.readline()) == []
                await toy.insert("c", "one")
                assert json.loads(await process.stdout.readline())[0]["body"] == "one"
                toy.cut()
                toy.rows.append({"channel": "c", "body": "two"})
                assert len(json.loads(await process.stdout.readline())) == 2
        finally:
            process.send_signal(signal.SIGINT)
            out, err = await ending(process)
    assert process.returncode == 130
    assert out == b""
    assert b"no connection to" in err
    assert b"connected to" in err
    assert b"Traceback" not in err


async def test_watch_ends_on_an_interrupt_also_where_it_was_started_with_interrupts_ignored(
    tmp_path: Path,
) -> None:
    """Started by `make test &` in a script, `watch` once never ended: shells ignore SIGINT for what they background."""
    async with toy_server(ToyServer()) as toy:
        words = [
            sys.executable,
            "-m",
            "headwater.cli",
            "watch",
            "messages:list",
            "channel=c",
            "--url",
            toy.ws_url,
        ]
        process = await asyncio.create_subprocess_exec(
            "sh",
            "-c",
            'trap "" INT; exec "$@"',
            "sh",
            *words,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(WAIT_S):
                assert json.loads(await process.stdout.readline()) == []
        finally:
            process.send_signal(signal.SIGINT)
            await ending(process)
    assert process.returncode == 130


async def test_watch_of_a_query_that_is_not_there_exits_with_1(tmp_path: Path) -> None:
    async with toy_server(ToyServer()) as toy:
        code, out, err = await headwater(tmp_path, "watch", "messages:lst", "--url", toy.tcp_url)
    assert (code, out, err) == (1, "", "error [unknown_function]: there is no query messages:lst\n")


async def test_a_reader_that_goes_away_ends_watch_quietly(tmp_path: Path) -> None:
    async with toy_server(ToyServer()) as toy:
        process = await start(tmp_path, "watch", "messages:list", "channel=c", "--url", toy.ws_url)
        assert process.stdout is not None
        assert process.stderr is not None
        async with asyncio.timeout(WAIT_S):
            await process.stdout.readline()
            process._transport.get_pipe_transport(1).close()  # type: ignore[attr-defined]
            while process.returncode is None:
                await toy.insert("c", "more")
                await asyncio.sleep(0.05)
        assert await process.stderr.read() == b""
        assert process.returncode == 1


# ------------------------------------------------------------------------------------------ deploy and key


async def test_deploy_tells_what_it_did_and_what_was_refused(tmp_path: Path) -> None:
    bundle = tmp_path / "functions"
    bundle.mkdir()
    (bundle / "messages.py").write_text("x = 1\n")
    answers: dict[str, tuple[int, Any]] = {
        "/api/admin/deploy": (
            200,
            {"status": "success", "bundle": "abcdef0123456789", "functions": 2, "tables": 1, "changed": True},
        )
    }
    async with answering(answers) as (url, keys):
        code, out, err = await headwater(tmp_path, "deploy", "functions", "--url", url, HEADWATER_KEY="k")
        assert (code, out) == (0, "")
        assert err == "deployed bundle abcdef012345: 2 functions, 1 table\n"
        code, out, _ = await headwater(
            tmp_path, "deploy", "functions", "--url", url, "--json", HEADWATER_KEY="k"
        )
        assert json.loads(out)["functions"] == 2
        answers["/api/admin/deploy"] = 400, {"code": "invalid_bundle", "message": "messages.py line 1"}
        code, out, err = await headwater(tmp_path, "deploy", "functions", "--url", url, HEADWATER_KEY="k")
        assert (code, out, err) == (1, "", "error [invalid_bundle]: messages.py line 1\n")
        code, _, err = await headwater(tmp_path, "deploy", "functions", "--url", url)
        assert code == 1
        assert err.startswith("error [unauthenticated]: ")
    assert keys == ["Headwater k"] * 3


async def test_a_folder_that_is_no_bundle_is_refused_before_anything_is_sent(tmp_path: Path) -> None:
    (tmp_path / "json").mkdir()
    code, _, err = await headwater(tmp_path, "deploy", "json", HEADWATER_KEY="k")
    assert code == 1
    assert err.startswith("error [invalid_bundle]: ")


async def test_key_rotate_replaces_the_file_and_never_prints_what_is_in_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("old-key\n")
    async with answering({"/api/admin/rotate-key": (200, {"status": "success", "key": "new-key"})}) as (
        url,
        keys,
    ):
        code, out, err = await headwater(tmp_path, "key", "rotate", "--url", url, "--key-file", "key")
        assert code == 0
        assert "new-key" not in out + err
        assert file.read_text() == "new-key\n"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        code, out, _ = await headwater(tmp_path, "key", "rotate", "--url", url, HEADWATER_KEY="other")
        assert (code, out) == (0, '"new-key"\n')
    assert keys == ["Headwater old-key", "Headwater other"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"]


# ----------------------------------------------------------------------------------------------------- dev


class Dev:
    """`headwater dev` in this process, around the stand-in daemon."""

    def __init__(self, folder: Path) -> None:
        self.bundle = folder / "functions"
        self.bundle.mkdir()
        self.module = self.bundle / "messages.py"
        self.module.write_text("def one(): ...\n")
        interpreter = folder / "python"
        # Called as `python -P -m headwater_server serve …`; the stand-in takes what follows the module.
        interpreter.write_text(
            f'#!/bin/sh\nshift 3\nexec "{sys.executable}" "{SUPPORT / "fake_daemon.py"}" "$@"\n'
        )
        interpreter.chmod(0o755)
        self.talk = io.StringIO()
        console = Console(file=self.talk, width=200)
        self.output = Output(console, console)
        self.surroundings = Surroundings({}, folder, str(interpreter))
        self.data = folder / ".headwater" / "data"
        self.data.mkdir(parents=True)
        self.project = Project(self.bundle, folder, "127.0.0.1", free_port(), 0)

    @property
    def lines(self) -> list[str]:
        return self.talk.getvalue().splitlines()

    def run(self) -> asyncio.Task[None]:
        return asyncio.create_task(_dev(self.output, self.surroundings, self.project))


@pytest.fixture
def dev(tmp_path: Path) -> Dev:
    return Dev(tmp_path)


async def test_dev_deploys_after_each_save_keeps_the_old_one_when_broken_and_stops_all(dev: Dev) -> None:
    running = dev.run()
    await until(lambda: running.done() or any("watching" in line for line in dev.lines))
    assert dev.lines[0] == f"headwater listens on {dev.project.url}, data in .headwater/data"
    assert dev.lines[1].endswith(": 1 function, 1 table")
    assert dev.lines[2] == "watching functions; Ctrl-C stops"
    dev.module.write_text("def one(): ...\ndef two(): ...\n")
    await until(lambda: any(line.endswith(": 2 functions, 1 table") for line in dev.lines))
    dev.module.write_text("broken\n")
    await until(lambda: "error [invalid_bundle]: it does not import" in dev.lines)
    dev.module.write_text("def one(): ...\n")
    await until(lambda: dev.lines[-1].endswith(": 1 function, 1 table") and len(dev.lines) > 4)
    os.kill(os.getpid(), signal.SIGINT)
    await running
    assert dev.lines[-1] == "stopped"
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(dev.project.host, dev.project.port)


async def test_dev_keeps_what_clients_know_of_the_functions_up_to_date(dev: Dev, tmp_path: Path) -> None:
    python, ts, absent = tmp_path / "api.py", tmp_path / "api.ts", tmp_path / "absent" / "api.ts"
    dev.project = replace(dev.project, python=python, ts=ts)
    running = dev.run()
    await until(lambda: running.done() or any("watching" in line for line in dev.lines))
    first = ts.read_text()
    assert "export const api" in first
    assert "import typing" not in first
    assert "class messages" in python.read_text()
    written = ts.stat().st_mtime_ns
    dev.module.write_text("broken\n")
    await until(lambda: "error [invalid_bundle]: it does not import" in dev.lines)
    assert ts.stat().st_mtime_ns == written
    dev.module.write_text("def one(): ...\ndef two(): ...\n")
    await until(lambda: ts.read_text() != first)
    os.kill(os.getpid(), signal.SIGINT)
    await running
    dev.project = replace(dev.project, ts=absent, port=free_port())
    running = dev.run()
    await until(lambda: any("No such file" in line for line in dev.lines))
    os.kill(os.getpid(), signal.SIGINT)
    await running


async def test_dev_ends_when_the_daemon_does(dev: Dev) -> None:
    Path(dev.surroundings.python).write_text("#!/bin/sh\nexit 9\n")
    with pytest.raises(HeadwaterError, match="ended with exit code 9"):
        await dev.run()


async def test_dev_leaves_a_port_alone_that_is_in_use(dev: Dev) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", dev.project.port)
    async with server:
        with pytest.raises(HeadwaterError, match="--port"):
            await dev.run()
    assert not (dev.data / "admin-key").exists()
