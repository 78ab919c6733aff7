"""Indexes as tables declare them.

Pure. Fields are named by text because a class body cannot point to its own fields; names
are checked when the class is made, nested ones when the bundle is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast

from headwater.refusals import invalid_bundle, nearest

if TYPE_CHECKING:
    from collections.abc import Collection

P = ParamSpec("P")
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

INDEX_FIELDS_MAX = 16


class HasFields(Protocol[P, T_co]):
    """A class with named fields.

    Type checkers give every such class this method when the target is Python 3.13 or later.
    Binding `P` to its parameters is what checks `patch(id, body=...)` and
    `query(Message.by_channel, channel=...)` without generated code.
    """

    def __replace__(self, *args: P.args, **kwargs: P.kwargs) -> T_co:
        """Return a copy with other field values."""


class BoundIndex(Generic[T, P]):
    """An index of one table: `Message.by_channel`.

    Attributes:
        table: Class of the table.
        name: Name of the index.
        fields: Dotted paths in Python names.
        unique: Whether two documents may not have the same fields.
    """

    __slots__ = ("fields", "name", "table", "unique")

    def __init__(self, table: type[T], name: str, fields: tuple[str, ...], *, unique: bool) -> None:
        self.table = table
        self.name = name
        self.fields = fields
        self.unique = unique

    def __repr__(self) -> str:
        return f"{self.table.__name__}.{self.name}({', '.join(self.fields)})"


class Index:
    """An index over fields, in their order: `by_channel = Index("channel")`.

    Nested fields are written with dots: `Index("profile.city")`. The creation time is appended
    to every index, so documents with equal fields come in the order of their creation.
    In a unique index a null or missing field collides with nothing.
    """

    __slots__ = ("fields", "name", "unique")

    def __init__(self, *fields: str, unique: bool = False) -> None:
        self.fields = fields
        self.unique = unique
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: object, owner: type[HasFields[P, T]]) -> BoundIndex[T, P]:
        bound: dict[str, Any] = vars(owner)["__indexes__"]
        return cast("BoundIndex[T, P]", bound[self.name])

    def check(self, where: str, known: Collection[str]) -> None:
        """Refuse what can be seen from the names of the table's own fields.

        Args:
            where: `Message.by_channel`, for the message.
            known: Names of the table's fields without the system's.
        """
        if not self.fields or not all(isinstance(path, str) for path in self.fields):
            raise invalid_bundle(f'{where}: an index names its fields as text: Index("channel")')
        if len(self.fields) > INDEX_FIELDS_MAX or len(set(self.fields)) != len(self.fields):
            raise invalid_bundle(f"{where}: an index has up to {INDEX_FIELDS_MAX} different fields")
        for path in self.fields:
            head = path.split(".", 1)[0]
            if head == "creation_time_ms" or path == "id":
                raise invalid_bundle(f"{where}: the creation time is part of every index; leave out {path!r}")
            if head not in known:
                raise invalid_bundle(
                    f"{where}: there is no field {path!r}{nearest(head, known)}; "
                    f"fields are {', '.join(known) or 'none'}"
                )
