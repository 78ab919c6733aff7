from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Literal

from headwater import Id, Int64, Meta, MutationCtx, QueryCtx, mutation, query

from .schema import Cents, Line, Order, Pickup, Shipping, Size

PRICES = {Size.SMALL: Decimal("4.50"), Size.LARGE: Decimal("7.25")}


@mutation
def place(
    ctx: MutationCtx,
    lines: Annotated[list[Line], Meta(min_length=1, max_length=20)],
    delivery: Pickup | Shipping,
    priority: Literal["normal", "express"] = "normal",
    tip: Cents = 0,
    labels: dict[str, str] | None = None,
    reference: Int64 | None = None,
) -> Id[Order]:
    """Everything about these arguments is checked before the first line runs."""
    price = sum((PRICES[line.size] * line.count for line in lines), start=Decimal(0))
    order = Order(
        lines=lines,
        delivery=delivery,
        priority=priority,
        price=price,
        tip=tip,
        placed=datetime.fromtimestamp(ctx.now_ms / 1000, UTC),
        labels=labels or {},
        reference=reference or Int64(0),
    )
    return ctx.db.insert(order)


@query
def get(ctx: QueryCtx, order: Id[Order]) -> Order | None:
    return ctx.db.get(order)


@query
def placed_between(ctx: QueryCtx, start: datetime, end: datetime) -> list[Order]:
    return ctx.db.query(Order.by_placed).range(Order.placed).gte(start).lt(end).collect()
