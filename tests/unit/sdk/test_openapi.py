from __future__ import annotations

import json
import re
from typing import Any

from headwater.openapi import http_path, openapi
from headwater_protocol.manifest import FunctionManifest, Manifest
from headwater_protocol.route_manifest import RouteManifest

NOTE = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Note"}}, "required": []}


def function(name: str, arguments: Any = None, returns: Any = None, **more: Any) -> FunctionManifest:
    kind = more.pop("kind", "query")
    given = arguments or {"type": "object", "properties": {}}
    return FunctionManifest(name, kind, more.pop("internal", False), given, returns or {}, **more)


def document(*functions: FunctionManifest) -> dict[str, Any]:
    return openapi(Manifest((), functions), "1.2")


def test_each_function_that_clients_may_call_has_an_address() -> None:
    made = document(
        function("dir/m:list"), function("m:hidden", internal=True), function("m:act", kind="action")
    )
    assert (
        list(made["paths"])
        == ["/api/run/dir/m/list", "/api/run/m/act"]
        == [*map(http_path, ("dir/m:list", "m:act"))]
    )
    assert made["openapi"].startswith("3.1")


def test_documentation_and_required_arguments_are_carried_over() -> None:
    arguments = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    made = document(function("m:f", arguments, {"type": "string"}, doc="First line.\n\nMore of it."))
    post = made["paths"]["/api/run/m/f"]["post"]
    assert (post["summary"], post["description"], post["operationId"]) == (
        "First line.",
        "More of it.",
        "m.f",
    )
    body = post["requestBody"]["content"]["application/json"]["schema"]
    assert body["properties"]["args"] == arguments
    assert body["required"] == ["args"]
    success, failure = post["responses"]["200"]["content"]["application/json"]["schema"]["oneOf"]
    assert success["properties"]["value"] == {"type": "string"}
    assert failure == {"$ref": "#/components/schemas/Error"}


def test_definitions_stand_once_and_those_of_one_name_keep_apart() -> None:
    same = {"$ref": "#/$defs/Note", "$defs": {"Note": NOTE}}
    other = {"$ref": "#/$defs/Note", "$defs": {"Note": {"type": "object", "properties": {}, "required": []}}}
    error = {"$ref": "#/$defs/Error", "$defs": {"Error": {"type": "object"}}}
    made = document(
        function("m:a", returns=same),
        function("m:b", returns=same),
        function("m:c", returns=other),
        function("m:d", returns=error),
    )
    schemas = made["components"]["schemas"]
    assert sorted(schemas) == ["Error", "Note", "m.c.Note", "m.d.Error"]
    assert schemas["Note"]["properties"]["next"] == {"$ref": "#/components/schemas/Note"}
    references = re.findall(r'"\$ref": "([^"]*)"', json.dumps(made))
    assert {one.removeprefix("#/components/schemas/") for one in references} == set(schemas)


def test_what_is_sent_and_received_otherwise_has_two_names() -> None:
    number = {"type": "integer", "x-int64": True}
    row = {"type": "object", "properties": {"n": number}, "required": ["n"]}
    bag = {"type": "object", "properties": {"row": {"$ref": "#/$defs/Row"}}, "required": ["row"]}
    given = {
        "type": "object",
        "properties": {"bag": {"$ref": "#/$defs/Bag"}},
        "$defs": {"Bag": bag, "Row": row},
    }
    made = document(
        function("m:add", given),
        function("m:all", returns={"$ref": "#/$defs/Bag", "$defs": {"Bag": bag, "Row": row}}),
    )
    schemas = made["components"]["schemas"]
    assert sorted(schemas) == ["Bag", "BagInput", "Error", "Row", "RowInput"]
    assert schemas["BagInput"]["properties"]["row"] == {"$ref": "#/components/schemas/RowInput"}
    assert schemas["Bag"]["properties"]["row"] == {"$ref": "#/components/schemas/Row"}
    assert schemas["RowInput"]["properties"]["n"] == number
    assert schemas["Row"]["properties"]["n"] == {"type": "string", "format": "int64"}


def test_routes_stand_below_where_they_are_served() -> None:
    number = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    none = {"type": "object", "properties": {}}
    routes = (
        RouteManifest("GET", "/a/{n}", "m:get", number, None, "What it does."),
        RouteManifest("DELETE", "/a/{n}", "m:delete", number),
        RouteManifest("GET", "/files/{path:rest}", "m:files", none),
    )
    paths = openapi(Manifest((), (), (), routes), "1")["paths"]
    assert list(paths) == ["/http/a/{n}", "/http/files/{path}"]
    assert list(paths["/http/a/{n}"]) == ["get", "delete"]
    get = paths["/http/a/{n}"]["get"]
    assert (get["summary"], get["operationId"]) == ("What it does.", "m.get")
    assert get["parameters"] == [{"name": "n", "in": "path", "required": True, "schema": {"type": "integer"}}]
