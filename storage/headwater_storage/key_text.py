"""Tell people what keys and key ranges stand for: a table, an index of it, and the values that lie there.

Pure. What is told is true of exactly the keys in question, but for long values, of which the beginning is shown.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from headwater_protocol.ids import SUFFIX_LENGTH, created_us_of, table_prefix

from headwater_storage.catalog import (
    ACTIVE_BUNDLE_KEY,
    DEPLOYMENT,
    ENVIRONMENT,
    REQUESTS,
    SYSTEM_HANDLES,
    SYSTEM_INDEXES,
    TABLES,
)
from headwater_storage.keys import (
    INDEX_BIT,
    MISSING,
    NUMBER_BYTES,
    decode_first_fields,
    encode_field,
    successor,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from headwater_storage.catalog import Catalog

_SHOWN_MAX = 60
_TIME_CHARACTERS = 11
_NUMBER_BYTES_MAX = 10
_TEXT_TAG = encode_field("")[:1]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_OTHERS = {TABLES: "_tables", DEPLOYMENT: "_deployment", ENVIRONMENT: "_environment", REQUESTS: "_requests"}


@dataclass(frozen=True, slots=True)
class Place:
    """What a key or a range stands for.

    Attributes:
        table: Name of the table.
        index: Name of the index; None: the documents themselves, in the order of their creation.
        text: Which part of that.
    """

    table: str
    index: str | None
    text: str


@dataclass(frozen=True, slots=True)
class _Space:
    """All keys that begin with the same number.

    Attributes:
        table: Name of the table.
        index: Name of the index, None for documents.
        fields: What of a document stands in them, before its suffix.
        id_prefix: What ids of the table begin with.
    """

    table: str
    index: str | None
    fields: Sequence[str]
    id_prefix: str


def key_place(catalog: Catalog, key: bytes) -> Place:
    """Return what a document key or an entry key stands for."""
    space = _space_of(catalog, key)
    if key == ACTIVE_BUNDLE_KEY:
        return Place(space.table, None, "the active bundle")
    if not _has_documents(key):
        return Place(space.table, space.index, _shown_bytes(key[NUMBER_BYTES:]))
    return Place(space.table, space.index, _position(key[NUMBER_BYTES:], space))


def range_place(catalog: Catalog, lo: bytes, hi: bytes) -> Place:
    """Return what the keys of `[lo, hi)` stand for."""
    space = _space_of(catalog, lo)
    if not _has_documents(lo):
        return Place(space.table, space.index, "some rows")
    values, ends = decode_first_fields(lo[NUMBER_BYTES:], len(space.fields))
    # The fields that have one value in all of the range: as many as `hi` allows.
    for count in range(len(values), -1, -1):
        end = NUMBER_BYTES + (ends[count - 1] if count else 0)
        common = lo[:end]
        if hi == successor(common) or (hi.startswith(common) and len(hi) > end):
            break
    else:
        return Place(space.table, space.index, "from " + _position(lo[NUMBER_BYTES:], space) + " and further")
    parts = [f"{name} = {shown(value)}" for name, value in zip(space.fields, values[:count], strict=False)]
    inner = replace(space, fields=space.fields[count:])
    if lo[end:]:
        parts.append(_lower(lo[end:], inner))
    if hi != successor(common):
        parts.append(_upper(hi[end:], inner))
    return Place(space.table, space.index, ", ".join(part for part in parts if part) or "all")


def table_of(catalog: Catalog, key: bytes) -> str:
    """Return the name of the table that a key, of a document or of an index, belongs to."""
    return _space_of(catalog, key).table


def shown(value: Any) -> str:
    """Return a value of a field in short."""
    if value is MISSING:
        return "missing"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, bytes):
        text = f"bytes {value[:_SHOWN_MAX].hex()}"
    else:
        text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN_MAX else text[:_SHOWN_MAX] + "…"


def _space_of(catalog: Catalog, key: bytes) -> _Space:
    number = int.from_bytes(key[:NUMBER_BYTES], "big")
    if number & INDEX_BIT:
        number ^= INDEX_BIT
        index = catalog.indexes.get(number) or SYSTEM_INDEXES.get(number)
        if index is None:
            return _Space("", f"index {number}", (), "")
        return _Space(_table_name(catalog, index.table), index.name, index.fields, table_prefix(index.table))
    return _Space(_table_name(catalog, number), None, (), table_prefix(number))


def _table_name(catalog: Catalog, number: int) -> str:
    handle = catalog.by_number.get(number) or SYSTEM_HANDLES.get(number)
    if handle is not None:
        return handle.definition.name
    return _OTHERS.get(number, f"table {number}")


def _has_documents(key: bytes) -> bool:
    """Tell whether a key's table has documents with ids, not rows of the system."""
    number = int.from_bytes(key[:NUMBER_BYTES], "big")
    return bool(number & INDEX_BIT) or number not in _OTHERS


def _lower(rest: bytes, space: _Space) -> str:
    """Return what a lower end says of the fields that are left, behind those that are the same in all of a range."""
    if space.fields and (told := _bound(rest, space, at_least=">=", above=">")):
        return told
    if not space.fields and len(rest) <= _TIME_CHARACTERS:
        return f"created from {_time(rest)}"
    return f"{'after' if _is_behind(rest) else 'from'} {_position(rest, space)}"


def _upper(rest: bytes, space: _Space) -> str:
    """Return the same of an upper end."""
    if space.fields and (told := _bound(rest, space, at_least="<", above="<=")):
        return told
    if not space.fields and len(rest) <= _TIME_CHARACTERS:
        return "" if rest == b"w" else f"created before {_time(rest)}"
    return f"{'to' if _is_behind(rest) else 'before'} {_position(rest, space)}"


def _bound(rest: bytes, space: _Space, *, at_least: str, above: str) -> str:
    """Return a bound on the next field: by its value, or by that of all that begins with it; "" if it is neither.

    The end of all that begins with a number is another number, the next one up: of the two the shorter is meant.
    """
    found = []
    for sign, encodings in ((at_least, [rest]), (above, _ended_by(rest))):
        for encoded in encodings:
            values, ends = decode_first_fields(encoded, 1)
            if values and ends[0] == len(encoded):
                found.append((sign, shown(values[0])))
                break
    if not found:
        return ""
    sign, value = min(found, key=lambda one: len(one[1]))
    return f"{space.fields[0]} {sign} {value}"


def _position(rest: bytes, space: _Space) -> str:
    """Return a place in an index or a table: the fields that are there, and the document."""
    values, ends = decode_first_fields(rest, len(space.fields))
    parts = [f"{name} = {shown(value)}" for name, value in zip(space.fields, values, strict=False)]
    behind = rest[ends[-1] :] if ends else rest
    if len(values) < len(space.fields):
        if behind:
            parts.append(f"{space.fields[len(values)]} = {_cut(behind)}")
    elif len(behind) >= SUFFIX_LENGTH:
        parts.append(f"document {space.id_prefix}{behind[:SUFFIX_LENGTH].decode(errors='replace')}")
    elif behind:
        parts.append(f"created from {_time(behind)}")
    return ", ".join(parts)


def _is_behind(rest: bytes) -> bool:
    """Tell whether an end stands behind a document, so that this is left out below it and included above it."""
    return rest.endswith(b"\x00") and len(rest) > SUFFIX_LENGTH


def _ended_by(end: bytes) -> Iterator[bytes]:
    """Yield the prefixes of which `end` is the end: their last bytes, if they are ff, do not stand in it."""
    if end and end[-1]:
        for count in range(_NUMBER_BYTES_MAX + 1):
            yield end[:-1] + bytes([end[-1] - 1]) + b"\xff" * count


def _time(digits: bytes) -> str:
    """Return a creation time, of which the first digits may be all that there is."""
    try:
        us = created_us_of(digits[:_TIME_CHARACTERS].decode().ljust(_TIME_CHARACTERS, "0"))
        return shown(_EPOCH + timedelta(microseconds=us))
    except (ValueError, OverflowError):
        return _shown_bytes(digits)


def _cut(encoded: bytes) -> str:
    """Return the beginning of a value that is too long to stand in a key as a whole."""
    if encoded[:1] == _TEXT_TAG:
        return shown(encoded[1:].decode(errors="ignore") + "…")
    return "a long value"


def _shown_bytes(content: bytes) -> str:
    text = content.decode(errors="replace")
    return "".join(character if character.isprintable() else "�" for character in text)[:_SHOWN_MAX]
