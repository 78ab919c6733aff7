"""`headwater env`: the environment variables of a deployment."""

from __future__ import annotations

import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - typer reads annotations
from typing import TYPE_CHECKING, Annotated

import typer
from headwater_protocol.errors import RequestError

from headwater.cli.deploy import PrintJsonOption, run_with_server
from headwater.cli.deployment import KeyFileOption, UrlOption, usage

if TYPE_CHECKING:
    from headwater.cli.output import Output
    from headwater.http_client import HttpClient

NameArgument = Annotated[str, typer.Argument(help="Name of the variable, in capitals.", metavar="NAME")]
_CHARACTERS_MAX = 2_000_000

env_commands = typer.Typer(
    help="Environment variables of the deployment, which functions read with ctx.env.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@env_commands.command("set")
def set_(
    context: typer.Context,
    name: NameArgument,
    value: Annotated[
        str | None,
        typer.Argument(
            help="The value. Not for secrets: other users of this machine see command lines.",
            metavar="[VALUE]",
        ),
    ] = None,
    stdin: Annotated[bool, typer.Option("--stdin", help="Take the value from standard input.")] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="Take the value from a file.", metavar="FILE")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Keep it sealed, and show it to nobody. From --stdin or --file.")
    ] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Set a variable. Functions see it with their next call; queries that have read it run again.

    It is a secret too if the active bundle declares it as one. One newline at the end of what comes from standard input
    or a file is left out.
    """
    try:
        text = _value(value, file, stdin=stdin, secret=secret)
    except RequestError as error:
        raise usage(error) from None

    async def work(http: HttpClient, output: Output) -> None:
        sealed = await http.set_variable(name, text, secret=secret)
        if as_json:
            output.value({"name": name, "secret": sealed})
        elif sealed and value is not None:
            output.say(
                f"{name} is set, and sealed: the bundle says that it is a secret. Give it with --stdin or --file next time,"
                " others may have seen the command line",
                style="yellow",
            )
        else:
            output.say(f"{name} is set{', and sealed' if sealed else ''}", style="green")

    run_with_server(context, url, key_file, work, as_json=as_json)


@env_commands.command()
def get(
    context: typer.Context,
    name: NameArgument,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Print a variable's value. Secret ones are shown to nobody."""

    async def work(http: HttpClient, output: Output) -> None:
        found = next((one for one in await http.variables() if one.name == name), None)
        if found is None or found.updated_ms is None:
            raise RequestError(f"the variable {name} is not set; see `headwater env list`")
        if found.value is None:
            raise RequestError(f"{name} is a secret, and shown to nobody", code="forbidden")
        if as_json:
            output.value({"name": name, "value": found.value})
        else:
            output.text(found.value + "\n")

    run_with_server(context, url, key_file, work, as_json=as_json)


@env_commands.command("list")
def list_(
    context: typer.Context,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """List the variables that are set, and those that the active bundle reads."""

    async def work(http: HttpClient, output: Output) -> None:
        found = await http.variables()
        if as_json:
            output.value([asdict(one) for one in found])
            return
        output.value(
            [
                {
                    "name": one.name,
                    "value": "(secret)" if one.secret and one.updated_ms is not None else one.value,
                    "type": one.kind,
                    "set": None
                    if one.updated_ms is None
                    else datetime.fromtimestamp(one.updated_ms / 1000, UTC),
                }
                for one in found
            ]
        )

    run_with_server(context, url, key_file, work, as_json=as_json)


@env_commands.command()
def remove(
    context: typer.Context,
    name: NameArgument,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Remove a variable, unless the active bundle needs it."""

    async def work(http: HttpClient, output: Output) -> None:
        await http.remove_variable(name)
        if as_json:
            output.value({"name": name, "removed": True})
        else:
            output.say(f"{name} is removed", style="green")

    run_with_server(context, url, key_file, work, as_json=as_json)


def _value(value: str | None, file: Path | None, *, stdin: bool, secret: bool) -> str:
    """Return the value; the messages of errors never hold it."""
    if [value is not None, stdin, file is not None].count(True) != 1:
        raise RequestError("give the value in one way: as VALUE, with --stdin or with --file FILE")
    if value is not None:
        if secret:
            raise RequestError(
                "a secret is not given on the command line, which other users see: use --stdin or --file FILE"
            )
        return value
    try:
        if file is None:
            text = sys.stdin.read(_CHARACTERS_MAX)
            text.encode()  # in some surroundings it reads bytes that are no text as halves of characters
        else:
            with file.open(encoding="utf-8", newline="") as opened:
                text = opened.read(_CHARACTERS_MAX)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise RequestError(f"cannot read {file or 'standard input'}: {reason}") from None
    return text.removesuffix("\n").removesuffix("\r")
