import time
from datetime import UTC, datetime

from headwater import ActionCtx, Id, MutationCtx, QueryCtx, Request, Response, action, mutation, query, route

from .schema import Channel, Message, Site


@query
def best(ctx: QueryCtx, channel: Id[Channel], least: int, count: int) -> list[Message]:
    """The best messages of a channel, and its title, which is looked at for nothing."""
    ctx.db.get(channel)
    ranged = ctx.db.query(Message.by_channel, channel=channel).range(Message.score).gte(least)
    return ranged.order("desc").take(count)


@query
def bodies(ctx: QueryCtx, channel: Id[Channel]) -> list[str]:
    return [message.body for message in ctx.db.query(Message.by_channel, channel=channel)]


@query
def everything(ctx: QueryCtx, first: int = 0) -> int:
    return len(ctx.db.scan(Message).collect())


@query
def whoami(ctx: QueryCtx) -> str:
    identity = ctx.auth.identity()
    return identity.subject if identity else "nobody"


@query
def now(ctx: QueryCtx) -> float:
    return ctx.now_ms


@query
def today(ctx: QueryCtx) -> str:
    return str(datetime.now(UTC).date())


@query
def site(ctx: QueryCtx) -> str:
    return ctx.env(Site).site


@query
def stumble(ctx: QueryCtx) -> int:
    return len(ctx.db.scan(Channel).collect()) // 0


@query.internal
def hidden(ctx: QueryCtx) -> int:
    return len(ctx.db.scan(Channel).collect())


@mutation
def open_channel(ctx: MutationCtx, title: str) -> Id[Channel]:
    return ctx.db.insert(Channel(title=title))


@mutation
def send(ctx: MutationCtx, channel: Id[Channel], score: int, body: str = "hi") -> Id[Message]:
    return ctx.db.insert(Message(channel=channel, score=score, body=body))


@mutation
def annotate(ctx: MutationCtx, message: Id[Message], note: str) -> None:
    ctx.db.patch(message, note=note)


@mutation
def tidy(ctx: MutationCtx, channel: Id[Channel], fail: bool = False) -> int:
    """Delete the worst message, change the best one, write a new one and have something done later."""
    worst, *_, best = ctx.db.query(Message.by_channel, channel=channel)
    ctx.db.delete(worst.id)
    ctx.db.patch(best.id, note="best")
    ctx.db.insert(Message(channel=channel, score=0, body="tidy"))
    ctx.scheduler.run_after(60_000, send, channel=channel, score=1)
    if fail:
        raise ValueError("not today")
    return best.score


@mutation
def count_slowly(ctx: MutationCtx, channel: Id[Channel], seconds: float) -> int:
    """Count the messages, wait, and note how many there were."""
    found = ctx.db.query(Message.by_channel, channel=channel).collect()
    time.sleep(seconds)
    ctx.db.patch(channel, title=f"{len(found)} messages")
    return len(found)


@action
async def wait(ctx: ActionCtx) -> None:
    return


@action
async def announce(ctx: ActionCtx, channel: Id[Channel]) -> int:
    await ctx.run_mutation(send, channel=channel, score=9)
    return len(await ctx.run_query(bodies, channel=channel))


@route("GET", "/titles")
async def titles(ctx: ActionCtx, request: Request) -> Response:
    return Response(str(await ctx.run_query(hidden)))
