from headwater import QueryCtx, query

from .schema import Account, Item, Name, Seat


@query
def total(ctx: QueryCtx) -> list[int]:
    accounts = ctx.db.scan(Account).collect()
    return [len(accounts), sum(account.balance for account in accounts)]


@query
def balance(ctx: QueryCtx, name: str) -> int | None:
    account = ctx.db.query(Account.by_name, name=name).unique()
    return None if account is None else account.balance


@query
def newest(ctx: QueryCtx, queue: str, count: int) -> list[str]:
    return [item.tag for item in ctx.db.query(Item.by_position, queue=queue).order("desc").take(count)]


@query
def room(ctx: QueryCtx, room: str) -> list[Seat]:
    return ctx.db.query(Seat.by_room, room=room).collect()


@query
def names(ctx: QueryCtx, after: str) -> list[str]:
    return [name.name for name in ctx.db.query(Name.by_name).range(Name.name).gt(after).take(3)]
