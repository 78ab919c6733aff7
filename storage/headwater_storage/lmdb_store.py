"""The store in LMDB.

Does IO through a memory map. One process writes, in one thread; any number of processes
read snapshots. Between checkpoints the file on disk is not consistent by itself: only
`recovery` may open it for writing, which first puts the saved meta pages back.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Self

import lmdb
import msgspec
from headwater_protocol.errors import StorageError, TransientError

from headwater_storage.readers import OldReader
from headwater_storage.store import EMPTY_STATE, State

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from headwater_storage.proposal import CommitTs
    from headwater_storage.store import AppliedBatch

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
MAP_SIZE_BYTES = 1 << 44
"""The largest file that ext4 holds: address space costs nothing, and a disk may grow while the daemon runs."""

READERS_MAX = 512
META_PAGES = 2
_LOCK_HEADER_BYTES, _READER_BYTES = 128, 64
"""Of LMDB's lock file, whose size decides how many readers there can be."""

DOCUMENTS, ENTRIES, META = b"documents", b"entries", b"meta"
STATE_KEY = b"state"

_encode_state = msgspec.msgpack.Encoder().encode
decode_state = msgspec.msgpack.Decoder(State).decode


class MetaPageError(lmdb.PanicError):
    """A meta page could not be written, for the reason that is the cause of this; LMDB takes nothing any more."""


class LmdbSnapshot:
    """A read transaction; see `StoreSnapshot`."""

    __slots__ = ("_documents", "_entries", "_get", "_transaction", "state")

    def __init__(self, transaction: Any, documents: Any, entries: Any, meta: Any) -> None:
        self._transaction = transaction
        self._documents = documents
        self._entries = entries
        self._get = transaction.get
        raw = self._get(STATE_KEY, None, meta)
        self.state = State(*EMPTY_STATE) if raw is None else decode_state(raw)

    @property
    def ts(self) -> CommitTs:
        """Its commit ts."""
        return self.state.ts

    def get_document(self, key: bytes) -> bytes | None:
        """Return a stored value, None if there is no such document."""
        value: bytes | None = self._get(key, None, self._documents)
        return value

    def get_entry(self, key: bytes) -> bytes | None:
        """Return an index entry's value, None if there is no such entry."""
        value: bytes | None = self._get(key, None, self._entries)
        return value

    def documents(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate keys and stored values of `[lo, hi)`, lazily."""
        return _scan(self._transaction.cursor(self._documents), lo, hi, reverse)

    def entries(self, lo: bytes, hi: bytes, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Iterate entry keys and values of `[lo, hi)`, lazily."""
        return _scan(self._transaction.cursor(self._entries), lo, hi, reverse)

    def close(self) -> None:
        """Release it; may be called twice."""
        self._transaction.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _scan(cursor: Any, lo: bytes, hi: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
    if reverse:
        positioned = cursor.prev() if cursor.set_range(hi) else cursor.last()
        if positioned:
            for item in cursor.iterprev():
                if item[0] < lo:
                    return
                yield item
    elif cursor.set_range(lo):
        for item in cursor.iternext():
            if item[0] >= hi:
                return
            yield item


class LmdbStore:
    """One LMDB environment.

    A process may have one `LmdbStore` of a folder at a time. A writer's methods belong to
    one thread, except `sync`; snapshots may be used in any one thread each.
    """

    def __init__(
        self, environment: Any, path: Path, *, create: bool = False, sync_each_batch: bool = False
    ) -> None:
        self._environment = environment
        self._sync_each_batch = sync_each_batch
        self.path = path
        self._documents, self._entries, self._meta = (
            environment.open_db(name, create=create) for name in (DOCUMENTS, ENTRIES, META)
        )
        self.page_bytes: int = environment.stat()["psize"]

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        map_size: int = MAP_SIZE_BYTES,
        readonly: bool = False,
        create: bool = False,
        readers_max: int = READERS_MAX,
        sync_each_batch: bool = False,
    ) -> LmdbStore:
        """Open the store in a folder.

        Args:
            path: An existing folder.
            map_size: Address space to reserve, not memory: the file cannot grow beyond it.
            readonly: For workers.
            create: Make a store where there is none.
            readers_max: Snapshots open at a time in all processes together.
            sync_each_batch: Make every `apply` durable by itself.

        Raises:
            lmdb.Error: LMDB cannot open it; `disk_errors.store_error` says what that means.
            OSError: The lock file cannot be written.
        """
        if not readonly:
            _make_lock_file(path / LOCK_FILE, readers_max)
        environment = lmdb.open(
            str(path),
            map_size=map_size,
            readonly=readonly,
            create=create,
            max_dbs=3,
            max_readers=readers_max,
            max_spare_txns=8,
            # Never by LMDB itself: its error would not tell a failed sync from a write without room.
            sync=False,
            metasync=False,
            lib_version=0,
        )
        try:
            return cls(environment, path, create=create, sync_each_batch=sync_each_batch)
        except BaseException:
            environment.close()
            raise

    def snapshot(self) -> LmdbSnapshot:
        """Return the newest state, to be closed by the caller.

        Raises:
            TransientError: `overloaded`: as many snapshots are open as there may be.
        """
        transaction = self._begin()
        try:
            return LmdbSnapshot(transaction, self._documents, self._entries, self._meta)
        except msgspec.DecodeError as error:
            transaction.abort()
            raise StorageError(
                f"{self.path}: the store's state is damaged: {error}", code="damaged"
            ) from error
        except BaseException:
            transaction.abort()
            raise

    def _begin(self) -> Any:
        """Begin a read transaction; slots of readers that died count as free."""
        try:
            return self._environment.begin()
        except lmdb.ReadersFullError:
            self._environment.reader_check()
        try:
            return self._environment.begin()
        except lmdb.ReadersFullError:
            message = f"{self.path}: as many snapshots are open as there may be, by processes that live"
            raise TransientError(message, code="overloaded") from None

    def apply(self, changes: AppliedBatch, state: State) -> None:
        """Apply one record in one write transaction: all of it, or nothing if it raises.

        Raises:
            lmdb.Error: The disk or the map is full, or the disk failed: `disk_errors.store_error` says which.
                `MetaPageError`: the store cannot be used any more.
        """
        try:
            with self._environment.begin(write=True) as transaction:
                _write(transaction, self._documents, changes.documents)
                _write(transaction, self._entries, changes.entries)
                transaction.put(STATE_KEY, _encode_state(state), db=self._meta)
        except lmdb.Error as error:
            # Where a meta page could not be written, LMDB gives the error of the disk, and refuses
            # everything from then on.
            try:
                self._environment.begin().abort()
            except lmdb.PanicError:
                raise MetaPageError(f"a meta page could not be written: {error}") from error
            raise
        if self._sync_each_batch:
            self.sync()

    def sync(self) -> None:
        """Return when all that was applied before the call is on disk. Blocks: run it in a thread.

        Raises:
            lmdb.PanicError: The disk failed. What is on disk now is known to nobody; do not retry.
        """
        try:
            # Without True this does nothing in an environment that was opened with sync off.
            self._environment.sync(True)
        except lmdb.Error as error:
            raise lmdb.PanicError(f"a sync failed: {error}") from error

    def used_bytes(self) -> int:
        """Return how far the file is in use, free pages inside it included."""
        pages: int = self._environment.info()["last_pgno"] + 1
        return pages * self.page_bytes

    def has_room(self, size: int) -> bool:
        """Tell whether so many bytes fit below the store's largest size, free pages in the file included.

        Cheap while the file is far from it.
        """
        info = self._environment.info()
        largest: int = info["map_size"] // self.page_bytes
        reached: int = info["last_pgno"] + 1
        wanted = -(-size // self.page_bytes)
        return largest - reached >= wanted or largest - self._pages_in_use() >= wanted

    def _pages_in_use(self) -> int:
        """Return how many pages hold the newest state; the others are free, or will be once no snapshot needs them."""
        transaction = self._environment.begin(write=True)  # which takes no reader's slot
        try:
            trees = [transaction.stat(tree) for tree in (self._documents, self._entries, self._meta)]
        finally:
            transaction.abort()
        trees.append(self._environment.stat())
        kinds = ("branch_pages", "leaf_pages", "overflow_pages")
        pages: int = sum(tree[kind] for tree in trees for kind in kinds)
        return META_PAGES + pages

    def reader_check(self) -> int:
        """Free the slots of readers whose process is dead; return how many."""
        freed: int = self._environment.reader_check()
        return freed

    def old_readers(self) -> list[OldReader]:
        """Return the snapshots of other processes that are not the newest any more; those of dead ones are freed."""
        newest: int = self._environment.info()["last_txnid"]
        found = self._others_before(newest)
        if found and self.reader_check():
            found = self._others_before(newest)
        return found

    def _others_before(self, newest: int) -> list[OldReader]:
        own = os.getpid()
        rows = [line.split() for line in self._environment.readers().splitlines()[1:]]  # below the headings
        readers = [OldReader(int(process), int(shown)) for process, _, shown in rows if shown != "-"]
        return [reader for reader in readers if reader.transaction < newest and reader.process != own]

    def readers_text(self) -> str:
        """Return LMDB's list of readers, for display."""
        text: str = self._environment.readers()
        return text

    def close(self) -> None:
        """Close it; open snapshots become invalid."""
        self._environment.close()


def _make_lock_file(path: Path, readers_max: int) -> None:
    """Make the table of readers with all of its space, unless there is one.

    LMDB makes a file of holes and writes to them through its map: on a full disk, a reader
    that is the first in its page would be ended by SIGBUS.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        return
    try:
        with open(descriptor, "wb") as file:
            file.write(bytes(_LOCK_HEADER_BYTES + readers_max * _READER_BYTES))
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _write(transaction: Any, database: Any, changes: Mapping[bytes, bytes | None]) -> None:
    """Put and delete, in key order, which keeps the pages that are touched together."""
    if not changes:
        return
    keys = sorted(changes)
    if None in changes.values():
        delete: Callable[..., bool] = transaction.delete
        for key in keys:
            if changes[key] is None:
                delete(key, db=database)
        keys = [key for key in keys if changes[key] is not None]
    if keys:
        with transaction.cursor(database) as cursor:
            cursor.putmulti(zip(keys, map(changes.__getitem__, keys), strict=True))
