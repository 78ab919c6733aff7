"""Predicates that tell quickly whether a result is surely what its function declares.

Pure. msgspec checks bytes, not objects, and the objects that a function returns have been
checked by nobody. Encoding and decoding them again would find every fault, at ten times the
price; instead each type gets a predicate made of `type(x) is ...` lines, compiled once.
A predicate that says no decides nothing: the slow way then tells, and says where.

Documents with an id count as fit: they come from the store, or from `replace`, which checks.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from headwater_protocol.values import INT_MAX, INT_MIN, Int64
from msgspec import inspect as kinds

from headwater.annotations import id_reference, table_class, unwrapped
from headwater.values import is_plain

Fits = Callable[[Any], bool]


def fits_of(kind: kinds.Type) -> Fits:
    """Return the predicate of a type."""
    maker = _Maker()
    expression = maker.expression(kind, "value")
    source = "\n".join([*maker.functions, f"def fits(value):\n    return {expression}"])
    exec(compile(source, "<headwater result check>", "exec"), maker.names)
    fits: Fits = maker.names["fits"]
    return fits


class _Maker:
    """Writes the source of a predicate.

    Attributes:
        functions: One function for each type that has parts.
        names: What the source refers to.
    """

    def __init__(self) -> None:
        self.functions: list[str] = []
        self.names: dict[str, Any] = {
            "datetime": datetime,
            "date": date,
            "UUID": UUID,
            "Decimal": Decimal,
            "Int64": Int64,
            "UNSET": msgspec.UNSET,
            "is_plain": is_plain,
        }
        self._structs: dict[Any, str] = {}

    def expression(self, kind: kinds.Type, value: str) -> str:
        """Return source that is true if `value`, itself source, fits `kind`."""
        if id_reference(kind) is not None:
            inner = unwrapped(kind)
            assert isinstance(inner, kinds.StrType)
            return f"(type({value}) is str and {inner.min_length} <= len({value}) <= {inner.max_length})"
        match unwrapped(kind):
            case kinds.AnyType():
                return f"is_plain({value})"
            case kinds.NoneType():
                return f"{value} is None"
            case kinds.IntType(gt=None, ge=None, lt=None, le=None, multiple_of=None):
                return f"(type({value}) is int and {INT_MIN} <= {value} <= {INT_MAX})"
            case kinds.FloatType(gt=None, ge=None, lt=None, le=None, multiple_of=None):
                return f"type({value}) is float"
            case kinds.StrType(min_length=None, max_length=None, pattern=None):
                return f"type({value}) is str"
            case kinds.BytesType(min_length=None, max_length=None):
                return f"type({value}) is bytes"
            case kinds.DateTimeType():
                return f"(type({value}) is datetime and {value}.tzinfo is not None)"
            case kinds.LiteralType(values=values):
                return self._literal(values, value)
            case kinds.UnionType(types=types):
                return "(" + " or ".join(self.expression(inner, value) for inner in types) + ")"
            case kinds.StructType() | kinds.DataclassType() as struct:
                return f"{self._struct(struct)}({value})"
            case kinds.ListType(item_type=item, min_length=None, max_length=None):
                return f"{self._items(item)}({value})"
            case kinds.DictType(min_length=None, max_length=None) as mapping:
                return f"{self._mapping(mapping)}({value})"
            case other:
                return self._of_class(other, value)

    def _of_class(self, kind: kinds.Type, value: str) -> str:
        plain = {
            kinds.BoolType: "bool",
            kinds.DateType: "date",
            kinds.UUIDType: "UUID",
            kinds.DecimalType: "Decimal",
        }
        if type(kind) in plain:
            return f"type({value}) is {plain[type(kind)]}"
        if isinstance(kind, kinds.EnumType):
            return f"type({value}) is {self._name('Enum', kind.cls)}"
        if isinstance(kind, kinds.CustomType):
            return f"(type({value}) is Int64 and {INT_MIN} <= {value} <= {INT_MAX})"
        return "False"  # bounds and rare types: the slow way knows them

    def _literal(self, values: tuple[Any, ...], value: str) -> str:
        if not all(type(choice) is str for choice in values):
            return "False"
        return f"(type({value}) is str and {value} in {self._name('choices', frozenset(values))})"

    def _struct(self, struct: kinds.StructType | kinds.DataclassType) -> str:
        cls = struct.cls
        if cls in self._structs:
            return self._structs[cls]
        name = self._structs[cls] = self._name("fits_struct", None)
        known = self._name("Struct", getattr(cls, "__origin__", cls))
        parts = [f"type(value) is {known}"]
        if table_class(struct):
            parts.append("value.id is not UNSET")
        else:
            parts += [self.expression(field.type, f"value.{field.name}") for field in struct.fields]
        self.functions.append(f"def {name}(value):\n    return " + " and ".join(parts))
        return name

    def _items(self, item: kinds.Type) -> str:
        name = self._name("fits_items", None)
        expression = self.expression(item, "item")
        self.functions.append(
            f"def {name}(value):\n    if not isinstance(value, list):\n        return False\n"
            f"    for item in value:\n        if not {expression}:\n            return False\n    return True"
        )
        return name

    def _mapping(self, mapping: kinds.DictType) -> str:
        name = self._name("fits_mapping", None)
        key, item = self.expression(mapping.key_type, "key"), self.expression(mapping.value_type, "item")
        self.functions.append(
            f"def {name}(value):\n    if type(value) is not dict:\n        return False\n"
            f"    for key, item in value.items():\n        if not ({key} and {item}):\n            return False\n"
            "    return True"
        )
        return name

    def _name(self, stem: str, value: Any) -> str:
        name = f"{stem}_{len(self.names)}"
        self.names[name] = value
        return name
