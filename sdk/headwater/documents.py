"""Documents of one table, between Python objects and stored bytes.

Pure. Constructors check nothing, so what is stored is checked here: a document is encoded,
decoded again as its table, and encoded a second time with its id. The detour costs a
microsecond and makes the stored form canonical, ints in float fields as floats.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

import msgspec
from msgspec import inspect as kinds
from msgspec.structs import force_setattr

from headwater.annotations import Tables, type_of, walk
from headwater.checks import BEFORE_ENCODING, STORED_DOCUMENT, Check, TableOf, check_of
from headwater.misfits import explained
from headwater.refusals import invalid_document, nearest
from headwater.schema import SYSTEM_FIELDS
from headwater.values import MisfitError, check_integers, decoder, encode

if TYPE_CHECKING:
    from headwater.indexes import HasFields
    from headwater.schema import TableMeta

P = ParamSpec("P")
T = TypeVar("T")

_decode_plain = msgspec.msgpack.Decoder().decode

UNSTORED = "UNSET: it was taken from a document that was never stored"


class DocumentCodec:
    """Reads and writes the documents of one table.

    Attributes:
        table: Class of the table.
        name: Name of the table.
        fields: Names of its fields, without the system's.
        decode_list: Decodes a whole encoded list of documents.
    """

    def __init__(self, table: TableMeta, tables: Tables) -> None:
        kind = type_of(table, table.__name__)
        self.table = table
        self.name = table.__table__
        self.fields = [name for name in table.__struct_fields__ if name not in SYSTEM_FIELDS]
        self._decode = decoder(table).decode
        self.decode_list = decoder(list[table]).decode  # type: ignore[valid-type]
        self._check_before = check_of(kind, BEFORE_ENCODING, tables)
        self._check_after = check_of(kind, STORED_DOCUMENT, tables)
        self._reads_alike = _reads_alike(kind)
        self._kind = kind
        self._tables = tables

    def decode(self, document: bytes) -> Any:
        """Return the object of stored bytes.

        Raises:
            RequestError: `invalid_document`; the table's class has changed in a way that
                does not fit what is stored.
        """
        try:
            return self._decode(document)
        except msgspec.ValidationError as error:
            raise invalid_document(
                f"a stored document of table {self.name!r} does not fit it: {error}"
            ) from None

    def reread(self, document: bytes, table_of: TableOf) -> bytes:
        """Return a stored document as calls read it, encoded anew.

        Args:
            document: As it was stored, maybe under an earlier shape of the table.
            table_of: Names the table of an id.

        Raises:
            MisfitError: It is none of this table; says why.
        """
        try:
            decoded = self._decode(document)
            if self._check_after is not None:
                self._check_after(decoded, table_of)
            return encode(decoded)
        except Exception as error:  # a type of the bundle's own may raise anything
            told = explained(str(error), self._kind, self._tables)
            raise MisfitError(told or type(error).__name__) from None

    def rewritten(self, document: bytes, table_of: TableOf) -> tuple[bytes, bool]:
        """Return a stored document as it would be stored today, and whether calls read the same from both.

        Args:
            document: As in `reread`.
            table_of: As in `reread`.

        Raises:
            MisfitError: It is none of this table, or lost something; says why.
        """
        read = self.reread(document, table_of)
        # A default need not be what its field holds: `0` for a float, a word for a choice. What is stored is.
        written = read if read == document else self.reread(read, table_of)
        if loses(document, written):
            raise MisfitError("it has fields that are no longer declared, or integers that no float holds")
        if written != read and self.reread(written, table_of) != written:
            raise MisfitError("it changes each time it is read")
        if written == document:
            return written, self._reads_alike
        alike = (
            self._reads_alike
            and written == read
            and _same_kinds(self._decode(document), self._decode(written))
        )
        return written, alike

    def encode(self, document: Any, document_id: str, creation_time_ms: float, table_of: TableOf) -> bytes:
        """Return the bytes to store for a document.

        Args:
            document: An instance of the table; stays as it is.
            document_id: Its id, which `document` need not have.
            creation_time_ms: Its creation time.
            table_of: Names the table of an id.

        Raises:
            RequestError: `invalid_document`, naming table, path and what was expected.
        """
        try:
            if self._check_before is not None:
                self._check_before(document, table_of)
            content = encode(document)
            checked = self._decode(content)
            check_integers(content, checked)
            if self._check_after is not None:
                self._check_after(checked, table_of)
        except MisfitError as wrong:
            raise self._refused(str(wrong)) from None
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise self._refused(self._told(document, error)) from None
        force_setattr(checked, "id", document_id)
        force_setattr(checked, "creation_time_ms", creation_time_ms)
        return encode(checked)

    def changed(self, document: Any, changes: dict[str, Any]) -> Any:
        """Set fields of a document that was just decoded, which nobody else holds; return it.

        Raises:
            RequestError: `invalid_document` for a field that the table does not have.
        """
        for name, value in changes.items():
            if name not in self.fields:
                raise self._refused(self._no_field(name))
            if value is msgspec.UNSET:
                raise self._refused(f"`{name}` is {UNSTORED}")
            force_setattr(document, name, value)
        return document

    def _no_field(self, name: str) -> str:
        if name in SYSTEM_FIELDS:
            return f"`{name}` belongs to the system and cannot be changed"
        return f"there is no field `{name}`{nearest(name, self.fields)}"

    def _told(self, document: Any, error: Exception) -> str:
        """Return what an error of the encoder or decoder means for the author of the document."""
        for name in self.fields:
            if getattr(document, name) is msgspec.UNSET:
                return f"`{name}` is {UNSTORED}"
        if isinstance(error, UnicodeError):
            return "text holds an unpaired surrogate, which is not valid Unicode"
        return explained(str(error), self._kind, self._tables) or type(error).__name__

    def _refused(self, problem: str) -> Exception:
        return invalid_document(f"table {self.name!r}: {problem}")


def replace(document: HasFields[P, T], /, *args: P.args, **changes: P.kwargs) -> T:
    """Return a changed copy of a document; nothing is stored.

    Raises:
        RequestError: `invalid_document` for a field or value that the table does not have.
    """
    cls = type(document)
    for name in SYSTEM_FIELDS.keys() & changes.keys():
        raise invalid_document(f"{cls.__name__}.{name} belongs to the system and cannot be changed")
    try:
        changed = msgspec.structs.replace(cast("Any", document), **changes)
        if (check := _check_before(cast("TableMeta", cls))) is not None:
            check(changed, lambda _: None)
        copy = decoder(cls).decode(encode(changed))
    except (MisfitError, TypeError, ValueError, OverflowError) as error:
        raise invalid_document(f"{cls.__name__}: {error}") from None
    return cast("T", copy)


@cache
def _check_before(table: TableMeta) -> Check | None:
    return check_of(type_of(table, table.__name__), BEFORE_ENCODING, Tables({}))


def loses(before: bytes, after: bytes) -> bool:
    """Tell whether a document that was encoded anew lacks what it had: a field, or digits of an integer."""
    return before != after and _loses(_decode_plain(before), _decode_plain(after))


def _loses(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return not isinstance(after, dict) or any(
            name not in after or _loses(value, after[name]) for name, value in before.items()
        )
    if isinstance(before, list):
        return not isinstance(after, list) or len(before) != len(after) or any(map(_loses, before, after))
    return type(before) is int and type(after) is float and bool(before != after)


def _same_kinds(one: Any, other: Any) -> bool:
    """Tell whether two values that are encoded the same are the same for the code of a bundle."""
    if type(one) is not type(other):
        return False
    if isinstance(one, datetime):
        return bool(one.tzinfo == other.tzinfo)
    if isinstance(one, dict):
        return all(_same_kinds(value, other[name]) for name, value in one.items())
    if isinstance(one, list | tuple):
        return all(map(_same_kinds, one, other))
    names = (
        [item.name for item in fields(one)] if is_dataclass(one) else getattr(one, "__struct_fields__", ())
    )
    return all(_same_kinds(getattr(one, name), getattr(other, name)) for name in names)


def _reads_alike(kind: kinds.Type) -> bool:
    """Tell whether no field of a type is made by code of the bundle when it is read."""
    found = True

    def visit(inner: kinds.Type) -> None:
        nonlocal found
        if isinstance(inner, kinds.StructType | kinds.DataclassType):
            made = any(field.default_factory not in (msgspec.NODEFAULT, list, dict) for field in inner.fields)
            found = found and not made and not hasattr(inner.cls, "__post_init__")
        elif isinstance(inner, kinds.EnumType):
            found = found and inner.cls._missing_.__func__ is Enum._missing_.__func__  # type: ignore[attr-defined]

    walk(kind, visit)
    return found
