"""The store seam: latest versions of all documents, index entries and the state, in ordered keys.

Pure: values and protocols. `LmdbStore` implements it; another implementation serves the
simulation. The store is a view of the log: what it loses, replay gives again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from headwater_storage.log import NO_DIGEST, Head
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from headwater_storage.readers import OldReader


class State(NamedTuple):
    """What the last applied record left.

    Attributes:
        ts: The database is as of this commit ts.
        record_number: Number of that record.
        record_digest: Its digest: the next one must chain to it.
        catalog_ts: Commit ts at which the catalog last changed.
        wall_us: Time of that record. Stores of before it was kept lack it.
    """

    ts: CommitTs
    record_number: int
    record_digest: bytes
    catalog_ts: CommitTs
    wall_us: int = 0

    @property
    def head(self) -> Head:
        """Where the log ends if nothing follows."""
        return Head(self.record_number, self.record_digest, self.ts)


EMPTY_STATE = State(CommitTs(0), 0, NO_DIGEST, CommitTs(0))


@dataclass(slots=True)
class AppliedBatch:
    """What one record changes; the last word on a key counts.

    Attributes:
        documents: Document keys with stored values; None deletes.
        entries: Entry keys with values (the rest of a cut field tuple, else b""); None deletes.
    """

    documents: dict[bytes, bytes | None] = field(default_factory=dict)
    entries: dict[bytes, bytes | None] = field(default_factory=dict)


class StoreSnapshot(Protocol):
    """The database as of one commit ts. Close it: while it is open no page of it is reused."""

    @property
    def state(self) -> State:
        """What the last record in it left."""
        ...

    @property
    def ts(self) -> CommitTs:
        """Its commit ts."""
        ...

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value, None if there is no such document."""
        ...

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value, None if there is no such entry."""
        ...

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate keys and stored values of `[lo, hi)`, lazily."""
        ...

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entry keys and values of `[lo, hi)`, lazily."""
        ...

    def close(self) -> None:
        """Release it; may be called twice."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class StoreReader(Protocol):
    """A store opened for reading, as workers have it."""

    def snapshot(self) -> StoreSnapshot:
        """Return the newest state, to be closed by the caller."""
        ...


class AppliedStore(StoreReader, Protocol):
    """A store that records are applied to."""

    def apply(self, changes: AppliedBatch, state: State) -> None:
        """Apply one record in one write transaction: all of it, or nothing if it raises.

        Raises:
            lmdb.Error: The disk or the map is full, or the disk failed: `disk_errors.store_error` says which.
                A `PanicError` among them: the store cannot be used any more.
        """


class Store(AppliedStore, Protocol):
    """A store opened for writing. Its methods belong to one thread, except `sync`."""

    @property
    def path(self) -> Path:
        """The folder of its files."""
        ...

    @property
    def page_bytes(self) -> int:
        """Size of a page; the first two of its file say where its newest snapshot is."""
        ...

    def sync(self) -> None:
        """Return when all that was applied before the call is on disk. Blocks: run it in a thread.

        Raises:
            lmdb.PanicError: The disk failed. What is on disk now is known to nobody; do not retry.
        """

    def used_bytes(self) -> int:
        """Return how far the file is in use, free pages inside it included."""
        ...

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes fit below the store's largest size, free pages in the file included."""
        ...

    def old_readers(self) -> list[OldReader]:
        """Return the snapshots of other processes that are not the newest any more."""
        ...

    def reader_check(self) -> int:
        """Free the slots of readers whose process is dead; return how many."""
        ...

    def close(self) -> None:
        """Close it; open snapshots become invalid."""


class OpenStore(Protocol):
    """How a store is opened for writing."""

    def __call__(
        self, path: Path, /, *, map_size: int, create: bool, readers_max: int, sync_each_batch: bool
    ) -> Store:
        """Open the store in a folder.

        Args:
            path: An existing folder.
            map_size: Its largest size.
            create: Make a store where there is none.
            readers_max: Snapshots open at a time in all processes together.
            sync_each_batch: Make every `apply` durable by itself.

        Raises:
            lmdb.Error: It cannot be opened; `disk_errors.store_error` says what that means.
        """
        ...
