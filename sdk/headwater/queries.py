"""Queries: a range of one index, read in its order.

A query reads nothing until its documents are asked for. What was read is what makes the
result stale later, so `take(20)` depends on twenty documents and `collect()` on all.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any, Generic, Literal, Protocol, Self, TypeVar, overload

from headwater_protocol.errors import RequestError

from headwater.backend import Bound
from headwater.cursors import Cursor, fingerprint, read_cursor, write_cursor
from headwater.fields import FieldRef
from headwater.index_plans import CREATION_TIME, CREATION_TIME_FIELD, IndexField, IndexPlan
from headwater.results import Page, PageOptions
from headwater.rows import Rows, stored_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from headwater.backend import Backend, StoredDocument
    from headwater.cursors import Journal
    from headwater.documents import DocumentCodec

T = TypeVar("T")
V = TypeVar("V")

PAGE_SIZE_MAX = 10_000


class Reading(Protocol):
    """What a query needs of the call that it belongs to.

    Attributes:
        backend: The transaction.
        journal: Ends of pages.
        unread: Lists of stored documents made in this call.
        function: Name of the called function: cursors of one do not fit another.
    """

    backend: Backend
    journal: Journal
    unread: list[Rows]
    function: str


class Query(Generic[T]):
    """A range of one index, read in its order. Each method returns a new query; none reads by itself."""

    __slots__ = ("_codec", "_descending", "_equal", "_filters", "_lower", "_plan", "_reading", "_upper")

    def __init__(
        self, reading: Reading, codec: DocumentCodec, plan: IndexPlan | None, equal: tuple[Any, ...] = ()
    ) -> None:
        self._reading = reading
        self._codec = codec
        self._plan = plan
        self._equal = equal
        self._lower: Bound | None = None
        self._upper: Bound | None = None
        self._descending = False
        self._filters: tuple[Callable[[Any], bool], ...] = ()

    def order(self, direction: Literal["asc", "desc"], /) -> Self:
        """Read from the beginning (`asc`) or from the end (`desc`) of the range."""
        if direction not in ("asc", "desc"):
            raise TypeError(f'.order() takes "asc" or "desc", got {direction!r}')
        changed = self._copy()
        changed._descending = direction == "desc"
        return changed

    def range(self, field: V | None, /) -> Range[T, V]:
        """Put bounds on the next field of the index: `.range(Message.score).gte(5).lt(9)`."""
        expected = self._next_field()
        if not isinstance(field, FieldRef):
            raise TypeError(
                f".range() takes a field of the class, such as {self._codec.table.__name__}.{expected.path}, "
                f"got the value {field!r}"
            )
        if self._lower is not None or self._upper is not None:
            raise TypeError(f"a query has one range; {self._told()} has bounds already")
        if field.table is not self._codec.table or field.path != expected.path:
            raise TypeError(f"{field!r} is not the next field of {self._told()}; that is `{expected.path}`")
        ranged: Range[T, V] = Range(self._reading, self._codec, self._plan, self._equal)
        ranged._descending = self._descending
        ranged._filters = self._filters
        return ranged

    def filter(self, keep: Callable[[T], bool], /) -> Self:
        """Drop documents for which `keep` is false. They still count as read: prefer an index."""
        if not callable(keep):  # `Post.score == 3`, as elsewhere, is a comparison of the field itself: False
            raise TypeError(
                f".filter() takes a function of a document, such as `lambda post: post.score == 3`, got {keep!r}"
            )
        changed = self._copy()
        changed._filters = (*self._filters, keep)
        return changed

    def take(self, count: int, /) -> list[T]:
        """Return the first `count` documents."""
        if type(count) is not int or count < 0:
            raise TypeError(f".take() takes a number from 0, got {count!r}")
        if self._filters:
            return list(islice(self._kept(), count))
        return self._rows(list(islice(self._read(), count)))

    def collect(self) -> list[T]:
        """Return all documents of the range. The result depends on each of them and on new ones."""
        return list(self._kept()) if self._filters else self._rows(list(self._read()))

    def first(self) -> T | None:
        """Return the first document, None if there is none."""
        return next(iter(self), None)

    def unique(self) -> T | None:
        """Return the only document, None if there is none.

        Raises:
            RequestError: There is more than one.
        """
        found = list(islice(iter(self), 2))
        if len(found) > 1:
            raise RequestError(f".unique() found more than one document in {self._told()}")
        return found[0] if found else None

    def __iter__(self) -> Iterator[T]:
        """Read document by document; stop early and the rest counts as unread."""
        if self._filters:
            return self._kept()
        decode = self._codec.decode
        return (decode(stored.document) for stored in self._read())

    @overload
    def paginate(self, options: PageOptions, /) -> Page[T]: ...
    @overload
    def paginate(self, cursor: str | None, size: int) -> Page[T]: ...
    def paginate(self, cursor: PageOptions | str | None, size: int = 0) -> Page[T]:
        """Return the documents from a cursor on.

        A page that is shown live keeps its end when documents come or go, so the pages of a
        client neither overlap nor leave gaps; it then has more or fewer than `size` documents.

        Args:
            cursor: `continue_cursor` of the page before, None for the first; or a client's
                `PageOptions`, then without `size`.
            size: How many documents a new page gets.

        Raises:
            RequestError: `invalid_cursor`.
        """
        options = cursor if isinstance(cursor, PageOptions) else PageOptions(num_items=size, cursor=cursor)
        if not 0 < options.num_items <= PAGE_SIZE_MAX:
            raise RequestError(
                f"a page has 1 to {PAGE_SIZE_MAX} documents, got {options.num_items}",
                code="invalid_arguments",
            )
        query = self._fingerprint()
        start = read_cursor(options.cursor, query) if options.cursor is not None else Cursor(query, b"")
        if start.position is None:
            return Page(self._rows([]), is_done=True, continue_cursor=write_cursor(start))
        page = fingerprint([query, start.position])
        end = self._end_of(options, query, page)
        if end is not None and end.position is None:
            documents = list(self._stored(start.position or None, None))
        elif end is not None:
            documents = list(self._stored(start.position or None, end.position))
        else:
            documents = list(islice(self._stored(start.position or None, None), options.num_items))
            last = documents[-1] if len(documents) == options.num_items else None
            end = Cursor(query, self._position(last) if last else None)
        if end.position is not None:
            self._reading.journal.keep(page, end.position)
        rows = self._rows(documents)
        if len(documents) > options.num_items and isinstance(rows, Rows):
            middle = documents[len(documents) // 2 - 1]
            rows.split_cursor = write_cursor(Cursor(query, self._position(middle)))
        return Page(rows, is_done=end.position is None, continue_cursor=write_cursor(end))

    def _end_of(self, options: PageOptions, query: bytes, page: bytes) -> Cursor | None:
        """Return where the page ends if that is settled: by the client, or by the run before."""
        if options.end_cursor is not None:
            return read_cursor(options.end_cursor, query)
        kept = self._reading.journal.end_of(page)
        return Cursor(query, kept) if kept is not None else None

    def _position(self, stored: StoredDocument) -> bytes:
        name = self._plan.index.name if self._plan else None
        document = stored.document
        return self._reading.backend.position(self._codec.name, name, stored_id(document), document)

    def _fingerprint(self) -> bytes:
        """Return what the cursors of this query carry.

        Bounds are left out: they often follow the clock, and what is read is within them
        wherever a cursor points to.
        """
        fields = [field.stored_path for field in self._plan.fields] if self._plan else []
        name = self._plan.index.name if self._plan else None
        equal = list(self._equal)
        return fingerprint([self._reading.function, self._codec.name, name, fields, equal, self._descending])

    def _read(self, after: bytes | None = None, until: bytes | None = None) -> Iterator[StoredDocument]:
        plan = self._plan
        name = plan.index.name if plan is not None else None
        read_range = self._reading.backend.read_range
        if after is None and until is None:
            return read_range(
                self._codec.name, name, self._equal, self._lower, self._upper, descending=self._descending
            )
        return read_range(
            *(self._codec.name, name, self._equal, self._lower, self._upper),
            descending=self._descending,
            after=after,
            until=until,
        )

    def _stored(self, after: bytes | None, until: bytes | None) -> Iterator[StoredDocument]:
        """Read stored documents, without those that a filter drops."""
        found = self._read(after, until)
        if not self._filters:
            return found
        return (stored for stored in found if self._keeps(self._codec.decode(stored.document)))

    def _keeps(self, document: Any) -> bool:
        return all(keep(document) for keep in self._filters)

    def _kept(self) -> Iterator[T]:
        decode = self._codec.decode
        return (document for stored in self._read() if self._keeps(document := decode(stored.document)))

    def _rows(self, found: list[StoredDocument]) -> list[T]:
        documents, current = zip(*found, strict=True) if found else ((), ())
        rows = Rows(documents, self._codec.decode_list, self._codec.table, current=all(current))
        self._reading.unread.append(rows)
        return rows

    def _next_field(self) -> IndexField:
        fields = self._plan.fields if self._plan else ()
        return fields[len(self._equal)] if len(self._equal) < len(fields) else CREATION_TIME_FIELD

    def _told(self) -> str:
        if self._plan is None:
            return f"the table {self._codec.name!r} in creation order"
        return f"index {self._plan.index!r}"

    def _copy(self) -> Self:
        changed = type(self)(self._reading, self._codec, self._plan, self._equal)
        changed._lower, changed._upper = self._lower, self._upper
        changed._descending, changed._filters = self._descending, self._filters
        return changed


class Range(Query[T], Generic[T, V]):
    """A query with bounds on the field after its equal ones."""

    __slots__ = ()

    def eq(self, value: V | None, /) -> Query[T]:
        """Take documents whose field equals `value`; the next `.range` is about the field after it."""
        field = self._next_field()
        if self._lower is not None or self._upper is not None:
            raise TypeError(f".eq() on `{field.path}` stands alone; {self._told()} has bounds already")
        stored = field.stored_value(value)
        if field.path == CREATION_TIME:
            both: Range[T, V] = self._copy()
            both._lower = both._upper = Bound(stored, inclusive=True)
            return both
        query: Query[T] = Query(self._reading, self._codec, self._plan, (*self._equal, stored))
        query._descending, query._filters = self._descending, self._filters
        return query

    def gt(self, value: V, /) -> Range[T, V]:
        """Take documents whose field is greater than `value`."""
        return self._bounded(value, lower=True, inclusive=False)

    def gte(self, value: V, /) -> Range[T, V]:
        """Take documents whose field is `value` or greater."""
        return self._bounded(value, lower=True, inclusive=True)

    def lt(self, value: V, /) -> Range[T, V]:
        """Take documents whose field is less than `value`."""
        return self._bounded(value, lower=False, inclusive=False)

    def lte(self, value: V, /) -> Range[T, V]:
        """Take documents whose field is `value` or less."""
        return self._bounded(value, lower=False, inclusive=True)

    def _bounded(self, value: Any, *, lower: bool, inclusive: bool) -> Range[T, V]:
        field = self._next_field()
        if (self._lower if lower else self._upper) is not None:
            side = "lower" if lower else "upper"
            raise TypeError(f"`{field.path}` has a {side} bound already in {self._told()}")
        bound = Bound(field.stored_value(value), inclusive)
        changed = self._copy()
        if lower:
            changed._lower = bound
        else:
            changed._upper = bound
        return changed


def equal_prefix(plan: IndexPlan, args: tuple[Any, ...], equal: dict[str, Any]) -> tuple[Any, ...]:
    """Return the values of an index's first fields from the keyword arguments of `query`.

    Raises:
        TypeError: They are not the first fields of the index; names it and them.
    """
    fields = plan.fields
    names = [field.path for field in fields[: len(equal)]]
    if args:
        raise TypeError(f"the fields of {plan.index!r} are given by name: {fields[0].path}=...")
    if len(equal) > len(fields) or any(name not in equal for name in names):
        wrong = [name for name in equal if name not in {field.path for field in fields}]
        problem = (
            f"it has no field `{wrong[0]}`"
            if wrong
            else f"equal fields are its first ones, got {', '.join(equal)}"
        )
        raise TypeError(f"index {plan.index!r}: {problem}")
    return tuple([field.stored_value(equal[field.path]) for field in fields[: len(equal)]])
