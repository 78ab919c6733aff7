from headwater import Id, QueryCtx, query

from right.schema import Channel, Message


@query
def list(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:  # error by mypy
    return []


@query
def newest(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:  # error about list
    return ctx.db.query(Message.by_channel, channel=channel).take(5)
