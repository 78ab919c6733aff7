"""Results and deltas as SPEC.md has them. The tests' own: they share no code with the core or the client."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
from headwater_server.reactive.contents import Content

encode = msgspec.msgpack.encode
decode = msgspec.msgpack.decode


def content_of(value: Any) -> Content:
    """Encode a result as a worker does."""
    data = encode(value)
    if not isinstance(value, list):
        return Content.of(data)
    elements = [encode(element) for element in value]
    place = len(data) - sum(map(len, elements))
    bounds = [place]
    for element in elements:
        place += len(element)
        bounds.append(place)
    ids = [element.get("_id") if isinstance(element, dict) else None for element in value]
    return Content.of(data, struct.pack(f"<{len(bounds)}I", *bounds), ids)


def apply_operations(old: Any, operations: bytes) -> Any:
    """Return what a delta makes of an old value."""
    return _changed(old, decode(operations))


def _changed(old: Any, operations: Any) -> Any:
    kind, *rest = operations
    if kind == 1:
        changed, removed, *further = rest
        nested = {name: _changed(old[name], inner) for part in further for name, inner in part.items()}
        return {name: value for name, value in old.items() if name not in removed} | changed | nested
    new: list[Any] = []
    for operation in rest[0]:
        match operation:
            case [0, start, number]:
                assert start + number <= len(old), "a delta keeps what is not there"
                new += old[start : start + number]
            case [1, elements]:
                new += elements
            case [2, index, changed, removed]:
                new.append({n: v for n, v in old[index].items() if n not in removed} | changed)
            case [3, index, inner]:
                new.append(_changed(old[index], inner))
            case _:
                raise AssertionError(f"no such operation: {operation}")
    return new
