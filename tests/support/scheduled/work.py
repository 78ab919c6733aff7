"""What is scheduled, and who does it."""

from typing import Literal

from headwater import (
    ActionCtx,
    ApplicationError,
    CronJob,
    Id,
    MutationCtx,
    QueryCtx,
    ScheduledJob,
    Table,
    action,
    cron,
    daily,
    every,
    mutation,
    query,
)


class Effect(Table, name="effects"):
    name: str


@mutation
def later(ctx: MutationCtx, name: str, seconds: float) -> Id[ScheduledJob]:
    return ctx.scheduler.run_after(seconds * 1000, take_effect, name=name)


@mutation
def cancel(ctx: MutationCtx, job: Id[ScheduledJob]) -> bool:
    return ctx.scheduler.cancel(job)


@mutation
def fail_later(ctx: MutationCtx, what: Literal["mutation", "action"]) -> Id[ScheduledJob]:
    return ctx.scheduler.run_after(0, fail if what == "mutation" else fail_outside, what)


@mutation
def for_ever(ctx: MutationCtx) -> None:
    ctx.scheduler.run_after(0, for_ever)


@mutation.internal
def take_effect(ctx: MutationCtx, name: str) -> None:
    ctx.db.insert(Effect(name=name))


@mutation.internal
def nothing(ctx: MutationCtx) -> None:
    pass


@mutation.internal
def fail(ctx: MutationCtx, what: str) -> None:
    ctx.db.insert(Effect(name=what))
    raise ApplicationError(what)


@action.internal
async def fail_outside(ctx: ActionCtx, what: str) -> None:
    raise ApplicationError(what)


@action
async def plan(ctx: ActionCtx, name: str) -> Id[ScheduledJob]:
    return await ctx.scheduler.run_after(0, work, name=name)


@action
async def unplan(ctx: ActionCtx, job: Id[ScheduledJob]) -> bool:
    return await ctx.scheduler.cancel(job)


@action.internal
async def work(ctx: ActionCtx, name: str) -> None:
    identity = ctx.auth.identity()
    await ctx.run_mutation(take_effect, name=f"{name} by {identity.subject if identity else 'nobody'}")


@query
def job(ctx: QueryCtx, job: Id[ScheduledJob]) -> ScheduledJob | None:
    return ctx.db.get(job)


@query
def effects(ctx: QueryCtx) -> list[Effect]:
    return ctx.db.scan(Effect).collect()


@query
def runs(ctx: QueryCtx, name: str) -> list[str]:
    found = ctx.db.query(CronJob.by_name, name=name).unique()
    return [run.state for run in found.runs] if found else []


cron("often", every(minutes=10), nothing)
cron("nightly", daily("23:00"), nothing)
