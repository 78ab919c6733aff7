"""Tables: classes whose instances are documents.

Pure. At run time a table is a real msgspec Struct, frozen and keyword-only, made by a
metaclass derived from msgspec's. Type checkers see a dataclass-like class instead, so that
they know its fields in constructors, `patch` and `query`.
"""

from __future__ import annotations

import re
import sys  # noqa: TC003 - type checkers alone ask for the version, and only of the real module
import types
from typing import (
    TYPE_CHECKING,
    Any,
    ClassVar,
    Protocol,
    Self,
    TypeVar,
    cast,
    dataclass_transform,
    overload,
)

import msgspec
from msgspec import Struct, field

from headwater.fields import FieldRef, Id
from headwater.indexes import BoundIndex, Index
from headwater.refusals import invalid_bundle

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

SYSTEM_FIELDS = {"id": "_id", "creation_time_ms": "_creationTime"}
"""Python name to stored name of the fields that every document has."""

_SYSTEM_MODULE = "headwater.system_tables"
"""Where tables stand whose names begin with `_`, which no bundle can declare."""

_TABLE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}").fullmatch


class Fits(Protocol[T_contra]):
    """A document that may take the place of a document of type `T`."""

    def __fits__(self, other: T_contra, /) -> None:
        """Exists for type checkers only."""


class _IdField:
    """How type checkers see `id`: text that names a document of the class it is read from."""

    @overload
    def __get__(self, instance: None, owner: type[T]) -> Id[T]: ...
    @overload
    def __get__(self, instance: T, owner: type[T]) -> Id[T]: ...
    def __get__(self, instance: Any, owner: Any) -> Any:
        raise AttributeError("id")


class _TimeField:
    """How type checkers see `creation_time_ms`."""

    def __get__(self, instance: object, owner: Any) -> float:
        raise AttributeError("creation_time_ms")


if TYPE_CHECKING:

    class _StructMeta(type):
        pass
else:
    _StructMeta = msgspec.StructMeta


@dataclass_transform(kw_only_default=True, frozen_default=True, field_specifiers=(field,))
class TableMeta(_StructMeta):
    """Makes tables; see `Table`.

    Classes made by it carry `__table__`, the table's name, and `__indexes__`, its indexes by name.
    """

    __table__: str
    __indexes__: dict[str, BoundIndex[Any, ...]]
    __struct_fields__: ClassVar[tuple[str, ...]]

    def __new__(
        mcls,
        class_name: str,
        bases: tuple[type, ...],
        namespace: dict[str, Any],
        /,
        *,
        name: str | None = None,
    ) -> Any:
        """Make a table class.

        Args:
            class_name: Its Python name.
            bases: `Table`.
            namespace: Body of the class.
            name: Name of the table; the class name in lower case if it is not given.
        """
        make = cast("Any", super().__new__)
        if not any(isinstance(base, TableMeta) for base in bases):
            return make(mcls, class_name, bases, namespace, kw_only=True, frozen=True, gc=False)
        if any(hasattr(base, "__table__") for base in bases):
            raise invalid_bundle(f"{class_name}: derive it from Table itself; a table has no subclasses")
        for known, stored in SYSTEM_FIELDS.items():
            for taken in {known, stored} & namespace.get("__annotations__", {}).keys():
                raise invalid_bundle(
                    f"{class_name}.{taken}: the name belongs to the system field {stored!r}; choose another"
                )
        indexes = {label: item for label, item in namespace.items() if isinstance(item, Index)}
        cls = make(mcls, class_name, bases, namespace, kw_only=True, frozen=True, gc=False)
        is_system = namespace.get("__module__") == _SYSTEM_MODULE and name is not None
        cls.__table__ = str(name) if is_system else _checked_name(class_name, name)
        own = [label for label in cls.__struct_fields__ if label not in SYSTEM_FIELDS]
        for label, index in indexes.items():
            index.check(f"{class_name}.{label}", own)
        cls.__indexes__ = {
            label: BoundIndex(cls, label, index.fields, unique=index.unique)
            for label, index in indexes.items()
        }
        return cls

    if not TYPE_CHECKING:

        def __getattribute__(cls, name: str) -> Any:  # noqa: N805 - of a metaclass
            """Return a pointer in the place of a field: `Message.score` names it in queries."""
            value = _StructMeta.__getattribute__(cls, name)
            if type(value) is types.MemberDescriptorType and name[0] != "_":
                return FieldRef(cls, name)
            return value


def _checked_name(class_name: str, name: str | None) -> str:
    chosen = class_name.lower() if name is None else name
    if not _TABLE_NAME(chosen):
        raise invalid_bundle(
            f"{class_name}: {chosen!r} cannot name a table; use a letter, then up to 63 letters, digits and underscores"
        )
    return chosen


if TYPE_CHECKING:

    class Table(metaclass=TableMeta):
        """A document. `id` and `creation_time_ms` are UNSET until it is stored."""

        id = _IdField()
        creation_time_ms = _TimeField()

        def __fits__(self, other: Self, /) -> None:
            """Bind the type of a document for `replace`."""

        if sys.version_info < (
            3,
            13,
        ):  # checkers make no __replace__ then: names and types are checked at run time

            def __replace__(self, **changes: Any) -> Self:
                """Return a copy with other field values."""
                return self

else:

    class Table(Struct, metaclass=TableMeta):
        """A document. `id` and `creation_time_ms` are UNSET until it is stored."""

        id: str | msgspec.UnsetType = field(default=msgspec.UNSET, name="_id")
        creation_time_ms: float | msgspec.UnsetType = field(default=msgspec.UNSET, name="_creationTime")
