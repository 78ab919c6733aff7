from headwater import ApplicationError, Id, MutationCtx, QueryCtx, Struct, mutation, query

from .schema import Like, Message, User

SHOWN = 50


class Row(Struct):
    """A message as a screen shows it, joined with what other tables know of it."""

    message: Message
    author: str
    likes: int
    liked: bool


@query
def list_(ctx: QueryCtx, viewer: Id[User] | None = None) -> list[Row]:
    """The newest messages, newest first; `liked` says whether the viewer likes it."""
    messages = ctx.db.scan(Message).order("desc").take(SHOWN)
    authors = ctx.db.get_many(message.author for message in messages)
    rows: list[Row] = []
    for message, author in zip(messages, authors, strict=True):
        likes = ctx.db.query(Like.by_message, message=message.id).collect()
        rows.append(
            Row(
                message=message,
                author=author.name if author else "somebody who left",
                likes=len(likes),
                liked=any(like.user == viewer for like in likes),
            )
        )
    return rows


@query
def liked_by(ctx: QueryCtx, user: Id[User]) -> list[Message]:
    """What somebody likes, the other way through the join."""
    likes = ctx.db.query(Like.by_user, user=user).order("desc").take(SHOWN)
    return [message for message in ctx.db.get_many(like.message for like in likes) if message is not None]


@mutation
def send(ctx: MutationCtx, author: Id[User], body: str) -> Id[Message]:
    return ctx.db.insert(Message(author=author, body=body))


@mutation
def like(ctx: MutationCtx, message: Id[Message], user: Id[User]) -> bool:
    """Like a message, or take it back; returns what holds now.

    Pressed twice at once it counts once: the two calls have read the same range, so the later one runs again
    and finds the first one's like.
    """
    if ctx.db.get(message) is None:
        raise ApplicationError({"code": "no_such_message"})
    found = ctx.db.query(Like.by_message, message=message, user=user).unique()
    if found is not None:
        ctx.db.delete(found.id)
        return False
    ctx.db.insert(Like(message=message, user=user))
    return True


@mutation
def delete(ctx: MutationCtx, message: Id[Message], author: Id[User]) -> None:
    """Delete one's own message and the likes of it, in one transaction."""
    found = ctx.db.get(message)
    if found is None or found.author != author:
        raise ApplicationError({"code": "not_yours"})
    for like in ctx.db.query(Like.by_message, message=message):
        ctx.db.delete(like.id)
    ctx.db.delete(message)
