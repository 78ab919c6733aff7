"""`headwater key`: keys for people and machines, and the deployment's own."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from headwater_protocol.errors import RequestError

from headwater.cli.deploy import PrintJsonOption, client_for, run_with_server
from headwater.cli.deployment import Key, KeyFileOption, UrlOption, output_for, run_command

if TYPE_CHECKING:
    from headwater.cli.output import Output
    from headwater.http_client import HttpClient

NameArgument = Annotated[str, typer.Argument(help="Whose it is: a person, a machine, a job.", metavar="NAME")]

key_commands = typer.Typer(
    help="Keys of the deployment: its own, and those of people and machines.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@key_commands.command()
def create(
    context: typer.Context,
    name: NameArgument,
    role: Annotated[
        str,
        typer.Option(
            "--role",
            help="admin: everything; deploy: deploys and roll backs; read: what is deployed, documents, and internal queries.",
            metavar="admin|deploy|read",
        ),
    ],
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Make a key for somebody. It is printed, once: the server keeps its hash alone."""

    async def work(http: HttpClient, output: Output) -> None:
        key = await http.create_key(name, role)
        if as_json:
            output.value({"name": name, "role": role, "key": key})
        else:
            output.text(key + "\n")
            output.say(
                f"the key of {name!r} for the role {role}; nobody can be shown it again", style="green"
            )

    run_with_server(context, url, key_file, work, as_json=as_json)


@key_commands.command("list")
def list_(
    context: typer.Context,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """List the keys with their roles and when they were last used. The deployment's own is not among them."""

    async def work(http: HttpClient, output: Output) -> None:
        output.value(
            [
                {
                    "name": one.name,
                    "role": one.role,
                    "created": _time(one.created_ms),
                    "last used": None if one.used_ms is None else _time(one.used_ms),
                }
                for one in await http.keys()
            ]
        )

    run_with_server(context, url, key_file, work, as_json=as_json)


@key_commands.command()
def revoke(
    context: typer.Context,
    name: NameArgument,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
) -> None:
    """Make a key void at once."""

    async def work(http: HttpClient, output: Output) -> None:
        await http.revoke_key(name)
        output.say(f"the key of {name!r} is void", style="green")

    run_with_server(context, url, key_file, work, as_json=False)


@key_commands.command()
def rotate(
    context: typer.Context,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Make a new key of the deployment itself; the old one ends at once.

    The new key is written over the key file that was used. If the key came from HEADWATER_KEY
    there is no such file, and it is printed.
    """
    output = output_for(as_json=as_json)
    client, key = client_for(context, url, key_file, output)
    run_command(output, _rotate(output, client, key, as_json=as_json))


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


def _time(ms: float) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


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
