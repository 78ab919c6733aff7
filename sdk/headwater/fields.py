"""Ids and pointers to fields, as annotations and in queries.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import msgspec
from headwater_protocol.ids import ID_LENGTH_MAX, ID_LENGTH_MIN

T_co = TypeVar("T_co", covariant=True)

ID_MARK = "headwater.Id"
"""Key in `Meta.extra` under which an id annotation names its table: the class or its name."""

if TYPE_CHECKING:

    class Id(str, Generic[T_co]):
        """Text that names a document of one table; at run time a plain `str`.

        `Id["Message"]` names a table by its class name: for one that comes later, or that is
        imported for type checkers only.
        """

else:

    class Id:
        """Text that names a document of one table; at run time a plain `str`."""

        def __new__(cls, text: str) -> str:
            """Return the text itself: `Id[Message](text)` is for type checkers."""
            return str(text)

        def __class_getitem__(cls, table: Any) -> Any:
            """Return the annotation that msgspec understands and a bundle resolves."""
            return Annotated[
                str,
                msgspec.Meta(min_length=ID_LENGTH_MIN, max_length=ID_LENGTH_MAX, extra={ID_MARK: table}),
            ]


class FieldRef:
    """What `Message.score` is at run time: a pointer to a field. Checkers see the field's own type."""

    __slots__ = ("path", "table")

    def __init__(self, table: type, path: str) -> None:
        self.table = table
        self.path = path

    def __getattr__(self, name: str) -> FieldRef:
        """Point to a field inside this one: `User.profile.city`."""
        if name.startswith("__"):
            raise AttributeError(name)
        return FieldRef(self.table, f"{self.path}.{name}")

    def __repr__(self) -> str:
        return f"{self.table.__name__}.{self.path}"

    def __bool__(self) -> bool:
        raise TypeError(
            f"{self!r} is a field, not a value; a condition on it goes into .range(...) "
            "or .filter(lambda document: ...)"
        )
