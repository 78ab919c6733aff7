"""Results of one function, from Python objects to checked wire bytes.

Pure. Lists of stored documents that nobody has touched go out as the bytes they were
stored as; everything else is checked by a predicate and encoded.
"""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import msgspec
from headwater_protocol.errors import InternalError
from msgspec import Struct, field
from msgspec import inspect as kinds

from headwater.annotations import check_ids, table_class, type_of, unwrapped
from headwater.checks import BEFORE_ENCODING, RESULT, TableOf, check_of
from headwater.fitting import fits_of
from headwater.json_schema import schema_of
from headwater.rows import Rows, element_id, encode_rows, splice, stored_id, stored_ids
from headwater.values import TOO_DEEP, MisfitError, array_header, check_integers, decoder, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater.annotations import Tables

T = TypeVar("T")

_FIXED_HEADER_FIELDS = 15  # with more fields the header of a document has another length


class Page(Struct, Generic[T]):
    """Some documents of a query and where to go on; `page`, `isDone`, `continueCursor` on the wire.

    Attributes:
        page: The documents.
        is_done: Whether the query ends here.
        continue_cursor: Give it to `paginate` to read what follows.
    """

    page: list[T]
    is_done: bool = field(name="isDone")
    continue_cursor: str = field(name="continueCursor")


class PageOptions(Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks of a paginated query; `numItems`, `cursor` and so on, on the wire.

    Attributes:
        num_items: How many documents a new page gets.
        cursor: Where the page begins: `continue_cursor` of the one before, None for the first.
        end_cursor: Where it ends, if the client wants to keep the end that it had.
        id: A client's own mark to tell one pagination from another; it changes nothing.
    """

    num_items: int = field(name="numItems")
    cursor: str | None = None
    end_cursor: str | None = field(default=None, name="endCursor")
    id: int | float | str | None = None


class EncodedResult(NamedTuple):
    """A result on its way to clients.

    Attributes:
        content: Encoded value.
        bounds: For a list: u32 little-endian offsets into `content`, the start of each
            element and the end of the last; else None.
        ids: For a list: `_id` of each element that has one, else None.
    """

    content: bytes
    bounds: bytes | None = None
    ids: list[str | None] | None = None


def encode_result(value: Any) -> EncodedResult:
    """Encode a value that has been checked.

    Raises:
        TypeError, ValueError, OverflowError: It was not; msgspec's own errors.
    """
    kind = type(value)
    if kind is Rows and value.untouched and value.current:
        documents = value.stored()
        return EncodedResult(splice(documents), _bounds(documents), _ids(documents, value.table))
    if kind is Page and type(value.page) is Rows:
        done = b"\xc3" if value.is_done else b"\xc2"
        cursor = encode(value.continue_cursor)
        page = encode_rows(value.page)
        content = b"\xa4page%b\xa6isDone%b\xaecontinueCursor%b" % (page, done, cursor)
        if value.page.split_cursor is None:
            return EncodedResult(b"\x83" + content)
        return EncodedResult(b"\x84%b\xabsplitCursor%b" % (content, encode(value.page.split_cursor)))
    if isinstance(value, list | tuple):
        elements = [encode(element) for element in value]
        return EncodedResult(splice(elements), _bounds(elements), [element_id(element) for element in value])
    return EncodedResult(encode(value))


def _ids(documents: Sequence[bytes], table: Any) -> list[str | None]:
    if len(table.__struct_fields__) <= _FIXED_HEADER_FIELDS:
        return [*stored_ids(documents)]
    return [stored_id(document) for document in documents]


def _bounds(elements: Sequence[bytes]) -> bytes:
    offsets = array("I", accumulate(map(len, elements), initial=len(array_header(len(elements)))))
    if sys.byteorder == "big":
        offsets.byteswap()
    return offsets.tobytes()


class ResultCodec:
    """Checks and encodes the results of one function.

    Attributes:
        schema: JSON schema of the result.
    """

    def __init__(self, name: str, annotation: Any, tables: Tables) -> None:
        kind = type_of(annotation, f"{name}: its result")
        check_ids(kind, tables, f"{name}: its result")
        self.schema = schema_of(kind, tables)
        self._name = name
        self._fits = fits_of(kind)
        self._decode = decoder(annotation).decode
        self._check_before = check_of(kind, BEFORE_ENCODING, tables)
        self._check_after = check_of(kind, RESULT, tables)
        self._rows_of = _rows_of(kind)
        self._page_of = _page_of(kind)

    def encode(self, value: Any, unread: Sequence[Rows], table_of: TableOf) -> EncodedResult:
        """Return the checked, encoded result.

        Args:
            value: What the function returned.
            unread: Every `Rows` made in this call; they are read before anything that could
                contain them is encoded.
            table_of: Names the table of an id.

        Raises:
            InternalError: `invalid_result`, naming function, path and what was expected.
        """
        try:
            return encode_result(self.checked(value, unread, table_of))
        except UnicodeError:
            raise self._refused("text holds an unpaired surrogate, which is not valid Unicode") from None

    def checked(self, value: Any, unread: Sequence[Rows], table_of: TableOf) -> Any:
        """Return `value` if it fits what is declared, or the same brought into its canonical form.

        Raises:
            InternalError: `invalid_result`.
        """
        kind = type(value)
        if kind is Rows and value.untouched and self._takes(self._rows_of, value):
            return value
        if kind is Page and type(value.page) is Rows and value.page.untouched and self._is_page(value):
            return value
        if self._fits(value):
            return value
        for rows in unread:
            rows.read()
        try:
            if self._check_before is not None:
                self._check_before(value, table_of)
            content = encode(value)
            decoded = self._decode(content)
            check_integers(content, decoded)
            if self._check_after is not None:
                self._check_after(decoded, table_of)
        except MisfitError as wrong:
            raise self._refused(str(wrong)) from None
        except UnicodeError:
            raise self._refused("text holds an unpaired surrogate, which is not valid Unicode") from None
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._refused(_told(value, error)) from None
        return decoded

    def decode(self, content: bytes, table_of: TableOf) -> Any:
        """Return the result of a call that ran elsewhere as Python objects of the declared types.

        Raises:
            InternalError: `invalid_result`: it is not what is declared here; another version of the function ran.
        """
        try:
            decoded = self._decode(content)
            check_integers(content, decoded)
            if self._check_after is not None:
                self._check_after(decoded, table_of)
        except (MisfitError, ValueError) as wrong:
            raise self._refused(f"{wrong}; another version of the function has run") from None
        return decoded

    def _is_page(self, value: Page[Any]) -> bool:
        whole = type(value.is_done) is bool and type(value.continue_cursor) is str
        return whole and self._takes(self._page_of, value.page)

    @staticmethod
    def _takes(declared: Any, rows: Any) -> bool:
        return declared is Any or (declared is not None and declared is rows.table)

    def _refused(self, problem: str) -> InternalError:
        return InternalError(f"the result of {self._name}: {problem}", code="invalid_result")


def _told(value: Any, error: Exception) -> str:
    if value is msgspec.UNSET:
        return "Expected a value, got the id of a document that was never stored"
    if isinstance(error, RecursionError):
        return TOO_DEEP
    return str(error) or type(error).__name__


def _alternatives(kind: kinds.Type) -> tuple[kinds.Type, ...]:
    inner = unwrapped(kind)
    return inner.types if isinstance(inner, kinds.UnionType) else (inner,)


def _rows_of(kind: kinds.Type) -> Any:
    """Return the table whose documents the declared list holds, `Any` for a list of anything, else None."""
    for inner in map(unwrapped, _alternatives(kind)):
        match inner:
            case kinds.AnyType():
                return Any
            case kinds.ListType(item_type=item, min_length=None, max_length=None):
                return Any if isinstance(unwrapped(item), kinds.AnyType) else table_class(item)
    return None


def _page_of(kind: kinds.Type) -> Any:
    """Return the table whose documents the declared page holds, `Any` for one of anything, else None."""
    for inner in map(unwrapped, _alternatives(kind)):
        if isinstance(inner, kinds.StructType) and getattr(inner.cls, "__origin__", inner.cls) is Page:
            return _rows_of(inner.fields[0].type)
    return None
