from typing import Annotated
from uuid import UUID

from headwater import ApplicationError, Meta, MutationCtx, QueryCtx, Struct, mutation, query

from .schema import Item, Session

COUNT_MAX = 99


class Line(Struct):
    product: str
    count: int


def owner_of(ctx: QueryCtx, session: UUID) -> str | None:
    """Whose basket it is: the user's who has signed in, else the session's; None before there is one."""
    identity = ctx.auth.identity()
    if identity is not None:
        return identity.token_identifier
    found = ctx.db.query(Session.by_key, key=session).unique()
    return found.id if found else None


def own_basket(ctx: MutationCtx, session: UUID) -> str:
    return owner_of(ctx, session) or ctx.db.insert(Session(key=session))


@query
def list_(ctx: QueryCtx, session: UUID) -> list[Line]:
    owner = owner_of(ctx, session)
    if owner is None:
        return []
    return [Line(product=item.product, count=item.count) for item in ctx.db.query(Item.by_owner, owner=owner)]


@mutation
def add(ctx: MutationCtx, session: UUID, product: str, count: Annotated[int, Meta(ge=1, le=99)] = 1) -> int:
    """Put more of a product into the basket; returns how many there are now."""
    return put(ctx, own_basket(ctx, session), product, count)


@mutation
def remove(ctx: MutationCtx, session: UUID, product: str) -> None:
    owner = owner_of(ctx, session)
    item = ctx.db.query(Item.by_owner, owner=owner, product=product).unique() if owner else None
    if item is not None:
        ctx.db.delete(item.id)


@mutation
def claim(ctx: MutationCtx, session: UUID) -> int:
    """Take what a session has put into its basket over into that of the user who has just signed in."""
    identity = ctx.auth.identity()
    if identity is None:
        raise ApplicationError({"code": "signed_out"})
    found = ctx.db.query(Session.by_key, key=session).unique()
    if found is None:
        return 0
    items = ctx.db.query(Item.by_owner, owner=found.id).collect()
    for item in items:
        ctx.db.delete(item.id)
        put(ctx, identity.token_identifier, item.product, item.count)
    ctx.db.delete(found.id)
    return len(items)


def put(ctx: MutationCtx, owner: str, product: str, count: int) -> int:
    item = ctx.db.query(Item.by_owner, owner=owner, product=product).unique()
    if item is None:
        ctx.db.insert(Item(owner=owner, product=product, count=count))
        return count
    total = min(item.count + count, COUNT_MAX)
    ctx.db.patch(item.id, count=total)
    return total
