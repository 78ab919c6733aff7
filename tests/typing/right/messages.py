from datetime import UTC, datetime, timedelta
from typing import Annotated

from headwater import (
    ApplicationError,
    Id,
    Meta,
    MutationCtx,
    Page,
    PageOptions,
    QueryCtx,
    ScheduledJob,
    Struct,
    mutation,
    query,
    replace,
)

from .schema import Channel, Message, Text
from .users import UserMutationCtx, UserQueryCtx, user_mutation, user_query


class Row(Struct):
    message: Message
    author: str


@query
def list_(
    ctx: QueryCtx, channel: Id[Channel], limit: Annotated[int, Meta(ge=1, le=200)] = 50
) -> list[Message]:
    """The newest messages of a channel. Clients call it `messages:list`."""
    return ctx.db.query(Message.by_channel, channel=channel).order("desc").take(limit)


@user_query
def page(ctx: UserQueryCtx, channel: Id[Channel], cursor: str | None = None) -> Page[Message]:
    return ctx.db.query(Message.by_channel, channel=channel).order("desc").paginate(cursor, 50)


@query
def pages(ctx: QueryCtx, channel: Id[Channel], options: PageOptions) -> Page[Message]:
    return ctx.db.query(Message.by_channel, channel=channel).paginate(options)


@query
def best(ctx: QueryCtx, channel: Id[Channel], at_least: float) -> list[Row]:
    scored = ctx.db.query(Message.by_channel_score, channel=channel)
    top = scored.range(Message.score).gte(at_least).order("desc").take(10)
    authors = ctx.db.get_many(message.author for message in top)
    return [
        Row(message=message, author=author.name if author else "?")
        for message, author in zip(top, authors, strict=True)
    ]


@query
def liked(ctx: QueryCtx, channel: Id[Channel]) -> list[Message]:
    found = ctx.db.query(Message.by_channel, channel=channel).filter(
        lambda message: "+1" in message.reactions
    )
    return found.take(20)


@query
def newest(ctx: QueryCtx, channel: Id[Channel]) -> datetime | None:
    first = ctx.run_query(list_, channel=channel, limit=1)
    return datetime.fromtimestamp(first[0].creation_time_ms / 1000, UTC) if first else None


@user_mutation
def send(ctx: UserMutationCtx, channel: Id[Channel], body: Text) -> Id[Message]:
    if ctx.db.get(channel) is None:
        raise ApplicationError({"code": "no_such_channel"})
    return ctx.db.insert(Message(channel=channel, author=ctx.user.id, body=body))


@user_mutation
def edit(ctx: UserMutationCtx, message: Id[Message], text: str) -> None:
    old = ctx.db.get(message)
    match old:
        case Message(author=author, body=Text()) if author == ctx.user.id:
            ctx.db.patch(message, body=Text(text=text), edited=datetime.fromtimestamp(ctx.now_ms / 1000, UTC))
            ctx.db.replace(message, replace(old, score=1.0))
        case _:
            raise ApplicationError({"code": "not_yours"})


@mutation.internal
def expire(ctx: MutationCtx, older_than: float) -> int:
    old = ctx.db.scan(Message).range(Message.creation_time_ms).lt(ctx.now_ms - older_than).take(500)
    for message in old:
        ctx.db.delete(message.id)
    return len(old)


@mutation
def expire_all(ctx: MutationCtx, text: str) -> int:
    channel = ctx.db.normalize_id(Channel, text)
    return ctx.run_mutation(expire, older_than=0.0) if channel else 0


@mutation
def send_later(ctx: MutationCtx) -> Id[ScheduledJob]:
    ctx.scheduler.run_after(timedelta(minutes=5), expire, older_than=3.0)
    ctx.scheduler.run_at(datetime(2026, 1, 1, tzinfo=UTC), expire, 3.0)
    job = ctx.scheduler.run_at(ctx.now_ms + 60_000, expire, older_than=3.0)
    return job if ctx.scheduler.cancel(job) else ctx.scheduler.run_after(0, expire, older_than=1.0)


@query
def failed(ctx: QueryCtx, job: Id[ScheduledJob]) -> list[str]:
    found = ctx.db.get(job)
    jobs = ctx.db.query(ScheduledJob.by_state, state="failed", kind="mutation").take(5)
    return [one.error.code for one in jobs if one.error and one != found]
