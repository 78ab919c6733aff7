"""Tables are real classes: they compare, match, print, pickle; their fields are pointers."""

from __future__ import annotations

import copy
import pickle
from typing import Annotated, Any

import msgspec
import pytest
from headwater import Id, Index, Meta, Struct, Table, replace
from headwater.annotations import Tables
from headwater.fields import FieldRef
from headwater.json_schema import schema_of, shape_of
from headwater_protocol.errors import RequestError
from msgspec import inspect as kinds


class Profile(Struct, frozen=True):
    """Who somebody is."""

    city: str | None = None


class User(Table, name="users"):
    name: str
    profile: Profile = Profile()
    tags: list[str] = []  # noqa: RUF012 - each document gets its own

    by_name = Index("name", unique=True)
    by_city = Index("profile.city", "name")


class Plain(Table):
    number: int = 0


ADA = User(name="ada")


def test_a_table_is_a_frozen_struct() -> None:
    assert isinstance(ADA, msgspec.Struct)
    assert User(name="ada") == ADA
    assert ADA.id is msgspec.UNSET  # type: ignore[comparison-overlap]
    assert repr(ADA).startswith("User(id=UNSET, creation_time_ms=UNSET, name='ada'")
    assert pickle.loads(pickle.dumps(ADA)) == ADA
    assert copy.deepcopy(ADA) == ADA
    with pytest.raises(AttributeError):
        ADA.name = "eve"  # type: ignore[misc]
    with pytest.raises(TypeError):
        User("ada")  # type: ignore[misc,call-arg]
    match ADA:
        case User(name=name):
            assert name == "ada"


def test_defaults_are_not_shared() -> None:
    ADA.tags.append("x")
    assert User(name="eve").tags == []
    ADA.tags.clear()


def test_names_of_tables() -> None:
    assert User.__table__ == "users"
    assert Plain.__table__ == "plain"


def test_class_attributes_are_pointers() -> None:
    field: Any = User.profile.city
    assert isinstance(field, FieldRef)
    assert (field.table, field.path, repr(field)) == (User, "profile.city", "User.profile.city")
    assert repr(User.id) == "User.id"
    with pytest.raises(TypeError, match="is a field, not a value"):
        bool(field)
    with pytest.raises(AttributeError):
        field.__wrapped__  # noqa: B018
    with pytest.raises(AttributeError):
        User.nothing  # type: ignore[attr-defined]  # noqa: B018


def test_indexes_know_their_table() -> None:
    assert repr(User.by_city) == "User.by_city(profile.city, name)"
    assert User.by_name.unique
    assert User.by_name is User.by_name
    assert (User.by_city.table, User.by_city.fields) == (User, ("profile.city", "name"))


def test_replace_makes_a_checked_copy() -> None:
    eve = replace(ADA, name="eve")
    assert (eve.name, ADA.name) == ("eve", "ada")
    for changes in ({"name": 5}, {"nme": "x"}, {"id": "x"}, {"tags": {1}}, {"creation_time_ms": 1.0}):
        with pytest.raises(RequestError) as caught:
            replace(ADA, **changes)  # type: ignore[arg-type]
        assert caught.value.code == "invalid_document"


def test_ids_are_text_at_run_time() -> None:
    assert type(Id[User]("x")) is str
    text: Any = Id("x")
    assert text == "x"
    assert msgspec.json.decode(b'"' + b"1" * 33 + b'"', type=Id[User]) == "1" * 33
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(b'"x"', type=Id[User])


def shape(table: Any) -> str:
    return shape_of(table, Tables([table]))


def test_the_shape_is_the_stored_form_and_nothing_else() -> None:
    def table(**fields: Any) -> Any:
        annotations = {name: value for name, (value, *_) in fields.items()}
        defaults = {name: rest[0] for name, (_, *rest) in fields.items() if rest}
        return type(Table)(
            "T", (Table,), {"__annotations__": annotations, "__module__": __name__, **defaults}
        )

    base = table(a=(int,), b=(str, "x"))
    same = (
        table(b=(str, "x"), a=(int,)),
        table(a=(Annotated[int, Meta(description="how many")],), b=(str, "x")),
    )
    other = (
        table(a=(float,), b=(str, "x")),
        table(a=(int,), b=(str, "y")),
        table(a=(int,), b=(str,)),
        table(a=(int,)),
        table(a=(int | None,), b=(str, "x")),
        table(a=(int,), b=(Id["T"], "x")),
        table(a=(int,), b=(bytes, b"x")),
    )
    assert {shape(table) for table in same} == {shape(base)}
    assert len({shape(base), *map(shape, other)}) == len(other) + 1


def test_schemas_describe_what_agents_need() -> None:
    tables = Tables([User])
    schema = schema_of(kinds.type_info(list[User]), tables)
    assert schema["items"] == {"$ref": "#/$defs/User"}
    assert schema["$defs"]["Profile"]["description"] == "Who somebody is."
    user = schema["$defs"]["User"]
    assert user["required"] == ["_creationTime", "_id", "name"]
    assert user["properties"]["_id"] == {"type": "string", "x-table": "users"}
    assert user["properties"]["tags"] == {"type": "array", "items": {"type": "string"}, "default": []}
    assert user["properties"]["profile"] == {"$ref": "#/$defs/Profile", "default": {"city": None}}
    sent = schema_of(kinds.type_info(list[User]), tables, sent=True)
    assert sent["$defs"]["User"]["required"] == ["name"]
    described = schema_of(kinds.type_info(Annotated[int, Meta(ge=1, description="how many")]), tables)
    assert described == {"type": "integer", "minimum": 1, "description": "how many"}
