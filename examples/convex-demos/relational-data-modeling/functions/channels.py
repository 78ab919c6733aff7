from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Channel


@query
def list_(ctx: QueryCtx) -> list[Channel]:
    return ctx.db.scan(Channel).collect()


@mutation
def add(ctx: MutationCtx, name: str) -> Id[Channel]:
    return ctx.db.insert(Channel(name=name))
