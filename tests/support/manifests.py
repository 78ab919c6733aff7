"""Functions as a bundle's manifest has them: single ones, and any from a seed."""

from __future__ import annotations

import random
from typing import Any

from headwater_protocol.manifest import FunctionManifest

NOTHING: dict[str, Any] = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}


def function(
    name: str, *, returns: Any = None, arguments: Any = None, kind: Any = "query", **more: Any
) -> FunctionManifest:
    return FunctionManifest(
        name,
        kind,
        more.pop("internal", False),
        arguments or NOTHING,
        {"type": "null"} if returns is None else returns,
        **more,
    )


WORDS = [
    "a",
    "b",
    "ab",
    "a_",
    "b_",
    "_a",
    "list",
    "list_",
    "str",
    "class",
    "import",
    "Node",
    "RowsId",
    "_t",
    "_r",
]
LEAVES: list[dict[str, Any]] = [
    {},
    {"type": "null"},
    {"type": "boolean"},
    {"type": "integer", "minimum": 0},
    {"type": "number"},
    {"type": "string"},
    {"type": "string", "format": "date-time"},
    {"type": "string", "contentEncoding": "base64"},
    {"type": "string", "x-table": "rows"},
    {"const": "a"},
    {"enum": ["a", 1]},
    {"$ref": "#/$defs/Node"},
    {"$ref": "#/$defs/Leaf"},
]


class RandomFunctions:
    """Functions of any signature, from a seed."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)

    def schema(self, depth: int = 3) -> dict[str, Any]:
        kind = self.chance.choice(["leaf", "leaf", "list", "dict", "union", "tuple"]) if depth else "leaf"
        inner = [self.schema(depth - 1) for _ in range(self.chance.randint(1, 3))] if kind != "leaf" else []
        match kind:
            case "list":
                return {"type": "array", "items": inner[0]}
            case "dict":
                return {"type": "object", "additionalProperties": inner[0]}
            case "union":
                return {"anyOf": inner}
            case "tuple":
                return {"type": "array", "prefixItems": inner[1:], "items": False}
        return self.chance.choice(LEAVES)

    def struct(self) -> dict[str, Any]:
        fields = self.chance.sample(WORDS, self.chance.randint(0, 3))
        required = sorted(field for field in fields if self.chance.random() < 0.5)
        return {
            "type": "object",
            "properties": {field: self.schema() for field in fields},
            "required": required,
        }

    def function(self) -> FunctionManifest:
        chance = self.chance
        defs = {"Node": self.struct(), "Leaf": self.struct()}
        names = chance.sample(["x", "y", "list_", "str"], chance.randint(0, 3))
        arguments = {"type": "object", "properties": {name: self.schema() for name in names}, "required": []}
        path = "/".join(chance.choices(WORDS, k=chance.randint(1, 3)))
        return function(
            f"{path}:{chance.choice(WORDS)}",
            kind=chance.choice(["query", "mutation"]),
            arguments=arguments | {"$defs": defs},
            returns=self.schema() | {"$defs": defs},
            doc="".join(chance.choices("a\"\\\n '", k=chance.randint(0, 9))),
        )
