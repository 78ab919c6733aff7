import time
from typing import Any

from headwater import MutationCtx, QueryCtx, mutation, query

from .schema import Mark


@mutation
def mark(ctx: MutationCtx, session: int, number: int) -> float:
    ctx.db.insert(Mark(session=session, number=number))
    ctx.db.insert(Mark(session=session, number=number + 1))
    return ctx.now_ms


@query
def look(ctx: QueryCtx, session: int, number: int) -> list[float]:
    """The number makes each call another query: a live one is not run again because time goes by."""
    last = ctx.db.query(Mark.by_session, session=session).order("desc").first()
    return [ctx.now_ms, last.creation_time_ms if last else 0.0]


@query
def marks(ctx: QueryCtx, session: int) -> list[Any]:
    return [[mark.id, mark.creation_time_ms] for mark in ctx.db.query(Mark.by_session, session=session)]


@query
def machine(ctx: QueryCtx, number: int) -> float:
    """What the machine's clock says to a worker, in ms."""
    return time.time() * 1000


@mutation
def endless(ctx: MutationCtx) -> None:
    while True:
        pass
