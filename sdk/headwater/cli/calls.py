"""`headwater run` and `headwater watch`: call one function, follow one query."""

from __future__ import annotations

import contextlib
import json
import logging
from typing import TYPE_CHECKING, Annotated, Any

import typer
from headwater_protocol.errors import HeadwaterError, RequestError

from headwater.cli.arguments import parse_arguments
from headwater.cli.deployment import (
    JsonOption,
    KeyFileOption,
    UrlOption,
    find_key,
    find_url,
    output_for,
    run_command,
    surroundings_of,
    usage,
)
from headwater.client.aio import connect
from headwater.client.transport import parse_address
from headwater.http_client import HttpClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.cli.output import Output

NameArgument = Annotated[str, typer.Argument(help="The function, e.g. messages:list.", metavar="NAME")]
WordsArgument = Annotated[
    list[str] | None,
    typer.Argument(
        help="Its arguments. A value that is JSON is taken as JSON (limit=5), anything else as text "
        "(body=hi); quote to force text: name='\"5\"'.",
        metavar="[KEY=VALUE]...",
    ),
]
UserOption = Annotated[
    str | None,
    typer.Option(
        "--as",
        help="Run it as a user: the subject of their tokens, or JSON with what those claim: "
        '\'{"sub":"…","iss":"…"}\'. Needs a key for the role admin, and is logged.',
        metavar="USER",
    ),
]
_CONNECT_TIMEOUT_S = 5.0


def run(
    context: typer.Context,
    name: NameArgument,
    words: WordsArgument = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
    act_as: UserOption = None,
) -> None:
    """Call a function once and print its result. With the key, internal functions too."""
    output = output_for(as_json=as_json)
    try:
        arguments = parse_arguments(words or ())
        user = None if act_as is None else claims_of(act_as)
        surroundings = surroundings_of(context)
        key = find_key(surroundings, key_file)
        client = HttpClient(find_url(surroundings, url), key=None if key is None else key.text)
    except RequestError as error:
        raise usage(error) from None
    run_command(output, _run(output, client, name, arguments, user))


def watch(
    context: typer.Context,
    name: NameArgument,
    words: WordsArgument = None,
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Print a query's result, and again each time it changes, until Ctrl-C.

    After a lost connection it goes on by itself. A result that comes while the one before is
    being printed replaces those in between.
    """
    output = output_for(as_json=as_json)
    try:
        arguments = parse_arguments(words or ())
        address = find_url(surroundings_of(context), url)
        parse_address(address)
    except RequestError as error:
        raise usage(error) from None
    run_command(output, _watch(output, address, name, arguments))


def claims_of(user: str) -> dict[str, Any]:
    """Return what tokens of a user claim, who is given by their subject or by JSON.

    Raises:
        RequestError: It begins like JSON and is none.
    """
    if not user.startswith("{"):
        return {"sub": user}
    try:
        claims: dict[str, Any] = json.loads(user)
    except ValueError as error:
        raise RequestError(f"--as: expected the subject of a user, or JSON with claims: {error}") from None
    return claims


async def _run(
    output: Output, client: HttpClient, name: str, arguments: dict[str, Any], user: dict[str, Any] | None
) -> None:
    async with client as http:
        output.value(await http.call(name, arguments, act_as=user))


async def _watch(output: Output, url: str, name: str, arguments: dict[str, Any]) -> None:
    """Print updates. The first answer decides whether the query is there; later failures may pass."""
    async with connect(url, connect_timeout_s=_CONNECT_TIMEOUT_S) as client:
        with _telling(output):
            updates = client.subscribe(name, **arguments)
            output.value(await anext(updates), title=f"{name} · 1")
            count = 1
            while True:
                try:
                    value = await anext(updates)
                except HeadwaterError as error:
                    if client.state.closed:
                        raise
                    output.error(error)
                else:
                    count += 1
                    output.value(value, title=f"{name} · {count}")


@contextlib.contextmanager
def _telling(output: Output) -> Iterator[None]:
    """Show what the client logs (connection lost, connected again) to the person who watches."""
    log = logging.getLogger("headwater.client")
    handler = _TalkHandler(output)
    level = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.setLevel(level)
        log.removeHandler(handler)


class _TalkHandler(logging.Handler):
    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        self._output.say(record.getMessage(), style="yellow")
