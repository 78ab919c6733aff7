"""What other services have sent, each delivery once."""

from typing import Any

from headwater import Id, Index, MutationCtx, Page, PageOptions, QueryCtx, Table, mutation, query


class Delivery(Table, name="deliveries"):
    source: str
    number: str
    event: str
    body: Any

    by_number = Index("source", "number", unique=True)
    by_source = Index("source")


@mutation.internal
def record(ctx: MutationCtx, source: str, number: str, event: str, body: Any) -> Id[Delivery]:
    """Keep a delivery. Services send again what was not answered in time, so the second time changes nothing."""
    known = ctx.db.query(Delivery.by_number, source=source, number=number).unique()
    if known is not None:
        return known.id
    return ctx.db.insert(Delivery(source=source, number=number, event=event, body=body))


@query
def list_(ctx: QueryCtx, source: str, options: PageOptions) -> Page[Delivery]:
    """The newest first, live, page by page."""
    return ctx.db.query(Delivery.by_source, source=source).order("desc").paginate(options)


@query
def count(ctx: QueryCtx, source: str) -> int:
    return len(ctx.db.query(Delivery.by_source, source=source).collect())
