from typing import Any

from headwater import (
    ActionCtx,
    ApplicationError,
    Id,
    MutationCtx,
    Page,
    PageOptions,
    QueryCtx,
    action,
    mutation,
    query,
)

from .schema import Counter, Kept, Message


@query
def list_(ctx: QueryCtx, channel: str) -> list[Message]:
    return ctx.db.query(Message.by_channel, channel=channel).collect()


@query
def paged(ctx: QueryCtx, paginationOpts: PageOptions, channel: str) -> Page[Message]:  # noqa: N803
    return ctx.db.query(Message.by_channel, channel=channel).order("desc").paginate(paginationOpts)


@query
def fail(ctx: QueryCtx, channel: str, data: Any = None) -> int:
    """Fail while the channel has no message, with data if there is some."""
    found = ctx.db.query(Message.by_channel, channel=channel).collect()
    if not found and data is None:
        raise ValueError("nothing here")
    if not found:
        raise ApplicationError(data)
    return len(found)


@query
def whoami(ctx: QueryCtx) -> str | None:
    identity = ctx.auth.identity()
    return identity and identity.token_identifier


@query
def default(ctx: QueryCtx) -> str:
    return "the default"


@mutation
def send(ctx: MutationCtx, channel: str, author: str, body: str) -> Id[Message]:
    return ctx.db.insert(Message(channel=channel, author=author, body=body))


@mutation
def send_many(ctx: MutationCtx, channel: str, count: int) -> None:
    for number in range(count):
        ctx.db.insert(Message(channel=channel, author="many", body=f"{number:04}"))


@mutation
def clear(ctx: MutationCtx, channel: str) -> int:
    found = ctx.db.query(Message.by_channel, channel=channel).collect()
    for message in found:
        ctx.db.delete(message.id)
    return len(found)


@mutation
def refuse(ctx: MutationCtx, data: Any = None) -> None:
    if data is None:
        raise ValueError("no")
    raise ApplicationError(data)


@mutation
def signed(ctx: MutationCtx, channel: str, body: str) -> str:
    author = ctx.auth.require().token_identifier
    ctx.db.insert(Message(channel=channel, author=author, body=body))
    return author


@mutation
def add(ctx: MutationCtx, name: str, by: int = 1) -> int:
    """Count up; returns the new value."""
    found = ctx.db.query(Counter.by_name, name=name).unique()
    if found is None:
        ctx.db.insert(Counter(name=name, value=by))
        return by
    ctx.db.patch(found.id, value=found.value + by)
    return found.value + by


@query
def counter(ctx: QueryCtx, name: str) -> int:
    found = ctx.db.query(Counter.by_name, name=name).unique()
    return found.value if found else 0


@mutation
def keep(ctx: MutationCtx, name: str, value: Any) -> Any:
    found = ctx.db.query(Kept.by_name, name=name).unique()
    if found is None:
        ctx.db.insert(Kept(name=name, value=value))
    else:
        ctx.db.patch(found.id, value=value)
    return value


@query
def kept(ctx: QueryCtx, name: str) -> Any:
    found = ctx.db.query(Kept.by_name, name=name).unique()
    return found.value if found else None


@query
def types(
    ctx: QueryCtx, whole: int, number: float, data: bytes = b"", many: list[int] | None = None
) -> list[Any]:
    """What arrives for arguments that have types."""
    return [type(whole).__name__, type(number).__name__, data, many]


@action
async def think(ctx: ActionCtx, channel: str, body: str) -> Any:
    await ctx.run_mutation(send, channel, "action", body)
    return len(await ctx.run_query(list_, channel))


@action
async def fail_late(ctx: ActionCtx, data: Any = None) -> None:
    if data is None:
        raise ValueError("late")
    raise ApplicationError(data)


@query.internal
def secret(ctx: QueryCtx) -> str:
    return "secret"


@mutation.internal
def purge(ctx: MutationCtx, name: str) -> None:
    found = ctx.db.query(Kept.by_name, name=name).unique()
    if found is not None:
        ctx.db.delete(found.id)
