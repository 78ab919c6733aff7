from headwater import MutationCtx, Page, PageOptions, QueryCtx, mutation, query

from .schema import Message


@query
def list_(ctx: QueryCtx, paginationOpts: PageOptions) -> Page[Message]:  # noqa: N803 - as the hooks have it
    return ctx.db.scan(Message).order("desc").paginate(paginationOpts)


@query
def listWithArgsValidation(ctx: QueryCtx, paginationOpts: PageOptions) -> Page[Message]:  # noqa: N802, N803
    return ctx.db.scan(Message).order("desc").paginate(paginationOpts)


@query
def listWithExtraArg(ctx: QueryCtx, paginationOpts: PageOptions, author: str) -> Page[Message]:  # noqa: N802, N803
    """What an author has written; an index reads nothing else, where the original filters."""
    return ctx.db.query(Message.by_author, author=author).order("desc").paginate(paginationOpts)


@mutation
def send(ctx: MutationCtx, body: str, author: str) -> None:
    ctx.db.insert(Message(body=body, author=author))
