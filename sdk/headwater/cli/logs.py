"""`headwater logs`: what calls did and printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from headwater_protocol.errors import HeadwaterError

from headwater.call_text import call_text
from headwater.cli.deploy import run_with_server
from headwater.cli.deployment import KeyFileOption, UrlOption  # noqa: TC001 - typer reads annotations
from headwater.cli.output import json_line
from headwater.client.transport import CannotConnectError

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater.cli.output import Output
    from headwater.http_client import HttpClient

_LEVELS = ("debug", "info", "warning", "error", "critical")
_PAUSE_S = 1.0
_COMES_BACK = frozenset({"connection_lost", "unavailable"})


def logs(
    context: typer.Context,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")
    ] = False,
    function: Annotated[
        str,
        typer.Option(
            "--function", help="Of this function alone, or of a module: `messages:`.", metavar="NAME"
        ),
    ] = "",
    level: Annotated[
        str,
        typer.Option(
            "--level",
            help="At least this: `warning` leaves calls that failed or warned, `error` faults of the code.",
            metavar="|".join(_LEVELS),
        ),
    ] = "debug",
    request: Annotated[
        str, typer.Option("--request", help="The call whose caller was told this request id.", metavar="ID")
    ] = "",
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Leave out calls that succeeded and printed nothing.")
    ] = False,
    limit: Annotated[
        int,
        typer.Option("--limit", min=0, help="So many of the newest, before what comes.", show_default=True),
    ] = 100,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as one line of JSON.")] = False,
) -> None:
    """Show what calls did, what they printed and why they failed, oldest first.

    The server keeps the newest ones in memory. A key for the role `read` is enough.
    """
    if level not in _LEVELS:
        raise typer.BadParameter(f"{level!r} is none of {', '.join(_LEVELS)}", param_hint="--level")
    wanted: dict[str, Any] = {"function": function, "level": level, "request": request, "quiet": quiet}

    async def work(http: HttpClient, output: Output) -> None:
        show = shower(output, as_json=as_json)
        if follow:
            await follow_on(output, http, show, limit=limit, **wanted)
        else:
            async for event in http.call_events(limit=limit, **wanted):
                show(event)

    run_with_server(context, url, key_file, work, as_json=as_json)


def shower(output: Output, *, as_json: bool) -> Callable[[dict[str, Any]], None]:
    """Return what prints one event as data."""
    if as_json:
        return lambda event: output.text(json_line(event) + "\n")
    return lambda event: output.text(call_text(event) + "\n")


async def follow_on(
    output: Output, http: HttpClient, show: Callable[[dict[str, Any]], None], *, limit: int, **wanted: Any
) -> None:
    """Show events as they come, for ever: when the server goes away, from where it was once that is back."""
    after: int | None = None
    reached = False
    while True:
        try:
            async for event in http.call_events(
                follow=True, after=after, limit=limit if after is None else None, **wanted
            ):
                reached = True
                after = event.get("id", after)
                show(event)
            why = "the server stops"
        except HeadwaterError as error:
            if not isinstance(error, CannotConnectError) and error.code not in _COMES_BACK:
                raise
            if isinstance(error, CannotConnectError) and not reached:
                raise
            why = error.message
        output.say(f"{why}; trying again", style="yellow")
        await http.wait_ready(_PAUSE_S)
        reached = True
