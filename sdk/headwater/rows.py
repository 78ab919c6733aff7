"""Lists of stored documents that stay bytes until somebody looks.

Most queries return what they have read unchanged. `Rows` holds the stored bytes; the first
look at an item decodes all of them in one call, in place, and from then on it is an
ordinary list. Returned untouched, its bytes go out as they are.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Any, SupportsIndex

from headwater.values import array_header, encode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_LONG_MAP = 0xDE  # header of 3 bytes, for over 15 fields
_ID_AT = 7  # map header of 1 byte, text header and "_id" of 4, text header of 2


class Rows(list):  # type: ignore[type-arg]  # to its users it is the `list[T]` that `take` promises
    """A list of documents of one table that is decoded when it is first looked at.

    Known limit: C code that takes items out of a list's storage without asking its type
    (`heapq.heapify`, slice assignment from it) meets bytes; `list(rows)` is an ordinary list.

    Attributes:
        table: Class of the documents.
        current: Whether the current shape of the table wrote all of them, so that the bytes
            are what encoding the decoded documents would give.
        split_cursor: Of a page that has grown beyond what was asked for: a place in its middle. Clients of Convex split
            such pages there, so it goes along with the result; ours do without.
    """

    __slots__ = ("_decode", "current", "split_cursor", "table")

    def __init__(
        self, documents: Sequence[bytes], decode: Callable[[bytes], list[Any]], table: type, *, current: bool
    ) -> None:
        super().__init__(documents)
        self._decode: Callable[[bytes], list[Any]] | None = decode
        self.table = table
        self.current = current
        self.split_cursor: str | None = None

    @property
    def untouched(self) -> bool:
        """Whether nobody has looked at an item yet."""
        return self._decode is not None

    def stored(self) -> list[bytes]:
        """Return the stored bytes of an untouched list."""
        return list(list.__iter__(self))

    def read(self) -> Rows:
        """Decode the documents if that has not happened yet."""
        decode = self._decode
        if decode is not None:
            self._decode = None
            documents = list(list.__iter__(self))
            list.__setitem__(self, slice(None), decode(array_header(len(documents)) + b"".join(documents)))
        return self

    def __radd__(self, other: list[Any]) -> list[Any]:
        return other + list.copy(self.read())

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[type, tuple[list[Any]]]:
        return list, (list.copy(self.read()),)


def _reading_first(name: str) -> Callable[..., Any]:
    plain = getattr(list, name)

    def method(self: Rows, *args: Any, **kwargs: Any) -> Any:
        if self._decode is not None:
            self.read()
        return plain(self, *args, **kwargs)

    method.__name__ = name
    return method


for _name in (
    *("__iter__", "__getitem__", "__setitem__", "__delitem__", "__contains__", "__reversed__", "__repr__"),
    *("__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__add__", "__iadd__", "__mul__", "__rmul__", "__imul__"),
    *("append", "extend", "insert", "pop", "remove", "reverse", "sort", "index", "count", "copy", "clear"),
):
    setattr(Rows, _name, _reading_first(_name))


def stored_ids(documents: Sequence[bytes]) -> list[str]:
    """Return the ids of documents of one table as our encoder stores them: `_id` first.

    All ids of a table have one length; of tables with over 13 fields of their own use
    `stored_id`, since the headers of their documents have not.
    """
    if not documents:
        return []
    end = _ID_AT + documents[0][_ID_AT - 1]
    return b" ".join(map(itemgetter(slice(_ID_AT, end)), documents)).decode().split(" ")


def stored_id(document: bytes) -> str:
    """Return the id of a document as our encoder stores it."""
    start = _ID_AT if document[0] != _LONG_MAP else _ID_AT + 2
    return document[start : start + document[start - 1]].decode()


def element_id(value: Any) -> str | None:
    """Return the `_id` that a list's element has on the wire, None if it has none."""
    if type(value) is dict:
        found = value.get("_id")
    else:
        found = getattr(value, "id", None) if hasattr(type(value), "__table__") else None
    return found if type(found) is str else None


def splice(elements: Sequence[bytes]) -> bytes:
    """Return the encoding of a list from those of its elements."""
    return array_header(len(elements)) + b"".join(elements)


def encode_rows(rows: Rows) -> bytes:
    """Return the encoding of a list of documents, from the stored bytes if nobody has changed them."""
    if rows.untouched and rows.current:
        return splice(list(list.__iter__(rows)))
    return encode(rows.read())
