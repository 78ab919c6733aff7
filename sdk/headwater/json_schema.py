"""JSON schemas of arguments, results and documents, for agents, generators and deploys.

Pure. They describe the wire form. What JSON schema has no word for is said by `x-table`
(an id, and of which table), `x-int64` and `format`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.manifest import canonical_json
from msgspec import inspect as kinds

from headwater.annotations import id_reference, table_class, unwrapped
from headwater.values import encoded_default

if TYPE_CHECKING:
    from headwater.annotations import Tables
    from headwater.schema import TableMeta

_BOUNDS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
}


def schema_of(kind: kinds.Type, tables: Tables, *, sent: bool = False) -> dict[str, Any]:
    """Return the schema of a type; the types it names stand in `$defs`.

    Args:
        kind: The type.
        tables: Those of the bundle.
        sent: Whether it is an argument: a document may be a new one then, without id and creation time.
    """
    writer = _Writer(tables, described=True, sent=sent)
    schema = writer.schema(kind)
    return {**schema, "$defs": writer.definitions} if writer.definitions else schema


def shape_of(table: TableMeta, tables: Tables) -> str:
    """Return the schema of a table's documents as canonical text, without titles and descriptions.

    It changes exactly when stored bytes may have to be read in another way.
    """
    writer = _Writer(tables, described=False)
    schema = writer.schema(kinds.type_info(table))
    return canonical_json({**schema, "$defs": writer.definitions})


class _Writer:
    def __init__(self, tables: Tables, *, described: bool, sent: bool = False) -> None:
        self.definitions: dict[str, Any] = {}
        self._tables = tables
        self._described = described
        self._sent = sent
        self._names: dict[Any, str] = {}

    def schema(self, kind: kinds.Type) -> dict[str, Any]:
        reference = id_reference(kind)
        if reference is not None:
            return {"type": "string", "x-table": self._tables.resolve(reference, "an id").__table__}
        if isinstance(kind, kinds.Metadata):
            extra = (kind.extra_json_schema or {}) if self._described else {}
            return {**self.schema(kind.type), **extra}
        match kind:
            case kinds.UnionType(types=types):
                return {"anyOf": [self.schema(inner) for inner in types]}
            case kinds.ListType(item_type=item) | kinds.VarTupleType(item_type=item):
                return {"type": "array", "items": self.schema(item), **_lengths(kind, "Items")}
            case kinds.TupleType(item_types=items):
                count = len(items)
                parts = [self.schema(item) for item in items]
                return {
                    "type": "array",
                    "prefixItems": parts,
                    "items": False,
                    "minItems": count,
                    "maxItems": count,
                }
            case kinds.DictType(key_type=key, value_type=value):
                names = self.schema(key)
                limited = {} if names == {"type": "string"} else {"propertyNames": names}
                found = {"type": "object", "additionalProperties": self.schema(value)}
                return {**found, **limited, **_lengths(kind, "Properties")}
            case kinds.StructType() | kinds.DataclassType():
                return {"$ref": f"#/$defs/{self._define(kind)}"}
        return _leaf(kind)

    def _define(self, struct: kinds.StructType | kinds.DataclassType) -> str:
        cls = struct.cls
        if cls in self._names:
            return self._names[cls]
        title = str(cls) if hasattr(cls, "__origin__") else cls.__name__
        stem = "".join(letter if letter.isalnum() else "_" for letter in title.rpartition(".")[2])
        name, more = stem, 2
        while name in self.definitions:
            name, more = f"{stem}_{more}", more + 1
        self._names[cls] = name
        self.definitions[name] = {}
        self.definitions[name] = self._object(struct)
        return name

    def _object(self, struct: kinds.StructType | kinds.DataclassType) -> dict[str, Any]:
        table = table_class(struct)
        properties: dict[str, Any] = {}
        required: list[str] = []
        if isinstance(struct, kinds.StructType) and struct.tag_field is not None:
            properties[struct.tag_field] = {"const": struct.tag}
            required.append(struct.tag_field)
        for field in struct.fields:
            schema = self.schema(field.type)
            if table and field.encode_name == "_id":
                schema = {"type": "string", "x-table": table.__table__}
            properties[field.encode_name] = {**schema, **_default(field)}
            if field.required or (table and not self._sent and field.encode_name.startswith("_")):
                required.append(field.encode_name)
        found: dict[str, Any] = {"type": "object", "properties": properties, "required": sorted(required)}
        if isinstance(struct, kinds.StructType) and struct.forbid_unknown_fields:
            found["additionalProperties"] = False
        doc = (getattr(struct.cls, "__doc__", None) or "").strip() if self._described else ""
        return {**found, "description": doc} if doc else found


def _default(field: kinds.Field) -> dict[str, Any]:
    encoded = encoded_default(field)
    try:
        return {} if encoded is None else {"default": msgspec.to_builtins(msgspec.msgpack.decode(encoded))}
    except (TypeError, ValueError):
        return {}


def _leaf(kind: kinds.Type) -> dict[str, Any]:
    match unwrapped(kind):
        case kinds.AnyType():
            return {}
        case kinds.NoneType():
            return {"type": "null"}
        case kinds.BoolType():
            return {"type": "boolean"}
        case kinds.IntType():
            return {"type": "integer", **_bounds(kind)}
        case kinds.FloatType():
            return {"type": "number", **_bounds(kind)}
        case kinds.StrType():
            return {"type": "string", **_bounds(kind), **_lengths(kind, "Length")}
        case kinds.BytesType():
            return {"type": "string", "contentEncoding": "base64", **_lengths(kind, "Length")}
        case kinds.DateTimeType():
            return {"type": "string", "format": "date-time"}
        case kinds.DateType():
            return {"type": "string", "format": "date"}
        case kinds.UUIDType():
            return {"type": "string", "format": "uuid"}
        case kinds.DecimalType():
            return {"type": "string", "format": "decimal"}
        case kinds.LiteralType(values=values):
            return {"enum": sorted(values, key=repr)}
        case kinds.EnumType(cls=cls):
            return {"enum": [member.value for member in cls]}
    return {"type": "integer", "x-int64": True}


def _bounds(kind: Any) -> dict[str, Any]:
    return {word: value for name, word in _BOUNDS.items() if (value := getattr(kind, name, None)) is not None}


def _lengths(kind: Any, unit: str) -> dict[str, Any]:
    pairs = {f"min{unit}": kind.min_length, f"max{unit}": kind.max_length}
    return {word: value for word, value in pairs.items() if value is not None}
