"""Build the store of a damaged directory anew, from whatever of it is sound.

Does IO and blocks. The log alone is enough where it reaches back to its first record; else every
document that can still be read and fits its checksum, with what the log wrote later over it. Index
entries are always derived. Everything new is built beside the old and takes its place in steps
that can be gone on with after a crash; the old is set aside, never removed.
"""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import lmdb
from headwater_protocol.errors import StorageError

from headwater_storage.apply import record_applier
from headwater_storage.catalog import FIRST_USER_TABLE, SYSTEM_HANDLES, Catalog
from headwater_storage.check import check_snapshot
from headwater_storage.checkpoint import CHECKPOINT_FORMAT, SideFile, copy_metas, write_side_file
from headwater_storage.directory import DataDirectory, DirectoryLock, require_database, wait_for_workers
from headwater_storage.disk_errors import start_error, store_error
from headwater_storage.doctor import Examination
from headwater_storage.files import read_file, write_file_durably
from headwater_storage.format import read_format, write_format
from headwater_storage.keys import document_parts
from headwater_storage.lmdb_store import DATA_FILE, LOCK_FILE, MAP_SIZE_BYTES, LmdbStore
from headwater_storage.log_format import decode_segment_header, encode_segment_header
from headwater_storage.log_survey import LogSurvey
from headwater_storage.replay import Replay
from headwater_storage.segments import find_segments, read_segment, segment_name
from headwater_storage.store import EMPTY_STATE, AppliedBatch
from headwater_storage.stored import unpack_stored

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from headwater_storage.environment import Environment
    from headwater_storage.files import FileSystem
    from headwater_storage.log import Head, Record
    from headwater_storage.page_store import PageSnapshot
    from headwater_storage.store import State

_EVERYTHING = b"\x00", b"\xff\xff\xff\xff"
_WRITTEN_AT_ONCE = 1000
_REPLAY_GROUP_BYTES = 1 << 20


@dataclass
class Report:
    """What a repair came to.

    Attributes:
        source: From what the store was built.
        lost: What could not be restored; without it nothing is lost.
        aside: Folder that the old files are in; None if nothing was changed.
    """

    source: str
    lost: list[str] = field(default_factory=list)
    aside: Path | None = None


def repair(
    path: Path,
    environment: Environment,
    *,
    accept_loss: bool = False,
    worker_wait_s: float = 10.0,
    map_size_bytes: int = MAP_SIZE_BYTES,
) -> Report:
    """Build a directory's store anew. Nothing is changed if something is lost and that is not accepted.

    Args:
        path: The directory; no daemon may use it.
        environment: Files and clock.
        accept_loss: Go on where documents or commits are lost.
        worker_wait_s: How long to wait for workers of an earlier daemon.
        map_size_bytes: Largest size of the new store.

    Raises:
        StorageError: `damaged`: there is nothing to build from; `directory_in_use`,
            `directory_unusable`, `format_too_new`, `disk_failed`.
        TransientError: `disk_full`: there is no room for the new store.
    """
    directory, files = DataDirectory(path), environment.files
    try:
        require_database(files, directory)
        with ExitStack() as resources:
            resources.callback(DirectoryLock(files, directory).close)
            wait_for_workers(files, directory, environment.clock, worker_wait_s)
            return _Repair(directory, environment, resources, map_size_bytes).run(accept_loss=accept_loss)
    except OSError as error:
        raise start_error(error, path, "the repair") from error


@dataclass
class _Run:
    """Records without a gap: the first, and where the log is behind the last."""

    first: int
    head: Head


class _Repair:
    """One repair; `resources` closes what it opens."""

    def __init__(
        self,
        directory: DataDirectory,
        environment: Environment,
        resources: ExitStack,
        map_size_bytes: int,
    ) -> None:
        self._directory = directory
        self._files: FileSystem = environment.files
        self._look = Examination(directory, environment, resources)
        self._resources = resources
        self._new = DataDirectory(directory.path / "repair")
        self._lost: list[str] = []
        self._map_size_bytes = map_size_bytes

    def run(self, *, accept_loss: bool) -> Report:
        """See `repair`."""
        if self._was_cut_short():
            return Report("an earlier repair, which was cut short", aside=self._take_its_place())
        self._look.look_at_format()
        log_id = self._look.log_id or self._log_id_of_segments()
        self._look.look_at_side_file()
        self._look.log_id = log_id
        self._look.look_at_pages()
        self._clear()
        try:
            report = self._build(log_id)
            if report.lost and not accept_loss:
                return report
            write_format(
                self._files, self._directory.format_file, log_id=log_id, creating=False, repairing=True
            )
            report.aside = self._take_its_place()
            return report
        except lmdb.Error as error:
            raise store_error(error, self._new.store_folder, self._files) from error
        finally:
            if not self._was_cut_short():
                self._clear()

    def _was_cut_short(self) -> bool:
        try:
            found = read_format(self._files, self._directory.format_file)
        except StorageError as error:
            if error.code == "format_too_new":
                raise
            return False
        return found is not None and found.repairing

    def _clear(self) -> None:
        if self._files.exists(self._new.path):
            shutil.rmtree(self._new.path)

    def _log_id_of_segments(self) -> bytes:
        """Return the id that the segments agree on."""
        found = set()
        if self._files.exists(self._directory.log_folder):
            for _, path in find_segments(self._files, self._directory.log_folder):
                try:
                    found.add(decode_segment_header(read_file(self._files, path) or b"", str(path)).log_id)
                except StorageError:
                    continue
        if len(found) != 1:
            raise StorageError(
                f"{self._directory.path}: neither format file nor segments say which log this is",
                code="damaged",
            )
        return found.pop()

    # ------------------------------------------------------------------------------------- building

    def _records(self, log_id: bytes) -> Iterator[Record]:
        return LogSurvey(self._files, self._directory.log_folder, log_id).records()

    def _build(self, log_id: bytes) -> Report:
        """Build everything new beside the old."""
        runs: list[_Run] = []
        for record in self._records(log_id):
            if runs and record.number == runs[-1].head.number + 1:
                runs[-1].head = record.head
            else:
                runs.append(_Run(record.number, record.head))
        known = max([self._look.known_number, *(run.head.number for run in runs)])
        snapshot = self._look.snapshot
        state = None if snapshot is None else self._look.side.state if self._look.side else snapshot.state
        whole = next((run for run in runs if run.first == 1), None)
        behind = None if state is None else _end_of(runs, state)
        self._files.make_folder(self._new.store_folder)
        self._files.make_folder(self._new.log_folder)
        store = LmdbStore.open(self._new.store_folder, map_size=self._map_size_bytes, create=True)
        try:
            if whole and (behind is None or whole.head.number >= behind.number):
                source, first, end = "the log", 1, whole.head
            elif snapshot is not None and state is not None and behind is not None:
                source, first, end = "documents and the log", state.record_number + 1, behind
                self._salvage(store, snapshot, state, log_id)
            else:
                text = "the log does not reach back to its beginning and the store cannot be read"
                raise _beyond_repair(self._directory.path, text)
            if end.number < known:
                self._lost.append(f"commits of log records {end.number + 1} to {known}")
            self._replay(store, log_id, first, end.number)
            self._finish(store, end, log_id, keep_from=_first_of(runs, end))
        finally:
            store.close()
        return Report(source, self._lost)

    def _replay(self, store: LmdbStore, log_id: bytes, first: int, last: int) -> None:
        replay = Replay(store, record_applier(), group_bytes=_REPLAY_GROUP_BYTES)
        try:
            for record in self._records(log_id):
                if first <= record.number <= last:
                    replay.apply(record)
            replay.flush()
        finally:
            replay.close()

    def _salvage(self, store: LmdbStore, snapshot: PageSnapshot, state: State, log_id: bytes) -> None:
        """Put every document of the checkpoint that can be had, and derive all entries."""
        if not self._look.is_of_one_moment:
            self._lost.append("the certainty that all pages of the store are of one moment")
        damaged: list[bytes] = []
        unreadable: list[str] = []
        _put_all(store, _sound(snapshot.salvage(snapshot.document_tree, unreadable), damaged))
        logged: dict[bytes, bytes | None] = {}
        last = 0
        for record in self._records(log_id):
            if record.number > state.record_number:
                break
            if record.number != last + 1:
                logged.clear()  # what was lost in between may have changed anything
            last = record.number
            for transaction in record.transactions:
                logged.update(transaction.writes)
        if last == state.record_number:
            store.apply(AppliedBatch(documents=logged), EMPTY_STATE)
        with store.snapshot() as built:
            missing = snapshot.document_tree.entries - sum(1 for _ in built.documents(*_EVERYTHING))
            if missing:
                self._lost.append(f"{missing} documents, of {snapshot.document_tree.entries}")
                self._lost += unreadable
                self._lost += [f"document {key.hex()}" for key in damaged if built.get_document(key) is None]
            catalog = Catalog.load(built)
            _put_entries(store, catalog, built.documents(*_EVERYTHING), self._directory.path)
        store.apply(AppliedBatch(), state)

    def _finish(self, store: LmdbStore, end: Head, log_id: bytes, keep_from: int) -> None:
        """Make the new store durable, with a side file and a log that ends where it does."""
        files, new = self._files, self._new
        with store.snapshot() as built:
            reached, findings = built.state, check_snapshot(built)
        if reached.head != end:
            raise StorageError(f"the new store is at {reached.head}, its log ends at {end}", code="damaged")
        if findings:
            raise _beyond_repair(
                self._directory.path, f"what is left of the store is not sound: {findings[0]}"
            )
        store.sync()
        metas = copy_metas(files, new.store_folder, store.page_bytes)
        inode = files.inode(new.store_folder / DATA_FILE)
        files.remove(new.store_folder / LOCK_FILE)
        files.sync_folder(new.store_folder)
        for base, path in find_segments(files, self._directory.log_folder):
            if keep_from <= base <= end.number:
                data = read_file(files, path) or b""
                stop = max(
                    (
                        at
                        for record, at in read_segment(data, path, log_id, base, None)
                        if record.number <= end.number
                    ),
                    default=0,
                )
                write_file_durably(files, new.log_folder / path.name, data[:stop])
        if not files.names(new.log_folder) and end.number:
            # An empty segment says where the log goes on.
            empty = new.log_folder / segment_name(end.number + 1)
            write_file_durably(files, empty, encode_segment_header(log_id, end))
        side = SideFile(CHECKPOINT_FORMAT, reached, metas, inode, b"", clean=True)
        write_side_file(files, new.checkpoint_file, side)
        files.sync_folder(self._directory.path)

    # ------------------------------------------------------------------------------ taking its place

    def _take_its_place(self) -> Path:
        """Set the old aside and put the new in its place; may be gone on with after a crash."""
        files, old, new = self._files, self._directory, self._new
        number = 1
        while files.exists(old.path / f"damaged-{number}" / "done"):
            number += 1
        aside = DataDirectory(old.path / f"damaged-{number}")
        files.make_folder(aside.path)
        places = (
            (old.store_folder, new.store_folder, aside.store_folder),
            (old.log_folder, new.log_folder, aside.log_folder),
            (old.checkpoint_file, new.checkpoint_file, aside.checkpoint_file),
        )
        for there, made, kept in places:
            if not files.exists(made):
                continue  # done before a crash
            if files.exists(there):
                files.rename(there, kept)
            files.rename(made, there)
            for folder in (aside.path, old.path, new.path):
                files.sync_folder(folder)
        found = read_format(files, old.format_file)
        assert found is not None
        write_file_durably(files, aside.path / "done", b"")
        write_format(files, old.format_file, log_id=bytes.fromhex(found.log_id), creating=False)
        return aside.path


def _end_of(runs: list[_Run], state: State) -> Head:
    """Return where the log ends that goes on from a state without a gap."""
    for run in runs:
        if run.first <= state.record_number + 1 and state.record_number < run.head.number:
            return run.head
    return state.head


def _first_of(runs: list[_Run], end: Head) -> int:
    """Return the first record of the run that has a record; behind it if none has."""
    return next((run.first for run in runs if run.first <= end.number <= run.head.number), end.number + 1)


def _sound(items: Iterable[tuple[bytes, bytes]], damaged: list[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Pass on the documents that fit their checksums."""
    for key, value in items:
        try:
            unpack_stored(value, key)
        except StorageError:
            damaged.append(key)
        else:
            yield key, value


def _put_all(store: LmdbStore, documents: Iterable[tuple[bytes, bytes]]) -> None:
    batch = AppliedBatch()
    for key, value in documents:
        batch.documents[key] = value
        if len(batch.documents) >= _WRITTEN_AT_ONCE:
            store.apply(batch, EMPTY_STATE)
            batch = AppliedBatch()
    store.apply(batch, EMPTY_STATE)


def _put_entries(
    store: LmdbStore, catalog: Catalog, documents: Iterable[tuple[bytes, bytes]], path: Path
) -> None:
    """Derive all index entries."""
    batch = AppliedBatch()
    for key, value in documents:
        number, suffix = document_parts(key)
        handle = catalog.by_number.get(number) or SYSTEM_HANDLES.get(number)
        if handle is None:
            if number >= FIRST_USER_TABLE:
                raise _beyond_repair(path, f"the definition of table number {number} is lost")
            continue
        keys, overflow = handle.maker.entries(unpack_stored(value, key)[1], suffix)
        batch.entries.update((entry, overflow.get(entry, b"")) for entry in keys)
        if len(batch.entries) >= _WRITTEN_AT_ONCE:
            store.apply(batch, EMPTY_STATE)
            batch = AppliedBatch()
    store.apply(batch, EMPTY_STATE)


def _beyond_repair(path: Path, text: str) -> StorageError:
    return StorageError(
        f"{path} cannot be repaired: {text}; restore the directory from a copy", code="damaged"
    )
