"""Queries and pages, against the same questions asked of plain lists."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from headwater import queries
from support.bundles import World, encode, small_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
class Color(Enum):
    RED = "red"
    BLUE = "blue"

class Spot(Struct, frozen=True, rename="upper"):
    city: str | None = None

class Owner(Table, name="owners"):
    name: str

class Item(Table, name="items"):
    group: str
    rank: int
    weight: float | None = None
    color: Color = Color.RED
    spot: Spot | None = None
    key: UUID | None = None
    day: date | None = None
    size: int = field(default=1, name="sizeInCm")

    by_size = Index("size")
    by_group = Index("group")
    by_group_rank = Index("group", "rank")
    by_rank_weight = Index("rank", "weight")
    by_color = Index("color")
    by_city = Index("spot.city", "rank")
    by_key = Index("key")
    by_day = Index("day")

class Wide(Table, name="wides"):
    WIDE_FIELDS

@mutation
def add(ctx: MutationCtx, group: str, rank: int, what: str = "{}") -> Id[Item]:
    return ctx.db.insert(Item(group=group, rank=rank, **eval(what)))

@mutation
def wide(ctx: MutationCtx) -> Id[Wide]:
    return ctx.db.insert(Wide())

@query
def wides(ctx: QueryCtx) -> list[Wide]:
    return ctx.db.scan(Wide).collect()

@query
def ask(ctx: QueryCtx, what: str) -> Any:
    q, scan = ctx.db.query, ctx.db.scan
    return eval(what)

@query
def ranks(ctx: QueryCtx, what: str) -> list[int]:
    q, scan = ctx.db.query, ctx.db.scan
    return [item.rank for item in eval(what)]

@query
def page(ctx: QueryCtx, cursor: str | None = None, size: int = 2, group: str = "a", order: str = "asc", above: int = -1) -> Page[Item]:
    return ctx.db.query(Item.by_group_rank, group=group).range(Item.rank).gt(above).order(order).paginate(cursor, size)

@query
def part(ctx: QueryCtx, options: PageOptions) -> Page[Item]:
    return ctx.db.query(Item.by_group_rank, group="a").range(Item.rank).gt(-1).paginate(options)

@query
def other_page(ctx: QueryCtx, cursor: str | None = None) -> Page[Item]:
    return ctx.db.query(Item.by_group_rank, group="a").paginate(cursor, 2)

@query
def even(ctx: QueryCtx, cursor: str | None = None) -> Page[Item]:
    return ctx.db.query(Item.by_group_rank, group="a").filter(lambda item: item.rank % 2 == 0).paginate(cursor, 2)

@query
def options(ctx: QueryCtx, options: PageOptions) -> Page[Item]:
    return ctx.db.query(Item.by_group_rank, group="a").paginate(options)

@query
def any_page(ctx: QueryCtx, what: str, cursor: str | None = None) -> Any:
    q, scan = ctx.db.query, ctx.db.scan
    return eval(what).paginate(cursor, 2)

@query
def in_a_row(ctx: QueryCtx) -> list[Page[Item]]:
    first = ctx.db.query(Item.by_group_rank, group="a").paginate(None, 2)
    return [first, ctx.db.query(Item.by_group_rank, group="a").paginate(first.continue_cursor, 2)]

@query
def two(ctx: QueryCtx) -> list[Page[Item]]:
    return [ctx.db.query(Item.by_group_rank, group=group).paginate(None, 1) for group in ("a", "b")]
""".replace("WIDE_FIELDS", "\n    ".join(f"field_{number}: int = {number}" for number in range(20)))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, {"f": SOURCE}) as made:
        yield made


@pytest.fixture
def full(world: World) -> World:
    for rank in (5, 1, 3, 2, 4):
        world.mutation("f:add", group="a", rank=rank, what=f"{{'weight': {rank / 2}}}" if rank > 2 else "{}")
    world.mutation("f:add", group="b", rank=3, what="{'color': Color.BLUE, 'spot': Spot(city='Rome')}")
    return world


@pytest.mark.parametrize(
    ("what", "ranks"),
    [
        ("scan(Item).collect()", [5, 1, 3, 2, 4, 3]),
        ("scan(Item).order('desc').take(2)", [3, 4]),
        ("scan(Item)", [5, 1, 3, 2, 4, 3]),
        ("q(Item.by_group, group='a').take(3)", [5, 1, 3]),
        ("q(Item.by_group).collect()", [5, 1, 3, 2, 4, 3]),
        ("q(Item.by_group, group='a').take(0)", []),
        ("q(Item.by_group, group='none').collect()", []),
        ("q(Item.by_group_rank, group='a').collect()", [1, 2, 3, 4, 5]),
        ("q(Item.by_group_rank, group='a').order('desc').take(2)", [5, 4]),
        ("q(Item.by_group_rank, group='a').range(Item.rank).gt(1).lte(4).collect()", [2, 3, 4]),
        ("q(Item.by_group_rank, group='a').range(Item.rank).gte(2).order('desc').lt(4).collect()", [3, 2]),
        ("q(Item.by_group_rank, group='a').range(Item.rank).eq(3).collect()", [3]),
        ("q(Item.by_group_rank, rank=4, group='a').collect()", [4]),
        (
            "q(Item.by_group_rank, group='a').filter(lambda i: i.rank % 2).filter(lambda i: i.rank > 1).take(9)",
            [3, 5],
        ),
        ("q(Item.by_rank_weight, rank=3, weight=None).collect()", [3]),
        ("q(Item.by_rank_weight, rank=3.0).collect()", [3, 3]),
        ("q(Item.by_rank_weight).range(Item.rank).eq(3).range(Item.weight).gt(1).collect()", [3]),
        ("q(Item.by_color, color=Color.BLUE).collect()", [3]),
        ("q(Item.by_city).range(Item.spot.city).eq('Rome').range(Item.rank).lt(9).collect()", [3]),
        ("scan(Item).range(Item.creation_time_ms).lt(ctx.now_ms).collect()", []),
        ("scan(Item).range(Item.creation_time_ms).eq(ctx.now_ms).take(2)", [5, 1]),
        ("q(Item.by_group, group='b').range(Item.creation_time_ms).gte(0).collect()", [3]),
        ("q(Item.by_size, size=1).take(1)", [5]),
        ("q(Item.by_key, key=None).take(1)", [5]),
        ("q(Item.by_key, key=UUID(int=3)).take(1)", []),
        ("q(Item.by_day).range(Item.day).lt(date(2024, 1, 1)).take(1)", [5]),
    ],
)
def test_queries_read_their_range_in_order(full: World, what: str, ranks: list[int]) -> None:
    assert full.query("f:ranks", what=what) == ranks


def test_indexes_have_stored_names(world: World) -> None:
    items = next(table for table in world.manifest.tables if table.name == "items")
    stored = {index.name: index.fields for index in items.indexes}
    assert (stored["by_size"], stored["by_city"]) == (("sizeInCm",), ("spot.CITY", "rank"))


def test_first_and_unique(full: World) -> None:
    assert full.query("f:ask", what="q(Item.by_group_rank, group='a').order('desc').first().rank") == 5
    assert full.query("f:ask", what="q(Item.by_group, group='x').first()") is None
    assert full.query("f:ask", what="q(Item.by_group, group='b').unique().rank") == 3
    assert full.query("f:ask", what="q(Item.by_group, group='x').unique()") is None
    failure = full.refused(full.query, "f:ask", what="q(Item.by_group, group='a').unique()")
    assert failure.message == ".unique() found more than one document in index Item.by_group(group)"


def test_only_what_is_asked_for_is_read(full: World) -> None:
    for what, count in (
        ("scan(Item).take(2)", 2),
        ("scan(Item).first()", 1),
        ("scan(Item).unique()", 2),
        ("scan(Item)", 0),
        ("next(iter(scan(Item)))", 1),
        ("scan(Item).filter(lambda i: i.rank == 3).first()", 3),
    ):
        full.backend.consumed.clear()
        full.bundle.call_query("f:ask", encode({"what": what}), full.backend)
        assert len(full.backend.consumed) == count, what


def test_a_query_is_not_changed_by_those_made_from_it(full: World) -> None:
    what = (
        "(lambda base: [base.order('desc').first().rank, base.filter(bool).first().rank, base.first().rank])"
    )
    assert full.query("f:ask", what=f"{what}(q(Item.by_group_rank, group='a'))") == [5, 1, 1]


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("q(Item.by_group, rank=1)", "index Item.by_group(group): it has no field `rank`"),
        (
            "q(Item.by_group_rank, rank=1)",
            "index Item.by_group_rank(group, rank): equal fields are its first ones, got rank",
        ),
        ("q(Item.by_group, 'a')", "the fields of Item.by_group(group) are given by name: group=..."),
        ("q('by_group')", "ctx.db.query takes an index, such as Message.by_channel, got 'by_group'"),
        ("q(Item.by_group, group=1)", "`group` holds `str`, got `int`"),
        (
            "q(Item.by_group, group=Owner(name='x').id)",
            "the value for `group` is UNSET: taken from a document that was never stored",
        ),
        (
            "q(Item.by_group_rank, group='a').range(Item.rank).gt('x')",
            "`rank` holds `float` or `int`, got `str`",
        ),
        ("q(Item.by_rank_weight, rank=2**63)", "`rank` is compared with an integer beyond 64 bits"),
        ("q(Item.by_color, color='red')", "`color` holds `Color`, got `str`"),
        (
            "q(Item.by_rank_weight, rank=1, weight='x')",
            "`weight` holds `None` or `float` or `int`, got `str`",
        ),
        ("q(Item.by_day, day=datetime(2024, 1, 1))", "`day` holds `None` or `date`, got `datetime`"),
        (
            "q(Item.by_group).range(Item.rank)",
            "Item.rank is not the next field of index Item.by_group(group); that is `group`",
        ),
        (
            "q(Item.by_group).range(Owner.name)",
            "Owner.name is not the next field of index Item.by_group(group); that is `group`",
        ),
        (
            "q(Item.by_group).range('a')",
            ".range() takes a field of the class, such as Item.group, got the value 'a'",
        ),
        (
            "scan(Item).range(Item.rank)",
            "Item.rank is not the next field of the table 'items' in creation order; that is `creation_time_ms`",
        ),
        (
            "q(Item.by_group).range(Item.group).gt('a').gte('b')",
            "`group` has a lower bound already in index Item.by_group(group)",
        ),
        (
            "q(Item.by_group).range(Item.group).lt('a').eq('b')",
            ".eq() on `group` stands alone; index Item.by_group(group) has bounds already",
        ),
        (
            "q(Item.by_group).range(Item.group).lt('a').range(Item.group)",
            "a query has one range; index Item.by_group(group) has bounds already",
        ),
        ("scan(Item).order('up')", '.order() takes "asc" or "desc", got \'up\''),
        ("scan(Item).take(-1)", ".take() takes a number from 0, got -1"),
        (
            "scan(Item).filter(Item.rank == 1)",
            ".filter() takes a function of a document, such as `lambda post: post.score == 3`, got False",
        ),
        ("scan(str)", "expected a table class, got <class 'str'>"),
        ("bool(Item.rank)", "Item.rank is a field, not a value; a condition on it goes into .range(...)"),
    ],
)
def test_wrong_lines_name_the_index_and_its_fields(full: World, what: str, told: str) -> None:
    failure = full.refused(full.query, "f:ask", what=what)
    assert failure.code == "internal_error"
    assert failure.message.startswith(f"TypeError: {told}")


def test_documents_with_long_headers_have_their_ids(world: World) -> None:
    made = [world.mutation("f:wide") for _ in range(2)]
    assert [found["_id"] for found in world.query("f:wides")] == made
    assert world.last.result is not None
    assert world.last.result.ids == made


# ----------------------------------------------------------------------------------------------- pages


def ranks(page: dict[str, Any]) -> list[int]:
    return [item["rank"] for item in page["page"]]


def all_pages(world: World, name: str, **arguments: Any) -> list[list[int]]:
    found, cursor = [], None
    for _ in range(20):
        page = world.query(name, cursor=cursor, **arguments)
        found.append(ranks(page))
        if page["isDone"]:
            return found
        cursor = page["continueCursor"]
    raise AssertionError(found)


def test_pages_cover_the_range_once(full: World) -> None:
    assert all_pages(full, "f:page") == [[1, 2], [3, 4], [5]]
    assert all_pages(full, "f:page", order="desc") == [[5, 4], [3, 2], [1]]
    assert all_pages(full, "f:page", size=5) == [[1, 2, 3, 4, 5], []]
    assert all_pages(full, "f:page", above=3) == [[4, 5], []]
    assert all_pages(full, "f:page", group="none") == [[]]
    assert all_pages(full, "f:even") == [[2, 4], []]


def test_behind_the_last_page_there_is_nothing(full: World) -> None:
    last = full.query("f:page", size=10)
    full.mutation("f:add", group="a", rank=9)
    after = full.query("f:page", size=10, cursor=last["continueCursor"])
    assert (ranks(after), after["isDone"], after["continueCursor"]) == ([], True, last["continueCursor"])


def test_a_page_without_a_journal_has_its_size(full: World) -> None:
    assert ranks(full.query("f:page")) == [1, 2]
    full.mutation("f:add", group="a", rank=0)
    assert ranks(full.query("f:page")) == [0, 1]


def rerun(world: World, journal: bytes | None, name: str = "f:page", /, **arguments: Any) -> dict[str, Any]:
    world.last = world.bundle.call_query(name, encode(arguments), world.backend, journal=journal)
    found: dict[str, Any] = world._value()
    return found


def test_a_page_keeps_its_end(full: World) -> None:
    first = full.query("f:page")
    journal = full.last.journal
    full.mutation("f:add", group="a", rank=0)
    full.mutation("f:add", group="a", rank=2)
    assert ranks(rerun(full, journal)) == [0, 1, 2]
    assert full.last.journal == journal
    second = full.query("f:page", cursor=first["continueCursor"])
    assert ranks(second) == [2, 3]


def test_a_page_that_has_grown_says_where_to_split_it(full: World) -> None:
    first = full.query("f:part", options={"numItems": 2})
    assert "splitCursor" not in first
    journal = full.last.journal
    for rank in (0, 2):
        full.mutation("f:add", group="a", rank=rank)
    grown = rerun(full, journal, "f:part", options={"numItems": 2})
    assert ranks(grown) == [0, 1, 2]
    begin, end = grown["splitCursor"], grown["continueCursor"]
    parts = [
        full.query("f:part", options={"numItems": 2, "endCursor": begin}),
        full.query("f:part", options={"numItems": 2, "cursor": begin, "endCursor": end}),
    ]
    assert [ranks(part) for part in parts] == [[0], [1, 2]]


def test_an_end_stays_when_its_document_goes(full: World) -> None:
    page = full.query("f:page")
    journal = full.last.journal
    for item in page["page"]:
        full.backend.delete(item["_id"])
    again = rerun(full, journal)
    assert (ranks(again), again["continueCursor"], again["isDone"]) == ([], page["continueCursor"], False)


def test_the_last_page_stays_open(full: World) -> None:
    full.query("f:page", size=10)
    assert full.last.journal is None


def test_journals_that_do_not_fit_make_fresh_pages(full: World) -> None:
    full.query("f:page", order="desc")
    journal = full.last.journal
    for useless in (journal, b"", b"\xc1", encode([1]), encode([[b"a", b"b", b"c"]]), b"\x91" * 2000):
        assert ranks(rerun(full, useless)) == [1, 2]


def test_each_page_of_a_call_has_its_end(full: World) -> None:
    assert [ranks(page) for page in full.query("f:two")] == [[1], [3]]
    journal = full.last.journal
    full.mutation("f:add", group="a", rank=0)
    full.mutation("f:add", group="b", rank=2)
    full.mutation("f:add", group="b", rank=9)
    pages: Any = rerun(full, journal, "f:two")
    assert [ranks(page) for page in pages] == [[0, 1], [2, 3]]


def test_each_page_of_a_query_has_its_end(full: World) -> None:
    assert [ranks(page) for page in full.query("f:in_a_row")] == [[1, 2], [3, 4]]
    journal = full.last.journal
    full.mutation("f:add", group="a", rank=0)
    pages: Any = rerun(full, journal, "f:in_a_row")
    assert [ranks(page) for page in pages] == [[0, 1, 2], [3, 4]]


def test_page_options_of_clients(full: World) -> None:
    page = full.query("f:options", options={"numItems": 2.0, "cursor": None, "id": 5})
    assert ranks(page) == [1, 2]
    both = {"numItems": 1, "cursor": None, "endCursor": page["continueCursor"]}
    again = full.query("f:options", options=both)
    assert (ranks(again), again["continueCursor"]) == ([1, 2], page["continueCursor"])
    end = full.query("f:options", options={"numItems": 10})["continueCursor"]
    rest = {"numItems": 1, "cursor": page["continueCursor"], "endCursor": end}
    last = full.query("f:options", options=rest)
    assert (ranks(last), last["isDone"]) == ([3, 4, 5], True)
    failure = full.refused(full.query, "f:options", options={"numItems": 0})
    assert failure.code == "invalid_arguments"


@pytest.mark.parametrize("arguments", [{"group": "b"}, {"order": "desc"}])
def test_cursors_of_other_arguments_are_refused(full: World, arguments: dict[str, Any]) -> None:
    cursor = full.query("f:page")["continueCursor"]
    failure = full.refused(full.query, "f:page", cursor=cursor, **arguments)
    assert failure.code == "invalid_cursor"


def test_cursors_of_other_functions_are_refused(full: World) -> None:
    cursor = full.query("f:page", above=-1)["continueCursor"]
    assert full.refused(full.query, "f:other_page", cursor=cursor).code == "invalid_cursor"


OTHER_PLACES = [
    ("scan(Item)", "scan(Owner)"),
    ("scan(Item)", "q(Item.by_size)"),
    ("q(Item.by_group)", "q(Item.by_group_rank)"),
    ("q(Item.by_group, group='a')", "q(Item.by_group_rank, group='a')"),
    ("q(Item.by_group, group='a')", "q(Item.by_group)"),
    ("q(Item.by_group, group='a')", "q(Item.by_group, group='b')"),
    ("q(Item.by_rank_weight, rank=3)", "q(Item.by_size, size=3)"),
]


@pytest.mark.parametrize(("one", "other"), OTHER_PLACES)
@pytest.mark.parametrize("swapped", [False, True])
def test_cursors_of_other_tables_and_indexes_are_refused(
    full: World, one: str, other: str, swapped: bool
) -> None:
    one, other = (other, one) if swapped else (one, other)
    cursor = full.query("f:any_page", what=one)["continueCursor"]
    full.query("f:any_page", what=one, cursor=cursor)
    assert full.refused(full.query, "f:any_page", what=other, cursor=cursor).code == "invalid_cursor"


def test_a_cursor_that_names_no_query_shows_another_place_of_another(
    full: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "fingerprint", lambda _: bytes(8))
    taken = [full.query("f:any_page", what=one)["continueCursor"] for one, _ in OTHER_PLACES]
    for (_, other), cursor in zip(OTHER_PLACES, taken, strict=True):
        full.query("f:any_page", what=other, cursor=cursor)


def test_a_cursor_of_an_index_that_has_other_fields_now_is_refused(tmp_path: Path) -> None:
    """A deploy may give a name to another index."""
    found = []
    for fields in ('"rank"', '"rank", "weight"'):
        source = SOURCE.replace('by_size = Index("size")', f"by_size = Index({fields})")
        with small_world(tmp_path / str(len(found)), {"f": source}) as world:
            for rank in range(5):
                world.mutation("f:add", group="a", rank=rank)
            for cursor in found:
                refused = world.refused(world.query, "f:any_page", what="q(Item.by_size)", cursor=cursor)
                assert refused.code == "invalid_cursor"
            found.append(world.query("f:any_page", what="q(Item.by_size)")["continueCursor"])


def test_a_moving_bound_does_not_spoil_a_cursor(full: World) -> None:
    cursor = full.query("f:page", above=0)["continueCursor"]
    assert ranks(full.query("f:page", cursor=cursor, above=2)) == [3, 4]
    assert ranks(full.query("f:page", cursor=cursor, above=3)) == [4, 5]


@pytest.mark.parametrize("cursor", ["", "x", "€", "AAAA", "gQ==", "kcQA", "a" * 10_000])
def test_damaged_cursors_are_refused(full: World, cursor: str) -> None:
    assert full.refused(full.query, "f:page", cursor=cursor).code == "invalid_cursor"


def test_a_forged_position_stays_within_the_range(full: World) -> None:
    cursor = full.query("f:page", group="b", size=1)["continueCursor"]
    genuine = base64.urlsafe_b64decode(full.query("f:page")["continueCursor"] + "==")
    foreign = base64.urlsafe_b64decode(cursor + "==")
    forged = encode([msgspec.msgpack.decode(genuine)[0], msgspec.msgpack.decode(foreign)[1]])
    page = full.query("f:page", cursor=base64.urlsafe_b64encode(forged).decode())
    assert all(item["group"] == "a" for item in page["page"])
