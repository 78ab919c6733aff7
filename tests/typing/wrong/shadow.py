from headwater import Id, QueryCtx, query

from right.schema import Channel, Message


@query
def list(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:  # error: mypy
    return []


@query
def newest(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:  # error
    return ctx.db.query(Message.by_channel, channel=channel).take(5)
