"""What the routes of this bundle read and write."""

from headwater import ApplicationError, Id, Index, MutationCtx, QueryCtx, Table, mutation, query


class Note(Table, name="notes"):
    box: str
    text: str
    by_box = Index("box")


class Box(Table, name="boxes"):
    name: str


@mutation
def put(ctx: MutationCtx, box: str, text: str) -> Id[Note]:
    if text == "refuse":
        raise ApplicationError({"code": "refused", "text": text})
    return ctx.db.insert(Note(box=box, text=text))


@mutation
def make_box(ctx: MutationCtx, name: str) -> Id[Box]:
    return ctx.db.insert(Box(name=name))


@query
def texts(ctx: QueryCtx, box: str) -> list[str]:
    return [note.text for note in ctx.db.query(Note.by_box, box=box).collect()]


@query
def box_name(ctx: QueryCtx, box: Id[Box]) -> str | None:
    found = ctx.db.get(box)
    return found.name if found else None
