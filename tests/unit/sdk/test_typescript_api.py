"""What TypeScript is told of a bundle: the types of values as clients get them, names, docs and page options."""

from __future__ import annotations

from typing import Any

import pytest
from headwater.typescript_api import typescript_api
from headwater_protocol.manifest import FunctionManifest, Manifest, TableManifest, canonical_json
from support.manifests import function


def made(*functions: FunctionManifest, tables: tuple[TableManifest, ...] = ()) -> str:
    return typescript_api(Manifest(tables, functions))


def struct(properties: dict[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": sorted(required), **more}


def document(table: str, name: str, **fields: Any) -> dict[str, Any]:
    shape = struct({"_id": {"type": "string", "x-table": table}, **fields}, "_id", *fields)
    return {"$ref": f"#/$defs/{name}", "$defs": {name: shape}}


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({}, "Value"),
        ({"type": "null"}, "null"),
        ({"type": "boolean"}, "boolean"),
        ({"type": "integer", "minimum": 0}, "number"),
        ({"type": "integer", "x-int64": True}, "bigint"),
        ({"type": "number"}, "number"),
        ({"type": "string", "minLength": 1}, "string"),
        ({"type": "string", "format": "date-time"}, "Date"),
        ({"type": "string", "format": "uuid"}, "string"),
        ({"type": "string", "contentEncoding": "base64"}, "Uint8Array"),
        ({"type": "string", "x-table": "a-b"}, 'Id<"a-b">'),
        ({"const": "text"}, '"text"'),
        ({"enum": ["a", 'q"', 1, True, None]}, '"a" | "q\\"" | 1 | true | null'),
        ({"enum": []}, "never"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}, {"type": "null"}]}, "number | null"),
        ({"type": "array", "items": {"type": "string"}}, "readonly string[]"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, 'readonly ("a" | "b")[]'),
        ({"type": "array", "prefixItems": [{"type": "null"}, {}], "items": False}, "readonly [null, Value]"),
        ({"type": "object", "additionalProperties": {}}, "Readonly<Record<string, Value>>"),
        (
            {
                "type": "object",
                "additionalProperties": {"type": "number"},
                "propertyNames": {"enum": ["a", "b"]},
            },
            'Readonly<Partial<Record<"a" | "b", number>>>',
        ),
        (
            {
                "type": "object",
                "additionalProperties": {},
                "propertyNames": {"type": "string", "x-table": "t"},
            },
            'Readonly<Record<Id<"t">, Value>>',
        ),
    ],
)
def test_values_have_the_types_in_which_clients_get_them(schema: dict[str, Any], written: str) -> None:
    assert f'f: FunctionReference<"query", Record<string, never>, {written}>;' in made(
        function("m:f", returns=schema)
    )


def test_internal_functions_are_left_out_and_actions_are_not() -> None:
    flow = function("a:flow", kind="action", stream=True)
    text = made(function("a:seen", kind="action"), flow, function("a:hidden", internal=True))
    assert 'seen: FunctionReference<"action"' in text
    assert 'flow: FunctionReference<"stream"' in text
    assert "hidden" not in text


def test_documents_stand_under_their_tables_and_are_told_once() -> None:
    shown = document("rows", "Row", **{"class": {"type": "string"}, "a-b": {"type": "null"}})
    shown["$defs"]["Row"]["description"] = "What is told of it."
    shape = document("rows", "Row", **{"class": {"type": "string"}, "a-b": {"type": "null"}})
    other = document("other-rows", "Row")
    text = made(
        function("m:f", returns=shown),
        tables=(
            TableManifest("other-rows", canonical_json(other)),
            TableManifest("rows", canonical_json(shape)),
        ),
    )
    assert '  readonly "other-rows": Row_2;\n  readonly rows: Row;\n' in text
    assert "/** What is told of it. */\nexport type Row = {\n" in text
    assert '  readonly "a-b": null;\n  readonly class: string;\n' in text
    assert text.count("export type Row") == 2


def test_what_may_be_left_out_of_arguments_is_there_in_results() -> None:
    profile = struct({"city": {"type": "string", "default": ""}, "name": {"type": "string"}}, "name")
    argument = struct(
        {"profile": {"$ref": "#/$defs/Profile"}, "size": {"type": "number", "default": 1}}, "profile"
    )
    defs = {"Profile": profile}
    text = made(
        function(
            "m:f", arguments={**argument, "$defs": defs}, returns={"$ref": "#/$defs/Profile", "$defs": defs}
        )
    )
    assert "export type Profile = {\n  readonly city: string;\n  readonly name: string;\n};" in text
    assert "export type ProfileInput = {\n  readonly city?: string | undefined;\n" in text
    assert "{ profile: ProfileInput; size?: number | undefined }, Profile>" in text


def test_what_is_said_of_functions_and_fields_comes_along() -> None:
    argument = struct({"text": {"type": "string", "description": "What is looked for."}}, "text")
    text = made(
        function("m:one", doc="Ends the comment */ early?"),
        function("m:two", doc="First.\n\n    code\nLast.", arguments=argument),
    )
    assert "    /** Ends the comment *\\/ early? */\n    one: " in text
    assert "    /**\n     * First.\n     *\n     *     code\n     * Last.\n     */\n    two: " in text
    assert '"query", {\n      /** What is looked for. */\n      text: string;\n    }, null>;' in text


def test_names_that_typescript_has_or_that_meet_are_told_apart() -> None:
    named = {name: struct({}) for name in ("Date", "Value", "class", "Row")}
    text = made(
        *(function(f"m:{name}", returns={"$ref": f"#/$defs/{name}", "$defs": named}) for name in named),
        function("m:other", returns={"$ref": "#/$defs/Row", "$defs": {"Row": struct({"a": {}}, "a")}}),
        function("m:delete"),
        function("m:m:odd name"),
        function("m/delete:deep"),
    )
    for name in ("Date_2", "Value_2", "class_2", "Row", "Row_2"):
        assert f"export type {name} = " in text
    assert '    delete: FunctionReference<"query", Record<string, never>, null> & {\n      deep: ' in text


def test_page_options_that_are_called_otherwise_are_told_at_run_time() -> None:
    options = struct({"numItems": {"type": "integer"}, "cursor": {}, "endCursor": {}, "id": {}}, "numItems")
    page = struct(
        {"page": {"type": "array", "items": {"type": "string"}}, "isDone": {}, "continueCursor": {}}
    )
    returns = {"$ref": "#/$defs/Page_str_", "$defs": {"Page_str_": page}}

    def paged(name: str, argument: str) -> FunctionManifest:
        arguments = struct({argument: {"$ref": "#/$defs/PageOptions"}}, argument)
        return function(name, arguments={**arguments, "$defs": {"PageOptions": options}}, returns=returns)

    usual = made(paged("m:f", "options"))
    assert 'f: FunctionReference<"query", { options: PageOptions }, Page<string>>;' in usual
    assert usual.endswith("export const api = makeApi<Api>();\n")
    assert made(paged("m:f", "how")).endswith('export const api = makeApi<Api>({"m:f": "how"});\n')
