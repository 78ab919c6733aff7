from headwater import ApplicationError, MutationCtx, QueryCtx, mutation, query

from .schema import Account, Entry, Transfer


@mutation
def open_accounts(ctx: MutationCtx, count: int, balance: int) -> int:
    for number in range(count):
        ctx.db.insert(Account(number=number, balance=balance))
    return count


@mutation
def append(ctx: MutationCtx, writer: int, number: int) -> int | None:
    """Append whatever the caller says, twice if told twice; return the number that stood there last."""
    last = ctx.db.query(Entry.by_writer, writer=writer).order("desc").first()
    previous = last.number if last else None
    ctx.db.insert(Entry(writer=writer, number=number, previous=previous))
    return previous


@mutation
def transfer(ctx: MutationCtx, writer: int, number: int, source: int, target: int, amount: int) -> None:
    payer = ctx.db.query(Account.by_number, number=source).unique()
    payee = ctx.db.query(Account.by_number, number=target).unique()
    if payer is None or payee is None:
        raise ApplicationError("no such account")
    ctx.db.patch(payer.id, balance=payer.balance - amount)
    ctx.db.patch(payee.id, balance=payee.balance + amount)
    ctx.db.insert(Transfer(writer=writer, number=number, source=source, target=target, amount=amount))


@query
def total(ctx: QueryCtx) -> int:
    return sum(account.balance for account in ctx.db.scan(Account))


@query
def balances(ctx: QueryCtx) -> dict[str, int]:
    return {str(account.number): account.balance for account in ctx.db.query(Account.by_number)}


@query
def entries(ctx: QueryCtx, writer: int) -> list[Entry]:
    return ctx.db.query(Entry.by_writer, writer=writer).collect()


@query
def transfers(ctx: QueryCtx, writer: int) -> list[Transfer]:
    return ctx.db.query(Transfer.by_writer, writer=writer).collect()
