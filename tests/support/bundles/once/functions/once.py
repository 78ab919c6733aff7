from headwater import ApplicationError, MutationCtx, QueryCtx, mutation, query

from .schema import Counter, Entry


def increased(ctx: MutationCtx, name: str) -> int:
    counter = ctx.db.query(Counter.by_name, name=name).unique()
    if counter is None:
        ctx.db.insert(Counter(name=name, value=1))
        return 1
    ctx.db.patch(counter.id, value=counter.value + 1)
    return counter.value + 1


@mutation
def add(
    ctx: MutationCtx, writer: str, number: int, fail: bool = False, shared: bool = False, filler: str = ""
) -> list[int]:
    """Count one more and append what the caller says; run twice it counts twice and answers something else."""
    token = ctx.random.getrandbits(53)
    if shared:
        increased(ctx, "shared")
    place = increased(ctx, writer)
    ctx.db.insert(Entry(writer=writer, number=number, place=place, token=token))
    if fail:
        raise ApplicationError([place, token])
    return [place, token]


@query
def entries(ctx: QueryCtx, writer: str, after: int) -> list[list[int]]:
    found = ctx.db.query(Entry.by_writer, writer=writer).range(Entry.place).gt(after).take(5_000)
    return [[entry.place, entry.number, entry.token] for entry in found]


@query
def counters(ctx: QueryCtx) -> dict[str, int]:
    return {counter.name: counter.value for counter in ctx.db.scan(Counter)}
