from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from headwater_storage.indexes import EntryMaker, IndexDefinition
from headwater_storage.keys import MISSING, encode_fields, entry_key

SUFFIX = b"0" * 31


def maker(*fields: list[str]) -> EntryMaker:
    return EntryMaker(
        [IndexDefinition(7 + i, 32, f"i{i}", each, False, "ready") for i, each in enumerate(fields)]
    )


def entry(document: dict[str, Any], fields: list[str]) -> bytes:
    return maker(fields).entries(msgspec.msgpack.encode(document), SUFFIX)[0][0]


@pytest.mark.parametrize(
    ("document", "fields", "values"),
    [
        ({"a": 1, "b": "x"}, ["a", "b"], [1, "x"]),
        ({"a": None}, ["a", "b"], [None, MISSING]),
        ({"a": {"b": {"c": [1, {"d": None}]}}}, ["a.b.c"], [[1, {"d": None}]]),
        ({"a": {"b": 2}}, ["a.b", "a"], [2, {"b": 2}]),
        ({"a": 5}, ["a.b"], [MISSING]),
        ({"a": {"x": 1}}, ["a.b"], [MISSING]),
        ({"a": datetime(2024, 1, 2, tzinfo=UTC)}, ["a"], [datetime(2024, 1, 2, tzinfo=UTC)]),
        ({"a": msgspec.msgpack.Ext(1, (-5).to_bytes(8, "big", signed=True))}, ["a"], [-5]),
        ({"_id": "x", "class": True, "ü": b"y"}, ["class", "ü", "_id"], [True, b"y", "x"]),
    ],
)
def test_fields_are_found_by_their_paths(
    document: dict[str, Any], fields: list[str], values: list[Any]
) -> None:
    assert entry(document, fields) == entry_key(7, encode_fields(values), SUFFIX)[0]


def test_entries_stand_in_the_order_of_the_indexes() -> None:
    keys, overflow = maker(["a"], ["b"]).entries(msgspec.msgpack.encode({"b": "x" * 500, "a": 1}), SUFFIX)
    whole = encode_fields(["x" * 500])
    assert keys[0] == entry_key(7, encode_fields([1]), SUFFIX)[0]
    assert overflow == {keys[1]: whole[476:]}


def test_a_table_without_indexes_decodes_nothing() -> None:
    assert maker().entries(b"not msgpack", SUFFIX) == ([], {})


def test_values_that_cannot_collide() -> None:
    unique = maker(["a", "b"])
    assert unique.unique_values(0, msgspec.msgpack.encode({"a": 1, "b": ""})) == [1, ""]
    assert unique.unique_values(0, msgspec.msgpack.encode({"a": 1, "b": None})) is None
    assert unique.unique_values(0, msgspec.msgpack.encode({"a": 1})) is None


def test_an_unknown_extension_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        entry({"a": msgspec.msgpack.Ext(9, b"x")}, ["a"])


@pytest.mark.parametrize(
    ("document", "value"),
    [
        ({}, "Utrecht"),
        ({"place": {}}, "nowhere"),
        ({"place": {"city": None}}, None),
        ({"place": {"city": "Delft"}}, "Delft"),
        ({"place": None}, MISSING),
    ],
)
def test_a_default_stands_for_a_field_that_is_missing(document: dict[str, Any], value: Any) -> None:
    encode = msgspec.msgpack.encode
    defaults = {"place": encode({"city": "Utrecht"}), "place.city": encode("nowhere")}
    index = IndexDefinition(7, 32, "by_city", ["place.city"], True, "ready", defaults)
    found = EntryMaker([index]).entries(encode(document), SUFFIX)[0][0]
    assert found == entry_key(7, encode_fields([value]), SUFFIX)[0]
    assert EntryMaker([index]).values(0, encode(document)) == [value]
