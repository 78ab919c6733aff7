"""One call's view of the database: a snapshot, its own writes, and what it has read.

Runs in function workers and in the daemon alike. It takes no locks and waits for nothing:
whether it may commit is decided later, from its proposal.

A range read shows the database as of the moment it began to be read: the snapshot with the
own writes made until then. What was consumed of it counts as read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from zlib import crc32

from headwater_protocol.documents import StoredDocument
from headwater_protocol.errors import RequestError, StorageError
from headwater_protocol.ids import (
    ALPHABET,
    RANDOM_BYTES,
    SEQUENCE_MAX,
    SUFFIX_LENGTH,
    is_id,
    time_prefix,
)

from headwater_storage import jobs
from headwater_storage.bounds import (
    CUT,
    KeyBounds,
    creation_bounds,
    index_bounds,
    key_bounds,
    narrowed,
    whole_key,
)
from headwater_storage.catalog import (
    ENVIRONMENT,
    SYSTEM_BY_NAME,
    SYSTEM_BY_PREFIX,
    SYSTEM_SHAPE,
    TABLES_RANGE,
)
from headwater_storage.keys import NUMBER_BYTES, document_key, index_range
from headwater_storage.limits import CallLimits, CallUsage
from headwater_storage.overlay import Overlay, Own, overlaid
from headwater_storage.proposal import Proposal, Write
from headwater_storage.readset import ReadSet, Scan
from headwater_storage.stored import STORED_HEADER_BYTES, pack_stored, unpack_stored

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from headwater_storage.bounds import Bound
    from headwater_storage.catalog import Catalog, TableHandle
    from headwater_storage.indexes import IndexDefinition
    from headwater_storage.job_rows import JobKind
    from headwater_storage.proposal import Backfill, CommitTs, Range
    from headwater_storage.store import StoreSnapshot

_SHOWN_MAX = 200
_KEPT_MAX, _KEPT_BYTES_MAX = 64, 16 * 1024  # documents of the snapshot that a mutation may come back to
_ABOVE_SUFFIXES = b"\xff"
_PAIRS = tuple(first + second for first in ALPHABET for second in ALPHABET)


class _Change:
    """One document that the transaction writes.

    Attributes:
        handle: Its table.
        original: The document in the snapshot, None if it is not there.
        old_entries: Entries of the original.
        document: The document now, None if it is deleted.
        entries: Entries of the document now.
        overflow: Rests of those that were cut.
    """

    __slots__ = ("document", "entries", "handle", "old_entries", "original", "overflow")

    def __init__(
        self, handle: TableHandle, original: StoredDocument | None, old_entries: list[bytes]
    ) -> None:
        self.handle = handle
        self.original = original
        self.old_entries = old_entries
        self.document = original.document if original else None
        self.entries = old_entries
        self.overflow: dict[bytes, bytes] = {}

    def is_void(self) -> bool:
        """Tell whether committing it would change nothing."""
        if self.document is None:
            return self.original is None
        return self.original is not None and self.original.current and self.original.document == self.document


_Before = tuple[bytes | None, list[bytes], dict[bytes, bytes]]
"""Document, entries and overflow of a change before a write."""


class Savepoint(NamedTuple):
    """A moment of a call: how much could be undone then."""

    changes: int
    overlay: int


class Transaction:
    """Reads through a snapshot, buffers writes, collects the read set.

    Attributes:
        now_us: Wall time of the call in µs since 1970, frozen at its start.
        begin_ts: Commit ts of the snapshot.
        usage: What it has read and written so far.
        catalog: Tables as of the snapshot.
        snapshot: What it reads through; reading it directly is not counted.
        backfill: Index entries to derive when it commits; None but in deploys, which set it.
        first_due_us: When the first of the jobs is due that it has scheduled, None if there is none.
    """

    def __init__(
        self,
        snapshot: StoreSnapshot,
        catalog: Catalog,
        limits: CallLimits,
        *,
        now_us: int,
        random_bytes: Callable[[int], bytes],
        writable: bool,
    ) -> None:
        self.now_us = now_us
        self.begin_ts: CommitTs = snapshot.state.ts
        self.usage = CallUsage(limits)
        self.catalog = catalog
        self.snapshot = snapshot
        self.backfill: Backfill | None = None
        self.first_due_us: int | None = None
        self._random_bytes = random_bytes
        self._writable = writable
        self._reads = ReadSet(limits.ranges_max)
        self._overlay: Overlay[Own] = Overlay()
        self._changes: dict[bytes, _Change] = {}
        self._rows: dict[bytes, bytes | None] = {}
        self._fresh: set[str] = set()
        self._kept: dict[bytes, StoredDocument] = {}  # of the snapshot
        self._undo: list[tuple[bytes, _Change, _Before | None]] | None = None
        self._sequence = 0
        self._id_time = ""

    # -------------------------------------------------------------------------------------- reading

    def table_name(self, document_id: str) -> str | None:
        """Return the table that an id names, None if it is malformed or of no known table."""
        if not is_id(document_id):
            return None
        handle = self._handle_of(document_id)
        return handle.definition.name if handle else None

    def get(self, document_id: str, *, counted: bool = True) -> StoredDocument | None:
        """Read one document; a missing one counts as read too. `counted` as in `put`."""
        handle = self._handle_of(document_id)
        if handle is None:
            return None
        key = handle.prefix + document_id[-SUFFIX_LENGTH:].encode()
        self._reads.points.add(key)
        found = self._current(handle, key)
        if counted:
            self.usage.read(len(found.document) if found else 0)
        return found

    def read_range(
        self,
        table: str,
        index: str | None,
        equal: Sequence[Any],
        lower: Bound | None,
        upper: Bound | None,
        *,
        descending: bool,
        after: bytes | None = None,
        until: bytes | None = None,
    ) -> Iterator[StoredDocument]:
        """Read a range lazily, in index order; see `headwater.backend.Backend`."""
        handle = self._handle_named(table)
        if index is None:
            if equal:
                raise RequestError("the creation order of a table has no fields that could be equal")
            prefix = handle.prefix
            whole = creation_bounds(prefix, lower, upper)
        else:
            definition = self._index(handle, index)
            prefix = index_range(definition.number)[0]
            whole = index_bounds(prefix, len(definition.fields), equal, lower, upper)
        if after is not None or until is not None:
            whole = narrowed(whole, prefix, after, until, descending=descending)
        scan = self._scan_documents if index is None else self._scan_entries
        return scan(handle, key_bounds(whole), descending)

    def position(self, table: str, index: str | None, document_id: str, document: bytes) -> bytes:
        """Return where a document just read stands in an index (None: in creation order): opaque.

        It stays a place in that index when the document moves or goes away.
        """
        handle = self._handle_named(table)
        suffix = document_id[-SUFFIX_LENGTH:].encode()
        if index is None:
            return suffix
        place = handle.maker.indexes.index(self._index(handle, index))
        entries, overflow = handle.maker.entries(document, suffix)
        return whole_key(entries[place], overflow.get(entries[place], b""))[4:]

    def get_row(self, table_number: int, suffix: bytes) -> bytes | None:
        """Read a row of a system table; a missing one counts as read too."""
        key = document_key(table_number, suffix)
        self._reads.points.add(key)
        if key in self._rows:
            return self._rows[key]
        value = self.snapshot.get_document(key)
        return None if value is None else bytes(unpack_stored(value, key)[1])

    def variable(self, name: str) -> bytes | None:
        """Read the row of an environment variable; a missing one counts as read too."""
        return self.get_row(ENVIRONMENT, name.encode())

    def read_rows(
        self, table_number: int, lo: bytes, hi: bytes, *, descending: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Iterate rows of a system table by suffix, lazily, without own writes; what is consumed counts as read."""
        first, end = document_key(table_number, lo), document_key(table_number, hi)
        scan = self._reads.scan(first, end, descending=descending)
        for key, value in self.snapshot.documents(first, end, descending):
            scan.last = key
            yield key[NUMBER_BYTES:], bytes(unpack_stored(value, key)[1])
        scan.dry = True

    def is_empty(self, handle: TableHandle) -> bool:
        """Tell whether a table, removed or not, has no document; that counts as read."""
        lo, hi = handle.documents
        return next(self._scan_documents(handle, KeyBounds(lo, hi), descending=False), None) is None

    # -------------------------------------------------------------------------------------- writing

    def new_id(self, table: str) -> tuple[str, float]:
        """Return a new id of the table and its creation time in ms since 1970."""
        handle = self._handle_named(table)
        sequence = self._sequence
        if sequence > SEQUENCE_MAX:
            raise RequestError(f"a call can insert {SEQUENCE_MAX + 1} documents", code="too_many_documents")
        self._sequence = sequence + 1
        if not self._id_time:
            self._id_time = time_prefix(self.now_us)
        noise = int.from_bytes(self._random_bytes(RANDOM_BYTES), "big")
        pairs = [_PAIRS[noise >> shift & 1023] for shift in (70, 60, 50, 40, 30, 20, 10, 0)]
        position = _PAIRS[sequence >> 10] + _PAIRS[sequence & 1023]
        document_id = f"{handle.id_prefix}{self._id_time}{position}{''.join(pairs)}"
        self._fresh.add(document_id)
        return document_id, self.now_us / 1000

    def put(self, document_id: str, document: bytes, *, counted: bool = True) -> None:
        """Insert or replace one document; `document` carries `_id` and `_creationTime`.

        Args:
            document_id: Its id.
            document: Encoded map.
            counted: Whether the call's limits hold for it; not so for what the system writes beside a call.

        Raises:
            RequestError: `unique_violation`, `document_too_large`, a limit of the call.
        """
        change, key = self._change(document_id)
        handle, old_entries = change.handle, change.entries
        entries, overflow = handle.maker.entries(document, key[4:])
        for position in handle.unique_positions:
            if entries[position] not in old_entries or entries[position] in overflow:
                self._check_unique(handle, position, document, key[4:])
        if counted:
            self.usage.write_document(document)
        self._become(change, key, document, entries, overflow)
        overlay = self._overlay
        for entry in old_entries:
            overlay.set(entry, None)
        for entry in entries:
            overlay.set(entry, Own(document, overflow.get(entry, b"")))
        overlay.set(key, Own(document, b""))

    def delete(self, document_id: str) -> None:
        """Delete one existing document."""
        change, key = self._change(document_id)
        if change.document is None:
            raise RequestError(f"there is no document {document_id}", code="document_not_found")
        self.usage.write(0)
        for entry in change.entries:
            self._overlay.set(entry, None)
        self._overlay.set(key, None)
        self._become(change, key, None, [], {})

    def schedule(
        self, function: str, kind: JobKind, arguments: bytes, due_us: int, cron: str | None = None
    ) -> str:
        """Have a function run at a time, once this is committed; see `jobs.schedule`."""
        job_id = jobs.schedule(self, function, kind, arguments, due_us, cron)
        self.first_due_us = due_us if self.first_due_us is None else min(self.first_due_us, due_us)
        return job_id

    def cancel_job(self, job_id: str) -> bool:
        """Have a job not run any more; False if it is too late for that; see `jobs.cancel`."""
        return jobs.cancel(self, job_id)

    def put_row(self, table_number: int, suffix: bytes, content: bytes | None) -> None:
        """Write a row of a system table; None deletes it."""
        self._rows[document_key(table_number, suffix)] = content

    def savepoint(self) -> Savepoint:
        """Return what `roll_back` comes back to."""
        if self._undo is None:
            self._undo = []
        return Savepoint(len(self._undo), self._overlay.savepoint())

    def roll_back(self, savepoint: Savepoint) -> None:
        """Forget what was put and deleted since a savepoint of this call; what was read and counted stays.

        Savepoints taken since are void. System rows are not rolled back.
        """
        self._overlay.roll_back(savepoint.overlay)
        undo = self._undo or []
        for key, change, before in reversed(undo[savepoint.changes :]):
            if before is None:
                del self._changes[key]
            else:
                change.document, change.entries, change.overflow = before
        del undo[savepoint.changes :]

    def discard_writes(self) -> None:
        """Forget all writes, rows too, and keep the read set: what a failed call leaves."""
        self._overlay = Overlay()
        self._undo = None
        self._changes.clear()
        self._rows.clear()
        self._fresh.clear()

    # ------------------------------------------------------------------------------------ read set

    @property
    def points(self) -> list[bytes]:
        """Document keys read so far."""
        return list(self._reads.points)

    @property
    def ranges(self) -> list[Range]:
        """Key ranges read so far: sorted and disjoint."""
        return self._reads.ranges()

    def add_point(self, key: bytes) -> None:
        """Count one document key as read: how a call depends on the active bundle."""
        self._reads.points.add(key)

    def add_range(self, lo: bytes, hi: bytes) -> None:
        """Count a key range as read."""
        self._reads.add_range(lo, hi)

    def proposal(self) -> Proposal:
        """Return what is to be committed, as it stands now."""
        writes = [
            Write(key, None, change.old_entries, [])
            if change.document is None
            else Write(
                key,
                pack_stored(change.handle.shape, change.document, key),
                change.old_entries,
                change.entries,
                change.overflow,
            )
            for key, change in self._changes.items()
            if not change.is_void()
        ]
        for key, content in self._rows.items():
            row = None if content is None else pack_stored(SYSTEM_SHAPE, content, key)
            writes.append(Write(key, row, [], []))
        return Proposal(self.begin_ts, self.points, self.ranges, writes, self.backfill)

    # ------------------------------------------------------------------------------------- private

    def _become(
        self,
        change: _Change,
        key: bytes,
        document: bytes | None,
        entries: list[bytes],
        overflow: dict[bytes, bytes],
    ) -> None:
        """Set what a document is now, and note for `roll_back` what it was."""
        if self._undo is not None:
            kept = self._changes.get(key)
            before = None if kept is None else (kept.document, kept.entries, kept.overflow)
            self._undo.append((key, change, before))
        self._changes[key] = change
        change.document, change.entries, change.overflow = document, entries, overflow

    def _handle_named(self, table: str) -> TableHandle:
        handle = self.catalog.by_name.get(table) or SYSTEM_BY_NAME.get(table)
        if handle is None:
            self._reads.add_range(*TABLES_RANGE)
            raise RequestError(f"there is no table {table!r}", code="unknown_table")
        self._reads.points.add(handle.row_key)
        return handle

    def _index(self, handle: TableHandle, name: str) -> IndexDefinition:
        definition = handle.ready.get(name)
        if definition is None:
            known = ", ".join(sorted(handle.ready)) or "none"
            raise RequestError(
                f"table {handle.definition.name!r} has no index {name!r}; it has: {known}",
                code="unknown_index",
            )
        return definition

    def _handle_of(self, document_id: str) -> TableHandle | None:
        """Return the table that a well-formed id names."""
        prefix = document_id[:-SUFFIX_LENGTH]
        handle = self.catalog.by_id_prefix.get(prefix) or SYSTEM_BY_PREFIX.get(prefix)
        if handle is None:
            self._reads.add_range(*TABLES_RANGE)
        else:
            self._reads.points.add(handle.row_key)
        return handle

    def _current(self, handle: TableHandle, key: bytes) -> StoredDocument | None:
        """Return the document with own writes; not counted as read."""
        states = self._overlay.states
        if key in states:
            own = states[key]
            return StoredDocument(own.document, True) if own else None
        return self._stored(handle, key)

    def _stored(self, handle: TableHandle, key: bytes) -> StoredDocument | None:
        """Return a document of the snapshot. A call that changes one asks for it three times."""
        found = self._kept.get(key)
        if found is None:
            value = self.snapshot.get_document(key)
            if value is None:
                return None
            found = _unpacked(handle, value, key)
            if self._writable and len(value) <= _KEPT_BYTES_MAX and len(self._kept) < _KEPT_MAX:
                self._kept[key] = found
        return found

    def _change(self, document_id: str) -> tuple[_Change, bytes]:
        """Return the change of a document, a new one that is not yet kept if there is none."""
        if not self._writable:
            raise RequestError("a query cannot write", code="not_allowed_here")
        if not is_id(document_id):
            raise RequestError(f"{document_id!r} is not an id")
        handle = self._handle_of(document_id)
        if handle is None:
            raise RequestError(f"the id {document_id} is of no known table", code="unknown_table")
        suffix = document_id[-SUFFIX_LENGTH:].encode()
        key = handle.prefix + suffix
        change = self._changes.get(key)
        if change is not None:
            return change, key
        if document_id in self._fresh:
            return _Change(handle, None, []), key
        self._reads.points.add(key)
        original = self._current(handle, key)
        old_entries = handle.maker.entries(original.document, suffix)[0] if original else []
        return _Change(handle, original, old_entries), key

    def _check_unique(self, handle: TableHandle, position: int, document: bytes, suffix: bytes) -> None:
        values = handle.maker.unique_values(position, document)
        if values is None:
            return
        index = handle.maker.indexes[position]
        prefix = index_range(index.number)[0]
        bounds = key_bounds(index_bounds(prefix, len(values), values, None, None))
        self._reads.add_range(bounds.lo, bounds.hi)
        for key, value in self._merged_entries(bounds, descending=False):
            if key[-SUFFIX_LENGTH:] == suffix:
                continue
            overflow = value.overflow if isinstance(value, Own) else value
            if bounds.exact is None or bounds.exact[0] <= whole_key(key, overflow) < bounds.exact[1]:
                # Each value cut by itself, so that a long one does not push out those behind it.
                shown = ", ".join(
                    f"{name}={repr(value)[:_SHOWN_MAX]}"
                    for name, value in zip(index.fields, values, strict=True)
                )
                raise RequestError(
                    f"table {handle.definition.name!r} already has a document with {shown}"
                    f" (unique index {index.name!r})",
                    code="unique_violation",
                )

    def _merged_entries(self, bounds: KeyBounds, *, descending: bool) -> Iterator[tuple[bytes, bytes | Own]]:
        base = self.snapshot.entries(bounds.lo, bounds.hi, descending)
        own = self._overlay.within(bounds.lo, bounds.hi)
        return overlaid(base, own, descending=descending) if own else iter(base)

    def _scan_documents(
        self, handle: TableHandle, bounds: KeyBounds, descending: bool
    ) -> Iterator[StoredDocument]:
        lo, hi, _ = bounds
        scan = self._reads.scan(lo, hi, descending=descending)
        base = self.snapshot.documents(lo, hi, descending)
        own = self._overlay.within(lo, hi)
        items = overlaid(base, own, descending=descending) if own else base
        usage = self.usage
        for key, value in items:
            scan.last = key
            if isinstance(value, Own):
                found = StoredDocument(value.document, True)
            else:
                found = _unpacked(handle, value, key)
            usage.read(len(found.document))
            yield found
        scan.dry = True

    def _scan_entries(
        self, handle: TableHandle, bounds: KeyBounds, descending: bool
    ) -> Iterator[StoredDocument]:
        scan = self._reads.scan(bounds.lo, bounds.hi, descending=descending)
        exact = bounds.exact
        cut: list[tuple[bytes, bytes | Own]] = []
        cut_at = b""
        for key, value in self._merged_entries(bounds, descending=descending):
            if cut and key[:CUT] != cut_at:
                yield from self._cut_group(handle, scan, cut, bounds)
                cut = []
            if value and not (isinstance(value, Own) and not value.overflow):
                cut.append((key, value))
                cut_at = key[:CUT]
                continue
            scan.last = key
            if exact is None or exact[0] <= key < exact[1]:
                yield self._document_of(handle, key, value)
        if cut:
            yield from self._cut_group(handle, scan, cut, bounds)
        scan.dry = True

    def _cut_group(
        self, handle: TableHandle, scan: Scan, group: list[tuple[bytes, bytes | Own]], bounds: KeyBounds
    ) -> Iterator[StoredDocument]:
        """Yield the documents of entries that were cut at the same place, in their real order.

        Every place in the group counts as read once one of it is: keys do not tell which come first, so what
        comes in behind the last of these keys may stand before all of them.
        """
        cut_at = group[0][0][:CUT]
        scan.last = cut_at if scan.descending else cut_at + _ABOVE_SUFFIXES
        ordered = sorted(
            (
                (whole_key(key, value.overflow if isinstance(value, Own) else value), key, value)
                for key, value in group
            ),
            key=lambda item: item[0],
            reverse=scan.descending,
        )
        for whole, key, value in ordered:
            if bounds.exact is None or bounds.exact[0] <= whole < bounds.exact[1]:
                yield self._document_of(handle, key, value)

    def _document_of(self, handle: TableHandle, entry: bytes, value: bytes | Own) -> StoredDocument:
        """Return the document that an entry stands for, counted as read."""
        if isinstance(value, Own):
            found = StoredDocument(value.document, True)
        else:
            key = handle.prefix + entry[-SUFFIX_LENGTH:]
            stored = self._stored(handle, key)
            if stored is None:
                raise StorageError(
                    f"an index of table {handle.definition.name!r} names a missing document {key!r}"
                )
            found = stored
        self.usage.read(len(found.document))
        return found


def _unpacked(handle: TableHandle, value: bytes, key: bytes) -> StoredDocument:
    """Return a stored document after verifying its checksum, fast for those of the current shape."""
    document = value[STORED_HEADER_BYTES:]
    if value[4:STORED_HEADER_BYTES] == handle.shape_bytes and value[:4] == crc32(
        document, crc32(key, handle.shape_checksum)
    ).to_bytes(4, "big"):
        return StoredDocument(document, True)
    shape, document = unpack_stored(value, key)
    return StoredDocument(document, shape == handle.shape)
