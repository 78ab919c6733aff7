from collections.abc import AsyncIterator

from headwater import ActionCtx, Id, action

from . import messages
from .schema import Channel, Message, Text


class AnsweringCtx(ActionCtx):
    def __init__(self, ctx: ActionCtx, name: str) -> None:
        super().__init__(ctx)
        self.name = name


async def answering(ctx: ActionCtx) -> AnsweringCtx:
    identity = ctx.auth.identity()
    return AnsweringCtx(ctx, identity.name or "?" if identity else "nobody")


answering_action = action.using(answering)


@action
async def newest(ctx: ActionCtx, channel: Id[Channel], limit: int = 10) -> list[Message]:
    return await ctx.run_query(messages.list_, channel, limit=limit)


@action(cancel_with_caller=True)
async def count(ctx: ActionCtx, channel: Id[Channel]) -> int:
    found = await ctx.run_action(newest, channel, limit=200)
    return len(found)


@answering_action
async def words(ctx: AnsweringCtx, text: str) -> AsyncIterator[str]:
    yield ctx.name
    for word in text.split():
        yield word


@action.internal
async def joined(ctx: ActionCtx, channel: Id[Channel], text: str) -> str:
    parts = await ctx.run_action(words, text)
    async for word in other(ctx, text):
        parts.append(word)
    await ctx.run_mutation(messages.send, channel=channel, body=Text(text=" ".join(parts)))
    by_name = await ctx.run_query("messages:list", channel=channel)
    return f"{len(by_name)} {ctx.now_ms} {ctx.random.random()}"


@action
async def other(ctx: ActionCtx, text: str) -> AsyncIterator[str]:
    for word in reversed(text.split()):
        yield word


@action
async def count_later(ctx: ActionCtx, channel: Id[Channel]) -> bool:
    job = await ctx.scheduler.run_after(1_000, count, channel=channel)
    await ctx.scheduler.run_after(0, messages.expire, 1.0)
    return await ctx.scheduler.cancel(job)
