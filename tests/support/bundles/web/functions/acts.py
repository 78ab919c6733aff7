import asyncio
from collections.abc import AsyncIterator

from headwater import ActionCtx, ApplicationError, action

from . import rows


@action
async def fill(ctx: ActionCtx, board: str, keys: list[str]) -> int:
    for rank, key in enumerate(keys):
        await ctx.run_mutation(rows.add, board=board, key=key, rank=rank)
    return len(await ctx.run_query(rows.listed, board=board))


@action
async def slow(ctx: ActionCtx, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "done"


@action
async def words(ctx: ActionCtx, board: str, count: int, pause_s: float = 0.0) -> AsyncIterator[str]:
    """Write down each word that is asked for."""
    for number in range(count):
        await ctx.run_mutation(rows.add, board=board, key=f"{number}", rank=number)
        await asyncio.sleep(pause_s)
        yield f"word {number}"


@action
async def breaks(ctx: ActionCtx, after: int) -> AsyncIterator[int]:
    for number in range(after):
        yield number
    raise ApplicationError({"after": after})
