"""Which entries a document has in the indexes of its table.

Pure, and the only place that knows: live transactions, replay, backfill and the checks all
derive entries here, from stored bytes and index definitions alone, so replay equals live by
construction.
"""

from __future__ import annotations

from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.values import INT64_EXTENSION

from headwater_storage.keys import FIELDS_BYTES_MAX, MISSING, encode_field, encode_fields, index_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    _Getter = Callable[[Any], Any]


class IndexDefinition(msgspec.Struct, frozen=True):
    """One index of a table.

    Attributes:
        number: Names it in entry keys; never used again for another index.
        table: Number of its table.
        name: Unique among the table's ready indexes.
        fields: Dotted paths into the document.
        unique: Whether two documents may not have the same fields; a null or missing field
            collides with nothing.
        state: `building`, `ready` or `dropping`.
        defaults: What stands for a field that a document does not have, encoded, by its dotted path or that of
            what it is in: the default that the bundle declares, which is what calls read there.
    """

    number: int
    table: int
    name: str
    fields: list[str]
    unique: bool
    state: str
    defaults: dict[str, bytes] = {}

    @property
    def maintained(self) -> bool:
        """Whether writers keep its entries up to date."""
        return self.state != "dropping"


class EntryMaker:
    """Derives the entries of one table's documents.

    Only the fields that some index names are decoded; the rest of a document is skipped.
    """

    __slots__ = ("_decode", "_plans", "indexes")

    def __init__(self, indexes: Sequence[IndexDefinition]) -> None:
        self.indexes = tuple(indexes)
        columns: dict[str, str] = {}
        for index in indexes:
            for path in index.fields:
                columns.setdefault(path.split(".", 1)[0], f"column_{len(columns)}")
        self._decode = _column_decoder(columns)
        self._plans = [_plan_of(index, columns) for index in self.indexes]

    def entries(self, document: bytes, suffix: bytes) -> tuple[list[bytes], dict[bytes, bytes]]:
        """Return the entry key in each index, in the order of `indexes`, and the rests of cut ones."""
        if not self._plans:
            return [], {}
        row = self._decode(document)
        keys: list[bytes] = []
        overflow: dict[bytes, bytes] = {}
        for prefix, first, further in self._plans:
            fields = encode_field(first(row))
            if further:
                fields += encode_fields([get(row) for get in further])
            if len(fields) <= FIELDS_BYTES_MAX:  # as `entry_key` does; most of a replay's time is spent here
                keys.append(prefix + fields + suffix)
            else:
                keys.append(prefix + fields[:FIELDS_BYTES_MAX] + suffix)
                overflow[keys[-1]] = fields[FIELDS_BYTES_MAX:]
        return keys, overflow

    def unique_values(self, position: int, document: bytes) -> list[Any] | None:
        """Return the document's fields in the index at `position` of `indexes`.

        None if one of them is null or missing, so that they cannot collide.
        """
        values = self.values(position, document)
        return None if any(value is None or value is MISSING for value in values) else values

    def values(self, position: int, document: bytes) -> list[Any]:
        """Return the document's fields in the index at `position` of `indexes`, as its entry has them."""
        row = self._decode(document)
        _, first, further = self._plans[position]
        return [get(row) for get in (first, *further)]


def _column_decoder(columns: dict[str, str]) -> Any:
    """Return a function that decodes just these top-level fields, each to builtins or `MISSING`."""
    struct = msgspec.defstruct(
        "Columns",
        [(column, Any, msgspec.field(default=MISSING)) for column in columns.values()],
        rename={column: name for name, column in columns.items()},
        frozen=True,
        gc=False,
    )
    return msgspec.msgpack.Decoder(struct, ext_hook=_plain_extension).decode


def _plain_extension(code: int, data: memoryview) -> Any:
    if code == INT64_EXTENSION and len(data) == 8:
        return int.from_bytes(data, "big", signed=True)
    raise msgspec.ValidationError(f"extension type {code} has no place in the order of values")


_decode_plain = msgspec.msgpack.Decoder(ext_hook=_plain_extension).decode


def _plan_of(index: IndexDefinition, columns: dict[str, str]) -> tuple[bytes, _Getter, list[_Getter]]:
    """Return an index's prefix, what takes its first field out of a decoded row, and the same for further ones."""
    first, *further = [_getter_of(path, columns, index.defaults) for path in index.fields]
    return index_prefix(index.number), first, further


def _getter_of(path: str, columns: dict[str, str], defaults: Mapping[str, bytes]) -> _Getter:
    """Return what takes the value at a dotted path out of a decoded row."""
    head, *rest = path.split(".")
    column: _Getter = attrgetter(columns[head])
    steps = [".".join([head, *rest[:depth]]) for depth in range(len(rest) + 1)]
    if any(step in defaults for step in steps):
        stand_ins = [_decode_plain(defaults[step]) if step in defaults else MISSING for step in steps]
        return partial(_defaulted, column, stand_ins[0], tuple(zip(rest, stand_ins[1:], strict=True)))
    return partial(_nested, column, tuple(rest)) if rest else column


def _defaulted(column: _Getter, default: Any, steps: tuple[tuple[str, Any], ...], row: Any) -> Any:
    value = column(row)
    if value is MISSING:
        value = default
    for name, stand_in in steps:
        if not isinstance(value, dict):
            return MISSING
        value = value.get(name, stand_in)
    return value


def _nested(column: _Getter, names: tuple[str, ...], row: Any) -> Any:
    value = column(row)
    for name in names:
        if not isinstance(value, dict) or name not in value:
            return MISSING
        value = value[name]
    return value
