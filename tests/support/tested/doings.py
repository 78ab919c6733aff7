"""Actions, one for each thing that a testing kit has to show of them."""

from collections.abc import AsyncIterator

from headwater import ActionCtx, ApplicationError, HeadwaterError, Id, action

from . import notes
from .schema import Note, Notebook


@action
async def copy(ctx: ActionCtx, note: Id[Note], notebook: Id[Notebook]) -> Note:
    text = await ctx.run_query(notes.text_of, note)
    made = await ctx.run_mutation(notes.write, notebook=notebook, text=f"{text}, by {await who(ctx)}")
    found = await ctx.run_query(notes.list_, notebook)
    return next(one for one in found if one.id == made)


@action.internal
async def who(ctx: ActionCtx) -> str:
    identity = await ctx.run_query(notes.me)
    return identity.subject if identity else "nobody"


@action
async def times(ctx: ActionCtx) -> list[float]:
    return [ctx.now_ms, ctx.now_ms]


@action
async def draw(ctx: ActionCtx) -> int:
    return ctx.random.randrange(10**6)


@action
async def words(ctx: ActionCtx, text: str) -> AsyncIterator[str]:
    for word in text.split():
        yield word


@action
async def failing(ctx: ActionCtx, notebook: Id[Notebook], how: str) -> str:
    """Tell the code of a nested failure; what a nested call raised is not what its caller catches."""
    await ctx.run_mutation(notes.write, notebook=notebook, text="kept")
    try:
        await ctx.run_mutation(notes.fail_after_writing, notebook=notebook, how=how)
    except ZeroDivisionError:
        return "ran here"
    except ApplicationError as error:
        return f"application_error {error.data}"
    except HeadwaterError as error:
        return error.code
    return "nothing"


@action
async def broken(ctx: ActionCtx) -> int:
    return len(await ctx.run_query(notes.counts)) // 0


@action
async def open_(ctx: ActionCtx, name: str) -> Id[Notebook]:
    return await ctx.run_mutation(notes.open_notebook, name=name)
