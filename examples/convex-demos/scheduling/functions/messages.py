from datetime import timedelta

from headwater import Id, MutationCtx, QueryCtx, mutation, query

from .schema import Message

SECONDS = 5


def told(body: str, seconds: int) -> str:
    return f"{body} (This message will self-destruct in {seconds} seconds)"


@query
def list_(ctx: QueryCtx) -> list[Message]:
    return ctx.db.scan(Message).collect()


@mutation
def send(ctx: MutationCtx, body: str, author: str) -> None:
    ctx.db.insert(Message(body=body, author=author))


@mutation
def sendExpiringMessage(ctx: MutationCtx, body: str, author: str) -> None:  # noqa: N802 - as the front end has it
    message = ctx.db.insert(Message(body=told(body, SECONDS), author=author))
    ctx.scheduler.run_after(timedelta(seconds=1), count_down, message=message, body=body, seconds=SECONDS - 1)


@mutation.internal
def count_down(ctx: MutationCtx, message: Id[Message], body: str, seconds: int) -> None:
    if not seconds:
        ctx.db.delete(message)
        return
    ctx.db.patch(message, body=told(body, seconds))
    ctx.scheduler.run_after(timedelta(seconds=1), count_down, message=message, body=body, seconds=seconds - 1)
