"""From files on disk to an open database: the one way in, whatever ended the process before.

Does IO, blocks, and runs before anything is served. Whether the page cache survived is
neither asked nor used: the saved meta pages are put back at every start, so each kill of
the process tests what a power cut needs. In order:

1. take the directory's lock; refuse a newer format, a copied directory, a network disk;
2. wait until no worker of an earlier daemon has the store mapped;
3. check the pages of the last checkpoint, as LMDB would break or abort on damaged ones; put its
   meta pages back, open the store and pin it at once: without the pin, replay would reuse pages
   of the only snapshot that is safe on disk;
4. copy the last log segment's valid records to a new file and make it durable: they may be
   in the page cache only, and must not be shown to anybody before that;
5. replay from the record that the store says it has applied last, while the log is read and
   verified;
6. raise the directory's format, if it is an older one;
7. append a claim, with which the new life of the log begins.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import lmdb
import msgspec
from headwater_protocol.errors import HeadwaterError, StorageError, TransientError

from headwater_storage.checkpoint import (
    CHECKPOINT_FORMAT,
    Checkpointer,
    CheckpointOptions,
    SideFile,
    copy_metas,
    read_side_file,
    restore_metas,
    write_side_file,
)
from headwater_storage.directory import (
    DataDirectory,
    DirectoryLock,
    refuse_network_filesystem,
    wait_for_workers,
)
from headwater_storage.disk_errors import start_error, store_error
from headwater_storage.file_log import FileLog, FileLogOptions
from headwater_storage.format import FORMAT_VERSION, read_format, write_format
from headwater_storage.lmdb_store import DATA_FILE, MAP_SIZE_BYTES, READERS_MAX
from headwater_storage.log import INCARNATION_BYTES, LOG_ID_BYTES
from headwater_storage.page_store import check_pages, newest_shown, state_offset
from headwater_storage.proposal import CommitTs
from headwater_storage.replay import GROUP_BYTES, Replay
from headwater_storage.store import EMPTY_STATE, AppliedBatch
from headwater_storage.timeline import Timeline

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Literal

    from headwater_storage.environment import Environment
    from headwater_storage.log import Record
    from headwater_storage.replay import ApplyRecord
    from headwater_storage.store import Store, StoreSnapshot

OWNER_BYTES = 16

_log = logging.getLogger("headwater.storage.recovery")


@dataclass(frozen=True, slots=True)
class StorageOptions:
    """How a database lies on disk and how it is kept safe.

    Attributes:
        durability: `log`: the store is synced at checkpoints; `lmdb`: at each batch as well.
        log: Segments.
        checkpoint: When checkpoints are due.
        map_size_bytes: Address space of the store: its largest size.
        readers_max: Snapshots open at a time in all processes together.
        worker_wait_s: How long to wait for workers of an earlier daemon.
        check_bytes: How much of the store's pages is checked at a start, upper pages first: it takes
            time. 0: nothing.
        replay_group_bytes: How much is replayed in one write transaction of the store.
    """

    durability: Literal["log", "lmdb"] = "log"
    log: FileLogOptions = field(default_factory=FileLogOptions)
    checkpoint: CheckpointOptions = field(default_factory=CheckpointOptions)
    map_size_bytes: int = MAP_SIZE_BYTES
    readers_max: int = READERS_MAX
    worker_wait_s: float = 10.0
    check_bytes: int = 0
    replay_group_bytes: int = GROUP_BYTES


class Recovered:
    """An open database directory.

    Attributes:
        directory: Its paths.
        store: The store, with everything in the log applied.
        log: The log, claimed.
        checkpointer: Owns the pin.
        claim: The record with which this opening began; names it.
        was_clean: The last owner had stopped with everything synced.
        replayed: How many records were replayed.
    """

    def __init__(
        self,
        directory: DataDirectory,
        store: Store,
        log: FileLog,
        checkpointer: Checkpointer,
        resources: ExitStack,
        claim: Record,
        *,
        was_clean: bool,
        replayed: int,
    ) -> None:
        self.directory = directory
        self.store = store
        self.log = log
        self.checkpointer = checkpointer
        self.claim = claim
        self.was_clean = was_clean
        self.replayed = replayed
        self._resources = resources

    def close(self, *, clean: bool = True) -> None:
        """Stop. Nothing may be appended or applied any more, no snapshot be open in this process.

        Args:
            clean: Make a last checkpoint, so that the next start has nothing to replay.
                False after a failure, and in tests of one.

        Raises:
            StorageError: `disk_failed`, in the last checkpoint.
        """
        try:
            if clean:
                self.checkpointer.run_now(clean=True)
        except TransientError as error:  # everything is in the log, from which the next start replays it
            _log.warning(
                "last checkpoint left out", extra={"fields": {"code": error.code, "reason": error.message}}
            )
        finally:
            self._resources.close()


def recover(
    path: Path, options: StorageOptions, environment: Environment, apply_record: ApplyRecord
) -> Recovered:
    """Open a data directory; a missing or empty one is made.

    Args:
        path: The directory.
        options: How it lies on disk.
        environment: Clock, randomness, files, threads.
        apply_record: Applies one record that is replayed.

    Raises:
        StorageError: `directory_in_use`, `directory_unusable`, `format_too_new`, `directory_copied`, `damaged`, `disk_failed`
            or `disk_full`. Nothing in the directory is lost by any of them.
        TransientError: `disk_full`.
    """
    resources = ExitStack()
    try:
        return _Recovery(path, options, environment, apply_record, resources).run()
    except BaseException as error:
        resources.close()
        if (ours := _as_ours(error, path, environment)) is not None:
            raise ours from error
        raise


def _as_ours(error: BaseException, path: Path, environment: Environment) -> HeadwaterError | None:
    """Return what an error of the system means for the start; None: it says so itself."""
    if isinstance(error, OSError):
        return start_error(error, path, "opening the database")
    if isinstance(error, lmdb.Error):
        return store_error(error, DataDirectory(path).store_folder, environment.files)
    return None


def _is_state_of(side: SideFile, snapshot: StoreSnapshot) -> bool:
    return snapshot.state == side.state


class _Recovery:
    """One run of recovery; `resources` gets what must be closed, in the order of taking."""

    def __init__(
        self,
        path: Path,
        options: StorageOptions,
        environment: Environment,
        apply_record: ApplyRecord,
        resources: ExitStack,
    ) -> None:
        self._directory = DataDirectory(path)
        self._options = options
        self._environment = environment
        self._files = environment.files
        self._apply_record = apply_record
        self._resources = resources
        self._known_number = 0  # a record that must be in the log; set before the store is changed

    def run(self) -> Recovered:
        directory, environment, resources = self._directory, self._environment, self._resources
        log_id, version = self._enter()
        found = self._put_metas_back()
        owner = environment.random.bytes(OWNER_BYTES)
        self._take_ownership(found, owner)
        store = self._open_store(create=False)
        resources.callback(store.close)
        pin = self._pin(store, found)
        replay = Replay(store, self._apply_record, group_bytes=self._options.replay_group_bytes)
        try:
            log = FileLog(
                directory.log_folder,
                log_id,
                environment,
                self._options.log,
                check_owner=lambda: checkpointer.check_owner(),
            )
            resources.callback(log.close)
            checkpointer = Checkpointer(
                directory,
                store,
                log,
                environment,
                self._options.checkpoint,
                owner=owner,
                inode=self._inode(),
                pin=pin,
            )
            resources.callback(checkpointer.close)
            log.recover(pin.state.head, replay.apply, known_number=self._known_number)
            replayed = replay.applied
            if version < FORMAT_VERSION:
                write_format(self._files, directory.format_file, log_id=log_id, creating=False)
            claim = self._claim(log, replay.wall_us)
            replay.apply(claim)
            replay.flush()
        finally:
            replay.close()
        return Recovered(
            directory, store, log, checkpointer, resources, claim, was_clean=found.clean, replayed=replayed
        )

    def _enter(self) -> tuple[bytes, int]:
        """Take the directory and return its log's id and its format; a new one is made."""
        path = self._directory.path
        files = self._files
        files.make_folder(path)
        refuse_network_filesystem(files, path)
        # Before anything is touched, the lock file included.
        read_format(files, self._directory.format_file)
        lock = DirectoryLock(files, self._directory)
        self._resources.callback(lock.close)
        found = read_format(files, self._directory.format_file)
        wait_for_workers(files, self._directory, self._environment.clock, self._options.worker_wait_s)
        if found is None:
            self._check_nothing_there()
        if found is None or found.creating:
            return self._create(), FORMAT_VERSION
        if found.repairing:
            raise StorageError(
                f"{self._directory.format_file}, offset 0: a repair was cut short; run `headwater doctor --repair`"
                " again",
                code="damaged",
            )
        return bytes.fromhex(found.log_id), found.format

    def _check_nothing_there(self) -> None:
        directory = self._directory
        for path in (directory.checkpoint_file, directory.log_folder, directory.store_folder):
            if self._files.exists(path):
                raise StorageError(
                    f"{directory.path} holds {path.name} but no format file; it is no complete data directory",
                    code="damaged",
                )

    def _create(self) -> bytes:
        """Make an empty database, or begin again where an earlier start was cut short."""
        directory, files = self._directory, self._files
        log_id = self._environment.random.bytes(LOG_ID_BYTES)
        files.sync_folder(directory.path.parent)
        write_format(files, directory.format_file, log_id=log_id, creating=True)
        files.remove(directory.checkpoint_file)
        for folder in (directory.log_folder, directory.store_folder):
            files.make_folder(folder)
            for name in files.names(folder):
                files.remove(folder / name)
        store = self._open_store(create=True)
        try:
            store.apply(AppliedBatch(), EMPTY_STATE)
            store.sync()
            metas = copy_metas(files, directory.store_folder, store.page_bytes)
        finally:
            store.close()
        for folder in (directory.log_folder, directory.store_folder):
            files.sync_folder(folder)
        side = SideFile(CHECKPOINT_FORMAT, EMPTY_STATE, metas, self._inode(), b"", clean=True)
        write_side_file(files, directory.checkpoint_file, side)
        write_format(files, directory.format_file, log_id=log_id, creating=False)
        return log_id

    def _put_metas_back(self) -> SideFile:
        """Make the store's file the one of the last checkpoint, and return that."""
        directory = self._directory
        side = read_side_file(self._files, directory.checkpoint_file)
        if side.inode != self._inode() and not side.clean:
            raise StorageError(
                f"{directory.path} was copied or moved while a daemon used it, or after one was killed, so its files"
                " may not fit together; copy it again from where a daemon was stopped in order, or let `headwater doctor"
                " --repair` build the store anew from what was copied",
                code="directory_copied",
            )
        if self._options.check_bytes:
            self._check_pages(side)
        restore_metas(self._files, directory.store_folder, side.metas)
        return side

    def _check_pages(self, side: SideFile) -> None:
        """Refuse a store that LMDB could not use, before anything is changed."""
        path = self._directory.store_folder / DATA_FILE
        found = check_pages(self._files, path, side.metas, self._options.check_bytes)
        if found:
            more = f", and {len(found) - 1} more" if len(found) > 1 else ""
            raise StorageError(
                f"{found[0]}{more}; the store is damaged, nothing was changed: `headwater doctor` says more,"
                " `headwater doctor --repair` builds it anew",
                code="damaged",
            )
        self._known_number = newest_shown(self._files, path)

    def _take_ownership(self, found: SideFile, owner: bytes) -> None:
        """Note who has the directory, and that it is no longer as a clean stop left it."""
        side = msgspec.structs.replace(found, inode=self._inode(), owner=owner, clean=False)
        write_side_file(self._files, self._directory.checkpoint_file, side)

    def _inode(self) -> int:
        path = self._directory.store_folder / DATA_FILE
        if not self._files.exists(path):
            raise StorageError(
                f"{path} is missing; `headwater doctor --repair` builds it anew from the log", code="damaged"
            )
        return self._files.inode(path)

    def _open_store(self, *, create: bool) -> Store:
        return self._environment.open_store(
            self._directory.store_folder,
            map_size=self._options.map_size_bytes,
            create=create,
            readers_max=self._options.readers_max,
            sync_each_batch=self._options.durability == "lmdb",
        )

    def _pin(self, store: Store, side: SideFile) -> StoreSnapshot:
        """Pin the checkpoint, if the store says of itself what the side file says.

        Nothing else vouches for the store's state, from which the next commit ts, the age of the
        catalog and the place in the log follow.
        """
        path = self._directory.store_folder / DATA_FILE
        try:
            pin = store.snapshot()
        except StorageError as error:
            raise StorageError(f"{self._state_place(path, side)}: {error.message}", code="damaged") from error
        self._resources.callback(pin.close)
        if not _is_state_of(side, pin):
            raise StorageError(
                f"{self._state_place(path, side)}: the store is at {pin.state}, its checkpoint at {side.state}; the"
                " store is damaged, and `headwater doctor --repair` builds it anew",
                code="damaged",
            )
        return pin

    def _state_place(self, path: Path, side: SideFile) -> str:
        return f"{path}, offset {state_offset(self._files, path, side.metas)}"

    def _claim(self, log: FileLog, last_wall_us: int) -> Record:
        """Begin the log's new life, at the wall clock's µs.

        That is far beyond any ts that an earlier life can have issued, also one of which this
        directory knows nothing because an older copy of it was restored: no client has seen
        a newer ts. A clock that went back changes nothing.
        """
        wall_us = Timeline(self._environment.clock, last_wall_us).next_us()
        first_ts = CommitTs(max(log.head.last_ts + 1, wall_us))
        return log.claim(self._environment.random.bytes(INCARNATION_BYTES), first_ts, wall_us)
