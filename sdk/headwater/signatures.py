"""What generators of clients' types ask of the JSON schemas in a manifest.

Pure. Named types stand in `$defs` and are found by `$ref`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from headwater_protocol.manifest import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable

REFERENCE = "#/$defs/"
PAGE_FIELDS = {"page", "isDone", "continueCursor"}
OPTION_FIELDS = {"numItems", "cursor", "endCursor"}


def reached(name: str, defs: dict[str, Any]) -> dict[str, Any]:
    """Return a definition and all that it leads to."""
    found: dict[str, Any] = {}
    ahead = [name]
    while ahead:
        name = ahead.pop()
        if name not in found:
            found[name] = defs[name]
            ahead += re.findall(rf'"\$ref":"{re.escape(REFERENCE)}([^"]+)"', canonical_json(defs[name]))
    return found


def leaves_out(definitions: Iterable[dict[str, Any]]) -> bool:
    """Return whether a sender may leave out anything: then what is sent and what is received differ in type."""
    return any(set(item["properties"]) - set(item["required"]) for item in definitions)


def title_of(name: str, definition: dict[str, Any]) -> str:
    """Return what to call a struct: a `Page` of documents is written as `Message_` in the schema."""
    if set(definition["properties"]) == PAGE_FIELDS:
        return name.rstrip("_").removesuffix("Page") + "Page"
    return name


def page_argument(arguments: dict[str, Any]) -> str | None:
    """Return the name of the argument of type `PageOptions`, None if there is none."""
    defs = arguments.get("$defs", {})
    for name, schema in arguments["properties"].items():
        definition = defs.get(schema.get("$ref", "").removeprefix(REFERENCE), {})
        if set(definition.get("properties", ())) >= OPTION_FIELDS:
            return str(name)
    return None
