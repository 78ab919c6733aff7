from typing import Any

from headwater import MutationCtx, QueryCtx, mutation, query

from .schema import Message
from .users import own_user


@query
def list_(ctx: QueryCtx, sessionId: str | None = None) -> list[dict[str, Any]]:  # noqa: N803
    """The messages, with the names of their authors in place of ids."""
    messages = ctx.db.scan(Message).collect()
    authors = {
        user.id: user.name for user in ctx.db.get_many(sorted({one.author for one in messages})) if user
    }
    return [
        {
            "_id": one.id,
            "_creationTime": one.creation_time_ms,
            "body": one.body,
            "author": authors.get(one.author, "?"),
        }
        for one in messages
    ]


@mutation
def send(ctx: MutationCtx, sessionId: str, body: str) -> None:  # noqa: N803
    ctx.db.insert(Message(body=body, author=own_user(ctx, sessionId)))
