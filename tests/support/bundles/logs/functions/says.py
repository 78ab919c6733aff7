import asyncio
import logging
import os
import sys

from headwater import ActionCtx, ApplicationError, MutationCtx, QueryCtx, action, mutation, query

from .schema import Item

logger = logging.getLogger("shop")


@query
def look(ctx: QueryCtx, name: str) -> int:
    print(f"looking for {name}")
    logger.warning("that is slow")
    return len(ctx.db.query(Item.by_name, name=name).collect())


@query
def hush(ctx: QueryCtx) -> int:
    return 1


@query
def whose(ctx: QueryCtx) -> str:
    identity = ctx.auth.identity()
    return "" if identity is None else identity.subject


@mutation
def add(ctx: MutationCtx, name: str) -> None:
    print("adding", name)
    print("grave", file=sys.stderr)
    ctx.db.insert(Item(name=name))


@mutation
def flood(ctx: MutationCtx, lines: int, size: int) -> None:
    for number in range(lines):
        print(f"{number} ".ljust(size, "x"))


@mutation
def refuse(ctx: MutationCtx) -> None:
    print("before the refusal")
    raise ApplicationError({"why": "no"})


@query
def break_query(ctx: QueryCtx) -> int:
    return {}["nothing"]  # the line of the query


@mutation
def break_mutation(ctx: MutationCtx, secret: str) -> None:
    raise ValueError("the pump is dry")  # the line of the mutation


@action
async def break_action(ctx: ActionCtx) -> None:
    print("before the break")
    raise RuntimeError("the wire is cut")  # the line of the action


@action
async def wait_for(ctx: ActionCtx, path: str) -> int:
    """Say something, wait until there is a file, and say more."""
    print("it waits")
    while not await asyncio.to_thread(os.path.exists, path):
        await asyncio.sleep(0.02)
    found = await ctx.run_query(look, name="inside")
    await ctx.run_mutation(add, name="inside")
    print("it has waited")
    return found
