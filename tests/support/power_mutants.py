"""The engine with one part of its protocol taken out, to show that a power cut then loses something."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from headwater_storage import recovery
from headwater_storage.checkpoint import Checkpointer, PendingCheckpoint, copy_metas
from headwater_storage.files import RealFileSystem
from headwater_storage.lmdb_store import LOCK_FILE

if TYPE_CHECKING:
    from collections.abc import Callable


def _no_pin() -> None:
    finish = Checkpointer.finish

    def finish_and_unpin(self: Checkpointer, pending: PendingCheckpoint) -> None:
        finish(self, pending)
        self._pin.close()

    _replace(Checkpointer, "finish", finish_and_unpin)


def _no_pin_in_recovery() -> None:
    take_over = Checkpointer.__init__

    def take_over_and_unpin(self: Checkpointer, *arguments: Any, **options: Any) -> None:
        take_over(self, *arguments, **options)
        self._pin.close()

    _replace(Checkpointer, "__init__", take_over_and_unpin)


def _old_pin_ends_early() -> None:
    begin = Checkpointer.begin

    def begin_and_unpin(self: Checkpointer, **options: Any) -> PendingCheckpoint:
        pending = begin(self, **options)
        self._pin.close()
        return pending

    _replace(Checkpointer, "begin", begin_and_unpin)


def _metas_copied_late() -> None:
    save = Checkpointer.save

    def copy_and_save(self: Checkpointer, pending: PendingCheckpoint) -> None:
        self._store.sync()
        metas = copy_metas(self._environment.files, self._store.path, self._store.page_bytes)
        content = type(pending.content)(
            pending.content.format,
            pending.content.state,
            metas,
            pending.content.inode,
            pending.content.owner,
            pending.content.clean,
        )
        save(self, replace(pending, content=content))

    _replace(Checkpointer, "save", copy_and_save)


def _store_not_synced() -> None:
    """At checkpoints alone: a directory that is being made is synced."""
    take_over = Checkpointer.__init__

    def take_over_without_sync(self: Checkpointer, *arguments: Any, **options: Any) -> None:
        take_over(self, *arguments, **options)
        _replace(self._store, "sync", lambda: None)

    _replace(Checkpointer, "__init__", take_over_without_sync)


def _store_synced_before_the_pin() -> None:
    """What is committed during the sync is pinned, but not on disk."""
    _store_not_synced()
    begin = Checkpointer.begin

    def sync_and_begin(self: Checkpointer, **options: Any) -> PendingCheckpoint:
        type(self._store).sync(self._store)
        return begin(self, **options)

    _replace(Checkpointer, "begin", sync_and_begin)


def _log_trimmed_early() -> None:
    begin = Checkpointer.begin

    def begin_and_trim(self: Checkpointer, **options: Any) -> PendingCheckpoint:
        pending = begin(self, **options)
        self._log.trim(pending.content.state.record_number)
        return pending

    _replace(Checkpointer, "begin", begin_and_trim)


def _metas_not_put_back() -> None:
    _replace(recovery, "restore_metas", lambda files, folder, _: files.remove(folder / LOCK_FILE))


def _folders_not_synced() -> None:
    _replace(RealFileSystem, "sync_folder", lambda *_: None)


def _files_not_synced(which: Callable[[str], bool]) -> None:
    sync = RealFileSystem.fdatasync

    def sync_the_others(self: RealFileSystem, descriptor: int) -> None:
        if not which(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}"))):
            sync(self, descriptor)

    _replace(RealFileSystem, "fdatasync", sync_the_others)


def _replace(owner: Any, name: str, value: Any) -> None:
    assert hasattr(owner, name)
    setattr(owner, name, value)


MUTANTS: dict[str, Callable[[], None]] = {
    "no pin": _no_pin,
    "no pin in recovery": _no_pin_in_recovery,
    "old pin ends before the new one is saved": _old_pin_ends_early,
    "metas copied after the pin": _metas_copied_late,
    "metas not put back": _metas_not_put_back,
    "store not synced": _store_not_synced,
    "store synced before the pin": _store_synced_before_the_pin,
    "records not synced": lambda: _files_not_synced(
        lambda name: name.startswith("segment-") and name.endswith(".log")
    ),
    "copied tail not synced": lambda: _files_not_synced(lambda name: name.endswith(".log.tmp")),
    "segment header not synced": lambda: _files_not_synced(lambda name: name == "next.prepared"),
    "side file not synced": lambda: _files_not_synced(lambda name: name == "checkpoint.tmp"),
    "folders not synced": _folders_not_synced,
    "log trimmed before the checkpoint is saved": _log_trimmed_early,
}
"""What can be taken out, and how."""
