import time
from datetime import datetime
from typing import Any

from headwater import ApplicationError, Id, MutationCtx, QueryCtx, mutation, query

from .schema import Note, Pair, Tag


@query
def echo(ctx: QueryCtx, value: Any) -> Any:
    return value


@query
def typed(ctx: QueryCtx, number: int, name: str, ratio: float = 1.5) -> list[Any]:
    return [number, name, ratio]


@query
def moment(ctx: QueryCtx, at: datetime) -> datetime:
    return at


@query
def find(ctx: QueryCtx, note: Id[Note]) -> Note | None:
    return ctx.db.get(note)


@query
def notes(ctx: QueryCtx) -> list[Note]:
    return ctx.db.query(Note.by_text).collect()


@query
def count(ctx: QueryCtx, text: str) -> int:
    return len(ctx.db.query(Note.by_text, text=text).collect())


@query
def count_slowly(ctx: QueryCtx, text: str, seconds: float) -> int:
    time.sleep(seconds)
    return len(ctx.db.query(Note.by_text, text=text).collect())


@query
def value_of(ctx: QueryCtx, key: str) -> Any:
    pair = ctx.db.query(Pair.by_key, key=key).unique()
    return pair.value if pair else None


@query
def nested(ctx: QueryCtx, depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


@query
def refuse_query(ctx: QueryCtx, why: str) -> None:
    raise ApplicationError({"why": why})


@query.internal
def hidden(ctx: QueryCtx) -> str:
    return "seen"


@query
def spin_query(ctx: QueryCtx, number: int) -> None:
    while True:
        time.sleep(0)


@query
def hog(ctx: QueryCtx, size: int) -> int:
    return len(bytearray(size))


@mutation
def keep(ctx: MutationCtx, text: str) -> Id[Note]:
    return ctx.db.insert(Note(text=text))


@mutation
def keep_value(ctx: MutationCtx, key: str, value: Any) -> None:
    pair = ctx.db.query(Pair.by_key, key=key).unique()
    if pair is None:
        ctx.db.insert(Pair(key=key, value=value))
    else:
        ctx.db.patch(pair.id, value=value)


@mutation
def keep_slowly(ctx: MutationCtx, text: str, seconds: float) -> Id[Note]:
    time.sleep(seconds)
    return ctx.db.insert(Note(text=text))


@mutation
def keep_any(ctx: MutationCtx, value: Any) -> Any:
    ctx.db.insert(Note(text="any"))
    return value


@mutation
def keep_many(ctx: MutationCtx, texts: list[str]) -> int:
    for text in texts:
        ctx.db.insert(Note(text=text))
    return len(texts)


@mutation
def tag(ctx: MutationCtx, name: str) -> Id[Tag]:
    return ctx.db.insert(Tag(name=name))


@mutation
def refuse(ctx: MutationCtx, text: str) -> None:
    ctx.db.insert(Note(text=text))
    raise ApplicationError({"why": text})


@mutation
def stumble(ctx: MutationCtx, text: str) -> None:
    ctx.db.insert(Note(text=text))
    raise ValueError(f"stumbled over {text}")


@mutation
def misfit(ctx: MutationCtx, stars: Any) -> Id[Note]:
    return ctx.db.insert(Note(text="misfit", stars=stars))


@mutation
def drop(ctx: MutationCtx, note: Id[Note]) -> None:
    ctx.db.delete(note)


@mutation
def spin(ctx: MutationCtx, text: str) -> None:
    ctx.db.insert(Note(text=text))
    while True:
        time.sleep(0)


@mutation
def open_file(ctx: MutationCtx, path: str) -> None:
    with open(path, "w") as file:
        file.write("no")
