from __future__ import annotations

import inspect
import json
import math
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import pytest
from headwater.annotations import Tables
from headwater.arguments import ArgumentsCodec
from headwater.values import encode
from headwater_protocol.errors import RequestError
from headwater_protocol.values import Int64
from headwater_server.net.json_values import from_json, to_json

LARGE = 2**53 + 1


class Leaf(msgspec.Struct, tag_field="kind", tag="leaf"):
    raw: bytes
    count: Int64 = Int64(0)


class Word(msgspec.Struct, tag_field="kind", tag="word"):
    raw: str


class Tree(msgspec.Struct):
    raw: bytes
    inside: list[Tree] = []


def codec_of(kind: Any) -> ArgumentsCodec:
    parameter = inspect.Parameter("value", inspect.Parameter.KEYWORD_ONLY, annotation=kind)
    return ArgumentsCodec("f:g", [parameter], {"value": kind}, Tables({}))


def sent(kind: Any, value: Any) -> Any:
    """Send parsed JSON as the argument of a function that takes this type; return what the function gets."""
    codec = codec_of(kind)
    content = from_json(json.loads(json.dumps({"value": value})), "json", codec.schema)
    return codec.decode(content, lambda _: None)[1]["value"]


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (bytes, b"\x00\xff"),
        (bytes, b""),
        (bytes | None, b"hi"),
        (bytes | int, b"hi"),
        (bytes | int, LARGE),
        (Int64, Int64(5)),
        (Int64 | None, Int64(-LARGE)),
        (int, LARGE),
        (int | str, 7),
        (float, math.inf),
        (float, -math.inf),
        (float | None, 1.5),
        (str | int, "aGk="),
        (str, "AP8="),
        (Any, "AP8="),
        (Literal["AP8=", "x"], "AP8="),
        (datetime, datetime(2013, 1, 1, tzinfo=UTC)),
        (list[bytes], [b"a", b"bc"]),
        (dict[str, list[Int64]], {"a": [Int64(1), Int64(2)]}),
        (tuple[str, bytes, Int64], ("AP8=", b"x", Int64(2))),
        (tuple[bytes, ...], (b"x", b"y")),
        (Leaf | Word, Leaf(b"\xff", Int64(9))),
        (Leaf | Word, Word("AP8=")),
        (list[Leaf | Word | None], [Word("aGk="), None, Leaf(b"hi")]),
        (Tree, Tree(b"a", [Tree(b"b", [Tree(b"c")])])),
        (list[dict[str, Any]], [{"raw": "AP8=", "n": "9007199254740993"}]),
    ],
)
def test_plain_json_takes_what_plain_json_gives(kind: Any, value: Any) -> None:
    got = sent(kind, to_json(encode(value), "json"))
    assert got == value
    assert type(got) is type(value)


def test_not_a_number_comes_back() -> None:
    assert math.isnan(sent(float, "NaN"))


def test_an_int64_may_be_a_number() -> None:
    assert sent(Int64, 5) == Int64(5)


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (bytes, "no base64", "base64"),
        (bytes, "AP8", "base64"),
        (list[bytes], ["AP8=", "é"], r"base64.* - at `\$.value\[1\]`"),
        (int, "5", "Expected `int`, got `str`"),
        (int, "1e3", "Expected `int`, got `str`"),
        (Int64, "05", "got `str`"),
        (Int64, str(2**63), "got `str`"),
        (float, "1.5", "Expected `float`, got `str`"),
        (bool, "true", "Expected `bool`, got `str`"),
    ],
)
def test_other_text_is_refused_as_ever(kind: Any, value: Any, told: str) -> None:
    with pytest.raises(RequestError, match=told) as caught:
        sent(kind, value)
    assert caught.value.code == "invalid_arguments"


def test_arguments_that_nothing_declares_stay_as_they_are() -> None:
    assert from_json({"value": "AP8="}, "json", {}) == encode({"value": "AP8="})
    schema = codec_of(bytes).schema
    for other in ({"valeu": "AP8="}, {"value": {"a": "AP8="}}, {"value": [["AP8="]]}):
        assert from_json(other, "json", schema) == encode(other)
