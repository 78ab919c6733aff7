"""What sessions of Convex's clients ask of the system, and the validators that tell what functions take."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from headwater_protocol.errors import RequestError
from headwater_server.convex.validators import validator_of
from headwater_server.net.keys import hash_key
from support.hub_place import JsonSink, Place, convex_client, tell

KEY = "the key of this deployment"


class Doors:
    """Answers when it is told to; who asks is told in the answer."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.asked: list[str] = []

    async def query(self, name: str, arguments: bytes, asker: Any) -> bytes:
        self.asked.append(name)
        await self.open.wait()
        if not asker.rights:
            raise RequestError("no key", code="unauthenticated")
        if "broken" in name:
            raise ValueError("a fault of ours")
        return msgspec.msgpack.encode(name)


def place_with(doors: Doors) -> Place:
    place = Place()
    place.hub.keys.replace(hash_key(KEY))
    place.hub.system = doors  # type: ignore[assignment]
    return place


def modify(client: Any, base: int, *changes: dict[str, Any]) -> None:
    tell(client, "ModifyQuerySet", baseVersion=base, newVersion=base + 1, modifications=changes)


def add(query: int, path: str) -> dict[str, Any]:
    return {"type": "Add", "queryId": query, "udfPath": path, "args": [{}]}


def remove(query: int) -> dict[str, Any]:
    return {"type": "Remove", "queryId": query}


def brought(sink: JsonSink) -> list[tuple[int, str, Any]]:
    """Return what transitions brought, and check that each begins where the last one ended."""
    found, at = [], {"querySet": 0, "identity": 0, "ts": "AAAAAAAAAAA="}
    for message in sink.messages:
        if message["type"] == "Transition":
            assert message["startVersion"] == at
            at = message["endVersion"]
            for change in message["modifications"]:
                told = change.get("value", change.get("errorMessage"))
                found.append((change["queryId"], change["type"], told))
    return found


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_answers_come_with_transitions_and_are_not_asked_of_the_core() -> None:
    doors = Doors()
    client, sink = convex_client(place_with(doors))
    tell(client, "Authenticate", tokenType="Admin", value=KEY, baseVersion=0)
    modify(client, 0, add(0, "_system/cli/a"), add(1, "_system/cli/broken"))
    await settled()
    assert brought(sink) == []
    doors.open.set()
    await settled()
    first, second = brought(sink)
    assert first == (0, "QueryUpdated", "_system/cli/a:default")
    assert (second[0], second[1]) == (1, "QueryFailed")
    assert "fault of ours" not in second[2]
    modify(client, 1, remove(0), remove(1))
    assert brought(sink)[2:] == [(0, "QueryRemoved", None), (1, "QueryRemoved", None)]


async def test_what_was_removed_before_it_was_answered_is_not_told() -> None:
    doors = Doors()
    client, sink = convex_client(place_with(doors))
    tell(client, "Authenticate", tokenType="Admin", value=KEY, baseVersion=0)
    modify(client, 0, add(0, "_system/cli/a"), add(1, "_system/cli/b"))
    await settled()
    modify(client, 1, remove(0))
    doors.open.set()
    await settled()
    assert [told[:2] for told in brought(sink)] == [(1, "QueryUpdated")]


async def test_what_comes_and_goes_unseen_leaves_nothing() -> None:
    doors = Doors()
    client, sink = convex_client(place_with(doors))
    tell(client, "Authenticate", tokenType="Admin", value=KEY, baseVersion=0)
    for number in range(20):
        modify(client, 2 * number, add(number, "_system/cli/a"))
        modify(client, 2 * number + 1, remove(number))
    doors.open.set()
    await settled()
    assert brought(sink) == []


async def test_what_was_asked_with_a_key_that_is_shown_no_more_is_not_told() -> None:
    doors = Doors()
    client, sink = convex_client(place_with(doors))
    tell(client, "Authenticate", tokenType="Admin", value=KEY, baseVersion=0)
    modify(client, 0, add(0, "_system/cli/a"))
    await settled()
    tell(client, "Authenticate", tokenType="None", baseVersion=1)
    doors.open.set()
    await settled()
    ((query, kind, _),) = brought(sink)
    assert (query, kind, doors.asked) == (0, "QueryFailed", ["_system/cli/a:default"] * 2)


async def test_a_client_that_has_left_is_told_nothing() -> None:
    doors = Doors()
    client, sink = convex_client(place_with(doors))
    modify(client, 0, add(0, "_system/cli/a"))
    await settled()
    before = len(sink.messages)
    client.lost()
    doors.open.set()
    await settled()
    assert len(sink.messages) == before


@pytest.mark.parametrize(
    ("schema", "validator"),
    [
        ({}, {"type": "any"}),
        ({"type": "integer", "x-int64": True}, {"type": "bigint"}),
        ({"type": "integer", "minimum": 1}, {"type": "number"}),
        ({"enum": ["a", 2]}, {"type": "union", "value": [{"type": "literal", "value": "a"}, {"type": "literal", "value": 2}]}),
        ({"enum": ["a"]}, {"type": "literal", "value": "a"}),
        ({"anyOf": [{"type": "string"}, {"type": "string", "format": "date-time"}]}, {"type": "string"}),
        ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, {"type": "array", "value": {"type": "null"}}),
        (
            {"type": "object", "additionalProperties": {"type": "boolean"}},
            {"type": "record", "keys": {"type": "string"}, "values": {"fieldType": {"type": "boolean"}, "optional": False}},
        ),
        (
            {"type": "object", "properties": {"é": {}, "a": {"x-table": "users", "type": "string"}}, "required": []},
            {"type": "object", "value": {"a": {"fieldType": {"type": "id", "tableName": "users"}, "optional": True}}},
        ),
        (
            {"$ref": "#/$defs/Tree", "$defs": {"Tree": {"type": "object", "properties": {"of": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}, "required": ["of"]}}},
            {"type": "object", "value": {"of": {"fieldType": {"type": "array", "value": {"type": "any"}}, "optional": False}}},
        ),
    ],
)  # fmt: skip
def test_a_schema_becomes_a_validator(schema: dict[str, Any], validator: dict[str, Any]) -> None:
    assert validator_of(schema) == validator
