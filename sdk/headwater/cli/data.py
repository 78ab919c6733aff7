"""`headwater data`: the tables, and the documents of one as they are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headwater.cli.deploy import run_with_server
from headwater.cli.deployment import (  # noqa: TC001 - typer reads annotations at run time
    JsonOption,
    KeyFileOption,
    UrlOption,
)

if TYPE_CHECKING:
    from headwater.cli.output import Output
    from headwater.http_client import HttpClient

_PAGE_MAX = 500

TableArgument = Annotated[
    str | None, typer.Argument(help="Table to look into. Without it: all tables.", metavar="[TABLE]")
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Documents at most.", metavar="N")]
IndexOption = Annotated[
    str | None,
    typer.Option("--index", help="In whose order. Without it: in that of creation.", metavar="NAME"),
]
AscendingOption = Annotated[
    bool, typer.Option("--ascending", help="From the first on. Without it: the last first.")
]


def data(
    context: typer.Context,
    table: TableArgument = None,
    limit: LimitOption = 50,
    index: IndexOption = None,
    ascending: AscendingOption = False,
    url: UrlOption = None,
    key_file: KeyFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the tables, or the documents of one. Needs a key for the role admin or read."""

    async def work(http: HttpClient, output: Output) -> None:
        if table is None:
            output.value(
                [
                    {
                        "table": one.name,
                        "documents": f"more than {one.documents}" if one.more else one.documents,
                        "indexes": ", ".join(one.indexes),
                    }
                    for one in await http.tables()
                ]
            )
            return
        shown, cursor = 0, None
        while shown < limit:
            size = min(limit - shown, _PAGE_MAX)
            page = await http.documents(table, index=index, ascending=ascending, limit=size, cursor=cursor)
            shown += len(page.documents)
            if output.as_json:
                for document in page.documents:
                    output.value(document)
            else:
                output.value(page.documents)
            cursor = page.cursor
            if cursor is None:
                return
        output.say(f"there are more; --limit {2 * limit} shows them")

    run_with_server(context, url, key_file, work, as_json=as_json)
