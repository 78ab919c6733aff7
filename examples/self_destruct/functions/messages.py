from datetime import UTC, datetime, timedelta
from typing import Annotated

from headwater import Id, Meta, MutationCtx, QueryCtx, mutation, query

from .schema import Message

SHOWN = 100
PURGED_BY_SENDING = 20


def now(ctx: QueryCtx) -> datetime:
    return datetime.fromtimestamp(ctx.now_ms / 1000, UTC)


@query
def list_(ctx: QueryCtx, room: str, at: datetime) -> list[Message]:
    """The messages of a room that have not expired, the next to go first.

    Args:
        room: Its name.
        at: The caller's time, such as the present minute. A subscription that shall follow the time is made anew
            when it changes: a query runs again when data changes, never because time has passed. What has expired
            by the server's own time is not shown, whatever the caller says.
    """
    found = ctx.db.query(Message.by_room, room=room).range(Message.expires).gt(max(at, now(ctx)))
    return found.take(SHOWN)


@mutation
def send(
    ctx: MutationCtx, room: str, body: str, seconds: Annotated[int, Meta(ge=1, le=86_400)] = 60
) -> Id[Message]:
    purge(ctx, limit=PURGED_BY_SENDING)
    return ctx.db.insert(Message(room=room, body=body, expires=now(ctx) + timedelta(seconds=seconds)))


@mutation.internal
def purge(ctx: MutationCtx, limit: Annotated[int, Meta(ge=1, le=5_000)] = 500) -> int:
    """Delete messages that have expired; returns how many. Less than the limit: there are no more."""
    expired = ctx.db.query(Message.by_expiry).range(Message.expires).lte(now(ctx)).take(limit)
    for message in expired:
        ctx.db.delete(message.id)
    return len(expired)
