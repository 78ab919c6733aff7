"""`headwater auth`: why a token is refused, for the developer, clients are only told that it was; and the signing key."""

from __future__ import annotations

import base64
import binascii
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from headwater_protocol.errors import RequestError

from headwater.cli.deploy import PrintJsonOption, run_with_server
from headwater.cli.deployment import (
    EXIT_FAILED,
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
from headwater.http_client import HttpClient

if TYPE_CHECKING:
    from headwater.cli.output import Output
    from headwater.http_client import TokenCheck

_FILE_CHARACTERS_MAX = 4_000_000
_TIMES = ("exp", "iat", "nbf", "auth_time")

auth_commands = typer.Typer(help="Sign-in.", no_args_is_help=True, rich_markup_mode=None)


@auth_commands.callback()
def _group() -> None:
    """Sign-in."""


@auth_commands.command()
def check(
    context: typer.Context,
    file: Annotated[
        str,
        typer.Argument(
            help="File that holds the token, `-` for standard input. Never the token: other users see command lines.",
            metavar="FILE",
        ),
    ] = "-",
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of it as one line of JSON.")] = False,
) -> None:
    """Show what a token claims, and ask the server whether it takes it and why not. Exit code 1: it does not."""
    output = output_for(as_json=as_json)
    try:
        token = _read(file)
    except RequestError as error:
        raise usage(error) from None
    parts = decoded(token)
    if not as_json:
        _show(output, parts)
    try:
        surroundings = surroundings_of(context)
        client = HttpClient(find_url(surroundings, url), key=require_key(surroundings, key_file).text)
    except RequestError as error:
        fail(output, error)

    async def work() -> None:
        async with client as http:
            told = await http.check_token(token)
        if as_json:
            output.value({**parts, **asdict(told)})
        else:
            _say(output, told)
        if not told.accepted:
            raise typer.Exit(EXIT_FAILED)

    run_command(output, work())


@auth_commands.command("rotate-key")
def rotate_key(
    context: typer.Context,
    revoke: Annotated[
        bool,
        typer.Option(
            "--revoke",
            help="Take the old keys back at once, as after a theft: all clients have to bring another token.",
        ),
    ] = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: PrintJsonOption = False,
) -> None:
    """Sign tokens of the bundle's accounts with a new key. What old ones have signed counts until it ends."""

    async def work(http: HttpClient, output: Output) -> None:
        key_id = await http.rotate_signing_key(revoke=revoke)
        if as_json:
            output.value({"key_id": key_id})
        else:
            output.say(f"tokens are signed with the key {key_id}", style="green")

    run_with_server(context, url, key_file, work, as_json=as_json)


def decoded(token: str) -> dict[str, Any]:
    """Return header and claims of a token as far as they can be read; nothing is checked.

    Returns:
        `header` and `claims`; in place of what cannot be read, None.
    """
    parts = token.split(".")
    return {"header": _json_of(parts[0]), "claims": _json_of(parts[1]) if len(parts) > 1 else None}


def _json_of(part: str) -> Any:
    try:
        return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None


def _read(file: str) -> str:
    """Return the token.

    Raises:
        RequestError: It cannot be read; the message never holds what was given in place of a file's name.
    """
    try:
        if file == "-":
            text = sys.stdin.read(_FILE_CHARACTERS_MAX)
        else:
            with Path(file).open(encoding="utf-8") as opened:
                text = opened.read(_FILE_CHARACTERS_MAX)
    except (OSError, ValueError):
        # What stands there may be the token itself.
        raise RequestError(
            "there is no such file that can be read. Give the token on standard input or in a file, not as a word:"
            " other users of this machine see command lines"
        ) from None
    if not text.strip():
        raise RequestError("there is no token: nothing stands there")
    return text.strip()


def _show(output: Output, parts: dict[str, Any]) -> None:
    for name, value in parts.items():
        if value is None:
            output.say(f"{name}: cannot be read", style="red")
        else:
            output.value(value, title=name)
    claims = parts["claims"]
    for name in _TIMES:
        seconds = claims.get(name) if isinstance(claims, dict) else None
        if isinstance(seconds, int | float) and 0 <= seconds < 253_402_300_800:
            output.say(f"{name}: {datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC")


def _say(output: Output, told: TokenCheck) -> None:
    if told.accepted:
        until = datetime.fromtimestamp(told.expires_ms / 1000, UTC)
        output.say(f"accepted: {told.token_identifier}, until {until:%Y-%m-%d %H:%M:%S} UTC", style="green")
        return
    output.say(f"refused: {told.reason}", style="red")
    if told.may_pass_later:
        output.say("nothing was found wrong with the token itself; it may be accepted later")
