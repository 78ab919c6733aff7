from headwater import ApplicationError, Id, MutationCtx, QueryCtx, mutation, query

from .schema import Message

MESSAGES_MAX = 20
CHARACTERS_MAX = 50


@query
def list_(ctx: QueryCtx) -> list[Message]:
    messages = ctx.db.scan(Message).collect()
    if len(messages) > MESSAGES_MAX:
        raise ApplicationError(
            {"message": "Too many messages!", "length": len(messages), "code": "MESSAGE_LIMIT"}
        )
    return messages


@mutation
def sendMessage(ctx: MutationCtx, body: str, author: str) -> None:  # noqa: N802 - as the front end has it
    if len(body) > CHARACTERS_MAX:
        raise ApplicationError(f"Message is over {CHARACTERS_MAX} characters.")
    ctx.db.insert(Message(body=body, author=author))


@mutation
def clearMessages(ctx: MutationCtx) -> list[Id[Message]]:  # noqa: N802
    ids = [message.id for message in ctx.db.scan(Message)]
    for id_ in ids:
        ctx.db.delete(id_)
    return ids
