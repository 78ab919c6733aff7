"""The bundle that type checkers are shown also runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support.bundles import World, decode, encode, right_world

if TYPE_CHECKING:
    from collections.abc import Iterator

ADA = encode({"tokenIdentifier": "issuer|ada", "subject": "ada", "email": "ada@example.org"})


@pytest.fixture
def world() -> Iterator[World]:
    with right_world() as made:
        yield made


def as_ada(world: World, kind: str, name: str, /, **arguments: Any) -> Any:
    call = world.bundle.call_query if kind == "query" else world.bundle.call_mutation
    outcome = call(name, encode(arguments), world.backend, identity=ADA, internal_allowed=True)
    assert outcome.failure is None, outcome.failure
    assert outcome.result is not None
    world.last = outcome
    return decode(outcome.result.content)


def channel_of(world: World, name: str = "general") -> str:
    channel, created = world.backend.new_id("channels")
    document = {"_id": channel, "_creationTime": created, "name": name, "topic": "", "visibility": "public"}
    world.backend.documents[channel] = encode({**document, "members": []})
    return channel


def test_a_user_signs_in_writes_and_reads(world: World) -> None:
    channel = channel_of(world)
    user = as_ada(world, "mutation", "users:sign_in", name="Ada")
    sent = [
        as_ada(world, "mutation", "messages:send", channel=channel, body={"type": "text", "text": t})
        for t in "abc"
    ]

    found = world.query("messages:list", channel=channel, limit=2)

    assert [message["_id"] for message in found] == [sent[2], sent[1]]
    assert found[0] == {
        "_id": sent[2],
        "_creationTime": world.backend.now_us / 1000,
        "channel": channel,
        "author": user,
        "body": {"type": "text", "text": "c"},
        "score": None,
        "reactions": {},
        "edited": None,
        "extra": None,
    }
    assert as_ada(world, "query", "users:me")["name"] == "Ada"
    assert world.query("users:me") is None


def test_signing_in_again_changes_the_name_only(world: World) -> None:
    first = as_ada(world, "mutation", "users:sign_in", name="Ada")
    assert as_ada(world, "mutation", "users:sign_in", name="Ada L.") == first
    user = as_ada(world, "query", "users:me")
    assert (user["name"], user["email"]) == ("Ada L.", "ada@example.org")


def test_who_reads_the_identity_is_known(world: World) -> None:
    channel = channel_of(world)
    world.query("messages:list", channel=channel)
    assert not world.last.identity_read
    world.query("users:me")
    assert world.last.identity_read


def test_a_wrapper_refuses_before_the_function_runs(world: World) -> None:
    channel = channel_of(world)
    failure = world.refused(
        world.mutation, "messages:send", channel=channel, body={"type": "text", "text": "x"}
    )
    assert failure.code == "application_error"
    assert decode(failure.data or b"") == {"code": "signed_out"}


def test_edit_matches_patches_and_replaces(world: World) -> None:
    channel = channel_of(world)
    as_ada(world, "mutation", "users:sign_in", name="Ada")
    message = as_ada(
        world, "mutation", "messages:send", channel=channel, body={"type": "text", "text": "old"}
    )
    as_ada(world, "mutation", "messages:edit", message=message, text="new")
    stored = decode(world.backend.documents[message])
    assert stored["score"] == 1.0
    assert stored["edited"] is None  # the replacement was made from the document as it had been read


def test_joined_rows_and_bounds(world: World) -> None:
    channel = channel_of(world)
    as_ada(world, "mutation", "users:sign_in", name="Ada")
    for score in (1.0, 3.0, 2.0):
        message = as_ada(
            world, "mutation", "messages:send", channel=channel, body={"type": "text", "text": "x"}
        )
        document = decode(world.backend.documents[message])
        world.backend.documents[message] = encode({**document, "score": score})
    rows = world.query("messages:best", channel=channel, at_least=2)
    assert [(row["message"]["score"], row["author"]) for row in rows] == [(3.0, "Ada"), (2.0, "Ada")]


def test_nested_index_field_and_normalized_ids(world: World) -> None:
    user = as_ada(world, "mutation", "users:sign_in", name="Ada")
    document = decode(world.backend.documents[user])
    world.backend.documents[user] = encode({**document, "profile": {"city": "London", "bio": ""}})
    assert [found["_id"] for found in world.query("users:in_city", city="London")] == [user]
    assert world.query("users:in_city", city="Paris") == []
    assert world.mutation("messages:expire_all", text=user) == 0


def test_expire_reads_by_creation_time(world: World) -> None:
    channel = channel_of(world)
    as_ada(world, "mutation", "users:sign_in", name="Ada")
    for _ in range(3):
        as_ada(world, "mutation", "messages:send", channel=channel, body={"type": "text", "text": "x"})
    assert world.mutation("messages:expire", older_than=0.0) == 0
    world.backend.now_us += 1000
    assert world.mutation("messages:expire_all", text=channel) == 3


def test_a_datetime_result(world: World) -> None:
    channel = channel_of(world)
    assert world.query("messages:newest", channel=channel) is None
    as_ada(world, "mutation", "users:sign_in", name="Ada")
    as_ada(world, "mutation", "messages:send", channel=channel, body={"type": "text", "text": "x"})
    assert world.query("messages:newest", channel=channel).timestamp() == world.backend.now_us / 1e6


def test_the_manifest_is_complete_and_comes_back_from_json(world: World) -> None:
    manifest = world.manifest
    assert type(manifest).from_json(manifest.to_json()) == manifest
    assert [table.name for table in manifest.tables] == ["channels", "messages", "users"]
    messages = manifest.tables[1]
    assert [(index.name, index.fields, index.unique) for index in messages.indexes] == [
        ("by_channel", ("channel",), False),
        ("by_channel_score", ("channel", "score"), False),
    ]
    assert manifest.tables[2].indexes[0].fields == ("profile.city",)
    listed = next(function for function in manifest.functions if function.name == "messages:list")
    assert (listed.kind, listed.internal) == ("query", False)
    assert listed.doc == "The newest messages of a channel. Clients call it `messages:list`."
    assert listed.arguments == {
        "type": "object",
        "properties": {
            "channel": {"type": "string", "x-table": "channels"},
            "limit": {"type": "integer", "minimum": 1, "maximum": 200, "default": 50},
        },
        "required": ["channel"],
        "additionalProperties": False,
    }
    assert (
        msgspec.json.decode(messages.shape)["$defs"]["Message"]["properties"]["author"]["x-table"] == "users"
    )
    assert {function.name for function in manifest.functions if function.internal} == {
        "answers:joined",
        "messages:expire",
    }
