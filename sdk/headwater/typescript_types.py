"""TypeScript types of the JSON schemas in a manifest, as clients get and send their values.

Pure. Structs and documents become type aliases, which unlike interfaces are assignable to `Value`. Everything is
`readonly`: results are frozen, and what is sent may be part of one.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from headwater_protocol.manifest import canonical_json

from headwater.signatures import OPTION_FIELDS, PAGE_FIELDS, REFERENCE, leaves_out, reached, title_of

if TYPE_CHECKING:
    from collections.abc import Iterator

INDENT = "  "
_WORDS = """
any async await bigint boolean break case catch class const continue debugger default delete do else enum export
extends false finally for function if implements import in instanceof interface let never new null number object
package private protected public return static string super switch symbol this throw true try type typeof
undefined unknown var void while with yield
AnyId Api Date Doc Docs FunctionReference Id Page PageOptions Partial ReadonlyArray Readonly Record Uint8Array
Value api makeApi
"""
_RESERVED = frozenset(_WORDS.split())


class Types:
    """The named types of one generated file."""

    def __init__(self) -> None:
        self._taken: set[str] = {*_RESERVED}
        self._documents: dict[str, str] = {}
        self._structs: dict[tuple[str, str, bool], str] = {}
        self._texts: dict[str, str] = {}

    def definitions(self) -> list[str]:
        """Return the texts of the named types, in the order in which they were first met."""
        return list(self._texts.values())

    def type_of(self, schema: dict[str, Any], defs: dict[str, Any], *, sent: bool) -> str:
        """Return the type of a schema.

        Args:
            schema: What stands at this place.
            defs: What its references mean.
            sent: Whether it is an argument: fields with defaults may then be left out.
        """
        match schema:
            case {"$ref": str(reference)}:
                return self._struct(reference.removeprefix(REFERENCE), defs, sent=sent)
            case {"anyOf": list(alternatives)}:
                found = [self.type_of(item, defs, sent=sent) for item in alternatives]
                return " | ".join(dict.fromkeys(found))
            case {"enum": list(values)}:
                return " | ".join(map(_literal, values)) or "never"
            case {"const": value}:
                return _literal(value)
            case {"x-table": str(table)}:
                # A table of the system is not among the documents that the module describes.
                return f"{'AnyId' if table.startswith('_') else 'Id'}<{quoted(table)}>"
            case {"type": "array", "prefixItems": list(items)}:
                return f"readonly [{', '.join(self.type_of(item, defs, sent=sent) for item in items)}]"
            case {"type": "array", "items": dict(item)}:
                element = self.type_of(item, defs, sent=sent)
                return f"readonly {f'({element})' if ' ' in element else element}[]"
            case {"type": "object", "additionalProperties": dict(item)}:
                return self._record(schema.get("propertyNames"), self.type_of(item, defs, sent=sent))
        return _leaf(schema)

    def _record(self, names: dict[str, Any] | None, element: str) -> str:
        match names:
            case {"enum": list(keys)}:
                return f"Readonly<Partial<Record<{' | '.join(map(_literal, keys))}, {element}>>>"
            case {"x-table": str(table)}:
                return f"Readonly<Record<Id<{quoted(table)}>, {element}>>"
        return f"Readonly<Record<string, {element}>>"

    def fields(
        self, schema: dict[str, Any], defs: dict[str, Any], *, sent: bool
    ) -> Iterator[tuple[str, str]]:
        """Yield for each field of an object its doc comment and how it is written."""
        required = schema.get("required", ())
        for key, item in schema["properties"].items():
            text = self.type_of(item, defs, sent=sent)
            # What is undefined is not sent.
            absent = ("?", " | undefined") if sent and key not in required else ("", "")
            yield comment(item.get("description", "")), f"{property_name(key)}{absent[0]}: {text}{absent[1]}"

    def document(self, table: str, shape: dict[str, Any]) -> str:
        """Return the type of a table's documents, made of its shape unless a function has shown them."""
        if table not in self._documents:
            self._struct(shape["$ref"].removeprefix(REFERENCE), shape["$defs"], sent=False)
        return self._documents[table]

    def _struct(self, name: str, defs: dict[str, Any], *, sent: bool) -> str:
        """Return how to write a struct; what is sent has a type of its own if anything may be left out of it."""
        definition = defs[name]
        properties = definition["properties"]
        if set(properties) == PAGE_FIELDS:
            return f"Page<{self.type_of(properties['page'].get('items', {}), defs, sent=sent)}>"
        if set(properties) >= OPTION_FIELDS:
            return "PageOptions"
        found = reached(name, defs)
        optional = sent and leaves_out(found.values())
        table = properties.get("_id", {}).get("x-table")
        if table is not None and not optional:
            # Its shape may say the same without what is told of it.
            if table not in self._documents:
                self._documents[table] = mine = self._new(name)
                self._define(mine, definition, defs, sent=False)
            return self._documents[table]
        key = name, canonical_json(found), optional
        if key not in self._structs:
            self._structs[key] = mine = self._new(title_of(name, definition) + ("Input" if optional else ""))
            self._define(mine, definition, defs, sent=optional)
        return self._structs[key]

    def _define(self, name: str, definition: dict[str, Any], defs: dict[str, Any], *, sent: bool) -> None:
        self._texts[name] = ""  # keeps its place before those it names
        fields = [f"{doc}readonly {text}" for doc, text in self.fields(definition, defs, sent=sent)]
        self._texts[name] = (
            f"{comment(definition.get('description', ''))}export type {name} = {block(fields)};"
        )

    def _new(self, wish: str) -> str:
        name = re.sub(r"\W", "_", wish)
        name = f"_{name}" if name[:1].isdigit() or not name else name
        shown, more = name, 2
        while shown in self._taken:
            shown, more = f"{name}_{more}", more + 1
        self._taken.add(shown)
        return shown


def block(fields: list[str]) -> str:
    """Return an object type with each field on lines of its own."""
    if not fields:
        return "Record<string, never>"
    lines = [f"{INDENT}{line}".rstrip() for field in fields for line in f"{field};".splitlines()]
    return "\n".join(["{", *lines, "}"])


def comment(doc: str) -> str:
    """Return a doc comment with its closing line feed, "" for none."""
    lines = doc.strip().replace("*/", "*\\/").splitlines()
    if len(lines) < 2:
        return f"/** {lines[0]} */\n" if lines else ""
    return "\n".join(["/**", *(f" * {line}".rstrip() for line in lines), " */", ""])


def property_name(key: str) -> str:
    """Return a key as it stands in a type; reserved words may stand there as they are."""
    return key if key.isidentifier() and key.isascii() else quoted(key)


def quoted(text: str) -> str:
    """Return text as a literal."""
    return json.dumps(text, ensure_ascii=False)


def _literal(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _leaf(schema: dict[str, Any]) -> str:
    match schema.get("type"):
        case "null":
            return "null"
        case "boolean":
            return "boolean"
        case "integer" if schema.get("x-int64"):
            return "bigint"
        case "integer" | "number":
            return "number"
        case "string" if schema.get("format") == "date-time":
            return "Date"
        case "string":
            return "Uint8Array" if "contentEncoding" in schema else "string"
    return "Value"
