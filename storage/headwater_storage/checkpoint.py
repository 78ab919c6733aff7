"""Make LMDB alone safe on disk, again and again, while commits go on.

Does IO. LMDB runs with sync off, so between checkpoints its file on disk is a mixture of old
and new pages. What makes it recoverable is one snapshot of which every page is on disk and
none is written again. A read transaction, the *pin*, keeps LMDB from using any page of its
snapshot again; only the two meta pages are overwritten, and copies of them are kept in the
side file. A checkpoint moves the pin:

1. between two write transactions: begin the new pin and copy both meta pages, together;
2. in a thread, while commits go on: sync LMDB's file, then write the side file durably;
3. only then end the old pin, and let the log behind the checkpoint go.

With metas copied any later, or the old pin ended any earlier, a crash gives wrong data
silently; the power cuts in `tests/crash` show both.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from zlib import crc32

import lmdb
import msgspec
from headwater_protocol.errors import StorageError, TransientError

from headwater_storage.disk_errors import disk_error
from headwater_storage.environment import outcome_of
from headwater_storage.files import read_file, write_file_durably
from headwater_storage.lmdb_store import DATA_FILE, LOCK_FILE, META_PAGES
from headwater_storage.store import State  # noqa: TC001 - msgspec reads the annotations

if TYPE_CHECKING:
    from concurrent.futures import Future
    from pathlib import Path

    from headwater_storage.directory import DataDirectory
    from headwater_storage.environment import Environment
    from headwater_storage.files import FileSystem
    from headwater_storage.log import Log
    from headwater_storage.store import Store, StoreSnapshot

CHECKPOINT_FORMAT = 1
_MAGIC = b"HWckpt01"
_CHECKSUM_BYTES = 4


class SideFile(msgspec.Struct, array_like=True, frozen=True):
    """What a checkpoint leaves beside the store.

    Attributes:
        format: Of this file.
        state: Of the pinned snapshot.
        metas: Both meta pages as they were when it was pinned.
        inode: Of LMDB's file: a copy has another one.
        owner: Random; names the process that has the directory.
        clean: It was stopped with everything synced, and has written nothing since.
    """

    format: int
    state: State
    metas: bytes
    inode: int
    owner: bytes
    clean: bool


def write_side_file(files: FileSystem, path: Path, content: SideFile) -> None:
    """Write the side file; on return it is durable."""
    body = msgspec.msgpack.encode(content)
    write_file_durably(files, path, _MAGIC + crc32(body).to_bytes(_CHECKSUM_BYTES, "big") + body)


def read_side_file(files: FileSystem, path: Path) -> SideFile:
    """Return the side file.

    Raises:
        StorageError: `damaged`: it is missing or not what was written.
    """
    data = read_file(files, path)
    if data is None:
        raise StorageError(f"{path} is missing: without it the store cannot be recovered", code="damaged")
    start = len(_MAGIC) + _CHECKSUM_BYTES
    checksum = int.from_bytes(data[len(_MAGIC) : start], "big")
    body = data[start:]
    if not data.startswith(_MAGIC) or crc32(body) != checksum:
        offset = start if data.startswith(_MAGIC) else 0
        raise StorageError(
            f"{path}, offset {offset}: the side file does not fit its checksum", code="damaged"
        )
    try:
        return msgspec.msgpack.decode(body, type=SideFile)
    except msgspec.DecodeError as error:
        raise StorageError(
            f"{path}, offset {start}: the side file is damaged: {error}", code="damaged"
        ) from None


def copy_metas(files: FileSystem, store_folder: Path, page_bytes: int) -> bytes:
    """Return both meta pages of LMDB's file."""
    descriptor = files.open(store_folder / DATA_FILE, os.O_RDONLY)
    try:
        return files.pread(descriptor, META_PAGES * page_bytes, 0)
    finally:
        files.close(descriptor)


def restore_metas(files: FileSystem, store_folder: Path, metas: bytes) -> None:
    """Put saved meta pages back; nobody may have the store open. Durable on return.

    LMDB's lock file goes too: it holds what the newest transaction was, which no longer is.
    """
    descriptor = files.open(store_folder / DATA_FILE, os.O_RDWR)
    try:
        files.pwrite(descriptor, metas, 0)
        files.fdatasync(descriptor)
    finally:
        files.close(descriptor)
    files.remove(store_folder / LOCK_FILE)


WAIT_FACTOR = 2
"""At this many times what makes a checkpoint due, commits wait until it is finished."""

BEHIND_RETRY_S = 1.0
"""While commits wait for a checkpoint, one that found no room is tried again so soon."""


@dataclass(frozen=True, slots=True)
class CheckpointOptions:
    """When a checkpoint is due.

    Attributes:
        log_bytes: Log appended since the last one. `WAIT_FACTOR` times as much bounds what a start
            replays.
        growth_bytes: Growth of LMDB's file since the last one. `WAIT_FACTOR` times as much bounds how
            far it grows while no checkpoint succeeds.
        interval_s: Time since the last one, if anything was written.
    """

    log_bytes: int = 64 << 20
    growth_bytes: int = 256 << 20
    interval_s: float = 5.0


@dataclass(frozen=True, slots=True)
class PendingCheckpoint:
    """A checkpoint that was begun.

    Attributes:
        pin: Snapshot that it is about.
        content: What the side file will say.
        log_bytes: What had been appended to the log.
        used_bytes: How large LMDB's file was.
    """

    pin: StoreSnapshot
    content: SideFile
    log_bytes: int
    used_bytes: int


class Checkpointer:
    """Owns the pin and moves it.

    `begin` and `finish` belong to the thread that applies batches, between two of them;
    `save` may run in any thread meanwhile. One checkpoint at a time.
    """

    def __init__(
        self,
        directory: DataDirectory,
        store: Store,
        log: Log,
        environment: Environment,
        options: CheckpointOptions,
        *,
        owner: bytes,
        inode: int,
        pin: StoreSnapshot,
    ) -> None:
        """Take over a pin, before anything is applied over it.

        Args:
            directory: Where the side file is.
            store: The store, already pinned.
            log: What is trimmed behind a checkpoint.
            environment: Clock, files and threads.
            options: When one is due.
            owner: Names this process in the side file.
            inode: Of LMDB's file.
            pin: Snapshot whose meta pages the side file holds.
        """
        self._directory = directory
        self._store = store
        self._log = log
        self._environment = environment
        self._options = options
        self._owner = owner
        self._inode = inode
        self._pin = pin
        self._log_bytes = 0  # what was replayed is log behind the pin as well
        self._used_bytes = store.used_bytes()
        self._saved_log_bytes = self._log_bytes  # the two as of the last checkpoint that was finished
        self._saved_used_bytes = self._used_bytes
        self._time_mono = environment.clock.mono_s()
        self._pending: PendingCheckpoint | None = None  # from `begin` to `finish` or `abandon`
        self._saving: Future[None] | None = None  # set by `run` while `save` is in a thread

    @property
    def saved_state(self) -> State:
        """State of the snapshot that is safe on disk."""
        return self._pin.state

    def due(self) -> bool:
        """Tell whether a checkpoint should be begun now. Cheap."""
        if self._pending is not None:
            return False
        options = self._options
        since_s = self._environment.clock.mono_s() - self._time_mono
        written = self._log.appended_bytes - self._log_bytes
        if written <= 0:  # nor will anything be while commits wait for a checkpoint
            return self.is_behind() and since_s >= min(BEHIND_RETRY_S, options.interval_s)
        return (
            written >= options.log_bytes
            or since_s >= options.interval_s
            or self._store.used_bytes() - self._used_bytes >= options.growth_bytes
        )

    def is_behind(self) -> bool:
        """Tell whether commits have to wait for a checkpoint. Cheap."""
        options = self._options
        return (
            self._log.appended_bytes - self._saved_log_bytes >= WAIT_FACTOR * options.log_bytes
            or self._store.used_bytes() - self._saved_used_bytes >= WAIT_FACTOR * options.growth_bytes
        )

    def begin(self, *, clean: bool = False) -> PendingCheckpoint:
        """Pin the newest snapshot and copy the meta pages at that same moment.

        Raises:
            StorageError: `disk_failed`.
        """
        if self._pending is not None:
            raise RuntimeError("a checkpoint is already under way")
        pin = self._store.snapshot()
        try:
            files = self._environment.files
            metas = copy_metas(files, self._store.path, self._store.page_bytes)
            content = SideFile(CHECKPOINT_FORMAT, pin.state, metas, self._inode, self._owner, clean)
            self._pending = PendingCheckpoint(
                pin, content, self._log.appended_bytes, self._store.used_bytes()
            )
        except BaseException as error:
            pin.close()
            if isinstance(error, OSError):
                raise disk_error(error, self._store.path, "reading the meta pages") from error
            raise
        return self._pending

    def save(self, pending: PendingCheckpoint) -> None:
        """Make the pinned snapshot safe on disk. Blocks: run it in a thread.

        Raises:
            StorageError: `disk_failed`: the process must end, and nothing be tried again.
                `directory_in_use`: another process has taken the directory.
            TransientError: `disk_full`: there is no room for the side file.
        """
        try:
            self._store.sync()
            self.check_owner()
            write_side_file(self._environment.files, self._directory.checkpoint_file, pending.content)
        except OSError as error:
            raise disk_error(error, self._directory.checkpoint_file, "the checkpoint") from error
        except lmdb.Error as error:  # of a sync, so never one that passes
            raise StorageError(f"the store cannot be synced: {error}", code="disk_failed") from error

    def finish(self, pending: PendingCheckpoint) -> None:
        """End the old pin and let the log behind the checkpoint go."""
        if self._pending is not pending:
            raise RuntimeError("this checkpoint is not under way")
        old, self._pin = self._pin, pending.pin
        self._pending = None
        self._log_bytes = self._saved_log_bytes = pending.log_bytes
        self._used_bytes = self._saved_used_bytes = pending.used_bytes
        self._time_mono = self._environment.clock.mono_s()
        old.close()
        self._log.trim(pending.content.state.record_number)

    def trim_log(self) -> None:
        """Let log go that has become too old since the last checkpoint."""
        self._log.trim(self._pin.state.record_number)

    def abandon(self, pending: PendingCheckpoint) -> None:
        """Give up a checkpoint that was not saved: the old pin stays; the next is due an interval later, or sooner if commits wait."""
        if self._pending is not pending:
            raise RuntimeError("this checkpoint is not under way")
        self._pending = None
        pending.pin.close()
        self._time_mono = self._environment.clock.mono_s()
        self._log_bytes = self._log.appended_bytes
        self._used_bytes = self._store.used_bytes()

    async def run(self) -> None:
        """Do a whole checkpoint; commits may go on meanwhile.

        If the caller is cancelled, the checkpoint stays under way until `settle`.

        Raises:
            StorageError: See `save`.
            TransientError: `disk_full`; tried again when the next one is due.
        """
        pending = self.begin()
        self._saving = self._environment.executor.submit(lambda: self.save(pending))
        with suppress(Exception):  # `settle` raises it
            await outcome_of(self._saving)
        self.settle()

    def run_now(self, *, clean: bool = False) -> None:
        """Do a whole checkpoint in this thread."""
        self.settle()
        pending = self.begin(clean=clean)
        try:
            self.save(pending)
        except TransientError:
            self.abandon(pending)
            raise
        self.finish(pending)

    def settle(self) -> None:
        """Wait for a checkpoint that `run` left under way, and end it."""
        saving, self._saving = self._saving, None
        pending = self._pending
        if saving is None or pending is None:
            return
        try:
            saving.result()
        except TransientError:
            self.abandon(pending)
            raise
        self.finish(pending)

    def check_owner(self) -> None:
        """Refuse to go on in a directory that another process has taken over.

        The lock should not let that happen; a shared volume may.

        Raises:
            StorageError: `directory_in_use`.
        """
        found = read_side_file(self._environment.files, self._directory.checkpoint_file)
        if found.owner != self._owner:
            raise StorageError(
                f"another process has taken over {self._directory.path}", code="directory_in_use"
            )

    def close(self) -> None:
        """End the pins. Nothing may be applied to the store after this."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.pin.close()
        self._pin.close()
