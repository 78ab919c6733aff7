"""Asks the model and streams what it says."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Literal

from headwater import ActionCtx, Id, action

from . import threads
from .model import completion
from .settings import Model
from .threads import Thread


@action
async def ask(ctx: ActionCtx, thread: Id[Thread], question: str) -> AsyncIterator[str]:
    """Answer a question, token by token to who asks, and as one message to all others.

    Who asks and goes away, or leaves the loop, cancels it: the model is asked no further, and what it had said is kept.
    """
    begun = await ctx.run_mutation(threads.begin, thread=thread, question=question)
    said: list[str] = []
    status: Literal["done", "failed", "cancelled"] = "cancelled"
    try:
        async with aclosing(completion(ctx.env(Model), begun.history)) as tokens:
            async for token in tokens:
                said.append(token)
                yield token
        status = "done"
    except Exception:
        status = "failed"
        raise
    finally:
        await ctx.run_mutation(threads.finish, answer=begun.answer, text="".join(said), status=status)
