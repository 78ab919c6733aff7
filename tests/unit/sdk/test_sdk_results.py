"""Results: what a function declares is what clients get, else an error that says where it differs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.bundles import World, decode, encode, small_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
class Color(Enum):
    RED = "red"

class Item(Table, name="items"):
    number: int
    note: str = ""
    weight: float = 0.0
    other: Id["Item"] | None = None
    extra: Any = None
    by_number = Index("number")

class Other(Table, name="others"):
    number: int

class Row(Struct):
    item: Item
    label: str
    score: float = 0.0
    color: Color = Color.RED

class Tree(Struct):
    label: str
    children: list[Tree] = []
    anything: Any = None

@mutation
def add(ctx: MutationCtx, number: int) -> Id[Item]:
    return ctx.db.insert(Item(number=number))

@mutation
def add_other(ctx: MutationCtx) -> None:
    ctx.db.insert(Other(number=1))

class Scored(Struct):
    score: float
    others: list[Other]

@query
def scored(ctx: QueryCtx) -> Scored:
    return Scored(score=1, others=ctx.db.scan(Other).collect())

@query
def big(ctx: QueryCtx, what: str) -> int:
    return eval(what)

@query
def numbers(ctx: QueryCtx, count: int) -> list[Item]:
    return ctx.db.query(Item.by_number).take(count)

@query
def page(ctx: QueryCtx) -> Page[Item]:
    return ctx.db.scan(Item).paginate(None, 2)

@query
def anything(ctx: QueryCtx, what: str) -> Any:
    items = ctx.db.scan(Item).collect()
    return eval(what)

@query
def looked_at(ctx: QueryCtx) -> list[Item]:
    items = ctx.db.query(Item.by_number).take(10)
    return items if items[0].number >= 0 else []

@query
def rows(ctx: QueryCtx, what: str) -> list[Row]:
    item = ctx.db.scan(Item).first()
    return eval(what)

@query
def tree(ctx: QueryCtx, what: str) -> Tree | None:
    return eval(what)

@query
def items(ctx: QueryCtx, what: str) -> list[Item]:
    return eval(what)

@query
def boards(ctx: QueryCtx, what: str) -> dict[str, list[Item]]:
    items = ctx.db.scan(Item).collect()
    return eval(what)

@query
def rare(ctx: QueryCtx, what: str) -> dict[str, Int64 | None]:
    return eval(what)

@query
def moment(ctx: QueryCtx, what: str) -> datetime | list[date]:
    return eval(what)

@query
def few(ctx: QueryCtx, what: str) -> Annotated[list[int], Meta(max_length=2)]:
    return eval(what)

@query
def item_id(ctx: QueryCtx, what: str) -> Id[Item]:
    return eval(what)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, {"f": SOURCE}) as made:
        for number in (3, 1, 2):
            made.mutation("f:add", number=number)
        yield made


def message(world: World, name: str, **arguments: Any) -> str:
    failure = world.refused(world.query, name, **arguments)
    assert failure.code == "invalid_result", failure
    assert failure.message.startswith(f"the result of {name}: ")
    return failure.message.removeprefix(f"the result of {name}: ")


def test_untouched_documents_go_out_as_stored(world: World) -> None:
    found = world.query("f:numbers", count=2)
    result = world.last.result
    assert [item["number"] for item in found] == [1, 2]
    assert result is not None
    assert result.ids == [item["_id"] for item in found]
    stored = [world.backend.documents[document_id or ""] for document_id in result.ids or ()]
    assert result.content == b"\x92" + b"".join(stored)
    assert result.bounds == b"".join(
        at.to_bytes(4, "little") for at in (1, 1 + len(stored[0]), len(result.content))
    )


def test_looking_changes_nothing_for_clients(world: World) -> None:
    world.query("f:numbers", count=10)
    untouched = world.last.result
    world.query("f:looked_at")
    assert world.last.result == untouched


def test_documents_of_an_older_shape_are_completed(world: World) -> None:
    document_id = min(world.backend.documents)
    document = decode(world.backend.documents[document_id])
    del document["note"]
    world.backend.documents[document_id] = encode(document)
    world.backend.old_shape.add(document_id)
    found = world.query("f:numbers", count=10)
    assert {item["note"] for item in found} == {""}
    assert world.last.result is not None
    assert set(world.last.result.ids or ()) == {item["_id"] for item in found}


def test_a_page_is_spliced_too(world: World) -> None:
    found = world.query("f:page")
    assert list(found) == ["page", "isDone", "continueCursor"]
    assert [item["number"] for item in found["page"]] == [3, 1]
    assert found["isDone"] is False
    assert world.last.result is not None
    assert world.last.result.bounds is None


@pytest.mark.parametrize(
    "what",
    ["items", "[items]", "{'a': items}", "[1, items[0]]", "{'a': {'b': items[1:]}}", "(items,)", "items[0]"],
)
def test_documents_never_leak_as_bytes(world: World, what: str) -> None:
    assert b"_creationTime" in encode(world.query("f:anything", what=what))
    assert not any_bytes(world.query("f:anything", what=what))


def any_bytes(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(any_bytes, value.values()))
    return any(map(any_bytes, value)) if isinstance(value, list) else isinstance(value, bytes)


def test_unread_documents_inside_declared_types(world: World) -> None:
    found = world.query("f:boards", what="{'all': items, 'none': []}")
    assert [item["number"] for item in found["all"]] == [3, 1, 2]
    wrong = message(world, "f:boards", what="{'first': 5, 'all': items}")
    assert wrong == "Expected `array`, got `int` - at `$[...]`"


@pytest.mark.parametrize(
    "what",
    [
        "None",
        "True",
        "-2**63",
        "2**63-1",
        "1.5",
        "'text'",
        "b'bytes'",
        "[]",
        "{}",
        "{'a': [1, {'b': None}]}",
        "[items[0].id]",
    ],
)
def test_values_go_out_as_they_are(world: World, what: str) -> None:
    items = [type("item", (), {"id": world.query("f:page")["page"][0]["_id"]})]
    assert world.query("f:anything", what=what) == eval(what, {"items": items})


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("{1, 2}", "a `set` cannot be a value"),
        ("object()", "an `object` cannot be a value"),
        ("{'a': [object]}", "a `type` cannot be a value - at `$.a[0]`"),
        ("{1: 2}", "Expected text keys, got a key of type `int`"),
        ("2**63", "Expected an integer from -2^63 to 2^63-1, got a larger one"),
        ("[-2**63 - 1]", "Expected an integer from -2^63 to 2^63-1, got a larger one - at `$[0]`"),
        ("datetime(2024, 1, 1)", "Expected a datetime with a time zone, got one without"),
        ("'\\ud800'", "text holds an unpaired surrogate, which is not valid Unicode"),
        ("['\\ud800']", "text holds an unpaired surrogate, which is not valid Unicode"),
        ("Item(number=1).id", "Expected a value, got the id of a document that was never stored"),
        ("(n for n in [1])", "a `generator` cannot be a value"),
    ],
)
def test_what_is_no_value_is_refused(world: World, what: str, told: str) -> None:
    assert message(world, "f:anything", what=what) == told


def test_fields_are_checked_inside_lists(world: World) -> None:
    good = world.query("f:rows", what="[Row(item=item, label='x', score=1)]")
    assert good[0]["score"] == 1.0
    assert type(good[0]["score"]) is float
    assert good[0]["color"] == "red"
    assert (
        message(world, "f:rows", what="[Row(item=item, label=3)]")
        == "Expected `str`, got `int` - at `$[0].label`"
    )
    assert "Expected `array`" in message(world, "f:rows", what="item")
    assert "Invalid enum value" in message(world, "f:rows", what="[Row(item=item, label='', color='blue')]")


def test_new_documents_are_no_results(world: World) -> None:
    told = "Expected a document of table 'items', got one that was never stored: it has no id"
    assert (
        message(world, "f:rows", what="[Row(item=Item(number=1), label='x')]") == f"{told} - at `$[0].item`"
    )
    assert message(world, "f:items", what="[Item(number=1)]") == f"{told} - at `$[0]`"
    assert "never stored" in message(world, "f:item_id", what="Item(number=1).id")


def test_documents_of_another_table_are_refused(world: World) -> None:
    assert "at `$[0]`" in message(world, "f:items", what="[Other(number=1)]")
    assert world.query("f:items", what="ctx.db.scan(Item).take(1)")[0]["number"] == 3
    assert world.query("f:items", what="ctx.db.scan(Other).collect()") == []
    world.mutation("f:add_other")
    told = "Expected a document of table 'items', got one of 'others' - at `$[0]`"
    assert message(world, "f:items", what="ctx.db.scan(Other).collect()") == told
    assert message(world, "f:items", what="list(ctx.db.scan(Other))") == told


def test_what_is_made_canonical_may_hold_unread_documents(world: World) -> None:
    world.mutation("f:add_other")
    found = world.query("f:scored")
    assert type(found["score"]) is float
    assert [other["number"] for other in found["others"]] == [1]


def test_integers_have_64_bits(world: World) -> None:
    assert world.query("f:big", what="2**63 - 1") == 2**63 - 1
    assert "2^63" in message(world, "f:big", what="2**63")
    assert world.refused(world.query, "f:big", what="2**64").code == "invalid_result"


def test_types_inside_themselves(world: World) -> None:
    found = world.query("f:tree", what="Tree('a', [Tree('b'), Tree('c', [Tree('d')])])")
    assert found["children"][1]["children"][0]["label"] == "d"
    wrong = message(world, "f:tree", what="Tree('a', [Tree('b'), Tree('c', [Tree(4)])])")
    assert wrong == "Expected `str`, got `int` - at `$.children[1].children[0].label`"
    deep = message(world, "f:tree", what="Tree('a', [Tree('b', anything={1, 2})])")
    assert deep == "a `set` cannot be a value - at `$.children[0].anything`"


def test_bounds_of_results(world: World) -> None:
    assert world.query("f:few", what="[1, 2]") == [1, 2]
    assert message(world, "f:few", what="[1, 2, 3]") == "Expected `array` of length <= 2"


def test_rare_types(world: World) -> None:
    found = world.query("f:rare", what="{'big': Int64(5), 'small': 7, 'none': None}")
    assert [found["big"].data, found["small"].data] == [number.to_bytes(8, "big") for number in (5, 7)]
    assert found["none"] is None
    assert message(world, "f:rare", what="{'big': 'x'}") == "Expected `Int64`, got `str` - at `$[...]`"
    assert world.query("f:moment", what="datetime(2024, 1, 1, tzinfo=UTC)").year == 2024
    assert "time zone" in message(world, "f:moment", what="datetime(2024, 1, 1)")
    assert world.query("f:moment", what="[date(2024, 1, 1)]") == ["2024-01-01"]


def test_replaced_copies_are_checked(world: World) -> None:
    found = world.query("f:items", what="[replace(ctx.db.scan(Item).first(), weight=2)]")
    assert type(found[0]["weight"]) is float
    failure = world.refused(world.query, "f:items", what="[replace(ctx.db.scan(Item).first(), number='x')]")
    assert (failure.code, failure.message) == (
        "invalid_document",
        "Item: Expected `int`, got `str` - at `$.number`",
    )
    failure = world.refused(world.query, "f:items", what="[replace(ctx.db.scan(Item).first(), id='x')]")
    assert failure.code == "invalid_document"
