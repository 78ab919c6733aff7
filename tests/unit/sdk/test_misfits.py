"""What msgspec says of a misfit, with what would have fitted: whichever way leads to its place."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Any, Literal

import msgspec
import pytest
from headwater import Id, Struct, Table
from headwater.annotations import Tables, type_of
from headwater.misfits import explained
from headwater.values import decoder


class Board(Table, name="boards"):
    name: str


class Cat(Struct, tag="cat"):
    lives: int = 9


class Dog(Struct, tag="dog"):
    board: Id[Board] | None = None


class Level(IntEnum):
    LOW = 1
    HIGH = 10


class Whole(Struct):
    pets: dict[str, list[Cat | Dog]] = {}  # noqa: RUF012 - each gets its own
    pair: tuple[int, Literal["a", None]] = (1, "a")
    levels: dict[Literal["x", "y"], Level | None] | None = None
    word: Annotated[str, msgspec.Meta(min_length=32)] = "x" * 32
    many: Level | Literal["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"] = Level.LOW


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"pets": {"x": [{"type": "cow"}]}}, "'cow', expected 'cat' or 'dog' - at `$.pets[...][0].type`"),
        (
            {"pets": {"x": [{"type": "dog", "board": "b"}]}},
            "Expected an id of table 'boards' - at `$.pets[...][0].board`",
        ),
        ({"pair": [1, "b"]}, "'b', expected None or 'a' - at `$.pair[1]`"),
        ({"levels": {"x": 2}}, "2, expected 1 or 10 - at `$.levels[...]`"),
        ({"levels": {"z": 1}}, "'z', expected 'x' or 'y' - at `key` in `$.levels`"),
        ({"word": "short"}, "Expected `str` of length >= 32 - at `$.word`"),
        ({"pair": [1, 5]}, "got `int` - at `$.pair[1]`"),
        ({"many": "z"}, "'j' or 2 others - at `$.many`"),
        ({"many": "- at `$.pets`"}, "- at `$.many`"),
    ],
)
def test_what_would_have_fitted_is_named(value: Any, told: str) -> None:
    with pytest.raises(msgspec.ValidationError) as caught:
        decoder(Whole).decode(msgspec.msgpack.encode(value))
    assert explained(str(caught.value), type_of(Whole, "Whole"), Tables([Board])).endswith(told)


def test_a_value_that_stands_alone_has_no_place() -> None:
    kind = type_of(Literal["a", "b"], "it")
    assert (
        explained("Invalid enum value 'c'", kind, Tables([])) == "Invalid enum value 'c', expected 'a' or 'b'"
    )
    assert explained("", kind, Tables([])) == ""
