"""How far a check of documents is, kept in the database, so that a restart does not begin it anew.

What was written since it began is found in the log: each of these documents is looked at again. Where the log does not
reach back so far, or too much was written, the check does begin anew.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Protocol

import msgspec
from headwater_storage.catalog import CHECK_SUFFIX, DEPLOYMENT, CheckProgress, read_row
from headwater_storage.keys import document_key

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from contextlib import AbstractContextManager
    from typing import Any

    from headwater_storage.store import StoreSnapshot
    from headwater_storage.transaction import Transaction

_SAVE_INTERVAL_S = 1.0


class Database(Protocol):
    """What is needed of the engine."""

    def snapshot(self) -> StoreSnapshot:
        """Return the newest state."""

    def begin(self, *, writable: bool = True) -> AbstractContextManager[Transaction]:
        """Open a transaction."""

    async def transact(self, function: Callable[[Transaction], Any]) -> Any:
        """Run a function in a transaction and commit it."""

    async def written_since(
        self, record_number: int, tables: Collection[bytes], keys_max: int
    ) -> set[bytes] | None:
        """Return which documents of some tables later records wrote."""


class KeptCheck:
    """The check of one deploy.

    Args:
        database: The engine.
        bundle: Hash of the bundle that is to become active.
        mono_s: Monotonic clock.
        keys_max: So many documents may have been written since; beyond, it begins anew.
    """

    def __init__(self, database: Database, bundle: str, mono_s: Callable[[], float], keys_max: int) -> None:
        self._database = database
        self._mono_s = mono_s
        self._keys_max = keys_max
        self._saved_s = mono_s()
        self._progress = CheckProgress(bundle, version("headwater"), 0, {})

    async def resume(self, tables: Collection[int]) -> set[bytes]:
        """Go on where an earlier check of the same bundle ended; return what has to be looked at again."""
        with self._database.begin(writable=False) as transaction:
            kept = read_row(transaction, DEPLOYMENT, CHECK_SUFFIX, CheckProgress)
        wanted = self._progress
        if kept is None or (kept.bundle, kept.checker) != (wanted.bundle, wanted.checker):
            self.begin_anew()
            return set()
        prefixes = {document_key(table, b"") for table in tables}
        written = await self._database.written_since(kept.since_record, prefixes, self._keys_max)
        if written is None:
            self.begin_anew()
            return set()
        self._progress = kept
        return written

    def begin_anew(self) -> None:
        """Count from now on, with nothing looked at yet. What is written from now on is the caller's to note."""
        with self._database.snapshot() as snapshot:
            since = snapshot.state.record_number
        self._progress = msgspec.structs.replace(self._progress, since_record=since, positions={})

    def position(self, table: int) -> bytes:
        """Return the key up to which a table has been looked at, b"" if not at all."""
        return self._progress.positions.get(table, b"")

    async def advanced(self, table: int, key: bytes) -> None:
        """Note how far a table is; kept now and then."""
        positions = {**self._progress.positions, table: key}
        progress = self._progress = msgspec.structs.replace(self._progress, positions=positions)
        if self._mono_s() - self._saved_s >= _SAVE_INTERVAL_S:
            content = msgspec.msgpack.encode(progress)
            await self._database.transact(lambda t: t.put_row(DEPLOYMENT, CHECK_SUFFIX, content))
            self._saved_s = self._mono_s()
