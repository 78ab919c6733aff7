"""`headwater explain`: what a call reads and costs, what makes its result stale, and to whom mutations lose."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import typer
from headwater_protocol.errors import RequestError

from headwater.cli.arguments import parse_arguments
from headwater.cli.calls import (
    NameArgument,
    UserOption,
    WordsArgument,
    claims_of,
)
from headwater.cli.deploy import run_with_server
from headwater.cli.deployment import (
    JsonOption,
    KeyFileOption,
    UrlOption,
    usage,
)
from headwater.cli.output import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.cli.output import Output
    from headwater.http_client import HttpClient

_PAUSE_S = 0.5


def explain(
    context: typer.Context,
    name: NameArgument,
    words: WordsArgument = None,
    follow: Annotated[
        bool,
        typer.Option(
            "--follow", "-f", help="Go on with what makes the live query stale, until Ctrl-C. For queries."
        ),
    ] = False,
    act_as: UserOption = None,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Run a query once and tell what it read, what that cost, and what has made it run again for its subscribers.

    A mutation runs without being committed: it tells what it read and would write, and to whom it has lost. Queries
    need a key for the role `read`, mutations and `--as` one for the role `admin`.
    """
    try:
        arguments = parse_arguments(words or ())
        user = None if act_as is None else claims_of(act_as)
    except RequestError as error:
        raise usage(error) from None

    async def work(http: HttpClient, output: Output) -> None:
        told = await http.explain(name, arguments, act_as=user)
        if follow and told["kind"] != "query":
            raise RequestError(f"--follow is for queries, and {name} is a {told['kind']}")
        _show(output, told)
        if follow:
            await _follow(output, http, name, arguments, told["live"])

    run_with_server(context, url, key_file, work, as_json=as_json)


def conflicts(
    context: typer.Context,
    function: Annotated[str, typer.Option("--function", help="Of this mutation alone.", metavar="NAME")] = "",
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List which mutations had to run again since others came first: on which table, and which those were.

    Counted since the start of the server, the most frequent first. A key for the role `read` is enough.
    """

    async def work(http: HttpClient, output: Output) -> None:
        output.value(await http.conflicts(function))

    run_with_server(context, url, key_file, work, as_json=as_json)


def _show(output: Output, told: dict[str, Any]) -> None:
    if output.as_json:
        output.value(told)
        return
    for part in _parts(told):
        if isinstance(part, str):
            output.text(printable(part) + "\n")
        else:
            output.text("\n")
            output.value(part)
            output.text("\n")


def _parts(told: dict[str, Any]) -> Iterator[str | list[dict[str, Any]]]:
    """Yield what is told of a run, sentences and tables."""
    is_query = told["kind"] == "query"
    yield (
        f"{told['kind']} {told['function']} · {told['duration_ms']:.1f} ms · {_counted(told['documents_read'], 'document')},"
        f" {told['bytes_read']:,} bytes read · result {_counted(told['result_bytes'], 'byte')}"
    )
    if told["outcome"] != "success":
        yield f"It failed: [{told['outcome']}] {told['error']}"
    if told["reads"]:
        yield [_read_row(row) for row in told["reads"]]
    if told["more_reads"]:
        yield f"… and {told['more_reads']:,} further reads."
    if told["variables"]:
        yield f"Environment variables read: {', '.join(told['variables'])}."
    if is_query:
        yield from _query_parts(told)
        return
    if told["writes"]:
        yield [{"table": row["table"], "": row["deed"], **_sizes(row)} for row in told["writes"]]
    if told["jobs"]:
        yield f"It would schedule {_counted(told['jobs'], 'job')}."
    yield "Nothing of this was committed."
    if told["conflicts"]:
        yield "It had to run again since others came first:"
        yield [
            {"on": row["table"], "lost to": row["lost_to"], "times": row["count"]}
            for row in told["conflicts"]
        ]
    else:
        yield "It has lost to no other mutation since the server was started."


def _query_parts(told: dict[str, Any]) -> Iterator[str | list[dict[str, Any]]]:
    live = told["live"]
    if told["identity_read"]:
        yield "It asked who calls: each user has a result and runs of their own."
    else:
        yield "It did not ask who calls: everybody with these arguments is shown one result."
    if told["clock_read"]:
        yield "It asked the time: as that passes the result stays, until something that it read is written."
    if not live["queries"]:
        yield "Nobody looks at it with these arguments."
        return
    held = "a result is held, which whoever comes next is shown" if live["held"] else "no result is held"
    yield (
        f"Live: {_counted(live['subscribers'], 'subscription')}; run again {_counted(live['reruns'], 'time')},"
        f" {live['unchanged']:,} of them with the same result; {held}."
    )
    if live["causes"]:
        yield "What made it stale, the newest last:"
        yield [_cause_row(cause) for cause in live["causes"]]


async def _follow(
    output: Output,
    http: HttpClient,
    name: str,
    arguments: dict[str, Any],
    live: dict[str, Any],
) -> None:
    """Print what makes live queries stale, as it happens; that is the same for all users."""
    after = max((cause["number"] for cause in live["causes"]), default=0)
    while True:
        await asyncio.sleep(_PAUSE_S)
        live = await http.reruns(name, arguments, after=after)
        for cause in live["causes"]:
            after = cause["number"]
            if output.as_json:
                output.value(cause)
            else:
                row = _cause_row(cause)
                output.text(printable(f"{row['at']} {row['by']} wrote {row['in']}: {row['what']}") + "\n")


def _read_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"read": _place(row), "range": row["text"], "times": row["times"], **_sizes(row)}


def _cause_row(cause: dict[str, Any]) -> dict[str, Any]:
    return {
        "at": cause["ts"],
        "by": cause["function"] or "the server",
        "in": _place(cause),
        "what": cause["text"],
    }


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _sizes(row: dict[str, Any]) -> dict[str, Any]:
    return {"documents": row["documents"], "bytes": row["bytes"]}


def _place(row: dict[str, Any]) -> str:
    return f"{row['table']}.{row['index']}" if row["index"] else row["table"]
