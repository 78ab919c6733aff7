"""Documents: what is stored fits its table and is canonical, whatever the constructor let through."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from headwater.documents import loses
from headwater.values import MisfitError
from support.bundles import World, decode, encode, small_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
class Color(Enum):
    RED = "red"

class Part(Struct, frozen=True):
    size: float
    other: Id["Item"] | None = None
    anything: Any = None

class Owner(Table, name="owners"):
    name: Annotated[str, Meta(min_length=1)] = "x"

class Item(Table, name="items"):
    owner: Id[Owner]
    weight: float = 0.0
    count: int = 0
    when: datetime | None = None
    day: date | None = None
    key: UUID | None = None
    price: Decimal | None = None
    color: Color = Color.RED
    big: Int64 | None = None
    parts: list[Part] = []
    like: Id["Item"] | None = None
    seen_ms: float | None = None
    extra: Any = None
    tags: dict[str, int] = {}
    data: bytes = b""

class Round(Struct, tag=True, frozen=True):
    anything: Any = None

class Square(Struct, tag=True, frozen=True):
    size: int

class Plain(Table, name="plains"):
    number: int

class Box(Table, name="boxes"):
    plains: list[Plain] = []
    shape: Round | Square | None = None

@mutation
def owner(ctx: MutationCtx) -> Id[Owner]:
    return ctx.db.insert(Owner())

@mutation
def add(ctx: MutationCtx, owner: Id[Owner], what: str = "{}") -> Id[Item]:
    return ctx.db.insert(Item(**{"owner": owner, **eval(what)}))

@mutation
def do(ctx: MutationCtx, what: str, id: str = "", other: str = "") -> Any:
    db = ctx.db
    return eval(what)
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, {"f": SOURCE}) as made:
        yield made


@pytest.fixture
def owner(world: World) -> str:
    made: str = world.mutation("f:owner")
    return made


def stored(world: World, document_id: str) -> dict[str, Any]:
    found: dict[str, Any] = decode(world.backend.documents[document_id])
    return found


def added(world: World, owner: str, what: str) -> dict[str, Any]:
    return stored(world, world.mutation("f:add", owner=owner, what=what))


def message(world: World, name: str, /, **arguments: Any) -> str:
    failure = world.refused(world.mutation, name, **arguments)
    assert failure.code == "invalid_document", failure
    return failure.message


def test_all_fields_are_stored_with_id_and_time_first(world: World, owner: str) -> None:
    item = world.mutation("f:add", owner=owner)
    document = stored(world, item)
    assert list(document)[:3] == ["_id", "_creationTime", "owner"]
    assert (document["_id"], document["_creationTime"]) == (item, world.backend.now_us / 1000)
    assert len(document) == 17


def test_the_stored_form_is_canonical(world: World, owner: str) -> None:
    document = added(world, owner, "{'weight': 3, 'parts': [Part(size=2)], 'seen_ms': 7}")
    assert [
        type(value) for value in (document["weight"], document["parts"][0]["size"], document["seen_ms"])
    ] == [float] * 3


def test_rare_values_are_stored(world: World, owner: str) -> None:
    what = (
        "{'when': datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2))), 'day': date(2024, 1, 2), 'data': b'x',"
        " 'key': UUID(int=5), 'price': Decimal('1.50'), 'big': Int64(5), 'extra': [Int64(6), Color.RED, UUID(int=7)]}"
    )
    document = added(world, owner, what)
    assert document["when"].isoformat() == "2023-12-31T22:00:00+00:00"
    assert [document[name] for name in ("day", "price", "color", "data")] == [
        "2024-01-02",
        "1.50",
        "red",
        b"x",
    ]
    assert document["key"] == "00000000-0000-0000-0000-000000000005"
    assert (document["big"].code, document["extra"][0].data[-1]) == (1, 6)
    assert document["extra"][1:] == ["red", "00000000-0000-0000-0000-000000000007"]
    back = world.mutation("f:do", what="repr(db.get(id))", id=document["_id"])
    assert "big=5" in back
    assert "Decimal('1.50')" in back


def test_special_floats_are_stored(world: World, owner: str) -> None:
    assert math.isnan(added(world, owner, "{'weight': float('nan')}")["weight"])
    assert math.copysign(1, added(world, owner, "{'weight': -0.0}")["weight"]) == -1
    assert added(world, owner, "{'weight': float('-inf')}")["weight"] == -math.inf


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("{'count': 'x'}", "Expected `int`, got `str` - at `$.count`"),
        ("{'count': 1.0}", "Expected `int`, got `float` - at `$.count`"),
        ("{'count': True}", "Expected `int`, got `bool` - at `$.count`"),
        ("{'count': 2**63}", "Expected an integer from -2^63 to 2^63-1, got a larger one - at `$.count`"),
        (
            "{'extra': {'a': [2**64]}}",
            "Expected an integer from -2^63 to 2^63-1, got a larger one - at `$.extra.a[0]`",
        ),
        ("{'extra': {1, 2}}", "a `set` cannot be a value - at `$.extra`"),
        ("{'extra': {1: 2}}", "Expected text keys, got a key of type `int` - at `$.extra`"),
        (
            "{'when': datetime(2024, 1, 1)}",
            "Expected a datetime with a time zone, got one without - at `$.when`",
        ),
        (
            "{'extra': [datetime(2024, 1, 1)]}",
            "Expected a datetime with a time zone, got one without - at `$.extra[0]`",
        ),
        ("{'parts': [Part(size='x')]}", "Expected `float`, got `str` - at `$.parts[0].size`"),
        ("{'parts': [Part(size=1, anything={1})]}", "a `set` cannot be a value - at `$.parts[0].anything`"),
        ("{'parts': [{'size': 1, 'anything': {1}}]}", "a `set` cannot be a value - at `$.parts[0].anything`"),
        ("{'color': 'blue'}", "Invalid enum value 'blue', expected 'red' - at `$.color`"),
        ("{'tags': {1: 2}}", "Expected `str`, got `int` - at `key` in `$.tags`"),
        ("{'extra': '\\ud800'}", "text holds an unpaired surrogate, which is not valid Unicode"),
        ("{'extra': object()}", "an `object` cannot be a value - at `$.extra`"),
    ],
)
def test_what_does_not_fit_names_table_and_path(world: World, owner: str, what: str, told: str) -> None:
    assert message(world, "f:add", owner=owner, what=what) == f"table 'items': {told}"
    assert len(world.backend.documents) == 1


@pytest.mark.parametrize(
    ("what", "place"),
    [
        ("{'owner': Owner().id}", "`owner` is UNSET: it was taken from a document that was never stored"),
        ("{'like': Item(owner='').id}", "got the id of a document that was never stored - at `$.like`"),
        (
            "{'seen_ms': Owner().creation_time_ms}",
            "got the id of a document that was never stored - at `$.seen_ms`",
        ),
        ("{'extra': Owner().id}", "got the id of a document that was never stored - at `$.extra`"),
        ("{'extra': [Owner().id]}", "got the id of a document that was never stored - at `$.extra[0]`"),
        ("{'parts': [Part(size=1, other=Owner().id)]}", "never stored - at `$.parts[0].other`"),
    ],
)
def test_ids_of_new_documents_are_refused(world: World, owner: str, what: str, place: str) -> None:
    assert message(world, "f:add", owner=owner, what=what).endswith(place)


def test_ids_are_of_the_declared_table(world: World, owner: str) -> None:
    told = "Expected an id of table 'items', got one of 'owners'"
    assert message(world, "f:add", owner=owner, what=f"{{'like': {owner!r}}}").endswith(
        f"{told} - at `$.like`"
    )
    what = f"{{'parts': [Part(size=1), Part(size=1, other={owner!r})]}}"
    assert message(world, "f:add", owner=owner, what=what).endswith(f"{told} - at `$.parts[1].other`")


def test_a_stored_document_is_not_inserted_again(world: World, owner: str) -> None:
    assert "stored already" in message(world, "f:do", what="db.insert(db.get(id))", id=owner)


def test_what_is_no_document_is_not_inserted(world: World, owner: str) -> None:
    failure = world.refused(world.mutation, "f:do", what="db.insert({'name': 'Ada'})", id=owner)
    assert failure.message.startswith("TypeError: ctx.db.insert takes a document, such as Message(body=...)")


def test_patch_changes_what_it_names(world: World, owner: str) -> None:
    item = world.mutation("f:add", owner=owner, what="{'count': 1, 'extra': 'old'}")
    before = stored(world, item)
    world.backend.now_us += 5_000_000
    world.mutation("f:do", what="db.patch(id, count=2, weight=4)", id=item)
    assert stored(world, item) == {**before, "count": 2, "weight": 4.0}
    for what, told in (
        ("db.patch(id, cuont=2)", "there is no field `cuont`; did you mean `count`?"),
        ("db.patch(id, count='x')", "Expected `int`, got `str` - at `$.count`"),
        ("db.patch(id, id='x')", "`id` belongs to the system and cannot be changed"),
        (
            "db.patch(id, like=Item(owner='').id)",
            "`like` is UNSET: it was taken from a document that was never stored",
        ),
    ):
        assert message(world, "f:do", what=what, id=item) == f"table 'items': {told}"
    assert stored(world, item)["count"] == 2


def test_replace_keeps_id_and_time(world: World, owner: str) -> None:
    item = world.mutation("f:add", owner=owner, what="{'count': 1, 'extra': 'old'}")
    before = stored(world, item)
    world.backend.now_us += 5_000_000
    world.mutation("f:do", what="db.replace(id, Item(owner=other, count=5))", id=item, other=owner)
    assert stored(world, item) == {**before, "count": 5, "extra": None}
    world.mutation("f:do", what="db.replace(id, replace(db.get(id), count=6))", id=item)
    assert stored(world, item)["count"] == 6
    assert "expected `Item`, got `Owner`" in message(world, "f:do", what="db.replace(id, Owner())", id=item)
    another = world.mutation("f:add", owner=owner)
    assert "cannot take the place" in message(
        world, "f:do", what="db.replace(id, db.get(other))", id=item, other=another
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ("extra={1, 2}", "a `set` cannot be a value - at `$.extra`"),
        ("extra={'a': [1, {2}]}", "a `set` cannot be a value - at `$.extra.a[1]`"),
        ("extra={1: 2}", "Expected text keys, got a key of type `int` - at `$.extra`"),
        ("extra=Item(owner='').id", "was never stored"),
    ],
)
def test_a_changed_copy_takes_no_more_than_a_new_document(
    world: World, owner: str, changes: str, told: str
) -> None:
    item = world.mutation("f:add", owner=owner)
    assert told in message(world, "f:do", what=f"replace(db.get(id), {changes})", id=item)
    assert told in message(world, "f:do", what=f"db.insert(Item(owner=other, {changes}))", other=owner)


def test_missing_documents(world: World, owner: str) -> None:
    world.mutation("f:do", what="db.delete(id)", id=owner)
    assert world.mutation("f:do", what="db.get(id)", id=owner) is None
    assert world.mutation("f:do", what="db.get_many([id, id])", id=owner) == [None, None]
    for what in ("db.patch(id, name='y')", "db.replace(id, Owner())", "db.delete(id)"):
        assert world.refused(world.mutation, "f:do", what=what, id=owner).code == "document_not_found"


@pytest.mark.parametrize(
    "what", ["db.get('x')", "db.get(Owner().id)", "db.delete(5)", "db.patch(None, name='x')"]
)
def test_what_is_no_id_is_refused(world: World, what: str) -> None:
    failure = world.refused(world.mutation, "f:do", what=what)
    assert failure.code == "invalid_request"
    assert failure.message.startswith("expected an id, got ")


def test_ids_are_normalized(world: World, owner: str) -> None:
    assert world.mutation("f:do", what="db.normalize_id(Owner, id)", id=owner) == owner
    assert (
        world.mutation("f:do", what="[db.normalize_id(Item, id), db.normalize_id(Item, '')]", id=owner)
        == [None] * 2
    )


def test_stored_documents_that_no_longer_fit_are_named(world: World, owner: str) -> None:
    world.backend.documents[owner] = encode({"_id": owner, "_creationTime": 1.0, "name": 5})
    assert message(world, "f:do", what="db.get(id)", id=owner) == (
        "a stored document of table 'owners' does not fit it: Expected `str`, got `int` - at `$.name`"
    )


def test_unread_lists_are_stored_as_documents(world: World, owner: str) -> None:
    item = world.mutation("f:do", what="db.insert(Item(owner=id, extra=[db.scan(Owner).take(1)]))", id=owner)
    assert stored(world, item)["extra"][0][0]["_id"] == owner
    box = world.mutation(
        "f:do", what="db.insert(Plain(number=1)) and db.insert(Box(plains=db.scan(Plain).take(1)))"
    )
    assert stored(world, box)["plains"][0]["number"] == 1


def test_dicts_that_stand_for_structs_are_looked_into(world: World) -> None:
    box = world.mutation("f:do", what="db.insert(Box(shape={'type': 'Square', 'size': 1}))")
    assert stored(world, box)["shape"] == {"type": "Square", "size": 1}
    wrong = message(world, "f:do", what="db.insert(Box(shape={'type': 'Round', 'anything': {1}}))")
    assert wrong == "table 'boxes': a `set` cannot be a value - at `$.shape.anything`"


REREAD = """
class Where(Struct, frozen=True, kw_only=True):
    city: str = "Utrecht"
    lot: float = field(default_factory=lambda: 1.0)

class Fixed(Table):
    number: int | None = 5
    where: dict[str, int] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    by_all = Index("number", "words")

class Made(Table):
    wheres: list[Where] = field(default_factory=list)
    name: str
    where: Where | None
    by_city = Index("name", "where.city", "where.lot")

class Checked(Struct):
    number: int
    def __post_init__(self) -> None: ...

class Held(Table):
    checked: Checked | None = None
    by_number = Index("checked.number")
"""


def test_an_index_says_what_is_read_where_a_field_is_missing(tmp_path: Path) -> None:
    with small_world(tmp_path, {"f": REREAD}) as world:
        found = {table.name: table.indexes[0].defaults for table in world.manifest.tables}
        assert {
            name: {path: decode(value) for path, value in item.items()} for name, item in found.items()
        } == {
            "fixed": {"number": 5, "words": []},
            "made": {"where.city": "Utrecht"},
            "held": {"checked": None},
        }


DEFAULTS = """
class Point(Struct, frozen=True):
    x: float = 0

class Ink(Enum):
    RED = "red"

class Late(Table):
    number: int
    DEFAULT
"""


@pytest.mark.parametrize(
    ("default", "written", "alike"),
    [
        ("more: float = 0.0", 0.0, True),
        ("more: list[Point] = []", [], True),
        ("more: Ink = Ink.RED", "red", True),
        (
            "more: datetime = datetime(2024, 1, 1, tzinfo=timezone.utc)",
            datetime(2024, 1, 1, tzinfo=UTC),
            True,
        ),
        ("more: float = 0", 0.0, False),
        ("more: Point = Point()", {"x": 0.0}, False),
        ("more: Decimal = 0", "0", False),
        ("more: Ink = 'red'", "red", False),
        ("more: tuple[int, ...] = []", [], False),
        (
            "more: datetime = datetime(2024, 1, 1, 5, tzinfo=timezone(timedelta(hours=5)))",
            datetime(2024, 1, 1, tzinfo=UTC),
            False,
        ),
        ("more: float = field(default_factory=lambda: 1.5)", 1.5, False),
    ],
)
def test_a_document_that_lacks_a_field_is_rewritten_with_what_the_field_holds(
    tmp_path: Path, default: str, written: Any, alike: bool
) -> None:
    """Calls read the same as before only if the default is of the field's own type, and made once."""
    with small_world(tmp_path, {"f": DEFAULTS.replace("DEFAULT", default)}) as world:
        documents = world.bundle.documents_of("late")
        before = encode({"_id": "a", "_creationTime": 1.0, "number": 1})
        after, same = documents.rewritten(before, lambda _: None)
        assert decode(after)["more"] == written
        assert type(decode(after)["more"]) is type(written)
        assert same == alike
        assert documents.rewritten(after, lambda _: None)[0] == after


def test_documents_are_read_alike_unless_code_of_the_bundle_takes_part(tmp_path: Path) -> None:
    with small_world(tmp_path, {"f": REREAD}) as world:
        alike = {
            name: world.bundle.documents_of(name).rewritten(encode(document), lambda _: None)[1]
            for name, document in {
                "fixed": {"_id": "a", "_creationTime": 1.0},
                "made": {"_id": "a", "_creationTime": 1.0, "name": "b", "where": None},
                "held": {"_id": "a", "_creationTime": 1.0},
            }.items()
        }
        assert alike == {"fixed": True, "made": False, "held": False}


@pytest.mark.parametrize(
    ("declared", "reason"),
    [("more: Any = None", "no longer declared"), ("number: Counting", "it changes each time it is read")],
)
def test_what_cannot_be_rewritten_stays(tmp_path: Path, declared: str, reason: str) -> None:
    counting = """
class Counting(Struct):
    reads: int = 0
    def __post_init__(self) -> None:
        self.reads += 1
"""
    source = counting + DEFAULTS.replace("number: int", declared).replace("DEFAULT", "")
    document = encode({"_id": "a", "_creationTime": 1.0, "number": {"reads": 1}})
    with small_world(tmp_path, {"f": source}) as world:
        documents = world.bundle.documents_of("late")
        with pytest.raises(MisfitError, match=reason):
            documents.rewritten(document, lambda _: None)


@pytest.mark.parametrize(
    ("before", "after", "lost"),
    [
        ({"a": 1}, {"a": 2, "b": 1}, False),
        ({"a": 1, "b": 2}, {"a": 1}, True),
        ({"a": {"b": 1}}, {"a": {}}, True),
        ({"a": [{"b": 1}, {}]}, {"a": [{"b": 1, "c": 2}, {}]}, False),
        ({"a": [{"b": 1}]}, {"a": [{}]}, True),
        ({"a": [1, 2]}, {"a": [1]}, True),
        ({"a": {}}, {"a": 1}, True),
        ({"a": 1}, {"a": 1.0}, False),
        ({"a": [2**53 + 1]}, {"a": [2.0**53]}, True),
    ],
)
def test_what_a_document_loses_by_being_encoded_anew(before: Any, after: Any, lost: bool) -> None:
    assert loses(encode(before), encode(after)) == lost
