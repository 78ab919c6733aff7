"""Stubs of any bundle are a module that runs, says the same each time and reaches every function that clients may call."""

from __future__ import annotations

import typing
from typing import Any

import pytest
from headwater.client.references import MutationReference, PagedReference, QueryReference, Reference
from headwater.stubs import python_stubs
from headwater_protocol.manifest import FunctionManifest, Manifest, TableManifest
from support.manifests import RandomFunctions, function


def loaded(*functions: FunctionManifest, tables: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the names of the module made of functions."""
    manifest = Manifest(tuple(TableManifest(name, "{}") for name in tables), functions)
    text = python_stubs(manifest)
    assert text == python_stubs(Manifest.from_json(manifest.to_json()))
    module: dict[str, Any] = {"__name__": "api"}
    exec(compile(text, "api.py", "exec"), module)
    for item in [item for item in module.values() if typing.is_typeddict(item)]:
        typing.get_type_hints(item, module, {})
    return module


def reached(space: Any) -> list[Reference]:
    found = []
    for name, item in vars(space).items():
        if isinstance(item, Reference):
            found.append(item)
        elif isinstance(item, type) and not name.startswith("__"):
            found += reached(item)
    return found


def paths(module: dict[str, Any]) -> list[str]:
    spaces = [item for item in module.values() if isinstance(item, type) and not typing.is_typeddict(item)]
    return sorted(item.path for space in spaces for item in reached(space))


def test_internal_functions_are_left_out_and_actions_know_their_form() -> None:
    acts = [function("a:act", kind="action"), function("a:flow", kind="action", stream=True)]
    module = loaded(function("a:seen"), function("a:hidden", internal=True), *acts)
    assert paths(module) == ["a:act", "a:flow", "a:seen"]
    assert type(module["a"].act).__name__ == "ActionReference"
    assert type(module["a"].flow).__name__ == "StreamReference"


def test_a_stub_knows_its_kind_and_its_page_options() -> None:
    page = {"page": {"type": "array", "items": {"type": "string"}}, "isDone": {}, "continueCursor": {}}
    options = {"numItems": {"type": "integer"}, "cursor": {}, "endCursor": {}, "id": {}}
    arguments = {
        "type": "object",
        "properties": {"how": {"$ref": "#/$defs/PageOptions"}},
        "required": ["how"],
        "$defs": {"PageOptions": {"type": "object", "properties": options, "required": ["numItems"]}},
    }
    returns = {
        "$ref": "#/$defs/str_",
        "$defs": {"str_": {"type": "object", "properties": page, "required": sorted(page)}},
    }
    module = loaded(
        function("m:plain"),
        function("m:pages", arguments=arguments, returns=returns),
        function("m:write", kind="mutation"),
    )
    space = module["m"]
    assert type(space.plain) is QueryReference
    assert type(space.pages) is PagedReference
    assert type(space.write) is MutationReference
    assert space.pages.page_argument == "how"
    assert module["_m__pages__rows"].__annotations__ == {"return": "str"}
    with pytest.raises(TypeError, match="handed to a client"):
        module["_m__pages__rows"]()


def test_names_that_python_has_or_that_meet_are_told_apart() -> None:
    ref = {"$ref": "#/$defs/Row", "$defs": {"Row": {"type": "object", "properties": {}, "required": []}}}
    odd = {
        "$ref": "#/$defs/Row",
        "$defs": {
            "Row": {
                "type": "object",
                "properties": {"class": {"type": "integer"}, "a-b": {"$ref": "#/$defs/Row"}},
                "required": ["a-b", "class"],
            }
        },
    }
    module = loaded(
        function("a/b:c", returns=ref),
        function("a_b:c", returns=odd),
        function("a:b"),
        function("list:import", returns={"type": "array", "items": {"type": "integer"}}),
        function("datetime:now", returns={"type": "string", "format": "date-time"}),
        function("typing:list", returns={"anyOf": [{"enum": ["x", 'a"b', 1, True]}, {"type": "null"}]}),
        function("Row:Row"),
        tables=("row", "lists of_things", "Row"),
    )
    assert paths(module) == sorted(
        ["a/b:c", "a_b:c", "a:b", "list:import", "datetime:now", "typing:list", "Row:Row"]
    )
    assert module["list_"].import_.path == "list:import"
    assert module["a"].b_.path == "a:b"
    assert module["a"].b.c.path == "a/b:c"
    assert module["Row"].Row.path == "Row:Row"
    assert module["RowId"].__name__ == "RowId"
    assert module["RowId_2"].__name__ == "RowId_2"
    assert "ListsOfThingsId" in module
    assert set(typing.get_type_hints(module["Row_3"], module, {})) == {"class", "a-b"}


@pytest.mark.parametrize(
    "doc", ['says "quoted"', "ends in a \\", 'has """ in it', "two\n\nlines", "\\N{DASH}", '"']
)
def test_docstrings_come_through(doc: str) -> None:
    module = loaded(function("m:f", doc=doc))
    assert module["m"].f.path == "m:f"


def test_what_may_be_left_out_of_arguments_is_there_in_results() -> None:
    defs = {
        "Profile": {
            "type": "object",
            "properties": {"city": {"type": "string", "default": ""}, "name": {"type": "string"}},
            "required": ["name"],
        }
    }
    arguments = {
        "type": "object",
        "properties": {
            "profile": {"$ref": "#/$defs/Profile"},
            "size": {"type": "number", "default": float("inf")},
        },
        "required": ["profile"],
        "$defs": defs,
    }
    module = loaded(function("m:f", arguments=arguments, returns={"$ref": "#/$defs/Profile", "$defs": defs}))
    assert module["Profile"].__required_keys__ == {"city", "name"}
    assert set(typing.get_type_hints(module["ProfileInput"], module, {})) == {"city", "name"}
    assert "NotRequired" in str(module["ProfileInput"].__annotations__["city"])


def test_a_default_that_is_text_in_json_alone_is_none_of_the_stub() -> None:
    seal = {"type": "string", "contentEncoding": "base64", "default": "AP8="}
    day = {"type": "string", "format": "date-time"}
    arguments = {
        "type": "object",
        "properties": {
            "at": {**day, "default": "2026-01-01T00:00:00Z"},
            "color": {"enum": ["red"], "default": "red"},
            "maybe": {"anyOf": [day, {"type": "null"}], "default": "2026-01-01T00:00:00Z"},
            "seal": seal,
        },
        "required": [],
    }
    text = python_stubs(Manifest((), (function("m:f", arguments=arguments),)))
    assert "at: _dt.datetime = _r.ABSENT" in text
    assert 'color: _t.Literal["red"] = "red"' in text
    assert "maybe: _dt.datetime | None = _r.ABSENT" in text
    assert "seal: bytes = _r.ABSENT" in text


@pytest.mark.parametrize("seed", range(100))
def test_the_stubs_of_any_functions_run_and_reach_them(seed: int) -> None:
    some = RandomFunctions(seed)
    found = {item.name: item for item in (some.function() for _ in range(6))}
    module = loaded(*(item for _, item in sorted(found.items())), tables=("rows",))
    assert paths(module) == sorted(found)
