"""Threads and their messages, and what may happen to an answer."""

from datetime import timedelta
from typing import Literal

from headwater import (
    ApplicationError,
    Id,
    Index,
    MutationCtx,
    QueryCtx,
    ScheduledJob,
    Struct,
    Table,
    mutation,
    query,
)
from headwater.rate_limiter import token_bucket

QUESTION_CHARACTERS_MAX = 4_000
HISTORY_MESSAGES_MAX = 40
OVERDUE = timedelta(minutes=11)  # behind the time limit of an action

asking = token_bucket("asking", rate=10, period_s=60)


class Thread(Table, name="threads"):
    title: str


class Message(Table, name="messages"):
    """The status of an answer goes from `writing` to one of the others, once."""

    thread: Id[Thread]
    role: Literal["user", "assistant"]
    text: str
    status: Literal["writing", "done", "failed", "cancelled"] = "done"
    watchdog: Id[ScheduledJob] | None = None

    by_thread = Index("thread")
    by_status = Index("thread", "status")


class Begun(Struct, frozen=True):
    """An answer that is to be written, and what was said before it, oldest first."""

    answer: Id[Message]
    history: list[Message]


@mutation
def start(ctx: MutationCtx, title: str) -> Id[Thread]:
    return ctx.db.insert(Thread(title=title[:200]))


@query
def messages(ctx: QueryCtx, thread: Id[Thread], limit: int = 100) -> list[Message]:
    """The newest messages of a thread, oldest first."""
    newest = ctx.db.query(Message.by_thread, thread=thread).order("desc").take(min(limit, 500))
    return newest[::-1]


@mutation.internal
def begin(ctx: MutationCtx, thread: Id[Thread], question: str) -> Begun:
    """Keep a question and announce its answer: whoever looks at the thread sees that one is being written.

    Should the process that writes it end, with the machine or for a fault, nobody would say so: a job does, later.
    """
    caller = ctx.auth.identity()
    asking.take(ctx, caller.token_identifier if caller else "")
    if not 0 < len(question) <= QUESTION_CHARACTERS_MAX:
        raise ApplicationError({"code": "bad_question", "characters_max": QUESTION_CHARACTERS_MAX})
    if ctx.db.get(thread) is None:
        raise ApplicationError({"code": "no_thread"})
    if ctx.db.query(Message.by_status, thread=thread, status="writing").first() is not None:
        raise ApplicationError({"code": "busy"})
    ctx.db.insert(Message(thread=thread, role="user", text=question))
    history = ctx.db.query(Message.by_thread, thread=thread).order("desc").take(HISTORY_MESSAGES_MAX)
    answer = ctx.db.insert(Message(thread=thread, role="assistant", text="", status="writing"))
    ctx.db.patch(answer, watchdog=ctx.scheduler.run_after(OVERDUE, give_up, answer=answer))
    return Begun(answer, history[::-1])


@mutation.internal
def finish(
    ctx: MutationCtx, answer: Id[Message], text: str, status: Literal["done", "failed", "cancelled"]
) -> None:
    """Keep an answer, or as much of it as there is."""
    found = ctx.db.get(answer)
    if found is None or found.status != "writing":
        return
    if found.watchdog is not None:
        ctx.scheduler.cancel(found.watchdog)
    ctx.db.patch(answer, text=text, status=status, watchdog=None)


@mutation.internal
def give_up(ctx: MutationCtx, answer: Id[Message]) -> None:
    """Nobody has finished an answer."""
    found = ctx.db.get(answer)
    if found is not None and found.status == "writing":
        ctx.db.patch(answer, status="failed", watchdog=None)
