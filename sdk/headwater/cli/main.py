"""The command `headwater`.

Data goes to stdout, talk to stderr. Exit codes: 0 done, 1 the call or command failed,
2 the command line is wrong, 3 the server cannot be reached, 130 interrupted.
"""

from __future__ import annotations

import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from headwater.cli import (
    auth,
    calls,
    codegen,
    daemon,
    data,
    deploy,
    dev,
    env,
    explain,
    init,
    keys,
    logs,
    spec,
)
from headwater.cli.deployment import Surroundings

EPILOG = (
    "Exit codes: 0 done; 1 the call or command failed; 2 the command line is wrong; "
    "3 the server cannot be reached; 130 interrupted."
)

app = typer.Typer(
    name="headwater",
    help="A database and sync server in one daemon: typed Python functions, live results.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headwater {version('headwater')}")
        raise typer.Exit


@app.callback()
def _options(
    _version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Options in front of the command."""


app.command()(init.init)
app.command()(dev.dev)
app.command(context_settings=daemon.PASS_ON)(daemon.serve)
app.command()(deploy.deploy)
app.command()(deploy.rollback)
app.command()(deploy.deploys)
app.command()(calls.run)
app.command()(calls.watch)
app.command()(explain.explain)
app.command()(explain.conflicts)
app.command()(data.data)
app.command()(logs.logs)
app.command()(codegen.codegen)
app.command()(spec.spec)
app.add_typer(env.env_commands, name="env")
app.add_typer(keys.key_commands, name="key")
app.add_typer(auth.auth_commands, name="auth")
app.command(context_settings=daemon.PASS_ON)(daemon.doctor)
app.command(context_settings=daemon.PASS_ON)(daemon.config)


def main() -> None:
    """Run the command line of this process."""
    surroundings = Surroundings(environ=dict(os.environ), folder=Path.cwd(), python=sys.executable)
    app(obj=surroundings)
