from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Channel, Message


@query
def list_(ctx: QueryCtx, channel: Id[Channel], limit: int = 50) -> list[Message]:
    """The newest messages of a channel, newest first. Clients call it `messages:list`."""
    return ctx.db.query(Message.by_channel, channel=channel).order("desc").take(limit)


@mutation
def send(ctx: MutationCtx, channel: Id[Channel], author: str, body: str) -> Id[Message]:
    return ctx.db.insert(Message(channel=channel, author=author, body=body))


@mutation
def open_channel(ctx: MutationCtx, name: str) -> Id[Channel]:
    """The channel of that name, made if there is none."""
    channel = ctx.db.query(Channel.by_name, name=name).unique()
    return channel.id if channel else ctx.db.insert(Channel(name=name))
