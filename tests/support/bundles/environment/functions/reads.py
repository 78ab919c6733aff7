import asyncio

from headwater import ActionCtx, MutationCtx, QueryCtx, Table, action, mutation, query

from .settings import Settings


class Use(Table, name="uses"):
    limit: int


@query
def limit(ctx: QueryCtx) -> int:
    return ctx.env(Settings).limit


@query
def key_length(ctx: QueryCtx) -> int:
    return len(ctx.env(Settings).api_key.reveal())


@query
def regions(ctx: QueryCtx) -> list[str]:
    return ctx.env(Settings).regions


@query
def indifferent(ctx: QueryCtx) -> int:
    return 1


@query
def shown(ctx: QueryCtx) -> str:
    """Make every mistake that may show a secret."""
    settings = ctx.env(Settings)
    print(settings, settings.api_key, f"{settings.api_key}", [settings.api_key])
    return str(settings)


@query
def fail(ctx: QueryCtx) -> int:
    settings = ctx.env(Settings)
    raise ValueError(f"cannot use {settings}")


@mutation
def use(ctx: MutationCtx) -> int:
    found = ctx.env(Settings).limit
    ctx.db.insert(Use(limit=found))
    return found


@action
async def now(ctx: ActionCtx) -> list[int]:
    settings = ctx.env(Settings)
    return [settings.limit, len(settings.api_key.reveal())]


@action
async def wait(ctx: ActionCtx, limit: int) -> int:
    """Go on until the limit is that."""
    while ctx.env(Settings).limit != limit:
        await asyncio.sleep(0.02)
    return len(ctx.env(Settings).api_key.reveal())
