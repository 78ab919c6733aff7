from datetime import UTC, datetime, timedelta
from typing import Annotated

from headwater import Id, Meta, MutationCtx, QueryCtx, mutation, query

from .schema import Message

SHOWN = 100


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
    expires = now(ctx) + timedelta(seconds=seconds)
    message = ctx.db.insert(Message(room=room, body=body, expires=expires))
    ctx.scheduler.run_at(expires, burn, message=message)
    return message


@mutation.internal
def burn(ctx: MutationCtx, message: Id[Message]) -> None:
    """Delete a message that has expired."""
    if ctx.db.get(message) is not None:
        ctx.db.delete(message)
