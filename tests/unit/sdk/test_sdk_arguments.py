"""Arguments: what fits arrives as declared, what does not is refused by function, path and expectation."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from headwater_protocol.values import INT64_EXTENSION
from support.bundles import World, small_world

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
class Color(Enum):
    RED = "red"

class Spot(Struct, tag="spot", frozen=True):
    x: int
    y: int = 0
    anything: Any = None

class Line(Struct, tag="line", frozen=True):
    points: list[Spot]

class Board(Table, name="boards"):
    name: str

class Pin(Table, name="pins"):
    board: Id[Board]

@query
def ints(ctx: QueryCtx, n: int, many: list[int] = [], by_name: dict[str, int] = {}, maybe: int | None = None, either: int | float = 0) -> Any:
    return [n, many, by_name, maybe, either]

@query
def shapes(ctx: QueryCtx, shape: Spot | Line) -> Any:
    return repr(shape)

@query
def board(ctx: QueryCtx, board: Id[Board]) -> str:
    return board

@query
def ids(ctx: QueryCtx, many: list[Id["Pin"]] = [], either: Id[Board] | Id[Pin] | None = None, by_id: dict[Id[Board], int] = {}) -> int:
    return len(many)

@query
def rare(ctx: QueryCtx, when: datetime | None = None, day: date | None = None, key: UUID | None = None, color: Color | None = None, price: Decimal | None = None, big: Int64 | None = None, anything: Any = None, pair: tuple[int, str] | None = None) -> str:
    return repr([when, day, key, color, price, big, anything, pair])

@query
def named(ctx: QueryCtx, /, first: int, second: int = 2, *, third: int = 3) -> list[int]:
    return [first, second, third]

@query
def grows(ctx: QueryCtx, seen: list[int] = [1]) -> list[int]:
    seen.append(2)
    return seen

class Seen(Struct):
    names: list[str]

@query
def grows_inside(ctx: QueryCtx, seen: Seen = Seen([])) -> int:
    seen.names.append("x")
    return len(seen.names)

@query
def bounded(ctx: QueryCtx, limit: Annotated[int, Meta(ge=1, le=200)] = 50) -> int:
    return limit

@query
def document(ctx: QueryCtx, pin: Pin) -> str:
    return pin.board
"""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with small_world(tmp_path, {"f": SOURCE}) as made:
        yield made


def message(world: World, name: str, /, **arguments: Any) -> str:
    failure = world.refused(world.query, name, **arguments)
    assert failure.code == "invalid_arguments"
    assert failure.message.startswith(name)
    return failure.message.removeprefix(f"{name}: ")


def test_integral_floats_are_ints_where_ints_are_expected(world: World) -> None:
    found = world.query("f:ints", n=3.0, many=[1.0, 2], by_name={"a": 4.0}, maybe=-5.0, either=6.0)
    assert found == [3, [1, 2], {"a": 4}, -5, 6.0]
    assert [type(found[0]), type(found[4])] == [int, float]
    assert world.query("f:shapes", shape={"type": "line", "points": [{"x": 1.0}]}) == (
        "Line(points=[Spot(x=1, y=0, anything=None)])"
    )


@pytest.mark.parametrize("n", [1.5, float(2**60), float("inf"), float("nan"), -0.0, True, "1", None])
def test_other_things_are_no_ints(world: World, n: Any) -> None:
    assert message(world, "f:ints", n=n).startswith("Expected `int`, got ")


def test_a_refused_argument_does_not_change_floats_of_another(world: World) -> None:
    assert world.query("f:ints", n=1.0, either=2.0) == [1, [], {}, None, 2.0]
    spot = world.query("f:shapes", shape={"type": "spot", "x": 1.0, "anything": 3.0})
    assert spot == "Spot(x=1, y=0, anything=3.0)"


def test_integers_beyond_64_bits_are_refused(world: World) -> None:
    assert "2^63" in message(world, "f:ints", n=2**63)
    assert message(world, "f:ints", n=1, many=[0, 2**64 - 1]).endswith("at `$.many[1]`")
    assert message(world, "f:rare", anything={"deep": [2**63]}).endswith("at `$.anything.deep[0]`")
    assert world.query("f:ints", n=2**63 - 1, many=[-(2**63)])[:2] == [2**63 - 1, [-(2**63)]]
    assert world.query("f:rare", anything="Ϗ and Ω").count("Ϗ") == 1  # looks like such an integer in UTF-8


def test_unknown_and_missing_arguments(world: World) -> None:
    assert message(world, "f:bounded", limt=3).startswith("unknown argument `limt`; did you mean `limit`?")
    assert message(world, "f:bounded", zzz=3) == "unknown argument `zzz` (its arguments: `limit`)"
    assert message(world, "f:board") == "missing argument `board`"
    assert message(world, "f:shapes", shape={"type": "spot"}) == "missing field `x` - at `$.shape`"


def test_bounds_and_variants_name_their_place(world: World) -> None:
    assert message(world, "f:bounded", limit=500) == "Expected `int` <= 200 - at `$.limit`"
    told = "Invalid value 'circle', expected 'spot' or 'line' - at `$.shape.type`"
    assert message(world, "f:shapes", shape={"type": "circle"}) == told
    told = "Invalid enum value 'blue', expected 'red' - at `$.color`"
    assert message(world, "f:rare", color="blue") == told
    points = [{"x": 1}, {"x": "2"}]
    assert "at `$.shape.points[1].x`" in message(world, "f:shapes", shape={"type": "line", "points": points})


def test_ids_are_of_the_declared_table(world: World) -> None:
    board, pin = world.backend.new_id("boards")[0], world.backend.new_id("pins")[0]
    assert world.query("f:board", board=board) == board
    wrong = f"Expected an id of table 'boards', got one of 'pins' - at `$.board`"  # noqa: F541
    assert message(world, "f:board", board=pin) == wrong
    foreign = "z" * 33
    assert message(world, "f:board", board=foreign) == (
        f"Expected an id of table 'boards', got {foreign!r} - at `$.board`"
    )
    assert message(world, "f:board", board="short") == "Expected an id of table 'boards' - at `$.board`"
    assert message(world, "f:ids", many=["x" * 40]) == "Expected an id of table 'pins' - at `$.many[0]`"
    either = "Expected an id of table 'boards' or 'pins' - at `$.either`"
    assert message(world, "f:ids", either="short") == either
    by_id = "Expected an id of table 'boards' - at `key` in `$.by_id`"
    assert message(world, "f:ids", by_id={"short": 1}) == by_id
    assert message(world, "f:ids", many=[pin, board]).endswith("got one of 'boards' - at `$.many[1]`")
    assert message(world, "f:ids", by_id={pin: 1}).endswith(f"got one of 'pins' - at `$.by_id.{pin}`")
    assert world.query("f:ids", many=[pin, pin], either=board) == 2
    assert "'boards' or 'pins'" in message(world, "f:ids", either=foreign)


def test_rare_types_arrive_as_declared(world: World) -> None:
    when = datetime(2024, 2, 29, 12, 30, 0, 123456, tzinfo=UTC)
    shown = world.query(
        "f:rare",
        when=when,
        day="2024-02-29",
        key="12345678-1234-5678-1234-567812345678",
        color="red",
        price="1.50",
        big=7,
        anything={"a": [None, b"x"]},
        pair=[1, "x"],
    )
    assert repr(when) in shown
    for part in (
        "datetime.date(2024, 2, 29)",
        "UUID('12345678-",
        "Color.RED",
        "Decimal('1.50')",
        "b'x'",
        "(1, 'x')",
    ):
        assert part in shown
    marked = msgspec.msgpack.Ext(INT64_EXTENSION, (5).to_bytes(8, "big"))
    assert "5" in world.query("f:rare", big=marked, anything=marked)


def test_times_need_a_time_zone(world: World) -> None:
    assert "time zone" in message(world, "f:rare", when="2024-02-29T12:30:00")
    assert "Expected `datetime | null`" in message(world, "f:rare", when=5)


def test_values_that_are_none(world: World) -> None:
    assert "extension" in message(world, "f:rare", anything=msgspec.msgpack.Ext(5, b"x"))
    assert "text keys" in message(world, "f:rare", anything={1: 2})


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xc1",
        b"\x81\xa5limit",
        b"\x93\x01\x02\x03",
        b"\x80\x80",
        b"\x91" * 5000,
        b"\xdf\xff\xff\xff\xff",
    ],
)
def test_bytes_that_are_no_arguments(world: World, content: bytes) -> None:
    failure = world.bundle.call_query("f:bounded", content, world.backend).failure
    assert failure is not None
    assert failure.code == "invalid_arguments"


def test_defaults_keywords_and_positions(world: World) -> None:
    assert world.query("f:named", first=1) == [1, 2, 3]
    assert world.query("f:named", third=7, second=8, first=9) == [9, 8, 7]
    assert [world.query("f:grows"), world.query("f:grows")] == [[1, 2], [1, 2]]
    assert [world.query("f:grows_inside"), world.query("f:grows_inside")] == [1, 1]


def test_a_document_as_argument_may_be_new(world: World) -> None:
    board = world.backend.new_id("boards")[0]
    assert world.query("f:document", pin={"board": board}) == board
