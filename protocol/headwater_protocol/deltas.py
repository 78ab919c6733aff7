"""How a client turns the result it holds into the new one.

Pure. Operations are msgpack:

    [0, ops]                     the result is a list, ops an array of
        [0, start, count]          `count` elements of the old list from `start`
        [1, elements]              these new elements
        [2, index, set, removed]   the dict `index` of the old list, with the fields of `set` put
                                   and those named in `removed` taken away
        [3, index, operations]     the list or dict `index` of the old list, changed by operations of its own
    [1, set, removed, changed]   the result is a dict: fields put, taken away, and changed by operations of
                                 their own; `changed` may be left out

The new value shares every part that stayed with the old one, so values must be treated as
immutable. The side that makes operations is the server's.
"""

from __future__ import annotations

from reprlib import Repr
from typing import Any

from headwater_protocol.errors import ProtocolError
from headwater_protocol.values import unpack_value

_brief = Repr().repr  # what a message shows of a value, without walking through all of it
ELEMENTS_MAX = 1 << 24  # of the lists that a delta makes: a few bytes can ask for many copies of the old ones


def apply_delta(old: Any, operations: bytes) -> Any:
    """Return the value that `operations` make out of `old`, which stays as it is.

    Raises:
        ProtocolError: The operations are malformed or do not fit `old`.
    """
    try:
        return _Application().changed(old, unpack_value(operations))
    except RecursionError:
        raise ProtocolError("delta: too many operations inside one another") from None


class _Application:
    """One delta at work; its depth is that of a value, which is bounded where it is decoded."""

    def __init__(self) -> None:
        self._elements_left = ELEMENTS_MAX

    def changed(self, old: Any, operations: Any) -> Any:
        match operations:
            case [0, list() as ops]:
                return self._new_list(old, ops)
            case [1, dict() as put, list() as removed]:
                return _patched(old, put, removed)
            case [1, dict() as put, list() as removed, dict() as changed]:
                return self._changed_fields(old, put, removed, changed)
        raise _misfit("expected [0, operations] or [1, set, removed, changed]", operations)

    def _new_list(self, old: Any, ops: list[Any]) -> list[Any]:
        if type(old) is not list:
            raise _misfit("list operations need a list", old)
        new: list[Any] = []
        for op in ops:
            match op:
                case [0, int() as start, int() as count]:
                    if start < 0 or count < 0 or start + count > len(old):
                        raise _misfit(f"expected a range of {len(old)} elements", op)
                    self._elements_left -= count
                    if self._elements_left < 0:
                        raise _misfit(f"expected at most {ELEMENTS_MAX} elements", op)
                    new += old[start : start + count]
                case [1, list() as elements]:
                    new += elements
                case [2, int() as index, dict() as put, list() as removed]:
                    new.append(_patched(_element(old, index, op), put, removed))
                case [3, int() as index, operations]:
                    new.append(self.changed(_element(old, index, op), operations))
                case _:
                    raise _misfit(
                        "expected [0, start, count], [1, elements], [2, index, set, removed] or"
                        " [3, index, operations]",
                        op,
                    )
        return new

    def _changed_fields(
        self, old: Any, put: dict[str, Any], removed: list[Any], changed: dict[str, Any]
    ) -> dict[str, Any]:
        new = _patched(old, put, removed)
        for name, operations in changed.items():
            if name not in old or name in put or name not in new:
                raise _misfit("expected the name of a field that is there, and neither put nor removed", name)
            new[name] = self.changed(old[name], operations)
        return new


def _element(old: list[Any], index: int, op: Any) -> Any:
    if not 0 <= index < len(old):
        raise _misfit(f"expected one of {len(old)} elements", op)
    return old[index]


def _patched(old: Any, put: dict[str, Any], removed: list[Any]) -> dict[str, Any]:
    if type(old) is not dict:
        raise _misfit("a field patch needs a dict", old)
    new = {**old, **put}
    for name in removed:
        if type(name) is not str or name not in old or name in put:
            raise _misfit("expected the name of a field that is there and not put", name)
        new.pop(name, None)
    return new


def _misfit(expected: str, got: Any) -> ProtocolError:
    return ProtocolError(f"delta: {expected}, got {_brief(got)[:80]}")
