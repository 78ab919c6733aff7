"""Checks of what msgspec does not look at, made once for each type.

Pure. msgspec checks types, lengths and bounds. Left for us are the table that an id names,
the time zone of a datetime, whatever stands in a place of type `Any`, and ids taken from a
document that was never stored. Most types have no such place and get no check at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect as kinds

from headwater.annotations import id_reference, may_be_unset, table_class, type_of, unwrapped
from headwater.refusals import invalid_bundle
from headwater.values import MisfitError, check_any, decoder, encode

if TYPE_CHECKING:
    from headwater.annotations import Tables

TableOf = Callable[[str], str | None]
"""Names the table of an id, None if it is none."""

Check = Callable[[Any, TableOf], None]
"""Raises `MisfitError` if a value does not fit. What is of another type than declared is left to msgspec."""


@dataclass(frozen=True, slots=True)
class Places:
    """What to look at.

    Attributes:
        anything: Places of type `Any`.
        ids: That ids are of the table they are declared for.
        times: That datetimes have a time zone.
        unset: Optional fields that hold the id or time of a document that was never stored;
            the encoder would leave them out without a word.
        stored: That documents have been stored.
    """

    anything: bool = False
    ids: bool = False
    times: bool = False
    unset: bool = False
    stored: bool = False


ARGUMENTS = Places(anything=True, ids=True, times=True)
BEFORE_ENCODING = Places(anything=True, unset=True)
STORED_DOCUMENT = Places(ids=True, times=True)
RESULT = Places(times=True, stored=True)


def check_of(kind: kinds.Type, places: Places, tables: Tables) -> Check | None:
    """Return the check of a type, None if it has nothing to check."""
    return _Maker(places, tables).make(kind)


def refuse_misfit_default(default: Any, annotation: Any, where: str, tables: Tables) -> None:
    """Refuse a default that does not fit what it is the default of: it is used as it is, without a check.

    Raises:
        RequestError: `invalid_bundle`.
    """
    check = check_of(type_of(annotation, where), ARGUMENTS, tables)
    try:
        decoded = decoder(annotation).decode(encode(default))
        if check is not None:
            check(decoded, lambda _: None)
    except (MisfitError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise invalid_bundle(f"{where}: its default does not fit: {error}") from None


class _Maker:
    def __init__(self, places: Places, tables: Tables) -> None:
        self._places = places
        self._tables = tables
        self._made: dict[Any, Check | None] = {}
        self._open: set[Any] = set()
        self._recursive: set[Any] = set()

    def make(self, kind: kinds.Type) -> Check | None:
        places = self._places
        reference = id_reference(kind)
        if reference is not None:
            return _id_check([self._table(reference)]) if places.ids else None
        match unwrapped(kind):
            case kinds.AnyType():
                return _check_any if places.anything else None
            case kinds.DateTimeType():
                return _check_time if places.times else None
            case kinds.ListType(item_type=item) | kinds.VarTupleType(item_type=item):
                return _items_check(self.make(item))
            case kinds.TupleType(item_types=items):
                return _tuple_check([self.make(item) for item in items])
            case kinds.DictType(key_type=key, value_type=value):
                return _dict_check(self.make(key), self.make(value))
            case kinds.UnionType(types=types):
                return self._union(types)
            case kinds.StructType() | kinds.DataclassType() as struct:
                return self._struct(struct)
        return None

    def _table(self, reference: Any) -> str:
        return self._tables.resolve(reference, "an id").__table__

    def _union(self, types: tuple[kinds.Type, ...]) -> Check | None:
        references = map(id_reference, types) if self._places.ids else ()
        ids = [self._table(reference) for reference in references if reference is not None]
        by_class: list[tuple[Any, Check]] = [(str, _id_check(ids))] if ids else []
        for kind in types:
            made = self.make(kind) if id_reference(kind) is None else None
            if made is not None:
                by_class.append((_python_class(kind), made))
        return _union_check(by_class) if by_class else None

    def _struct(self, struct: kinds.StructType | kinds.DataclassType) -> Check | None:
        cls = struct.cls
        if cls in self._made:
            return self._made[cls]
        if cls in self._open:  # a type inside itself: the check is looked up when it is used
            self._recursive.add(cls)
            return lambda value, table_of: self._again(cls, value, table_of)
        self._open.add(cls)
        table = table_class(struct)
        checks = [
            (field.name, made)
            for field in struct.fields
            if not (table and field.name in ("id", "creation_time_ms"))
            and (made := self.make(field.type)) is not None
        ]
        optional = self._unset_fields(struct) if self._places.unset else []
        stored = table.__table__ if table is not None and self._places.stored else None
        self._open.discard(cls)
        needed = checks or optional or stored
        self._made[cls] = _struct_check(checks, optional, stored) if needed else None
        return self._made[cls]

    def _again(self, cls: Any, value: Any, table_of: TableOf) -> None:
        if (made := self._made[cls]) is not None:
            made(value, table_of)

    @staticmethod
    def _unset_fields(struct: kinds.StructType | kinds.DataclassType) -> list[str]:
        """Return the fields that the encoder would leave out if they held the id or time of a new document."""
        cls = getattr(struct.cls, "__origin__", struct.cls)
        return [
            field.name
            for field in struct.fields
            if not field.required and _may_hold_system_field(field.type) and not may_be_unset(cls, field.name)
        ]


def _may_hold_system_field(kind: kinds.Type) -> bool:
    inner = unwrapped(kind)
    if isinstance(inner, kinds.UnionType):
        return any(map(_may_hold_system_field, inner.types))
    return isinstance(inner, kinds.StrType | kinds.FloatType | kinds.AnyType)


def _python_class(kind: kinds.Type) -> Any:
    """Return the class of the values of a type, for telling the members of a union apart."""
    match unwrapped(kind):
        case kinds.StructType(cls=cls) | kinds.DataclassType(cls=cls):
            return getattr(cls, "__origin__", cls)
        case kinds.ListType():
            return list
        case kinds.VarTupleType() | kinds.TupleType():
            return list | tuple
        case kinds.DictType():
            return dict
        case kinds.DateTimeType():
            return datetime
    return object


def _check_any(value: Any, _: TableOf) -> None:
    check_any(value)


def _check_time(value: Any, _: TableOf) -> None:
    if value.tzinfo is None:
        raise MisfitError("Expected a datetime with a time zone, got one without")


def _id_check(tables: list[str]) -> Check:
    expected = " or ".join(repr(table) for table in tables)

    def check_id(value: Any, table_of: TableOf) -> None:
        table = table_of(value)
        if table not in tables:
            got = f"one of {table!r}" if table else f"{value!r}"
            raise MisfitError(f"Expected an id of table {expected}, got {got}")

    return check_id


def _items_check(check: Check | None) -> Check | None:
    if check is None:
        return None

    def check_items(value: Any, table_of: TableOf) -> None:
        if not isinstance(value, list | tuple):
            return
        place = 0
        try:
            for item in value:
                check(item, table_of)
                place += 1
        except MisfitError as wrong:
            raise wrong.within(f"[{place}]") from None

    return check_items


def _tuple_check(checks: list[Check | None]) -> Check | None:
    if not any(checks):
        return None

    def check_tuple(value: Any, table_of: TableOf) -> None:
        if not isinstance(value, list | tuple):
            return
        for place, (check, item) in enumerate(zip(checks, value, strict=False)):
            if check is not None:
                _within(check, item, table_of, f"[{place}]")

    return check_tuple


def _dict_check(check_key: Check | None, check_value: Check | None) -> Check | None:
    if check_key is None and check_value is None:
        return None

    def check_dict(value: Any, table_of: TableOf) -> None:
        if not isinstance(value, dict):
            return
        for key, item in value.items():
            if check_key is not None:
                _within(check_key, key, table_of, f".{key}")
            if check_value is not None:
                _within(check_value, item, table_of, f".{key}")

    return check_dict


def _union_check(by_class: list[tuple[Any, Check]]) -> Check:
    def check_union(value: Any, table_of: TableOf) -> None:
        for cls, check in by_class:
            if isinstance(value, cls):
                check(value, table_of)
                return
        if type(value) is dict:
            check_any(value)  # stands for one of the Structs

    return check_union


def _struct_check(checks: list[tuple[str, Check]], optional: list[str], stored: str | None) -> Check:
    """Return the check of a Struct.

    Args:
        checks: Checks of its fields.
        optional: Fields that must not hold what was taken from a new document.
        stored: Table of which it must be a stored document, None if it need not be one.
    """

    def check_struct(value: Any, table_of: TableOf) -> None:
        if type(value) is dict:
            check_any(value)  # stands for the Struct; it becomes one when it is decoded
            return
        if stored is not None:
            _check_stored(value.id, stored, table_of)
        for field in optional:
            if getattr(value, field, None) is msgspec.UNSET:
                raise MisfitError(
                    "Expected a value, got the id of a document that was never stored", f".{field}"
                )
        for field, check in checks:
            item = getattr(value, field, None)
            if item is not None and item is not msgspec.UNSET:
                _within(check, item, table_of, f".{field}")

    return check_struct


def _check_stored(document_id: Any, expected: str, table_of: TableOf) -> None:
    if document_id is msgspec.UNSET:
        raise MisfitError(
            f"Expected a document of table {expected!r}, got one that was never stored: it has no id"
        )
    if (table := table_of(document_id)) != expected:
        raise MisfitError(f"Expected a document of table {expected!r}, got one of {table!r}")


def _within(check: Check, value: Any, table_of: TableOf, step: str) -> None:
    try:
        check(value, table_of)
    except MisfitError as wrong:
        raise wrong.within(step) from None
