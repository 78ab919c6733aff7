from typing import Any

from headwater import ApplicationError, MutationCtx, Page, PageOptions, QueryCtx, Struct, mutation, query

from .schema import Note, Topic


class OwnCtx(QueryCtx):
    def __init__(self, ctx: QueryCtx) -> None:
        super().__init__(ctx)
        self.owner = ctx.auth.require().token_identifier


own_query = query.using(OwnCtx)


@query
def whoami(ctx: QueryCtx) -> str | None:
    identity = ctx.auth.identity()
    return identity and identity.token_identifier


@query
def claimed(ctx: QueryCtx, name: str) -> Any:
    return ctx.auth.require().claims.get(name)


@own_query
def mine(ctx: OwnCtx) -> list[Note]:
    return ctx.db.query(Note.by_owner, owner=ctx.owner).collect()


@own_query
def page_of_mine(ctx: OwnCtx, options: PageOptions) -> Page[Note]:
    return ctx.db.query(Note.by_owner, owner=ctx.owner).paginate(options)


@own_query
def refused(ctx: OwnCtx) -> None:
    """Fail with something of one's own."""
    raise ApplicationError({"owner": ctx.owner})


class Shown(Struct):
    private: bool
    notes: list[Note]


@query
def topic(ctx: QueryCtx, name: str) -> Shown:
    """Show what is in a topic: everything while it is open, only one's own once it is private.

    Whether this reads the identity depends on data.
    """
    notes = ctx.db.query(Note.by_topic, topic=name).collect()
    found = ctx.db.query(Topic.by_name, name=name).unique()
    if found is None or not found.private:
        return Shown(private=False, notes=notes)
    identity = ctx.auth.identity()
    own = [note for note in notes if identity and note.owner == identity.token_identifier]
    return Shown(private=True, notes=own)


@query
def topics(ctx: QueryCtx) -> list[Topic]:
    return ctx.db.query(Topic.by_name).collect()


@mutation
def write(ctx: MutationCtx, topic: str, text: str) -> str:
    """Write a note and return what only its owner may see."""
    owner = ctx.auth.require().token_identifier
    ctx.db.insert(Note(owner=owner, topic=topic, text=text))
    return f"{owner}: {text}"


@mutation
def close(ctx: MutationCtx, topic: str, private: bool) -> None:
    found = ctx.db.query(Topic.by_name, name=topic).unique()
    if found is None:
        ctx.db.insert(Topic(name=topic, private=private))
    else:
        ctx.db.patch(found.id, private=private)
