"""`headwater codegen`: typed stubs of a bundle's functions for its clients."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from headwater_protocol.errors import HeadwaterError, InternalError, RequestError, error_for
from headwater_protocol.manifest import Manifest

from headwater.cli.deployment import (
    KeyFileOption,
    Surroundings,
    UrlOption,
    find_url,
    output_for,
    require_key,
    run_command,
    surroundings_of,
    usage,
)
from headwater.http_client import HttpClient
from headwater.stubs import python_stubs
from headwater.typescript_api import typescript_api

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    from headwater.cli.output import Output

FolderArgument = Annotated[
    Path | None,
    typer.Argument(
        help="The bundle: the folder with your functions. Without it: what is deployed on the server.",
        metavar="[DIR]",
        exists=True,
        file_okay=False,
    ),
]
PythonOption = Annotated[bool, typer.Option("--python", help="Make a Python module.")]
TypescriptOption = Annotated[bool, typer.Option("--ts", help="Make a TypeScript module.")]
OutOption = Annotated[
    Path | None, typer.Option("--out", help="File to write. Without it: stdout.", metavar="FILE")
]
CheckOption = Annotated[
    bool, typer.Option("--check", help="Write nothing; exit with 1 if the file is not what would be written.")
]
_DESCRIBE_TIMEOUT_S = 60.0


def codegen(
    context: typer.Context,
    folder: FolderArgument = None,
    python: PythonOption = False,
    ts: TypescriptOption = False,
    out: OutOption = None,
    check: CheckOption = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Write what type checkers need to know your functions, for clients.

    In Python `client.query(api.messages.list, channel=channel)`, in TypeScript `useQuery(api.messages.list, { channel })`. Reading from a server needs the deployment's key.
    """
    if python == ts:
        raise typer.BadParameter("say what to make: --python or --ts")
    made = python_stubs if python else typescript_api
    make(context, made, folder, out, url, key_file, check=check)


def make(
    context: typer.Context,
    made: Callable[[Manifest], str],
    folder: Path | None,
    out: Path | None,
    url: str | None,
    key_file: Path | None,
    *,
    check: bool,
) -> None:
    """Write what is made of a manifest, that of a folder or of a server."""
    output = output_for()
    surroundings = surroundings_of(context)
    if check and out is None:
        raise typer.BadParameter("--check needs --out FILE")
    if folder is not None:
        run_command(output, _write(output, made, _manifest_of_folder(surroundings, folder), out, check=check))
        return
    try:
        key = require_key(surroundings, key_file)
        http = HttpClient(find_url(surroundings, url), key=key.text)
    except RequestError as error:
        raise usage(error) from None
    run_command(output, _write(output, made, _manifest_of_server(http), out, check=check))


async def _write(
    output: Output,
    made: Callable[[Manifest], str],
    source: Coroutine[Any, Any, Manifest],
    out: Path | None,
    *,
    check: bool,
) -> None:
    text = made(await source)
    if out is None:
        output.text(text)
    else:
        _put(output, text, out, check=check)


def _put(output: Output, text: str, out: Path, *, check: bool) -> None:
    """Bring a file up to date, or see that it is.

    Raises:
        RequestError: It is not, or it cannot be read or written.
    """
    try:
        if _holds(out, text):
            output.say(f"{out} is up to date", style="green")
        elif check:
            raise RequestError(f"{out} is out of date; make it again without --check")
        else:
            out.write_bytes(text.encode())
            output.say(f"wrote {out}", style="green")
    except OSError as error:
        raise RequestError(f"cannot read or write {out}: {error.strerror}") from None


def _holds(out: Path, text: str) -> bool:
    return out.exists() and out.read_bytes() == text.encode()


def refresh(output: Output, text: str, out: Path) -> None:
    """Write a file unless it has this text already, so that only what changed wakes up who watches it.

    Raises:
        RequestError: It cannot be read or written.
    """
    try:
        if not _holds(out, text):
            out.write_bytes(text.encode())
            output.say(f"wrote {out}", style="green")
    except OSError as error:
        raise RequestError(f"cannot read or write {out}: {error.strerror}") from None


async def _manifest_of_server(http: HttpClient) -> Manifest:
    async with http:
        return await http.manifest()


async def _manifest_of_folder(surroundings: Surroundings, folder: Path) -> Manifest:
    """Have a process of its own import the functions; what they print goes to stderr."""
    words = [surroundings.python, "-P", "-m", "headwater.describe", str(folder), str(os.getpid())]
    process = await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_DESCRIBE_TIMEOUT_S):
            printed, told = await process.communicate()
    except TimeoutError:
        raise RequestError(
            f"{folder} was not imported within {_DESCRIBE_TIMEOUT_S:.0f} s; does one of its modules loop or wait at its top level?",
            code="invalid_bundle",
        ) from None
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode == 0:
        return Manifest.from_json(printed)
    raise _failure(told)


def _failure(told: bytes) -> HeadwaterError:
    try:
        error = json.loads(told.splitlines()[-1])
        return error_for(error["code"], error["message"])
    except (ValueError, LookupError, TypeError):
        return InternalError(f"the functions cannot be read: {told.decode(errors='replace')[-2000:].strip()}")
