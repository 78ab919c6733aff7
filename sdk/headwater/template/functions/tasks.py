from typing import Annotated

from headwater import Id, MutationCtx, QueryCtx, mutation, query
from msgspec import Meta

from .schema import Task


@query
def open_(ctx: QueryCtx, limit: Annotated[int, Meta(ge=1, le=200)] = 50) -> list[Task]:
    """The oldest tasks that are not done. Clients call it `tasks:open`."""
    return ctx.db.query(Task.by_done, done=False).take(limit)


@mutation
def add(ctx: MutationCtx, text: Annotated[str, Meta(min_length=1, max_length=1000)]) -> Id[Task]:
    return ctx.db.insert(Task(text=text))


@mutation
def finish(ctx: MutationCtx, task: Id[Task]) -> None:
    ctx.db.patch(task, done=True)
