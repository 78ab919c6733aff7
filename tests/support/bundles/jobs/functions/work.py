"""Functions that schedule others, and what is scheduled."""

import asyncio
import os
import time

from headwater import (
    ActionCtx,
    ApplicationError,
    Id,
    MutationCtx,
    QueryCtx,
    ScheduledJob,
    action,
    mutation,
    query,
)

from .schema import Effect


@mutation
def later(ctx: MutationCtx, name: str, delay_ms: float) -> Id[ScheduledJob]:
    return ctx.scheduler.run_after(delay_ms, take_effect, name=name)


@mutation
def many(ctx: MutationCtx, names: list[str], at_ms: float) -> None:
    for name in names:
        ctx.scheduler.run_at(at_ms, take_effect, name=name)


@mutation
def many_actions(ctx: MutationCtx, names: list[str], at_ms: float) -> None:
    for name in names:
        ctx.scheduler.run_at(at_ms, act, name=name)


@mutation
def schedule(ctx: MutationCtx, what: str, name: str, delay_ms: float = 0.0) -> Id[ScheduledJob]:
    chosen = {"refuse": refuse, "exit": leave, "loop": loop_, "break": break_, "effect": take_effect}
    if what == "act":
        return ctx.scheduler.run_after(delay_ms, act, name=name)
    if what == "act on":
        return ctx.scheduler.run_after(delay_ms, act_on, name=name)
    if what == "act until left":
        return ctx.scheduler.run_after(delay_ms, act_until_left, name=name)
    if what == "act badly":
        return ctx.scheduler.run_after(delay_ms, act_badly, name=name)
    return ctx.scheduler.run_after(delay_ms, chosen[what], name=name)


@mutation
def schedule_and_fail(ctx: MutationCtx, name: str) -> None:
    ctx.scheduler.run_after(0, take_effect, name=name)
    raise ApplicationError("no")


@mutation
def schedule_in_nested(ctx: MutationCtx, name: str) -> None:
    try:
        ctx.run_mutation(schedule_and_fail, name=name)
    except ApplicationError:
        ctx.db.insert(Effect(name=f"{name} caught"))


@mutation
def cancel(ctx: MutationCtx, job: Id[ScheduledJob]) -> bool:
    return ctx.scheduler.cancel(job)


@action
async def later_from_action(ctx: ActionCtx, name: str) -> Id[ScheduledJob]:
    return await ctx.scheduler.run_after(0, take_effect, name=name)


@action
async def cancel_from_action(ctx: ActionCtx, job: Id[ScheduledJob]) -> bool:
    return await ctx.scheduler.cancel(job)


@mutation.internal
def take_effect(ctx: MutationCtx, name: str) -> None:
    assert ctx.auth.identity() is None
    ctx.db.insert(Effect(name=name))


@mutation.internal
def refuse(ctx: MutationCtx, name: str) -> None:
    ctx.db.insert(Effect(name=name))
    raise ApplicationError({"refused": name})


@mutation.internal
def leave(ctx: MutationCtx, name: str) -> None:
    ctx.db.insert(Effect(name=name))
    os._exit(3)


@mutation.internal
def loop_(ctx: MutationCtx, name: str) -> None:
    ctx.db.insert(Effect(name=name))
    while True:
        pass


@mutation.internal
def break_(ctx: MutationCtx, name: str) -> None:
    ctx.db.insert(Effect(name=name))
    raise RuntimeError("broken")


@action.internal
async def act(ctx: ActionCtx, name: str) -> None:
    await ctx.run_mutation(take_effect, name=f"{name} began")
    while await ctx.run_query(count, name="hold") > 0:
        await asyncio.sleep(0.01)
    await ctx.run_mutation(take_effect, name=name)


@action.internal
async def act_on(ctx: ActionCtx, name: str) -> None:
    """Schedule something before and behind a hold."""
    await ctx.run_mutation(take_effect, name=f"{name} began")
    await ctx.scheduler.run_after(0, take_effect, name=f"{name} scheduled before")
    while await ctx.run_query(count, name="hold") > 0:
        await asyncio.sleep(0.01)
    job = await ctx.scheduler.run_after(0, take_effect, name=f"{name} scheduled behind")
    await ctx.run_mutation(note_job, name=f"{name} job", job=job)
    await ctx.run_mutation(take_effect, name=name)


@mutation.internal
def note_job(ctx: MutationCtx, name: str, job: Id[ScheduledJob]) -> None:
    ctx.db.insert(Effect(name=f"{name}: {job}"))


@query
def noted(ctx: QueryCtx, name: str) -> str:
    return next(
        effect.name.rpartition(": ")[2]
        for effect in ctx.db.scan(Effect)
        if effect.name.startswith(f"{name}: ")
    )


@action.internal(cancel_with_caller=True)
async def act_until_left(ctx: ActionCtx, name: str) -> None:
    await ctx.run_mutation(take_effect, name=f"{name} began")
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        await ctx.run_mutation(take_effect, name=f"{name} was cancelled")
        raise


@action.internal
async def act_badly(ctx: ActionCtx, name: str) -> None:
    await ctx.run_mutation(take_effect, name=f"{name} began")
    raise ApplicationError({"bad": name})


@query
def count(ctx: QueryCtx, name: str) -> int:
    return len(ctx.db.query(Effect.by_name, name=name).collect())


@query
def names(ctx: QueryCtx) -> list[str]:
    return [effect.name for effect in ctx.db.scan(Effect)]


@mutation
def hold(ctx: MutationCtx) -> None:
    ctx.db.insert(Effect(name="hold"))


@mutation
def let_go(ctx: MutationCtx) -> None:
    for effect in ctx.db.query(Effect.by_name, name="hold"):
        ctx.db.delete(effect.id)


@query
def job(ctx: QueryCtx, job: Id[ScheduledJob]) -> ScheduledJob | None:
    return ctx.db.get(job)


@query
def in_state(ctx: QueryCtx, state: str) -> list[ScheduledJob]:
    return ctx.db.query(ScheduledJob.by_state).range(ScheduledJob.state).eq(state).collect()


@query
def counted(ctx: QueryCtx) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in ctx.db.scan(ScheduledJob):
        found[one.state] = found.get(one.state, 0) + 1
    return found


@mutation
def tamper(ctx: MutationCtx, job: Id[ScheduledJob], how: str) -> None:
    if how == "patch":
        ctx.db.patch(job, state="success")
    elif how == "delete":
        ctx.db.delete(job)
    elif how == "replace":
        found = ctx.db.get(job)
        assert found is not None
        ctx.db.replace(job, found)
    else:
        ctx.db.insert(
            ScheduledJob(function="x:y", kind="mutation", arguments={}, due_ms=0.0, state="pending")
        )


@mutation
def schedule_wrongly(ctx: MutationCtx, how: str) -> None:
    if how == "a query":
        ctx.scheduler.run_after(0, count, name="x")  # type: ignore[arg-type]  # the mistake that is tried
    elif how == "arguments":
        ctx.scheduler.run_after(0, take_effect, name=3)  # type: ignore[arg-type]  # the mistake that is tried
    elif how == "a name":
        ctx.scheduler.run_after(0, "work:take_effect", name="x")  # type: ignore[arg-type]  # the mistake that is tried
    elif how == "never":
        ctx.scheduler.run_after(float("inf"), take_effect, name="x")
    elif how == "large":
        ctx.scheduler.run_after(0, take_effect, name="x" * 300_000)
    elif how == "no date":
        ctx.scheduler.run_at(time.localtime(), take_effect, name="x")  # type: ignore[arg-type]  # the mistake
