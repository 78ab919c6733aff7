from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Literal

from headwater import Index, Int64, Meta, Struct, Table

Text = Annotated[str, Meta(min_length=1, max_length=80)]
Cents = Annotated[int, Meta(ge=0, le=10_000_000)]
Country = Annotated[str, Meta(pattern="^[A-Z]{2}$")]


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Line(Struct, frozen=True):
    product: Text
    count: Annotated[int, Meta(ge=1, le=99)]
    size: Size = Size.SMALL
    engraving: str | None = None


class Pickup(Struct, tag="pickup", frozen=True):
    store: Text
    day: date


class Shipping(Struct, tag="shipping", frozen=True):
    street: Text
    country: Country


class Order(Table, name="orders"):
    lines: list[Line]
    delivery: Pickup | Shipping
    priority: Literal["normal", "express"]
    price: Decimal
    tip: Cents
    placed: datetime
    labels: dict[str, str]
    reference: Int64

    by_placed = Index("placed")
