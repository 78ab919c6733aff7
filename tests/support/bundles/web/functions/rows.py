from headwater import ApplicationError, MutationCtx, Page, PageOptions, QueryCtx, mutation, query

from .schema import Row


@query
def listed(ctx: QueryCtx, board: str) -> list[Row]:
    return ctx.db.query(Row.by_rank, board=board).take(5_000)


@query
def count(ctx: QueryCtx, board: str) -> dict[str, int]:
    """Show the same rows otherwise."""
    return {"rows": len(ctx.db.query(Row.by_rank, board=board).take(5_000))}


@query
def first(ctx: QueryCtx, board: str) -> Row | None:
    return ctx.db.query(Row.by_rank, board=board).first()


@query
def ranked(ctx: QueryCtx, board: str, options: PageOptions) -> Page[Row]:
    return ctx.db.query(Row.by_rank, board=board).paginate(options)


@query
def fails(ctx: QueryCtx, board: str) -> None:
    raise ApplicationError({"board": board, "rows": len(listed(ctx, board))})


@mutation
def add(ctx: MutationCtx, board: str, key: str, rank: int) -> str:
    return ctx.db.insert(Row(board=board, key=key, rank=rank))


def row_of(ctx: MutationCtx, board: str, key: str) -> Row:
    row = ctx.db.query(Row.by_key, board=board, key=key).unique()
    if row is None:
        raise ApplicationError({"code": "no_such_row", "key": key})
    return row


@mutation
def note(ctx: MutationCtx, board: str, key: str, text: str) -> None:
    ctx.db.patch(row_of(ctx, board, key).id, note=text)


@mutation
def append(ctx: MutationCtx, board: str, key: str, text: str) -> str:
    """Change a row so that running it twice shows."""
    row = row_of(ctx, board, key)
    ctx.db.patch(row.id, note=row.note + text)
    return row.note + text


@mutation
def fill(ctx: MutationCtx, board: str, first: int, number: int) -> None:
    for place in range(first, first + number):
        ctx.db.insert(Row(board=board, key=f"k{place}", rank=place))


@mutation
def remove(ctx: MutationCtx, board: str, first: int, number: int) -> None:
    for row in (
        ctx.db.query(Row.by_rank, board=board).range(Row.rank).gte(first).lt(first + number).take(5_000)
    ):
        ctx.db.delete(row.id)


@mutation
def refuse(ctx: MutationCtx, board: str) -> None:
    raise ApplicationError({"code": "refused", "board": board})
