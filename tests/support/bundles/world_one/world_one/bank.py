from headwater import ApplicationError, MutationCtx, mutation

from .schema import Account, Item, Name, Seat, Transfer

SEATS = 5


@mutation
def begin(ctx: MutationCtx, accounts: list[str], balance: int) -> int:
    """Make the accounts that are not there."""
    made = 0
    for name in accounts:
        if ctx.db.query(Account.by_name, name=name).first() is None:
            ctx.db.insert(Account(name=name, balance=balance))
            made += 1
    return made


@mutation
def transfer(ctx: MutationCtx, tag: str, source: str, target: str, amount: int) -> list[int]:
    giver = ctx.db.query(Account.by_name, name=source).unique()
    taker = ctx.db.query(Account.by_name, name=target).unique()
    if giver is None or taker is None:
        raise ApplicationError({"missing": source})
    ctx.db.patch(giver.id, balance=giver.balance - amount)
    ctx.db.patch(taker.id, balance=taker.balance + amount)
    ctx.db.insert(Transfer(tag=tag, source=source, target=target, amount=amount))
    return [giver.balance - amount, taker.balance + amount]


@mutation
def append(ctx: MutationCtx, tag: str, queue: str) -> int:
    """Put an item behind the last one of a queue and return its position."""
    last = ctx.db.query(Item.by_position, queue=queue).order("desc").first()
    position = 1 if last is None else last.position + 1
    ctx.db.insert(Item(tag=tag, queue=queue, position=position))
    return position


@mutation
def sit(ctx: MutationCtx, tag: str, room: str) -> int:
    """Take a seat in a room as long as there is one, and return how many were taken before."""
    taken = len(ctx.db.query(Seat.by_room, room=room).collect())
    if taken >= SEATS:
        raise ApplicationError({"full": room})
    ctx.db.insert(Seat(tag=tag, room=room, number=taken))
    return taken


@mutation
def claim(ctx: MutationCtx, tag: str, name: str) -> str:
    """Take a name that nobody has."""
    ctx.db.insert(Name(tag=tag, name=name))
    return name
