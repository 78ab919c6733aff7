"""`headwater serve`, `doctor` and `config`: hand over to the daemon's own command line.

The daemon is started as `python -m headwater_server`, never imported: what users import
must not depend on the server.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING

import typer  # noqa: TC002 - it reads the annotations of commands when they run
from headwater_protocol.errors import RequestError

from headwater.cli.deployment import fail, output_for, surroundings_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SERVER_MODULES = (
    "headwater_server",
    "lmdb",
    "orjson",
    "prometheus_client",
    "uvloop",
)
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def require_server(find: Callable[[str], object | None] = find_spec) -> None:
    """See that the daemon can be started.

    Raises:
        RequestError: It is not installed; the message says what to install.
    """
    missing = [name for name in SERVER_MODULES if find(name) is None]
    if missing:
        raise RequestError(
            f"the server is not installed ({missing[0]} is missing): pip install 'headwater[server]'"
        )


def daemon_command(python: str, command: str, arguments: Sequence[str] = ()) -> list[str]:
    """Return the command line of the daemon.

    `-P` keeps the current folder out of the import path, where a user's own `config.py` or
    `server/` would come before the modules of the daemon.
    """
    return [python, "-P", "-m", "headwater_server", command, *arguments]


def serve(context: typer.Context) -> None:
    """Run the daemon. Options are the daemon's: headwater serve --help."""
    _become(context, "serve")


def doctor(context: typer.Context) -> None:
    """Check a data folder. Options are the daemon's: headwater doctor --help."""
    _become(context, "doctor")


def config(context: typer.Context) -> None:
    """Print every setting with its origin. Options are the daemon's: headwater config --help."""
    _become(context, "config")


def _become(context: typer.Context, command: str) -> None:
    try:
        require_server()
    except RequestError as error:
        fail(output_for(), error)
    words = daemon_command(surroundings_of(context).python, command, context.args)
    os.execv(words[0], words)  # this process becomes the daemon: signals and exit code are its own
