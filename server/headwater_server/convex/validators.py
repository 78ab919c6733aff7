"""Validators as Convex's tools write them, of the JSON schemas in a manifest.

Pure. What a validator has no word for, as bounds and patterns, is left out.
"""

from __future__ import annotations

from typing import Any

from headwater_server.convex.values import is_key

_REFERENCE = "#/$defs/"
_ANY = {"type": "any"}


def validator_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Return the validator of a schema with its `$defs`; a type that is part of itself is `any` in there."""
    return _validator(schema, schema.get("$defs", {}), frozenset())


def _validator(schema: dict[str, Any], defs: dict[str, Any], within: frozenset[str]) -> dict[str, Any]:
    match schema:
        case {"$ref": str(reference)}:
            name = reference.removeprefix(_REFERENCE)
            return _ANY if name in within else _validator(defs[name], defs, within | {name})
        case {"anyOf": list(alternatives)}:
            return _union([_validator(item, defs, within) for item in alternatives])
        case {"enum": list(values)}:
            return _union([{"type": "literal", "value": value} for value in values])
        case {"const": value}:
            return {"type": "literal", "value": value}
        case {"x-table": str(table)}:
            return {"type": "id", "tableName": table}
        case {"type": "array", "prefixItems": list(items)}:
            return {"type": "array", "value": _union([_validator(item, defs, within) for item in items])}
        case {"type": "array"}:
            return {"type": "array", "value": _validator(schema.get("items", {}), defs, within)}
        case {"type": "object", "properties": dict(fields)}:
            required = schema.get("required", ())
            return {
                "type": "object",
                "value": {
                    name: {"fieldType": _validator(item, defs, within), "optional": name not in required}
                    for name, item in fields.items()
                    if is_key(name)  # others cannot be sent either
                },
            }
        case {"type": "object"}:
            names = schema.get("propertyNames", {"type": "string"})
            values = schema.get("additionalProperties", {})
            return {
                "type": "record",
                "keys": _validator(names, defs, within),
                "values": {"fieldType": _validator(values, defs, within), "optional": False},
            }
    return _leaf(schema)


def _union(members: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what fits one of them, each named once."""
    distinct = [member for place, member in enumerate(members) if member not in members[:place]]
    if len(distinct) == 1:
        return distinct[0]
    return {"type": "union", "value": distinct}


def _leaf(schema: dict[str, Any]) -> dict[str, Any]:
    match schema.get("type"):
        case "null" | "boolean" as plain:
            return {"type": plain}
        case "integer" if schema.get("x-int64"):
            return {"type": "bigint"}
        case "integer" | "number":
            return {"type": "number"}
        case "string":
            return {"type": "bytes" if "contentEncoding" in schema else "string"}
    return _ANY
