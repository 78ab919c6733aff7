from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Item


@query
def newest(ctx: QueryCtx, topic: str) -> list[Item]:
    return ctx.db.query(Item.by_topic, topic=topic).order("desc").take(50)


@mutation
def add(ctx: MutationCtx, topic: str, body: str) -> Id[Item]:
    return ctx.db.insert(Item(topic=topic, body=body))


@mutation
def like(ctx: MutationCtx, item: Id[Item], likes: int) -> None:
    ctx.db.patch(item, likes=likes)


@query
def newest_for(ctx: QueryCtx, topic: str, viewer: int) -> list[Item]:
    """As `newest`, but another call for each viewer."""
    return ctx.db.query(Item.by_topic, topic=topic).order("desc").take(50)
