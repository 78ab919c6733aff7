from headwater import MutationCtx, QueryCtx, mutation, query

from .schema import Entry


@mutation
def append(ctx: MutationCtx, writer: int, number: int, size: int) -> None:
    """Append whatever the caller says, twice if told twice."""
    ctx.db.insert(Entry(writer=writer, number=number, text="x" * size))


@query
def numbers(ctx: QueryCtx, writer: int) -> list[int]:
    return [entry.number for entry in ctx.db.query(Entry.by_writer, writer=writer)]


@query
def newest(ctx: QueryCtx, writer: int) -> int | None:
    last = ctx.db.query(Entry.by_writer, writer=writer).order("desc").first()
    return last.number if last else None
