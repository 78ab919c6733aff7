"""`headwater dev`: a daemon, the bundle in it, and a new deploy after each save."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from headwater_protocol.errors import HeadwaterError, RequestError, TransientError

from headwater.call_text import call_text
from headwater.cli.codegen import refresh
from headwater.cli.daemon import daemon_command, require_server
from headwater.cli.deploy import FolderArgument, describe
from headwater.cli.deployment import (
    PROJECT_FOLDER,
    Key,
    Surroundings,
    data_folder,
    fail,
    find_key,
    output_for,
    run_command,
    surroundings_of,
    usage,
)
from headwater.cli.logs import follow_on
from headwater.client.race import race
from headwater.client.transport import DEFAULT_PORT
from headwater.http_client import HttpClient
from headwater.packing import pack
from headwater.stubs import python_stubs
from headwater.typescript_api import typescript_api

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from headwater.cli.output import Output

PythonFileOption = Annotated[
    Path | None,
    typer.Option(
        "--python", help="File that gets `headwater codegen --python` after each deploy.", metavar="FILE"
    ),
]
TypescriptFileOption = Annotated[
    Path | None,
    typer.Option("--ts", help="File that gets `headwater codegen --ts` after each deploy.", metavar="FILE"),
]
_STOP_TIMEOUT_S = 15.0
_RETRY_S = 1.0
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Project:
    """What `headwater dev` works on.

    Attributes:
        bundle: Folder with the functions.
        folder: Folder that gets `.headwater/`.
        host: Address the daemon listens on.
        port: HTTP and WebSocket port.
        tcp_port: Port of the plain TCP protocol, 0 for none.
        python: File with stubs for Python clients that is kept up to date, None for none.
        ts: The same for TypeScript clients.
    """

    bundle: Path
    folder: Path
    host: str
    port: int
    tcp_port: int
    python: Path | None = None
    ts: Path | None = None

    @property
    def url(self) -> str:
        """Where the daemon is."""
        return f"http://{self.host}:{self.port}"


def dev(
    context: typer.Context,
    folder: FolderArgument,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port of HTTP and WebSocket.")] = DEFAULT_PORT,
    tcp_port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port of the TCP protocol, 0 for none.", show_default="PORT + 1"),
    ] = None,
    python: PythonFileOption = None,
    ts: TypescriptFileOption = None,
) -> None:
    """Start a daemon, deploy DIR, and deploy it again after each save. Ctrl-C stops all.

    Data and key are kept in .headwater/ of the current folder. A bundle that cannot be deployed
    is reported and the one before stays active.
    """
    output = output_for()
    surroundings = surroundings_of(context)
    bundle = folder.resolve()
    if surroundings.folder.resolve().is_relative_to(bundle):
        raise usage(RequestError("start it in the folder that holds DIR: .headwater/ is made there"))
    try:
        require_server()
        project = Project(bundle, surroundings.folder, host, port, _tcp_port(port, tcp_port), python, ts)
        _prepare(project)
    except HeadwaterError as error:
        fail(output, error)
    run_command(output, _dev(output, surroundings, project))


async def _dev(output: Output, surroundings: Surroundings, project: Project) -> None:
    """Run until a signal comes or the daemon ends; the daemon never outlives this."""
    if await _answers(project):
        raise RequestError(
            f"something listens on {project.host}:{project.port} already; stop it or use --port"
        )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in _STOP_SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        await _serve(output, surroundings, project, stop)
    finally:
        for number in _STOP_SIGNALS:
            loop.remove_signal_handler(number)
    output.say("stopped")


async def _serve(output: Output, surroundings: Surroundings, project: Project, stop: asyncio.Event) -> None:
    process = await _start(surroundings, project)
    try:
        saved = asyncio.Event()
        await race(
            stop.wait(),
            _report_end(process),
            _notice_saves(project, stop, saved),
            _keep_deployed(output, surroundings, project, saved),
            _show_calls(output, surroundings, project),
        )
    finally:
        await _end(process)


async def _keep_deployed(
    output: Output, surroundings: Surroundings, project: Project, saved: asyncio.Event
) -> None:
    async with HttpClient(project.url) as http:
        await http.wait_ready()
    data = data_folder(project.folder)
    output.say(f"headwater listens on {project.url}, data in {_shown(data, project.folder)}", style="bold")
    await _deploy(output, surroundings, project)
    output.say(f"watching {_shown(project.bundle, project.folder)}; Ctrl-C stops")
    while True:
        await saved.wait()
        # Cleared first: what is saved during the deploy gets one of its own.
        saved.clear()
        await _deploy(output, surroundings, project)


async def _show_calls(output: Output, surroundings: Surroundings, project: Project) -> None:
    """Print what calls print, and why they fail, as it comes."""
    async with HttpClient(project.url) as http:
        await http.wait_ready()
    while True:
        try:
            key = _key(surroundings, project)
            async with HttpClient(project.url, key=None if key is None else key.text) as http:
                await follow_on(output, http, lambda event: output.say(call_text(event)), limit=0, quiet=True)
        except HeadwaterError as error:  # as when the key was changed; deploys go on without this
            output.error(error)
        await asyncio.sleep(_RETRY_S)


async def _notice_saves(project: Project, stop: asyncio.Event, saved: asyncio.Event) -> None:
    from watchfiles import awatch  # comes with the server, which `require_server` has checked

    async for _ in awatch(project.bundle, stop_event=stop, step=50):
        saved.set()
    await stop.wait()


async def _deploy(output: Output, surroundings: Surroundings, project: Project) -> None:
    """Deploy once. A bundle that is refused is news for the person, not the end of the command."""
    try:
        key = _key(surroundings, project)
        bundle = await asyncio.to_thread(pack, project.bundle)
        async with HttpClient(project.url, key=None if key is None else key.text) as http:
            output.say(describe(await http.deploy(bundle)), style="green")
            await _refresh(output, project, http)
    except HeadwaterError as error:
        output.error(error)
    except OSError as error:
        # An editor may be replacing a file at this moment; its next event brings us back.
        output.say(f"error: cannot read the bundle: {error}", style="red")


def _key(surroundings: Surroundings, project: Project) -> Key | None:
    own = data_folder(project.folder) / "admin-key"
    return find_key(surroundings, own if own.exists() else None)


async def _refresh(output: Output, project: Project, http: HttpClient) -> None:
    """Bring up to date what clients know of the functions."""
    if project.python is not None or project.ts is not None:
        manifest = await http.manifest()
        if project.python is not None:
            refresh(output, python_stubs(manifest), project.python)
        if project.ts is not None:
            refresh(output, typescript_api(manifest), project.ts)


def _prepare(project: Project) -> None:
    """Make `.headwater/`, which keeps itself out of version control: it holds the key."""
    home = project.folder / PROJECT_FOLDER
    try:
        data_folder(project.folder).mkdir(mode=0o700, parents=True, exist_ok=True)
        (home / ".gitignore").write_text("*\n", encoding="ascii")
    except OSError as error:
        raise RequestError(f"cannot make {home}: {error.strerror}") from None


def _tcp_port(port: int, wanted: int | None) -> int:
    if wanted is not None:
        return wanted
    return port + 1 if port < 65535 else 0


async def _start(surroundings: Surroundings, project: Project) -> Process:
    options = ["--data", str(data_folder(project.folder)), "--host", project.host]
    options += ["--port", str(project.port), "--tcp-port", str(project.tcp_port)]
    options += ["--call-log-console", "off"]  # `_show_calls` shows them
    # A session of its own: Ctrl-C reaches only us, and we stop the daemon in order.
    return await asyncio.create_subprocess_exec(
        *daemon_command(surroundings.python, "serve", options),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=2,
        start_new_session=True,
    )


async def _report_end(process: Process) -> None:
    code = await process.wait()
    raise TransientError(f"the daemon ended with exit code {code}")


async def _end(process: Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP_TIMEOUT_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()


async def _answers(project: Project) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(project.host, project.port)
        writer.close()
        return True
    return False


def _shown(path: Path, folder: Path) -> str:
    with contextlib.suppress(ValueError):
        return str(path.resolve().relative_to(folder.resolve()))
    return str(path)
