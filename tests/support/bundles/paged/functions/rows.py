from headwater import MutationCtx, Page, PageOptions, QueryCtx, mutation, query

from .schema import Row


@query
def ranked(ctx: QueryCtx, board: str, options: PageOptions) -> Page[Row]:
    return ctx.db.query(Row.by_rank, board=board).paginate(options)


@query
def downwards(ctx: QueryCtx, board: str, how: PageOptions) -> Page[Row]:
    return ctx.db.query(Row.by_rank, board=board).order("desc").paginate(how)


@query
def whole(ctx: QueryCtx, board: str) -> list[Row]:
    return ctx.db.query(Row.by_rank, board=board).take(5_000)


@mutation
def change(ctx: MutationCtx, board: str, ranks: dict[str, int | None]) -> None:
    """Give rows their ranks; those with none go."""
    for key, rank in ranks.items():
        row = ctx.db.query(Row.by_key, board=board, key=key).unique()
        if row is None:
            if rank is not None:
                ctx.db.insert(Row(board=board, key=key, rank=rank))
        elif rank is None:
            ctx.db.delete(row.id)
        else:
            ctx.db.patch(row.id, rank=rank)


@query
def unpaged(ctx: QueryCtx, board: str, options: PageOptions) -> list[Row]:
    return whole(ctx, board)[: options.num_items]
