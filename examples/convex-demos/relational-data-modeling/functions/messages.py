from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Channel, Message


@query
def list_(ctx: QueryCtx, channelId: Id[Channel]) -> list[Message]:  # noqa: N803 - as the front end has it
    return ctx.db.query(Message.by_channel, channel=channelId).collect()


@mutation
def send(ctx: MutationCtx, channel: Id[Channel], body: str, author: str) -> None:
    ctx.db.insert(Message(channel=channel, body=body, author=author))
