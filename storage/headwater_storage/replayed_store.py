"""A snapshot with log records applied to it in memory: nothing on disk changes.

For `headwater doctor` and for building a damaged store anew; takes the memory of what the
records change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import AppliedBatch, State, StoreSnapshot


class ReplayedStore:
    """Implements `StoreReader` and `StoreSnapshot`; it is its own newest snapshot."""

    def __init__(self, base: StoreSnapshot) -> None:
        self.state: State = base.state
        self._base = base
        self._documents: dict[bytes, bytes | None] = {}
        self._entries: dict[bytes, bytes | None] = {}

    @property
    def ts(self) -> CommitTs:
        """Its commit ts."""
        return self.state.ts

    def apply(self, changes: AppliedBatch, state: State) -> None:
        """Apply one record."""
        self._documents.update(changes.documents)
        self._entries.update(changes.entries)
        self.state = state

    def snapshot(self) -> Self:
        """Return itself."""
        return self

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value, None if there is no such document."""
        return self._documents[key] if key in self._documents else self._base.get_document(key)

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value, None if there is no such entry."""
        return self._entries[key] if key in self._entries else self._base.get_entry(key)

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate keys and stored values of `[lo, hi)`."""
        return _merged(self._base.documents(lo, hi, reverse), self._documents, lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entry keys and values of `[lo, hi)`."""
        return _merged(self._base.entries(lo, hi, reverse), self._entries, lo, hi, reverse)

    def close(self) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing."""


def _merged(
    base: Iterator[tuple[bytes, bytes]],
    changes: Mapping[bytes, bytes | None],
    lo: bytes,
    hi: bytes,
    reverse: bool,
) -> Iterator[tuple[bytes, bytes]]:
    """Merge a range of the base with what has changed, which wins."""
    changed = sorted((key for key in changes if lo <= key < hi), reverse=reverse)
    place = 0
    for key, value in base:
        while place < len(changed) and (changed[place] > key if reverse else changed[place] < key):
            if (new := changes[changed[place]]) is not None:
                yield changed[place], new
            place += 1
        if place == len(changed) or changed[place] != key:
            yield key, value
    for key in changed[place:]:
        if (new := changes[key]) is not None:
            yield key, new
