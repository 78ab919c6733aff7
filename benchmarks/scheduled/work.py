from headwater import ApplicationError, Index, MutationCtx, QueryCtx, ScheduledJob, Table, mutation, query


class Account(Table, name="accounts"):
    """Between these money goes."""

    number: int
    balance: int

    by_number = Index("number", unique=True)


@mutation
def open_accounts(ctx: MutationCtx, first: int, count: int) -> None:
    for number in range(first, first + count):
        ctx.db.insert(Account(number=number, balance=1_000))


@mutation
def transfer(ctx: MutationCtx, source: int, target: int, amount: int) -> None:
    payer = ctx.db.query(Account.by_number, number=source).unique()
    payee = ctx.db.query(Account.by_number, number=target).unique()
    if payer is None or payee is None:
        raise ApplicationError("no such account")
    ctx.db.patch(payer.id, balance=payer.balance - amount)
    ctx.db.patch(payee.id, balance=payee.balance + amount)


@mutation
def plan(ctx: MutationCtx, pairs: list[list[int]], at_ms: float) -> None:
    for source, target in pairs:
        ctx.scheduler.run_at(at_ms, transfer, source=source, target=target, amount=1)


@query
def waiting(ctx: QueryCtx) -> int:
    """How many jobs have not ended, as far as that matters."""
    return len(ctx.db.query(ScheduledJob.by_state, state="pending", kind="mutation").take(1))


@query
def last_end_ms(ctx: QueryCtx) -> float:
    job = ctx.db.query(ScheduledJob.by_completed).order("desc").first()
    return job.completed_ms or 0.0 if job else 0.0


@query
def failed(ctx: QueryCtx) -> int:
    return len(ctx.db.query(ScheduledJob.by_state, state="failed").take(10))


@query
def delays(ctx: QueryCtx, limit: int) -> list[float]:
    """By how much the last jobs began later than they were due, ms."""
    jobs = ctx.db.query(ScheduledJob.by_completed).order("desc").take(limit)
    return [(job.started_ms or 0.0) - job.due_ms for job in jobs]
