"""Writes laid over a snapshot: a transaction's own, or those of transactions before it.

Pure. Documents and entries share one byte space, so one sorted list of keys serves both.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_S = TypeVar("_S")


class Own(NamedTuple):
    """What a key of the transaction's own writes holds.

    Attributes:
        document: The encoded document, of the current shape.
        overflow: For an entry: the rest of a cut field tuple.
    """

    document: bytes
    overflow: bytes


class Overlay(Generic[_S]):
    """What documents and entries hold, by key; None stands for one that is deleted."""

    __slots__ = ("_ordered", "_undo", "_unordered", "states")

    def __init__(self) -> None:
        self.states: dict[bytes, _S | None] = {}
        self._ordered: list[bytes] = []
        self._unordered: list[bytes] = []
        self._undo: list[tuple[bytes, bool, _S | None]] | None = None  # key, whether it was set, to what

    def set(self, key: bytes, state: _S | None) -> None:
        """Put or delete one key."""
        states = self.states
        if self._undo is not None:
            self._undo.append((key, key in states, states.get(key)))
        if key not in states:
            self._unordered.append(key)
        states[key] = state

    def savepoint(self) -> int:
        """Return what `roll_back` comes back to; from the first one on, changes are noted."""
        if self._undo is None:
            self._undo = []
        return len(self._undo)

    def roll_back(self, savepoint: int) -> None:
        """Undo every `set` since a savepoint."""
        undo = self._undo or []
        for key, was_set, state in reversed(undo[savepoint:]):
            if was_set:
                self.states[key] = state
                continue
            del self.states[key]
            if self._unordered and self._unordered[-1] == key:  # unless it was read meanwhile, the last in
                self._unordered.pop()
            else:
                del self._ordered[bisect_left(self._ordered, key)]
        del undo[savepoint:]

    def within(self, lo: bytes, hi: bytes) -> list[tuple[bytes, _S | None]]:
        """Return what lies in `[lo, hi)` now, in order of keys; later writes do not show in it."""
        if self._unordered:
            for key in self._unordered:
                insort(self._ordered, key)
            self._unordered.clear()
        ordered = self._ordered
        keys = ordered[bisect_left(ordered, lo) : bisect_left(ordered, hi)]
        return [(key, self.states[key]) for key in keys]


def overlaid(
    base: Iterator[tuple[bytes, bytes]], own: Sequence[tuple[bytes, _S | None]], *, descending: bool
) -> Iterator[tuple[bytes, bytes | _S]]:
    """Merge what the snapshot has with what is laid over the same range, which wins."""
    if descending:
        own = own[::-1]
    position, count = 0, len(own)
    for key, value in base:
        replaced = False
        while position < count:
            own_key, state = own[position]
            if own_key == key:
                replaced = True
            elif (own_key > key) is not descending:
                break
            position += 1
            if state is not None:
                yield own_key, state
        if not replaced:
            yield key, value
    for own_key, state in own[position:]:
        if state is not None:
            yield own_key, state
