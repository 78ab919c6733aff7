"""Indexes of a loaded bundle: what their fields are called in storage and which values they take.

Pure; made when a bundle is loaded, when the types behind nested fields are known.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

from headwater_protocol.values import INT_MAX, INT_MIN, Int64
from msgspec import UNSET
from msgspec import inspect as kinds

from headwater.annotations import unwrapped, walk
from headwater.refusals import invalid_bundle, nearest
from headwater.values import check_any, decode_any, encode, encoded_default

if TYPE_CHECKING:
    from headwater.indexes import BoundIndex
    from headwater.schema import TableMeta

CREATION_TIME = "creation_time_ms"
_NUMBERS = frozenset({int, float, Int64})
_CLASSES: dict[type, frozenset[type]] = {
    kinds.StrType: frozenset({str}),
    kinds.IntType: _NUMBERS,
    kinds.FloatType: _NUMBERS,
    kinds.CustomType: _NUMBERS,
    kinds.BoolType: frozenset({bool}),
    kinds.NoneType: frozenset({type(None)}),
    kinds.BytesType: frozenset({bytes}),
    kinds.DateTimeType: frozenset({datetime}),
    kinds.DateType: frozenset({date}),
    kinds.UUIDType: frozenset({UUID}),
    kinds.ListType: frozenset({list, tuple}),
    kinds.VarTupleType: frozenset({list, tuple}),
    kinds.TupleType: frozenset({list, tuple}),
}
_KEPT = frozenset({str, float, bool, bytes, type(None)})


@dataclass(frozen=True, slots=True)
class IndexField:
    """One field of an index.

    Attributes:
        path: Dotted path in Python names.
        stored_path: The same in stored names.
        accepts: Classes of the values it may be compared with; None: any value.
    """

    path: str
    stored_path: str
    accepts: frozenset[type] | None

    def stored_value(self, value: Any) -> Any:
        """Return the form in which `value` is compared with stored ones.

        Raises:
            TypeError: The field never holds such a value.
        """
        kind = type(value)
        if self.accepts is not None and kind not in self.accepts:
            if value is UNSET:
                raise TypeError(
                    f"the value for `{self.path}` is UNSET: taken from a document that was never stored"
                )
            raise TypeError(f"`{self.path}` holds {self._expected()}, got `{kind.__name__}`")
        if kind in _KEPT:
            return value
        if kind is int:
            if not INT_MIN <= value <= INT_MAX:
                raise TypeError(f"`{self.path}` is compared with an integer beyond 64 bits")
            return value
        if kind is datetime and value.tzinfo is None:
            raise TypeError(f"`{self.path}` is compared with a datetime without a time zone")
        if kind is Int64:
            return int(value)
        if kind is datetime:
            return value
        check_any(value)
        return decode_any(encode(value))

    def _expected(self) -> str:
        names = {"None" if kind is type(None) else kind.__name__ for kind in self.accepts or ()} - {
            "Int64",
            "tuple",
        }
        return " or ".join(f"`{name}`" for name in sorted(names))


CREATION_TIME_FIELD = IndexField(CREATION_TIME, "_creationTime", frozenset({int, float}))


@dataclass(frozen=True, slots=True)
class IndexPlan:
    """An index of a loaded bundle.

    Attributes:
        index: As the table declares it.
        fields: Its fields; the creation time comes after them by itself.
        defaults: What is read where a document does not have a field, encoded, by stored dotted path.
    """

    index: BoundIndex[Any, ...]
    fields: tuple[IndexField, ...]
    defaults: dict[str, bytes]


def plan_index(index: BoundIndex[Any, ...], table: TableMeta) -> IndexPlan:
    """Return the plan of an index.

    Raises:
        RequestError: `invalid_bundle` for a field that there is not or that has no order.
    """
    defaults: dict[str, bytes] = {}
    where = f"{table.__name__}.{index.name}"
    return IndexPlan(
        index, tuple(_plan_field(path, table, where, defaults) for path in index.fields), defaults
    )


def _plan_field(path: str, table: TableMeta, where: str, defaults: dict[str, bytes]) -> IndexField:
    found: list[kinds.Type] = [kinds.type_info(table)]
    stored: list[str] = []
    for step in path.split("."):
        inside = [pair for kind in found for pair in _inside(kind, step)]
        if not inside:
            known = [field.name for kind in found for field in _fields(kind)]
            raise invalid_bundle(f"{where}: there is no field {path!r}{nearest(step, known)}")
        names = {name for name, _ in inside}
        if len(names) != 1:
            raise invalid_bundle(
                f"{where}: {path!r} is stored under more than one name: {', '.join(sorted(names))}"
            )
        stored.append(names.pop())
        default = _default_of(found, step)
        if default is not None:
            defaults[".".join(stored)] = default
        found = [kind for _, kind in inside]
    for kind in found:
        walk(kind, lambda inner: _refuse_unordered(inner, f"{where}: {path!r}"))
    classes = [_classes(member) for kind in found for member in _members(kind)]
    some = (
        None
        if None in classes
        else frozenset[type]().union(*(known for known in classes if known is not None))
    )
    return IndexField(path, ".".join(stored), some)


def _members(kind: kinds.Type) -> tuple[kinds.Type, ...]:
    inner = unwrapped(kind)
    return tuple(map(unwrapped, inner.types)) if isinstance(inner, kinds.UnionType) else (inner,)


def _fields(kind: kinds.Type) -> list[kinds.Field]:
    structs = (kinds.StructType, kinds.DataclassType)
    return [field for member in _members(kind) if isinstance(member, structs) for field in member.fields]


def _inside(kind: kinds.Type, step: str) -> list[tuple[str, kinds.Type]]:
    """Return what a step leads to, in every member of a union, with its stored name."""
    found: list[tuple[str, kinds.Type]] = []
    for member in _members(kind):
        match member:
            case kinds.AnyType():
                found.append((step, member))
            case kinds.DictType(value_type=value):
                found.append((step, value))
            case kinds.StructType(tag_field=str() as tag_field) if tag_field == step:
                found.append((step, kinds.StrType()))
            case kinds.StructType(fields=fields) | kinds.DataclassType(fields=fields):
                found += [(field.encode_name, field.type) for field in fields if field.name == step]
    return found


def _default_of(found: list[kinds.Type], step: str) -> bytes | None:
    """Return what is read where a step leads to nothing, encoded; None if that differs, or nothing fits then."""
    members = [
        member for kind in found for member in _members(kind) if not isinstance(member, kinds.NoneType)
    ]
    fields = [field for kind in found for field in _fields(kind) if field.name == step]
    defaults = {encoded_default(field) for field in fields}
    return defaults.pop() if len(fields) == len(members) and len(defaults) == 1 else None


def _refuse_unordered(kind: kinds.Type, where: str) -> None:
    if isinstance(kind, kinds.DecimalType):
        raise invalid_bundle(
            f"{where}: a Decimal is stored as text, whose order is not that of numbers; index a float"
        )


def _classes(kind: kinds.Type) -> frozenset[type] | None:
    match kind:
        case kinds.EnumType(cls=cls):
            return frozenset({cls})
        case kinds.LiteralType(values=values):
            return frozenset(map(type, values))
    return _CLASSES.get(type(kind))
