from headwater import MutationCtx, QueryCtx, mutation, query

from .schema import Message


@query
def list_(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).collect()


@mutation
def send(ctx: MutationCtx, body: str, author: str) -> None:
    ctx.db.insert(Message(body=body, author=author))
