"""`headwater deploy`, `deploys` and `rollback`: what changes a deployment from outside."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from headwater_protocol.errors import HeadwaterError, RequestError

from headwater.cli.deploy_progress import with_progress
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
    from collections.abc import Callable, Coroutine

    from headwater.cli.output import Output

FolderArgument = Annotated[
    Path,
    typer.Argument(
        help="The bundle: the folder with your functions.", metavar="DIR", exists=True, file_okay=False
    ),
]
PrintJsonOption = Annotated[bool, typer.Option("--json", help="Print what was done as one line of JSON.")]

_MARKS = {"added": ("+", "green"), "removed": ("-", "red"), "changed": ("~", "yellow")}


def deploy(
    context: typer.Context,
    folder: FolderArgument,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Only load it on the server, check documents, and tell what would change."
        ),
    ] = False,
    as_json: PrintJsonOption = False,
) -> None:
    """Deploy a folder of functions. If it is refused, the server stays as it was.

    While documents are checked and indexes built, their progress is shown: as bars on a terminal, else as lines of
    JSON on standard error. A deploy that was cut off goes on where it was when it is repeated.
    """
    output = output_for(as_json=as_json)
    client, _ = client_for(context, url, key_file, output)
    try:
        bundle = pack(folder)
    except HeadwaterError as error:
        fail(output, error)

    async def work() -> None:
        async with client as http:
            deploying = http.deploy(bundle, deployer=_deployer(context), dry_run=dry_run)
            done = await with_progress(output, http.deploy_steps, deploying)
        _tell(output, done, as_json=as_json, dry_run=dry_run)

    run_command(output, work())


def rollback(
    context: typer.Context,
    bundle: Annotated[
        str, typer.Argument(help="How the bundle's name begins; without it, the one that was active before.")
    ] = "",
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Make an earlier bundle the active one again. Documents stay as they are."""

    async def work(http: HttpClient, output: Output) -> None:
        going_back = http.rollback(bundle, deployer=_deployer(context))
        done = await with_progress(output, http.deploy_steps, going_back)
        _tell(output, done, as_json=as_json)

    run_with_server(context, url, key_file, work, as_json=as_json)


def deploys(
    context: typer.Context,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """List what was deployed when and by whom, the newest first."""

    async def work(http: HttpClient, output: Output) -> None:
        past = await http.deploys()
        output.value(
            [
                {
                    "number": one.number,
                    "bundle": one.bundle if as_json else one.bundle[:12],
                    "deployed": datetime.fromtimestamp(one.deployed_ms / 1000, UTC),
                    "by": one.deployer,
                    "kept": one.kept,
                }
                for one in past
            ]
        )

    run_with_server(context, url, key_file, work, as_json=as_json)


def describe(done: Deployed) -> str:
    """Return one line about a deploy."""
    if not done.changed:
        return f"deployed already: bundle {done.bundle[:12]} is unchanged"
    functions = f"{done.functions} function{'' if done.functions == 1 else 's'}"
    tables = f"{done.tables} table{'' if done.tables == 1 else 's'}"
    return f"deployed bundle {done.bundle[:12]}: {functions}, {tables}"


def describe_trial(done: Deployed) -> str:
    """Return one line about a dry run."""
    if not done.changed:
        return f"bundle {done.bundle[:12]} is deployed already: nothing would change"
    count = len(done.changes)
    told = (
        f"make {count} change{'' if count == 1 else 's'}"
        if count
        else "change nothing but code and documentation"
    )
    return f"bundle {done.bundle[:12]} loads; a deploy would {told}"


def client_for(
    context: typer.Context, url: str | None, key_file: Path | None, output: Output
) -> tuple[HttpClient, Key]:
    """Return a client of the server that a command speaks to, and the key that it uses."""
    try:
        surroundings = surroundings_of(context)
        key = require_key(surroundings, key_file)
        return HttpClient(find_url(surroundings, url), key=key.text), key
    except RequestError as error:
        if error.code == "unauthenticated":
            fail(output, error)
        raise usage(error) from None


def run_with_server(
    context: typer.Context,
    url: str | None,
    key_file: Path | None,
    work: Callable[[HttpClient, Output], Coroutine[Any, Any, None]],
    *,
    as_json: bool,
) -> None:
    """Do something with the server, to its end."""
    output = output_for(as_json=as_json)
    client, _ = client_for(context, url, key_file, output)

    async def connected() -> None:
        async with client as http:
            await work(http, output)

    run_command(output, connected())


def _deployer(context: typer.Context) -> str:
    """Return the name of whoever runs the command, for the list of deploys."""
    environ = surroundings_of(context).environ
    return environ.get("USER") or environ.get("USERNAME") or ""


def _tell(output: Output, done: Deployed, *, as_json: bool, dry_run: bool = False) -> None:
    if as_json:
        output.value(asdict(done))
        return
    for change in done.changes:
        mark, style = _MARKS[change.sign]
        details = f" ({', '.join(change.details)})" if change.details else ""
        output.say(f"{mark} {change.what} {change.name}{details}", style=style)
    output.say(describe_trial(done) if dry_run else describe(done), style="green")
