"""What annotations mean: the types that values, arguments and documents may have.

Pure; everything here runs when a bundle is loaded. msgspec takes annotations apart; this
module says which of its types Headwater has, and finds the table that an id names.
"""

from __future__ import annotations

import typing
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.values import Int64
from msgspec import inspect as kinds

from headwater.fields import ID_MARK
from headwater.refusals import invalid_bundle
from headwater.schema import TableMeta
from headwater.system_tables import SYSTEM_TABLES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_LEAVES = (
    kinds.AnyType,
    kinds.NoneType,
    kinds.BoolType,
    kinds.IntType,
    kinds.FloatType,
    kinds.StrType,
    kinds.BytesType,
    kinds.DateType,
    kinds.UUIDType,
    kinds.DecimalType,
    kinds.EnumType,
    kinds.LiteralType,
)
_ADVICE: dict[type, str] = {
    kinds.SetType: "`set` cannot be a value; use `list`",
    kinds.FrozenSetType: "`frozenset` cannot be a value; use `list`",
    kinds.TypedDictType: "a `TypedDict` cannot be a value; use a `Struct`",
    kinds.NamedTupleType: "a `NamedTuple` cannot be a value; use a `Struct`",
    kinds.TimeType: "`time` cannot be a value; use `datetime`, text or a number",
    kinds.TimeDeltaType: "`timedelta` cannot be a value; use a number with its unit in the name",
    kinds.ByteArrayType: "`bytearray` cannot be a value; use `bytes`",
    kinds.MemoryViewType: "`memoryview` cannot be a value; use `bytes`",
}


class Tables:
    """The tables of a bundle, by their names and by those of their classes.

    Attributes:
        by_name: Those that it declares.
        system: Those that every bundle has, which functions may read.
    """

    def __init__(self, classes: Iterable[TableMeta]) -> None:
        self.by_name: dict[str, TableMeta] = {}
        self._by_class_name: dict[str, list[TableMeta]] = {}
        for cls in classes:
            other = self.by_name.setdefault(cls.__table__, cls)
            if other is not cls:
                raise invalid_bundle(
                    f"two tables are called {cls.__table__!r}: {_place(other)} and {_place(cls)}; rename one"
                )
            self._by_class_name.setdefault(cls.__name__, []).append(cls)
        self.system = {cls.__table__: cls for cls in SYSTEM_TABLES}
        for cls in SYSTEM_TABLES:
            self._by_class_name.setdefault(cls.__name__, [cls])

    def class_names(self) -> dict[str, Any]:
        """Return the classes by name: what annotations may use without importing it at run time."""
        return {name: found[0] for name, found in self._by_class_name.items() if len(found) == 1}

    def resolve(self, reference: Any, where: str) -> TableMeta:
        """Return the table that `Id[...]` names: a class or the name of one.

        Raises:
            RequestError: `invalid_bundle`.
        """
        if isinstance(reference, typing.ForwardRef):
            reference = reference.__forward_arg__
        if not isinstance(reference, str):
            name = getattr(reference, "__table__", "")
            known = self.by_name.get(name) or self.system.get(name)
            if known is not None and known is reference:
                return known
            raise invalid_bundle(f"{where}: Id[{_shown(reference)}] names no table of this bundle")
        found = self._by_class_name.get(reference, [])
        if len(found) != 1:
            many = " and ".join(map(_place, found)) or "no table class of this bundle"
            raise invalid_bundle(f'{where}: Id["{reference}"] names {many}')
        return found[0]


def _place(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _shown(annotation: Any) -> str:
    return getattr(annotation, "__name__", None) or repr(annotation)


def type_of(annotation: Any, where: str) -> kinds.Type:
    """Return msgspec's description of an annotation, having refused what cannot be a value.

    Args:
        annotation: The annotation, resolved.
        where: What it annotates, for the message.

    Raises:
        RequestError: `invalid_bundle`.
    """
    try:
        msgspec.msgpack.Decoder(annotation, dec_hook=_never)
        kind = kinds.type_info(annotation)
    except NameError as error:
        raise invalid_bundle(
            f'{where}: {error}; a table imported for type checkers only is written Id["{error.name}"]'
        ) from None
    except (TypeError, ValueError, AttributeError) as error:
        raise invalid_bundle(f"{where}: {error}") from None
    _refuse_foreign(kind, where, set())
    return kind


def _never(kind: type, value: Any) -> Any:
    raise NotImplementedError(kind, value)


def _refuse_foreign(kind: kinds.Type, where: str, seen: set[Any]) -> None:
    match kind:
        case kinds.DateTimeType(tz=tz):
            if tz is False:
                raise invalid_bundle(f"{where}: a datetime without a time zone cannot be a value")
        case kinds.CustomType(cls=cls):
            if cls is not Int64:
                raise invalid_bundle(f"{where}: `{cls.__name__}` cannot be a value; use a `Struct`")
        case kinds.DictType(key_type=key):
            if not is_text(key):
                raise invalid_bundle(f"{where}: the keys of a dict are text")
        case kinds.UnionType(types=members):
            ids = [member for member in members if id_reference(member) is not None]
            if ids and any(is_text(member) for member in members if member not in ids):
                raise invalid_bundle(
                    f"{where}: nothing tells an Id from other text beside it; take `str` and ask ctx.db.normalize_id"
                )
        case kinds.StructType(array_like=True, cls=cls):
            raise invalid_bundle(
                f"{where}: `{cls.__name__}` has array_like=True; a value has its field names"
            )
        case kinds.StructType(cls=cls) | kinds.DataclassType(cls=cls):
            if cls in seen:
                return
            seen.add(cls)
        case kinds.Metadata() | kinds.ListType() | kinds.VarTupleType() | kinds.TupleType():
            pass
        case _:
            if not isinstance(kind, _LEAVES):
                advice = _ADVICE.get(
                    type(kind), f"`{type(kind).__name__.removesuffix('Type')}` cannot be a value"
                )
                raise invalid_bundle(f"{where}: {advice}")
    for name, inner in inner_types(kind):
        _refuse_foreign(inner, f"{where}.{name}" if name else where, seen)


def is_text(kind: kinds.Type) -> bool:
    """Tell whether values of a type are text on the wire, ids and choices among texts too."""
    match kind:
        case kinds.Metadata(type=inner):
            return is_text(inner)
        case kinds.EnumType(cls=cls):
            return all(isinstance(member.value, str) for member in cls)
        case kinds.LiteralType(values=values):
            return all(isinstance(value, str) for value in values)
    return isinstance(kind, kinds.StrType)


def inner_types(kind: kinds.Type) -> Iterator[tuple[str, kinds.Type]]:
    """Yield the types inside a type, a field's with its name."""
    match kind:
        case (
            kinds.Metadata(type=inner) | kinds.ListType(item_type=inner) | kinds.VarTupleType(item_type=inner)
        ):
            yield "", inner
        case kinds.DictType(key_type=key, value_type=inner):
            yield "", key
            yield "", inner
        case kinds.TupleType(item_types=inners) | kinds.UnionType(types=inners):
            yield from (("", inner) for inner in inners)
        case kinds.StructType(fields=fields) | kinds.DataclassType(fields=fields):
            yield from ((field.name, field.type) for field in fields)


def id_reference(kind: kinds.Type) -> Any:
    """Return what an id annotation names, None if it is no id."""
    return kind.extra.get(ID_MARK) if isinstance(kind, kinds.Metadata) and kind.extra else None


def check_ids(kind: kinds.Type, tables: Tables, where: str) -> None:
    """Refuse ids whose table is not in the bundle."""
    walk(kind, lambda inner: id_reference(inner) is not None and tables.resolve(id_reference(inner), where))


def walk(kind: kinds.Type, visit: Callable[[kinds.Type], Any]) -> None:
    """Call `visit` with a type and all types inside it, each class once."""
    seen: set[Any] = set()
    waiting = [kind]
    while waiting:
        found = waiting.pop()
        cls = getattr(found, "cls", None)
        if isinstance(found, kinds.StructType | kinds.DataclassType):
            if cls in seen:
                continue
            seen.add(cls)
        visit(found)
        waiting += [inner for _, inner in inner_types(found)]


def unwrapped(kind: kinds.Type) -> kinds.Type:
    """Return a type without what `Annotated` adds to it."""
    while isinstance(kind, kinds.Metadata):
        kind = kind.type
    return kind


def table_class(kind: kinds.Type) -> TableMeta | None:
    """Return the table whose documents a type stands for, None if it is another type."""
    cls = getattr(unwrapped(kind), "cls", None)
    return cls if isinstance(cls, TableMeta) else None


def may_be_unset(cls: Any, name: str) -> bool:
    """Tell whether a field of a Struct is declared so that it may be missing."""
    if not (isinstance(cls, type) and issubclass(cls, msgspec.Struct)):
        return False
    fields = {field.name: field for field in msgspec.structs.fields(cls)}
    return fields[name].default is msgspec.UNSET
