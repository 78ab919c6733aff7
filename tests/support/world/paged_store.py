"""A store in memory that keeps what LMDB would keep in a crash, and loses what LMDB would lose.

It lies in `data.mdb` of a `FileSystem`: two meta pages, written in turn, each naming the root of a
snapshot; roots and leaves are copied, never written in place. Pages that a write transaction let go
of are used again by the third one after it, unless a snapshot as old is open. Nothing is synced but
by `sync`, so after a power cut any page may be what it was before. Damaged pages are found by their
checksums when it is opened, and nothing of it is served: real LMDB might serve them, and the
simulation is to fail when they would be read.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_left
from itertools import count
from typing import TYPE_CHECKING, Any
from zlib import crc32

import lmdb
import msgspec
from headwater_storage.lmdb_store import DATA_FILE
from headwater_storage.store import EMPTY_STATE, State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_storage.files import FileSystem
    from headwater_storage.readers import OldReader
    from headwater_storage.store import AppliedBatch

PAGE_BYTES = 512
KEY_BYTES_MAX = 511
_BUCKETS = 16
_METAS = 2

_encode = msgspec.msgpack.encode
_decode_leaf = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode

Place = tuple[int, int, int]
"""First page, length in bytes, checksum."""


class _Meta(msgspec.Struct, array_like=True):
    transaction: int
    root: Place


class _Root(msgspec.Struct, array_like=True):
    state: State
    next_page: int
    leaves: list[Place | None]


class _Items:
    """Keys with values as of one transaction; never changed."""

    __slots__ = ("keys", "values")

    def __init__(self, values: dict[bytes, bytes]) -> None:
        self.values = values
        self.keys = sorted(values)

    def changed(self, changes: dict[bytes, bytes | None]) -> _Items:
        if not changes:
            return self
        values = dict(self.values)
        for key, value in changes.items():
            if not 0 < len(key) <= KEY_BYTES_MAX:
                raise lmdb.BadValsizeError("a key of this length")
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        return _Items(values)

    def scan(self, lo: bytes, hi: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        first, end = bisect_left(self.keys, lo), bisect_left(self.keys, hi)
        for position in range(end - 1, first - 1, -1) if reverse else range(first, end):
            key = self.keys[position]
            yield key, self.values[key]


class PagedSnapshot:
    """Implements `StoreSnapshot`."""

    def __init__(self, store: PagedStore, slot: int) -> None:
        self._store = store
        self._slot = slot
        self._documents, self._entries = store.documents, store.entries
        self.state = store.state
        self.get_document = self._documents.values.get
        self.get_entry = self._entries.values.get

    @property
    def ts(self) -> Any:
        return self.state.ts

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._documents.scan(lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return self._entries.scan(lo, hi, reverse)

    def close(self) -> None:
        self._store.readers.pop(self._slot, None)

    def __enter__(self) -> PagedSnapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class PagedReader:
    """The store as one worker has it open."""

    def __init__(self, store: PagedStore, owner: str) -> None:
        self._store = store
        self._owner = owner

    def snapshot(self) -> PagedSnapshot:
        return self._store.snapshot(self._owner)


class PagedStore:
    """Implements `Store`.

    Attributes:
        readers: Slot of each open snapshot: transaction and owner.
        dead: Owners that have ended; their snapshots stay until `reader_check`.
    """

    page_bytes = PAGE_BYTES

    def __init__(
        self, files: FileSystem, path: Path, *, map_size: int, create: bool, sync_each_batch: bool
    ) -> None:
        self.path = path
        self._map_size = map_size
        self.readers: dict[int, tuple[int, str]] = {}
        self.dead: set[str] = set()
        self._files = files
        self._sync_each_batch = sync_each_batch
        self._slots = count()
        self._freed: dict[int, list[int]] = {}
        flags = os.O_RDWR | (os.O_CREAT if create else 0)
        self._descriptor = files.open(path / DATA_FILE, flags)
        if files.size(self._descriptor) == 0 and create:
            self._begin_empty()
        self._load()

    @classmethod
    def open(
        cls,
        files: FileSystem,
        path: Path,
        *,
        map_size: int = 1 << 40,
        create: bool = False,
        sync_each_batch: bool = False,
        **_: int,
    ) -> PagedStore:
        try:
            return cls(files, path, map_size=map_size, create=create, sync_each_batch=sync_each_batch)
        except OSError as error:
            raise _as_lmdb(error) from error

    # ------------------------------------------------------------------------------------ from the file

    def _begin_empty(self) -> None:
        self._next_page = _METAS
        self._free: set[int] = set()
        self._transaction = 0
        root = self._write(_encode(_Root(EMPTY_STATE, self._next_page + 1, [None] * 2 * _BUCKETS)))
        for number in range(_METAS):
            self._write_meta(_Meta(number, root))

    def _load(self) -> None:
        metas = [meta for number in range(_METAS) if (meta := self._read_meta(number)) is not None]
        if not metas:
            raise lmdb.InvalidError("no meta page is valid")
        meta = max(metas, key=lambda meta: meta.transaction)
        root = msgspec.msgpack.decode(self._read(meta.root), type=_Root)
        contents: list[dict[bytes, bytes]] = [{}, {}]
        for number, place in enumerate(root.leaves):
            if place is not None:
                contents[number // _BUCKETS].update(_decode_leaf(self._read(place)))
        self.documents, self.entries = map(_Items, contents)
        self.state = root.state
        self._transaction = meta.transaction
        self._root, self._leaves, self._next_page = meta.root, root.leaves, root.next_page
        used = {page for place in (meta.root, *root.leaves) if place for page in _pages(place)}
        self._free = set(range(_METAS, root.next_page)) - used

    def _read_meta(self, number: int) -> _Meta | None:
        page = self._files.pread(self._descriptor, PAGE_BYTES, number * PAGE_BYTES)
        length, checksum = int.from_bytes(page[:2], "big"), int.from_bytes(page[2:6], "big")
        body = page[6 : 6 + length]
        return msgspec.msgpack.decode(body, type=_Meta) if length and crc32(body) == checksum else None

    def _read(self, place: Place) -> bytes:
        first, length, checksum = place
        data = self._files.pread(self._descriptor, length, first * PAGE_BYTES)
        if crc32(data) != checksum:
            raise lmdb.CorruptedError(f"page {first} is not the one that was written")
        return data

    # -------------------------------------------------------------------------------------- to the file

    def apply(self, changes: AppliedBatch, state: State) -> None:
        transaction = self._transaction + 1
        documents, entries = self.documents.changed(changes.documents), self.entries.changed(changes.entries)
        oldest = min([transaction - 1, *(number for number, _ in self.readers.values())])
        for number in [number for number in self._freed if number < oldest]:
            self._free.update(self._freed.pop(number))
        before = (set(self._free), self._next_page)
        try:
            leaves = list(self._leaves)
            gone = list(_pages(self._root))
            for number in self._touched(changes):
                kept = documents if number < _BUCKETS else entries
                leaf = [item for item in kept.values.items() if _bucket(item[0]) == number % _BUCKETS]
                gone += _pages(leaves[number])
                leaves[number] = self._write(_encode(leaf)) if leaf else None
            pages = -(-(len(_encode(_Root(state, self._next_page, leaves))) + 8) // PAGE_BYTES)
            root = self._write(_encode(_Root(state, self._next_page + pages, leaves)))
            if self._sync_each_batch:
                self._files.fdatasync(self._descriptor)
            self._write_meta(_Meta(transaction, root))
            if self._sync_each_batch:
                self._files.fdatasync(self._descriptor)
        except OSError as error:
            self._free, self._next_page = before
            raise _as_lmdb(error) from error
        self._freed[transaction] = gone
        self._transaction, self._root, self._leaves = transaction, root, leaves
        self.documents, self.entries, self.state = documents, entries, state

    def _touched(self, changes: AppliedBatch) -> list[int]:
        touched = {_bucket(key) for key in changes.documents}
        return sorted(touched | {_BUCKETS + _bucket(key) for key in changes.entries})

    def _write(self, data: bytes) -> Place:
        pages = -(-len(data) // PAGE_BYTES)
        first = self._run(pages)
        self._files.pwrite(self._descriptor, data.ljust(pages * PAGE_BYTES, b"\0"), first * PAGE_BYTES)
        return first, len(data), crc32(data)

    def _run(self, pages: int) -> int:
        """Take the first free run of so many pages, at the end of the file if there is none."""
        free = self._free
        for first in sorted(free):
            run = range(first, first + pages)
            if all(page in free for page in run):
                free.difference_update(run)
                return first
        first = self._next_page
        self._next_page += pages
        return first

    def _write_meta(self, meta: _Meta) -> None:
        body = _encode(meta)
        page = len(body).to_bytes(2, "big") + crc32(body).to_bytes(4, "big") + body
        offset = meta.transaction % _METAS * PAGE_BYTES
        self._files.pwrite(self._descriptor, page.ljust(PAGE_BYTES, b"\0"), offset)

    def sync(self) -> None:
        try:
            self._files.fdatasync(self._descriptor)
        except OSError as error:
            raise lmdb.PanicError(str(error)) from error

    # ------------------------------------------------------------------------------------------ readers

    def snapshot(self, owner: str = "daemon") -> PagedSnapshot:
        slot = next(self._slots)
        self.readers[slot] = (self._transaction, owner)
        return PagedSnapshot(self, slot)

    def reader(self, owner: str) -> PagedReader:
        return PagedReader(self, owner)

    def reader_check(self) -> int:
        stale = [slot for slot, (_, owner) in self.readers.items() if owner in self.dead]
        for slot in stale:
            del self.readers[slot]
        return len(stale)

    def old_readers(self) -> list[OldReader]:
        """Return nothing: no worker of the simulation hangs."""
        return []

    def used_bytes(self) -> int:
        return self._next_page * PAGE_BYTES

    def has_room(self, size: int) -> bool:
        return self.used_bytes() + size <= self._map_size

    def close(self) -> None:
        self._files.close(self._descriptor)


def _as_lmdb(error: OSError) -> lmdb.Error:
    return (lmdb.DiskError if error.errno == errno.ENOSPC else lmdb.Error)(str(error))


def _pages(place: Place | None) -> range:
    if place is None:
        return range(0)
    return range(place[0], place[0] + -(-place[1] // PAGE_BYTES))


def _bucket(key: bytes) -> int:
    return crc32(key) % _BUCKETS
