"""Mistakes that no type checker sees and that are refused when the bundle is loaded, each by itself."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated

from headwater import Id, Index, Meta, QueryCtx, Struct, Table, query

# case: an index over a field that is not there


class Missing(Table, name="missing"):  # refused about there is no field 'y'
    x: str
    by_y = Index("y")


# case: an index over a field inside one that has none


class Inside(Table, name="inside"):
    x: int
    by_x = Index("x.city")  # refused about there is no field 'x.city'


# case: an index over what has no order


class Prices(Table, name="prices"):
    price: Decimal
    by_price = Index("price")  # refused about a Decimal is stored as text


# case: an index without fields


class Nothing(Table, name="nothing"):  # refused about an index names its fields
    x: str
    by_x = Index()


# case: a field with the name of a system field


class System(Table, name="system"):  # refused about belongs to the system field '_creationTime'
    creation_time_ms: float


# case: a table with a name that none may have


class Underscore(Table, name="_mine"):  # refused about cannot name a table
    x: str


# case: a type that cannot be a value


class Tags(Table, name="tags"):
    tags: set[str]  # refused about `set` cannot be a value; use `list`


# case: an id beside other text


class Owner(Table, name="owners"):
    owner: Id["Owner"] | str  # refused about nothing tells an Id from other text


# case: one of several structs without tags


class Cat(Struct):
    name: str


class Dog(Struct):
    name: str


class Pet(Table, name="pets"):  # refused about must be tagged
    pet: Cat | Dog


# case: a bound on what has none of that kind


class Bound(Table, name="bounds"):  # refused about Can only set `max_length`
    count: Annotated[int, Meta(max_length=3)]


# case: a default below its bound


class Default(Table, name="defaults"):
    count: Annotated[int, Meta(ge=1)] = 0  # refused about its default does not fit: Expected `int` >= 1


# case: a default time without a time zone


class Naive(Table, name="naives"):
    start: datetime = datetime(2026, 1, 1)  # refused about Expected a datetime with a time zone


# case: the default of an argument outside of its bounds


@query  # refused about argument `limit`: its default does not fit: Expected `int` <= 100
def limited(ctx: QueryCtx, limit: Annotated[int, Meta(le=100)] = 200) -> int:
    return limit


# case: any number of arguments


@query  # refused about a function has a fixed list of arguments
def many(ctx: QueryCtx, *ids: str) -> int:
    return len(ids)


# case: a dict with keys that are no text


@query  # refused about the keys of a dict are text
def keyed(ctx: QueryCtx, names: dict[int, str]) -> int:
    return len(names)


# case: a result that holds what cannot be a value


@query  # refused about `set` cannot be a value; use `list`
def sets(ctx: QueryCtx) -> list[set[str]]:
    return []


# case: two functions that clients call the same


@query
def one(ctx: QueryCtx) -> int:
    return 1


@query  # refused about two functions are called
def one_(ctx: QueryCtx) -> int:
    return 1
