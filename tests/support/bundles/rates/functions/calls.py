"""Mutations that are limited, and a table in which each that was let through leaves a document."""

from headwater import Id, Index, MutationCtx, QueryCtx, Table, mutation, query
from headwater.rate_limiter import Verdict, fixed_window, token_bucket

DAY_S = 86_400
bucket = token_bucket("bucket", rate=25, period_s=DAY_S)
window = fixed_window("window", rate=40, period_s=366 * DAY_S)
sharded = token_bucket("sharded", rate=40, period_s=DAY_S, shards=4)
LIMITS = {limit.name: limit for limit in (bucket, window, sharded)}


class Done(Table, name="done"):
    limit: str
    key: str
    by_limit = Index("limit", "key")


@mutation
def act(ctx: MutationCtx, limit: str, key: str = "", fails: bool = False) -> Id[Done]:
    LIMITS[limit].take(ctx, key)
    if fails:
        raise ValueError("after it was taken")
    return ctx.db.insert(Done(limit=limit, key=key))


@mutation
def reset(ctx: MutationCtx, limit: str, key: str = "") -> None:
    LIMITS[limit].reset(ctx, key)


@query
def done(ctx: QueryCtx, limit: str, key: str = "") -> int:
    return len(ctx.db.query(Done.by_limit, limit=limit, key=key).collect())


@query
def check(ctx: QueryCtx, limit: str, key: str = "", count: int = 1) -> Verdict:
    return LIMITS[limit].check(ctx, key, count=count)
