"""Look for everything that can be wrong with a data directory. Changes nothing in it.

Does IO and blocks. Goes through format file, side file, pages, log and contents, in an order in
which each needs only what was found sound before it. The store is read from its pages, with the
log behind the checkpoint applied in memory: LMDB never sees what may be damaged.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, NamedTuple

import lmdb
from headwater_protocol.errors import StorageError

from headwater_storage.apply import apply_record
from headwater_storage.catalog import CatalogCache
from headwater_storage.check import check_snapshot, digest
from headwater_storage.checkpoint import read_side_file
from headwater_storage.directory import DataDirectory, DirectoryLock, require_database, wait_for_workers
from headwater_storage.disk_errors import start_error, store_error
from headwater_storage.findings import Finding
from headwater_storage.format import read_format
from headwater_storage.lmdb_store import DATA_FILE, MAP_SIZE_BYTES, LmdbStore
from headwater_storage.log_format import digest_of
from headwater_storage.log_survey import LogSurvey
from headwater_storage.page_check import PageCheck
from headwater_storage.page_store import PageSnapshot, newest_shown, opened, state_offset
from headwater_storage.pages import BadPageError, Pages, metas_of
from headwater_storage.replayed_store import ReplayedStore

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.checkpoint import SideFile
    from headwater_storage.environment import Environment
    from headwater_storage.log import Record

_DELETED = digest_of(b"")


class Examined(NamedTuple):
    """What a look at a directory came to.

    Attributes:
        findings: What is wrong.
        unchecked: What was not looked at, and why.
    """

    findings: list[Finding]
    unchecked: list[str]


def examine(
    path: Path,
    environment: Environment,
    scratch: Path | None,
    *,
    worker_wait_s: float = 10.0,
    map_size_bytes: int = MAP_SIZE_BYTES,
) -> Examined:
    """Return everything that is wrong with a data directory that no daemon uses; it may be read-only.

    Args:
        path: The directory.
        environment: Files and clock.
        scratch: A folder for a store that is replayed from the log, if that reaches back to its beginning; None:
            there is none.
        worker_wait_s: How long to wait for workers of an earlier daemon.
        map_size_bytes: Address space for that store.

    Raises:
        StorageError: `directory_in_use`, `directory_unusable`, `format_too_new`, `disk_failed`.
        TransientError: `disk_full`: there is no room for that store.
    """
    directory, files = DataDirectory(path), environment.files
    try:
        require_database(files, directory)
        with ExitStack() as resources:
            look = Examination(directory, environment, resources, map_size_bytes)
            if files.exists(directory.lock_file):
                resources.callback(DirectoryLock(files, directory, make=False).close)
            else:
                look.unchecked.append("whether a daemon uses the directory: there is no lock file")
            if files.exists(directory.workers_lock_file):
                wait_for_workers(files, directory, environment.clock, worker_wait_s, make=False)
            look.run(scratch)
            return Examined(look.findings, look.unchecked)
    except OSError as error:
        raise start_error(error, path, "looking at the database") from error


class Examination:
    """One look at a directory; `resources` closes its files.

    Attributes:
        findings: What is wrong so far.
        unchecked: What was not looked at, and why.
        side: The side file, None if it cannot be read.
        log_id: None if it is not known.
        snapshot: The checkpoint, None if its upper pages are damaged.
    """

    def __init__(
        self,
        directory: DataDirectory,
        environment: Environment,
        resources: ExitStack,
        map_size_bytes: int = MAP_SIZE_BYTES,
    ) -> None:
        self.findings: list[Finding] = []
        self.unchecked: list[str] = []
        self.side: SideFile | None = None
        self.log_id: bytes | None = None
        self.snapshot: PageSnapshot | None = None
        self.known_number = 0  # newest record that must be in the log
        self.is_of_one_moment = False  # the side file belongs to the pages
        self._directory = directory
        self._files = environment.files
        self._resources = resources
        self._map_size_bytes = map_size_bytes

    def run(self, scratch: Path | None) -> None:
        """Look at everything."""
        if not self.look_at_format():
            return
        self.look_at_side_file()
        if not self.look_at_pages() or self.snapshot is None or self.log_id is None:
            self._look_at_log_alone()
            self.unchecked.append("documents and index entries: what leads to them is damaged or missing")
            return
        store = ReplayedStore(self.snapshot)
        self._look_at_log(store)
        if self.findings:
            self.unchecked.append("index entries: documents or the log are damaged")
            return
        try:
            self.findings += [Finding(None, None, text) for text in check_snapshot(store)]
            if scratch is None:
                self.unchecked.append(
                    "whether replaying the log gives the same: there is no folder for temporary files"
                )
            else:
                self._replay_into(scratch, store)
        except StorageError as error:
            self._add(error)

    def _add(self, error: StorageError) -> None:
        self.findings.append(Finding(None, None, error.message))

    def look_at_format(self) -> bool:
        """Read the format file; False if there is nothing more to look at."""
        path = self._directory.format_file
        try:
            found = read_format(self._files, path)
        except StorageError as error:
            if error.code == "format_too_new":
                raise
            self._add(error)
            return True
        if found is None:
            self.findings.append(Finding(str(path), None, "the format file is missing"))
        elif found.repairing:
            self.findings.append(Finding(str(path), None, "a repair was cut short; run it again"))
            return False
        elif found.creating:
            return False  # a start that was cut short: nothing was ever in it
        else:
            self.log_id = bytes.fromhex(found.log_id)
        return True

    def look_at_side_file(self) -> None:
        """Read the side file."""
        try:
            self.side = read_side_file(self._files, self._directory.checkpoint_file)
        except StorageError as error:
            self._add(error)

    def look_at_pages(self) -> bool:
        """Check all pages of the checkpoint; True if they are sound."""
        path = self._directory.store_folder / DATA_FILE
        if not self._files.exists(path):
            self.findings.append(Finding(str(path), None, "the store is missing"))
            return False
        side = self.side
        if side is not None:
            self.known_number = max(side.state.record_number, newest_shown(self._files, path))
            self.is_of_one_moment = side.clean or side.inode == self._files.inode(path)
            if not self.is_of_one_moment:
                self.findings.append(
                    Finding(str(path), None, "it was copied or moved while a daemon used it")
                )
        file = self._resources.enter_context(opened(self._files, path))
        try:
            metas = file.read(0, 2 << 15) if side is None else side.metas
            pages = Pages(file, metas_of(metas)[0])
        except BadPageError as error:
            self.findings.append(Finding(str(path), error.offset, error.text))
            return False
        found = PageCheck(pages, path).run()
        self.findings += found
        try:
            self.snapshot = PageSnapshot(Pages(file, pages.meta), path)
        except StorageError as error:
            if not found:
                self._add(error)
            return False
        if side is not None and not found and self.snapshot.state != side.state:
            offset = state_offset(self._files, path, side.metas)
            text = f"its state is {self.snapshot.state}, the side file says {side.state}"
            self.findings.append(Finding(str(path), offset, text))
        return not found

    def _look_at_log_alone(self) -> None:
        if self.log_id is not None:
            survey = LogSurvey(self._files, self._directory.log_folder, self.log_id, self.known_number)
            for _ in survey.records():
                pass
            self.findings += survey.findings

    def _look_at_log(self, store: ReplayedStore) -> None:
        """Read all of the log: what is behind the checkpoint is applied, what is before it compared."""
        assert self.log_id is not None
        survey = LogSurvey(self._files, self._directory.log_folder, self.log_id, self.known_number)
        checkpoint, catalogs = store.state, CatalogCache()
        latest: dict[bytes, bytes] = {}
        last: Record | None = None
        for record in survey.records():
            if last is not None and record.number != last.number + 1:
                latest.clear()  # what was lost in between may have changed anything
            last = record
            if record.number <= checkpoint.record_number:
                for transaction in record.transactions:
                    latest.update((key, digest_of(value or b"")) for key, value in transaction.writes)
                if record.number == checkpoint.record_number and record.digest != checkpoint.record_digest:
                    text = f"log record {record.number} is not the one that the store has"
                    self.findings.append(Finding(str(self._directory.log_folder), None, text))
            elif record.number == store.state.record_number + 1:
                try:
                    apply_record(store, record, catalogs)
                except StorageError as error:
                    self._add(error)
                    break
        self.findings += survey.findings
        if last is None or last.number < checkpoint.record_number:
            latest.clear()
        self._compare(latest)

    def _compare(self, latest: dict[bytes, bytes]) -> None:
        """Compare what the log wrote last with the checkpoint."""
        assert self.snapshot is not None
        for key, logged in sorted(latest.items()):
            try:
                value = self.snapshot.get_document(key)
            except StorageError as error:
                self._add(error)
                return
            if digest_of(value or b"") != logged:
                said = "is not there" if value is None else "is another"
                if logged == _DELETED:
                    said = "should have been deleted"
                self.findings.append(
                    Finding(None, None, f"document {key.hex()} {said}, by what the log says")
                )

    def _replay_into(self, scratch: Path, store: ReplayedStore) -> None:
        """Replay a log that reaches back to its beginning, and compare."""
        assert self.log_id is not None
        records = LogSurvey(self._files, self._directory.log_folder, self.log_id).records()
        first = next(records, None)
        if first is None or first.number != 1:
            begins = "is empty" if first is None else f"begins with record {first.number}"
            self.unchecked.append(
                f"whether replaying the log from its first record gives the same: it {begins}"
            )
            return
        scratch.mkdir(parents=True, exist_ok=True)
        catalogs = CatalogCache()
        try:
            with closing(LmdbStore.open(scratch, map_size=self._map_size_bytes, create=True)) as replayed:
                apply_record(replayed, first, catalogs)
                for record in records:
                    apply_record(replayed, record, catalogs)
                if digest(replayed) != digest(store):
                    self.findings.append(Finding(None, None, "replaying the log gives another database"))
        except lmdb.Error as error:
            raise store_error(error, scratch, self._files) from error
