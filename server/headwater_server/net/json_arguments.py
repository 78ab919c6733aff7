"""Arguments in plain JSON, read as their function declares them: what plain answers show as text may be sent as that text.

Pure. JSON has no bytes, and in plain answers 64-bit integers beyond 2^53 and special floats are text too
(`headwater_server.net.json_values`). The JSON schema of the arguments, which the manifest has, says where text stands
for one of them. Text where text may stand is never taken for anything else, and what does not fit is left for the worker to refuse.
"""

from __future__ import annotations

import base64
import binascii
import re
from itertools import chain, repeat
from typing import Any

from headwater_server.convex.values import EXACT_INTEGER_MAX

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}").fullmatch
_SPECIAL_FLOATS = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
_DEFINITIONS = "#/$defs/"


def fitted(value: Any, schema: dict[str, Any]) -> Any:
    """Return parsed arguments with bytes, integers and floats where their schema has them and they are sent as text.

    Args:
        value: Parsed JSON, no deeper than values may be.
        schema: Of the arguments, as manifests have it.
    """
    return _fitted(value, schema, schema.get("$defs", {}))


def _fitted(value: Any, schema: dict[str, Any], definitions: dict[str, Any]) -> Any:
    if not isinstance(value, str | list | dict):
        return value
    schema = _resolved(schema, definitions)
    if isinstance(value, str):
        return _of_text(value, _alternatives(schema, definitions))
    for alternative in _alternatives(schema, definitions):
        if isinstance(value, list):
            value = _list_fitted(value, alternative, definitions)
        elif not _is_another(value, alternative):
            named, others = alternative.get("properties", {}), alternative.get("additionalProperties")
            rest = others if isinstance(others, dict) else {}
            value = {key: _fitted(item, named.get(key, rest), definitions) for key, item in value.items()}
    return value


def _list_fitted(value: list[Any], schema: dict[str, Any], definitions: dict[str, Any]) -> list[Any]:
    parts, rest = schema.get("prefixItems", []), schema.get("items")
    if not parts and not isinstance(rest, dict):
        return value
    rest = rest if isinstance(rest, dict) else {}
    schemas = chain(parts, repeat(rest))
    return [_fitted(item, inner, definitions) for item, inner in zip(value, schemas, strict=False)]


def _of_text(text: str, alternatives: list[dict[str, Any]]) -> Any:
    """Return what text stands for; itself where text may stand.

    A number goes before bytes, of which hardly any are spelt as one in base64.
    """
    if any(_takes_text(schema) for schema in alternatives):
        return text
    kinds = {schema.get("type") for schema in alternatives}
    if "number" in kinds and text in _SPECIAL_FLOATS:
        return _SPECIAL_FLOATS[text]
    if "integer" in kinds and _INTEGER(text) is not None:
        number = int(text)
        is_shown_so = abs(number) > EXACT_INTEGER_MAX or any("x-int64" in schema for schema in alternatives)
        if is_shown_so and -(2**63) <= number < 2**63:
            return number
    if "string" in kinds:
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            return text
    return text


def _takes_text(schema: dict[str, Any]) -> bool:
    kind = schema.get("type")
    return kind is None or (kind == "string" and schema.get("contentEncoding") != "base64")


def _alternatives(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    found = schema.get("anyOf")
    if found is None:
        return [schema]
    return [one for inner in found for one in _alternatives(_resolved(inner, definitions), definitions)]


def _resolved(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    reference = schema.get("$ref")
    if reference is None:
        return schema
    found: dict[str, Any] = definitions.get(reference.removeprefix(_DEFINITIONS), {})
    return found


def _is_another(value: dict[str, Any], schema: dict[str, Any]) -> bool:
    """Tell whether an object is none of this schema, or says that it stands for another member of a union."""
    if schema.get("type") != "object":
        return True
    named = schema.get("properties", {})
    return any("const" in inner and value.get(name) != inner["const"] for name, inner in named.items())
