"""A store in memory: nothing is kept when the process ends. For the testing kit and for tests.

A snapshot costs nothing until something is applied while it is open; that copies the store.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

from headwater_storage.store import EMPTY_STATE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import AppliedBatch, State


class _Items:
    """Values by key, in the order of keys."""

    __slots__ = ("_keys", "_values")

    def __init__(self, values: dict[bytes, bytes], keys: list[bytes]) -> None:
        self._values = values
        self._keys = keys

    def copy(self) -> _Items:
        return _Items(self._values.copy(), self._keys.copy())

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def change(self, changes: Mapping[bytes, bytes | None]) -> None:
        keys, values = self._keys, self._values
        for key, value in changes.items():
            if value is not None:
                if key not in values:
                    insort(keys, key)
                values[key] = value
            elif values.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]

    def range(self, lo: bytes, hi: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        first, end = bisect_left(self._keys, lo), bisect_left(self._keys, hi)
        for place in range(end - 1, first - 1, -1) if reverse else range(first, end):
            key = self._keys[place]
            yield key, self._values[key]


class _Version:
    """The store as of one state. Changed in place while no snapshot shows it."""

    __slots__ = ("documents", "entries", "open_snapshots", "state")

    def __init__(self, documents: _Items, entries: _Items, state: State) -> None:
        self.documents = documents
        self.entries = entries
        self.state = state
        self.open_snapshots = 0


class MemorySnapshot:
    """Implements `StoreSnapshot`."""

    def __init__(self, version: _Version) -> None:
        self._version = version
        self._open = True
        version.open_snapshots += 1

    @property
    def state(self) -> State:
        """What the last record in it left."""
        return self._version.state

    @property
    def ts(self) -> CommitTs:
        """Its commit ts."""
        return self._version.state.ts

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value, None if there is no such document."""
        return self._version.documents.get(key)

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value, None if there is no such entry."""
        return self._version.entries.get(key)

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate keys and stored values of `[lo, hi)`, lazily."""
        return self._version.documents.range(lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entry keys and values of `[lo, hi)`, lazily."""
        return self._version.entries.range(lo, hi, reverse)

    def close(self) -> None:
        """Release it; may be called twice."""
        if self._open:
            self._open = False
            self._version.open_snapshots -= 1

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


class MemoryStore:
    """Implements `AppliedStore`."""

    def __init__(self) -> None:
        self._newest = _Version(_Items({}, []), _Items({}, []), EMPTY_STATE)

    @property
    def state(self) -> State:
        """What the last record left."""
        return self._newest.state

    def snapshot(self) -> MemorySnapshot:
        """Return the newest state, to be closed by the caller."""
        return MemorySnapshot(self._newest)

    def apply(self, changes: AppliedBatch, state: State) -> None:
        """Apply one record."""
        newest = self._newest
        if newest.open_snapshots:
            newest = self._newest = _Version(newest.documents.copy(), newest.entries.copy(), state)
        newest.documents.change(changes.documents)
        newest.entries.change(changes.entries)
        newest.state = state
