from headwater import ApplicationError, MutationCtx, QueryCtx, mutation, query

from .schema import Account


@mutation
def open_accounts(ctx: MutationCtx, first: int, count: int, balance: int) -> int:
    for number in range(first, first + count):
        ctx.db.insert(Account(number=number, balance=balance))
    return count


@mutation
def transfer(ctx: MutationCtx, source: int, target: int, amount: int) -> None:
    payer = ctx.db.query(Account.by_number, number=source).unique()
    payee = ctx.db.query(Account.by_number, number=target).unique()
    if payer is None or payee is None:
        raise ApplicationError("no such account")
    ctx.db.patch(payer.id, balance=payer.balance - amount)
    ctx.db.patch(payee.id, balance=payee.balance + amount)


@mutation
def pay_in(ctx: MutationCtx, number: int, amount: int) -> None:
    account = ctx.db.query(Account.by_number, number=number).unique()
    if account is None:
        raise ApplicationError("no such account")
    ctx.db.patch(account.id, balance=account.balance + amount)


@query
def total(ctx: QueryCtx) -> int:
    return sum(account.balance for account in ctx.db.scan(Account))


@query
def balance(ctx: QueryCtx, number: int) -> int | None:
    account = ctx.db.query(Account.by_number, number=number).unique()
    return account and account.balance
