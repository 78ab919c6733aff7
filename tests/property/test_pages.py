"""Pages, read over the real transaction, are the query cut in pieces, whatever the documents and the page size."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest
from headwater.results import PageOptions
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundles import World, decode, encode, small_world
from support.memory_store import MemoryStore, table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater_storage.proposal import Range

SOURCE = """
class Spot(Struct, frozen=True):
    city: str | None = None

class Item(Table, name="items"):
    group: str
    rank: float | None = None
    spot: Spot | None = None
    by_group_rank = Index("group", "rank")
    by_city = Index("spot.city")

@mutation
def add(ctx: MutationCtx, group: str, rank: float | None, city: str | None, place: bool) -> Id[Item]:
    return ctx.db.insert(Item(group=group, rank=rank, spot=Spot(city=city) if place else None))

def ask(ctx: QueryCtx, by: str, order: Literal["asc", "desc"]) -> Any:
    queries = {
        "scan": lambda: ctx.db.scan(Item),
        "rank": lambda: ctx.db.query(Item.by_group_rank, group="a"),
        "bounded": lambda: ctx.db.query(Item.by_group_rank, group="a").range(Item.rank).gte(1.0).lt(4.0),
        "city": lambda: ctx.db.query(Item.by_city),
    }
    return queries[by]().order(order)

@query
def everything(ctx: QueryCtx, by: str, order: Literal["asc", "desc"]) -> list[Item]:
    return ask(ctx, by, order).collect()

@query
def page(ctx: QueryCtx, by: str, order: Literal["asc", "desc"], size: int, cursor: str | None) -> Page[Item]:
    return ask(ctx, by, order).paginate(cursor, size)
"""

LONG = "long " * 200  # cut in keys

items = st.lists(
    st.fixed_dictionaries(
        {
            "group": st.sampled_from("ab"),
            "rank": st.none() | st.integers(0, 4).map(float),
            "city": st.none() | st.sampled_from(["", "Oslo", "Rom", LONG, LONG + "x"]),
            "place": st.booleans(),
        }
    ),
    max_size=12,
)


class Stored(World):
    """A bundle over a store; each commit is a moment later."""

    def __init__(self, world: World) -> None:
        super().__init__(world.bundle)
        self.store = MemoryStore()
        (declared,) = self.manifest.tables
        indexes = [(index.name, list(index.fields), index.unique) for index in declared.indexes]
        self.store.add_table(table(32, declared.name, *indexes))

    def add(self, batch: list[dict[str, Any]]) -> None:
        transaction = self.store.transaction(now_us=1_700_000_000_000_000 + self.store.state.ts)
        for item in batch:
            outcome = self.bundle.call_mutation("f:add", encode(item), transaction)
            assert outcome.failure is None, outcome.failure
        self.store.commit(transaction.proposal())

    def read(self, name: str, journal: bytes | None = None, /, **arguments: Any) -> Any:
        backend = self.store.transaction(writable=False)
        self.last = self.bundle.call_query(name, encode(arguments), backend, journal=journal)
        return self._value()

    def pages(self, by: str, order: str, size: int) -> Iterator[tuple[Any, bytes | None]]:
        cursor = None
        while True:
            page = self.read("f:page", by=by, order=order, size=size, cursor=cursor)
            yield page, self.last.journal
            if page["isDone"]:
                return
            cursor = page["continueCursor"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with small_world(tmp_path_factory.mktemp("pages"), {"f": SOURCE}) as world:
        yield world


queries = st.sampled_from(["scan", "rank", "bounded", "city"])
orders = st.sampled_from(["asc", "desc"])


@settings(max_examples=60)
@given(batches=st.lists(items, min_size=1, max_size=3), by=queries, order=orders, size=st.integers(1, 6))
def test_pages_are_the_query_cut_in_pieces(
    bundle: World, batches: list[list[dict[str, Any]]], by: str, order: str, size: int
) -> None:
    world = Stored(bundle)
    for batch in batches:
        world.add(batch)
    pages = [page["page"] for page, _ in world.pages(by, order, size)]
    assert [item for page in pages for item in page] == world.read("f:everything", by=by, order=order)
    assert all(len(page) == size for page in pages[:-1])


@settings(max_examples=60)
@given(before=items, after=items, by=queries, order=orders, size=st.integers(1, 4))
def test_pages_shown_live_have_no_gap_and_no_overlap(
    bundle: World, before: list[dict[str, Any]], after: list[dict[str, Any]], by: str, order: str, size: int
) -> None:
    world = Stored(bundle)
    world.add(before)
    shown = list(world.pages(by, order, size))
    world.add(after)

    cursor, seen = None, []
    for page, journal in shown:
        again = world.read(
            "f:page", journal, by=by, order=order, size=len(before) + len(after) + 1, cursor=cursor
        )
        seen += again["page"]
        cursor = page["continueCursor"]

    assert seen == world.read("f:everything", by=by, order=order)


@settings(max_examples=60)
@given(documents=items, position=st.binary(max_size=60), order=orders)
def test_forged_positions_show_nothing_outside_the_range(
    bundle: World, documents: list[dict[str, Any]], position: bytes, order: str
) -> None:
    world = Stored(bundle)
    world.add([*documents, {"group": "a", "rank": 1.0, "city": None, "place": False}] * 2)
    first = world.read("f:page", by="rank", order=order, size=1, cursor=None)
    genuine = decode(base64.urlsafe_b64decode(first["continueCursor"] + "=="))
    cursor = base64.urlsafe_b64encode(encode([genuine[0], position])).decode()
    forged = world.read("f:page", by="rank", order=order, size=99, cursor=cursor)
    allowed = world.read("f:everything", by="rank", order=order)
    assert all(item in allowed for item in forged["page"])


def test_a_position_that_is_not_cut_to_the_range_shows_what_it_must_not(
    bundle: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cursor is bytes of the client: taken as it is, it reads the documents of others."""

    def trusting(whole: Range, prefix: bytes, after: bytes | None, until: bytes | None, **_: bool) -> Range:
        lo, hi = whole
        return lo if after is None else prefix + after, hi if until is None else prefix + until

    def shown_from(position: bytes) -> list[Any]:
        genuine = decode(base64.urlsafe_b64decode(first["continueCursor"] + "=="))
        cursor = base64.urlsafe_b64encode(encode([genuine[0], position])).decode()
        shown: list[Any] = world.read("f:page", by="rank", order="asc", size=99, cursor=cursor)["page"]
        return shown

    world = Stored(bundle)
    world.add([{"group": group, "rank": 1.0, "city": None, "place": False} for group in "aa00bb"])
    first = world.read("f:page", by="rank", order="asc", size=1, cursor=None)
    allowed = world.read("f:everything", by="rank", order="asc")
    assert all(item in allowed for item in shown_from(b"\x00"))
    monkeypatch.setattr("headwater_storage.transaction.narrowed", trusting)
    assert not all(item in allowed for item in shown_from(b"\x00"))


def test_page_options_have_the_names_of_clients() -> None:
    assert decode(encode(PageOptions(num_items=3))) == {
        "numItems": 3,
        "cursor": None,
        "endCursor": None,
        "id": None,
    }
