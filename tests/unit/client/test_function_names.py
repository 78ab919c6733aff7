from __future__ import annotations

import headwater
import pytest
from headwater import Page, PageOptions, QueryCtx, Table, query
from headwater.client.function_names import page_argument
from headwater_protocol.errors import RequestError


class Thing(Table, name="things"):
    size: int


@query
def paged(ctx: QueryCtx, how: PageOptions) -> Page[Thing]:
    return ctx.db.scan(Thing).paginate(how)


@query
def qualified(ctx: QueryCtx, size: int, pages: headwater.PageOptions) -> Page[Thing]:
    return ctx.db.scan(Thing).paginate(pages)


@query
def whole(ctx: QueryCtx, size: int) -> list[Thing]:
    return ctx.db.scan(Thing).take(size)


def test_the_argument_for_pages_is_found_by_its_type() -> None:
    assert page_argument(paged) == "how"
    assert page_argument(qualified) == "pages"
    assert page_argument("things:paged") == "options"
    with pytest.raises(RequestError, match="whole has no argument of type PageOptions"):
        page_argument(whole)
