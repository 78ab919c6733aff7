from typing import Any

from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Item, Wide, Wider


@mutation
def put(ctx: MutationCtx, numbers: list[int], value: Any) -> list[Id[Item]]:
    return [ctx.db.insert(Item(number=number, value=value)) for number in numbers]


@mutation
def put_sizes(ctx: MutationCtx, sizes: list[int]) -> int:
    for size in sizes:
        ctx.db.insert(Item(number=0, value="x" * size))
    return len(sizes)


@mutation
def put_nested(ctx: MutationCtx, depth: int) -> Id[Item]:
    """Insert a document with so many lists and objects inside one another, itself the first."""
    value: Any = None
    for level in range(depth - 1):
        value = [value] if level % 2 else {"in": value}
    return ctx.db.insert(Item(number=0, value=value))


@mutation
def put_wide(ctx: MutationCtx) -> Id[Wide]:
    return ctx.db.insert(Wide(a=1, b=2, c=3, d=4, e=5, f=6))


@mutation
def put_wider(ctx: MutationCtx) -> Id[Wider]:
    return ctx.db.insert(Wider(a=1, b=2, c=3, d=4, e=5, f=6, g=7))


@mutation
def delete(ctx: MutationCtx, items: list[Id[Item]]) -> int:
    for item in items:
        ctx.db.delete(item)
    return len(items)


@query
def read(ctx: QueryCtx, count: int) -> int:
    return len(ctx.db.query(Item.by_number).take(count))


@query
def some(ctx: QueryCtx) -> list[Item]:
    return ctx.db.query(Item.by_number).take(4)


@query
def get(ctx: QueryCtx, items: list[Id[Item]]) -> int:
    """Missing ones count too."""
    return sum(ctx.db.get(item) is not None for item in items)


@query
def scattered(ctx: QueryCtx, numbers: list[int]) -> list[int]:
    """Read a range of its own for each number."""
    return [len(ctx.db.query(Item.by_number, number=number).collect()) for number in numbers]
