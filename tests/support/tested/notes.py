"""Functions that do, one each, what a testing kit has to show."""

import sys
import time as clock
from datetime import UTC, datetime
from pathlib import Path
from random import choice
from time import time

from headwater import (
    ApplicationError,
    Id,
    Identity,
    MutationCtx,
    Page,
    PageOptions,
    QueryCtx,
    Struct,
    mutation,
    query,
)

from .schema import Note, Notebook


class Count(Struct):
    notebook: str
    notes: int


@mutation
def open_notebook(ctx: MutationCtx, name: str) -> Id[Notebook]:
    identity = ctx.auth.identity()
    return ctx.db.insert(Notebook(name=name, owner=identity.subject if identity else None))


@mutation
def rename(ctx: MutationCtx, notebook: Id[Notebook], name: str) -> None:
    ctx.db.patch(notebook, name=name)


@mutation
def write(ctx: MutationCtx, notebook: Id[Notebook], text: str, stars: int = 0) -> Id[Note]:
    return ctx.db.insert(Note(notebook=notebook, text=text, stars=stars))


@mutation
def star(ctx: MutationCtx, note: Id[Note], more: int = 1) -> int:
    found = ctx.db.get(note)
    if found is None:
        raise ApplicationError({"code": "no_such_note"})
    ctx.db.patch(note, stars=found.stars + more)
    return found.stars + more


@mutation
def erase(ctx: MutationCtx, note: Id[Note]) -> None:
    ctx.db.delete(note)


@query
def list_(ctx: QueryCtx, notebook: Id[Notebook]) -> list[Note]:
    return ctx.db.query(Note.by_notebook, notebook=notebook).collect()


@query
def best(ctx: QueryCtx, notebook: Id[Notebook], at_least: int = 1) -> list[str]:
    found = ctx.db.query(Note.by_stars, notebook=notebook).range(Note.stars).gte(at_least)
    return [note.text for note in found.order("desc")]


@query
def paged(ctx: QueryCtx, notebook: Id[Notebook], options: PageOptions) -> Page[Note]:
    return ctx.db.query(Note.by_notebook, notebook=notebook).paginate(options)


@query
def counts(ctx: QueryCtx) -> list[Count]:
    return [
        Count(notebook=book.name, notes=len(ctx.db.query(Note.by_notebook, notebook=book.id).collect()))
        for book in ctx.db.scan(Notebook)
    ]


@query
def text_of(ctx: QueryCtx, note: Id[Note]) -> str:
    found = ctx.db.get(note)
    if found is None or not found.text:
        raise ApplicationError({"code": "no_such_note"})
    return found.text


@mutation
def set_text(ctx: MutationCtx, note: Id[Note], text: str | None) -> None:
    ctx.db.patch(note, text=text or "")


@query
def me(ctx: QueryCtx) -> Identity | None:
    return ctx.auth.identity()


@query
def mine(ctx: QueryCtx) -> list[str]:
    identity = ctx.auth.identity()
    owner = identity.subject if identity else None
    return [book.name for book in ctx.db.scan(Notebook).filter(lambda book: book.owner == owner)]


@query
def moments(ctx: QueryCtx) -> list[float]:
    """The call's time, as five ways tell it."""
    told = datetime.now(UTC).timestamp()
    return [ctx.now_ms / 1000, told, clock.time(), time(), clock.mktime(clock.localtime())]


@mutation
def draw(ctx: MutationCtx) -> list[int]:
    return [ctx.random.randrange(10**6), choice(range(10**6))]


@query
def draw_in_query(ctx: QueryCtx, salt: int = 0) -> int:
    return ctx.random.randrange(10**6)


@mutation.internal
def fail_after_writing(ctx: MutationCtx, notebook: Id[Notebook], how: str) -> None:
    ctx.db.insert(Note(notebook=notebook, text="never"))
    match how:
        case "application":
            raise ApplicationError({"code": "failed"})
        case "unencodable":
            raise ApplicationError({"code": object()})
        case "exit":
            sys.exit(3)
        case "interrupt":
            raise KeyboardInterrupt
        case _:
            1 / 0  # noqa: B018


@mutation
def caught(ctx: MutationCtx, notebook: Id[Notebook]) -> str:
    try:
        ctx.run_mutation(fail_after_writing, notebook=notebook, how="zero")
    except ZeroDivisionError:
        ctx.db.insert(Note(notebook=notebook, text="after all"))
    return "caught"


@query
def write_a_file(ctx: QueryCtx, path: str) -> None:
    Path(path).write_text("x")


@query
def too_much(ctx: QueryCtx, note: Id[Note]) -> int:
    return sum(1 for _ in range(100_000) if ctx.db.get(note))


@query
def wrong_result(ctx: QueryCtx) -> int:
    return "three"  # type: ignore[return-value]
