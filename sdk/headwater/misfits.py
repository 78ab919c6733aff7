"""What would have fitted, where msgspec says of a value only that it does not.

Pure. It names the place of a misfit, so the type is walked to that place. Only after a refusal: fitting values
pay nothing for it.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from msgspec import inspect as kinds

from headwater.annotations import id_reference, unwrapped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from headwater.annotations import Tables

_NAMED_MAX = 12  # of more alternatives only the first are named
_PLACED = re.compile(r"(?P<problem>.*?)(?: - at (?P<key>`key` in )?`\$(?P<place>.*)`)?", re.DOTALL).fullmatch
_STEPS = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]").findall
_LENGTH = re.compile(r"Expected `str` of length (?:>=|<=) \d+").fullmatch


def explained(problem: str, kind: kinds.Type, tables: Tables) -> str:
    """Return msgspec's words for a misfit, with the table of an id and the alternatives of a choice named.

    Args:
        problem: Its message.
        kind: Type of the value that was decoded.
        tables: Those of the bundle.
    """
    found = _PLACED(problem)
    assert found is not None, "it takes any text"
    said, key, place = found.groups()
    steps = _STEPS(place or "")
    at = problem[len(said) :]
    if _LENGTH(said):
        ids = list(dict.fromkeys(_tables_at(_reached(kind, steps, key=bool(key)), tables)))
        return f"Expected an id of table {' or '.join(map(repr, ids))}{at}" if ids else problem
    if said.startswith("Invalid enum value "):
        return f"{said}{_expected(_choices_at(_reached(kind, steps, key=bool(key))))}{at}"
    if said.startswith("Invalid value ") and steps:
        return f"{said}{_expected(_tags_at(_reached(kind, steps[:-1]), steps[-1][0]))}{at}"
    return problem


def _expected(choices: Iterable[Any]) -> str:
    named = list(dict.fromkeys(map(repr, choices)))
    if not named:
        return ""
    more = [f"{len(named) - _NAMED_MAX} others"] if len(named) > _NAMED_MAX else []
    *first, last = [*named[:_NAMED_MAX], *more]
    return f", expected {', '.join(first)} or {last}" if first else f", expected {last}"


def _reached(kind: kinds.Type, steps: list[tuple[str, str]], *, key: bool = False) -> list[kinds.Type]:
    """Return the types that may stand at a place, or of the keys of the dict there."""
    here = list(_alternatives(kind))
    for name, item in steps:
        here = [
            inner for outer in here for part in _parts(outer, name, item) for inner in _alternatives(part)
        ]
    if not key:
        return here
    return [
        inner
        for outer in here
        if isinstance(outer, kinds.DictType)
        for inner in _alternatives(outer.key_type)
    ]


def _alternatives(kind: kinds.Type) -> Iterator[kinds.Type]:
    inner = unwrapped(kind)
    if isinstance(inner, kinds.UnionType):
        for alternative in inner.types:
            yield from _alternatives(alternative)
    else:
        yield kind if id_reference(kind) is not None else inner


def _parts(kind: kinds.Type, name: str, item: str) -> Iterator[kinds.Type]:
    match kind:
        case kinds.StructType(fields=fields) | kinds.DataclassType(fields=fields) if name:
            yield from (field.type for field in fields if field.encode_name == name)
        case kinds.ListType(item_type=inner) | kinds.VarTupleType(item_type=inner) if item:
            yield inner
        case kinds.TupleType(item_types=items) if item.isdecimal() and int(item) < len(items):
            yield items[int(item)]
        case kinds.DictType(value_type=inner) if item:
            yield inner


def _tables_at(here: Iterable[kinds.Type], tables: Tables) -> Iterator[str]:
    for kind in here:
        reference = id_reference(kind)
        if reference is not None:
            yield tables.resolve(reference, "an id").__table__


def _choices_at(here: Iterable[kinds.Type]) -> Iterator[Any]:
    for kind in here:
        match kind:
            case kinds.LiteralType(values=values):
                yield from values
            case kinds.EnumType(cls=cls):
                yield from (member.value for member in cls)


def _tags_at(here: Iterable[kinds.Type], field: str) -> Iterator[Any]:
    yield from (kind.tag for kind in here if isinstance(kind, kinds.StructType) and kind.tag_field == field)
