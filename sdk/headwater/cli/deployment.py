"""Which server a command speaks to and with which key, and how a command ends."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from headwater_protocol.errors import HeadwaterError, RequestError
from rich.console import Console

from headwater.cli.output import Output
from headwater.client.transport import CannotConnectError

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

DEFAULT_URL = "http://127.0.0.1:4510"
PROJECT_FOLDER = ".headwater"
KEY_VARIABLE = "HEADWATER_KEY"
URL_VARIABLE = "HEADWATER_URL"

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_CANNOT_CONNECT = 3
EXIT_INTERRUPTED = 130

_NOBODY_THERE = "start a server with `headwater dev DIR` or `headwater serve`, or name another with --url or HEADWATER_URL"

UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help=f"Address of the server. Without it: the variable HEADWATER_URL, then {DEFAULT_URL}.",
        metavar="URL",
    ),
]
KeyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--key-file",
        help="File that holds the deployment's key. Without it: the variable HEADWATER_KEY, "
        "then .headwater/data/admin-key of this folder.",
        metavar="FILE",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print each value as one line of JSON.")]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What a command takes from the process it runs in.

    Attributes:
        environ: Environment variables.
        folder: The project: the folder the command was started in.
        python: Interpreter that starts the daemon.
    """

    environ: Mapping[str, str]
    folder: Path
    python: str


@dataclass(frozen=True, slots=True)
class Key:
    """The deployment's key and where it came from.

    Attributes:
        text: The key. Never printed in messages.
        file: The file that holds it; None if it came from the environment.
    """

    text: str
    file: Path | None

    def __repr__(self) -> str:
        return f"Key(file={self.file!r})"


def surroundings_of(context: typer.Context) -> Surroundings:
    """Return what `main` handed to the command."""
    found = context.obj
    assert isinstance(found, Surroundings), "main() passes the surroundings"
    return found


def data_folder(folder: Path) -> Path:
    """Return where `headwater dev` keeps the data of a project."""
    return folder / PROJECT_FOLDER / "data"


def find_url(surroundings: Surroundings, url: str | None) -> str:
    """Return the server's address: from `--url`, else the environment, else the default."""
    return url or surroundings.environ.get(URL_VARIABLE, "").strip() or DEFAULT_URL


def find_key(surroundings: Surroundings, key_file: Path | None) -> Key | None:
    """Return the key: from `--key-file`, else the environment, else the project's own; None if there is none.

    Raises:
        RequestError: The file cannot be read or holds no key.
    """
    if key_file is None:
        from_environment = surroundings.environ.get(KEY_VARIABLE, "").strip()
        if from_environment:
            return Key(_checked(from_environment, KEY_VARIABLE), None)
        key_file = data_folder(surroundings.folder) / "admin-key"
        if not key_file.exists():
            return None
    try:
        text = key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise RequestError(f"cannot read the key file {key_file}: {reason}") from None
    return Key(_checked(text, str(key_file)), key_file)


def require_key(surroundings: Surroundings, key_file: Path | None) -> Key:
    """Return the key.

    Raises:
        RequestError: None is given; the message says how to.
    """
    key = find_key(surroundings, key_file)
    if key is None:
        raise RequestError(
            f"this needs the deployment's key: give --key-file FILE or set {KEY_VARIABLE} "
            "(the server writes it to <data>/admin-key)",
            code="unauthenticated",
        )
    return key


def output_for(*, as_json: bool = False) -> Output:
    """Return the output of a command over the process's stdout and stderr."""
    return Output(Console(), Console(stderr=True), as_json=as_json)


def run_command(output: Output, work: Coroutine[Any, Any, None]) -> None:
    """Run a command to its end; its errors become one line and an exit code."""
    try:
        asyncio.run(_interruptible(work))
    except KeyboardInterrupt:
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except HeadwaterError as error:
        fail(output, error)
    except BrokenPipeError:  # whoever read has gone: nothing to tell
        raise
    except OSError as error:  # a full disk behind `>`, a file that cannot be written
        output.say(f"error: {error}", style="red")
        _drop_output()
        raise typer.Exit(EXIT_FAILED) from None


def _drop_output() -> None:
    """Let what waits to be written go nowhere: Python would try again at its end, and exit with a code of its own."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


async def _interruptible(work: Coroutine[Any, Any, None]) -> None:
    """Run a command until its end or SIGINT; a second SIGINT does not wait for the command to tidy up.

    The loop's own handler, unlike that of `asyncio.run`, wakes a loop that is about to sleep, and is there
    also in a process that was started with SIGINT ignored, as shells without job control start
    what they put in the background.

    Raises:
        KeyboardInterrupt: A signal came.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    interrupted = False

    def interrupt() -> None:
        nonlocal interrupted
        if interrupted:
            raise KeyboardInterrupt
        interrupted = True
        task.cancel()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        await task
    except asyncio.CancelledError:
        if not interrupted:
            raise
        raise KeyboardInterrupt from None
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def fail(output: Output, error: HeadwaterError) -> NoReturn:
    """Report an error and end the command."""
    output.error(error)
    if isinstance(error, CannotConnectError):
        if not isinstance(error.__cause__, ssl.SSLError):  # somebody is there, and not trusted
            output.say(_NOBODY_THERE)
        raise typer.Exit(EXIT_CANNOT_CONNECT) from None
    raise typer.Exit(EXIT_FAILED) from None


def usage(error: RequestError) -> typer.BadParameter:
    """Return the error of a command line that cannot be understood."""
    return typer.BadParameter(error.message)


def _checked(text: str, origin: str) -> str:
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise RequestError(f"{origin} does not hold a key")
    return text
