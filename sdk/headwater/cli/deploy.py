"""`headwater deploy` and `headwater key rotate`: what changes a deployment from outside."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from headwater_protocol.errors import HeadwaterError, RequestError

from headwater.cli.deployment import (
    Key,
    KeyFileOption,
    UrlOption,
    fail,
    find_url,
    output_for,
    require_key,
    run_command,
    surroundings_of,
    usage,
)
from headwater.http_client import Deployed, HttpClient
from headwater.packing import pack

if TYPE_CHECKING:
    from headwater.cli.output import Output

FolderArgument = Annotated[
    Path,
    typer.Argument(
        help="The bundle: the folder with your functions.", metavar="DIR", exists=True, file_okay=False
    ),
]
PrintJsonOption = Annotated[bool, typer.Option("--json", help="Print what was done as one line of JSON.")]

key_commands = typer.Typer(help="The deployment's key.", no_args_is_help=True, rich_markup_mode=None)


def deploy(
    context: typer.Context,
    folder: FolderArgument,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Deploy a folder of functions. If it is refused, the server stays as it was."""
    output = output_for(as_json=as_json)
    client, _ = _client(context, url, key_file, output)
    try:
        bundle = pack(folder)
    except HeadwaterError as error:
        fail(output, error)
    run_command(output, _deploy(output, client, bundle, as_json=as_json))


@key_commands.command()
def rotate(
    context: typer.Context,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Make a new key; the old one ends at once.

    The new key is written over the key file that was used. If the key came from HEADWATER_KEY
    there is no such file, and it is printed.
    """
    output = output_for(as_json=as_json)
    client, key = _client(context, url, key_file, output)
    run_command(output, _rotate(output, client, key, as_json=as_json))


def describe(done: Deployed) -> str:
    """Return one line about a deploy."""
    if not done.changed:
        return f"deployed already: bundle {done.bundle[:12]} is unchanged"
    functions = f"{done.functions} function{'' if done.functions == 1 else 's'}"
    tables = f"{done.tables} table{'' if done.tables == 1 else 's'}"
    return f"deployed bundle {done.bundle[:12]}: {functions}, {tables}"


def write_key(file: Path, key: str) -> None:
    """Replace the key file, readable by its owner only, at no moment half written."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(key + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _client(
    context: typer.Context, url: str | None, key_file: Path | None, output: Output
) -> tuple[HttpClient, Key]:
    try:
        surroundings = surroundings_of(context)
        key = require_key(surroundings, key_file)
        return HttpClient(find_url(surroundings, url), key=key.text), key
    except RequestError as error:
        if error.code == "unauthenticated":
            fail(output, error)
        raise usage(error) from None


async def _deploy(output: Output, client: HttpClient, bundle: bytes, *, as_json: bool) -> None:
    async with client as http:
        done = await http.deploy(bundle)
    if as_json:
        output.value(
            {
                "bundle": done.bundle,
                "functions": done.functions,
                "tables": done.tables,
                "changed": done.changed,
            }
        )
    else:
        output.say(describe(done), style="green")


async def _rotate(output: Output, client: HttpClient, key: Key, *, as_json: bool) -> None:
    async with client as http:
        new = await http.rotate_key()
    if key.file is None:
        output.value({"key": new} if as_json else new)
        output.say("this is the new key; set HEADWATER_KEY to it", style="green")
        return
    try:
        write_key(key.file, new)
    except OSError as error:
        output.value({"key": new} if as_json else new)
        raise RequestError(
            f"the key was changed but {key.file} cannot be written ({error.strerror}); it is printed above"
        ) from None
    if as_json:
        output.value({"key_file": str(key.file)})
    output.say(f"the new key is in {key.file}", style="green")
