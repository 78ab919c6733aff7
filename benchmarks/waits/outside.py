"""An action that waits as for an answer of the world outside."""

import asyncio

from headwater import ActionCtx, action


@action
async def wait(ctx: ActionCtx, seconds: float) -> float:
    await asyncio.sleep(seconds)
    return seconds
