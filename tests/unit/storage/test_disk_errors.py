"""What each error of the disk means."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import lmdb
import pytest
from headwater_protocol.errors import StorageError
from headwater_storage.disk_errors import PROBE_NAME, disk_error, is_no_room, store_error
from headwater_storage.files import RealFileSystem, SyncFailedError
from headwater_storage.lmdb_store import MetaPageError

if TYPE_CHECKING:
    from pathlib import Path


class Files(RealFileSystem):
    """The real file system; writes fail with `number` if there is one."""

    def __init__(self, number: int = 0) -> None:
        self.number = number

    def pwrite(self, descriptor: int, data: bytes, offset: int) -> None:
        if self.number:
            raise OSError(self.number, os.strerror(self.number))
        super().pwrite(descriptor, data, offset)


def of_lmdb(kind: type[lmdb.Error], number: int) -> lmdb.Error:
    """An error as LMDB raises it."""
    error = kind(os.strerror(number))
    error.code = number  # type: ignore[attr-defined]
    return error


def test_errors_of_the_system(tmp_path: Path) -> None:
    for number, room in (
        (errno.ENOSPC, False),
        (errno.EDQUOT, False),
        (errno.EIO, True),
        (errno.EROFS, True),
    ):
        error = OSError(number, os.strerror(number))
        assert is_no_room(error) != room
        ours = disk_error(error, tmp_path / "file", "a test")
        assert ours.code == ("disk_failed" if room else "disk_full")
        assert str(tmp_path / "file") in ours.message
        assert "a test" in ours.message
        assert not is_no_room(SyncFailedError(number, os.strerror(number)))
    assert not is_no_room(ValueError())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (of_lmdb(lmdb.DiskError, errno.ENOSPC), "disk_full"),
        (of_lmdb(lmdb.Error, errno.EDQUOT), "disk_full"),
        (lmdb.MapFullError(), "disk_full"),
        (lmdb.MemoryError(), "disk_full"),
        (of_lmdb(lmdb.Error, errno.EIO), "disk_failed"),
        (of_lmdb(lmdb.Error, errno.EROFS), "disk_failed"),
        (lmdb.PanicError(), "disk_failed"),
        (lmdb.BadTxnError(), "disk_failed"),
        (lmdb.CorruptedError(), "damaged"),
        (lmdb.PageNotFoundError(), "damaged"),
        (lmdb.InvalidError(), "damaged"),
        (lmdb.NotFoundError(), "damaged"),  # the store's trees are not there
    ],
)
def test_errors_of_lmdb(tmp_path: Path, error: lmdb.Error, code: str) -> None:
    assert store_error(error, tmp_path, Files()).code == code
    assert list(tmp_path.iterdir()) == []


def at_meta_page(cause: lmdb.Error) -> lmdb.Error:
    error = MetaPageError()
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("cause", "number", "code"),
    [
        (of_lmdb(lmdb.DiskError, errno.ENOSPC), 0, "disk_full"),
        (of_lmdb(lmdb.Error, errno.EDQUOT), 0, "disk_full"),
        (of_lmdb(lmdb.Error, errno.EIO), errno.ENOSPC, "disk_full"),
        (of_lmdb(lmdb.Error, errno.EIO), 0, "disk_failed"),
        (of_lmdb(lmdb.Error, errno.EROFS), 0, "disk_failed"),
    ],
)
def test_a_meta_page_that_was_refused_ends_the_process_and_says_why(
    tmp_path: Path, cause: lmdb.Error, number: int, code: str
) -> None:
    ours = store_error(at_meta_page(cause), tmp_path, Files(number))
    assert isinstance(ours, StorageError)  # a `TransientError` would be tried again
    assert ours.code == code


def test_a_failed_sync_is_a_failure_whatever_its_cause_says(tmp_path: Path) -> None:
    error = lmdb.PanicError("a sync failed")
    error.__cause__ = of_lmdb(lmdb.DiskError, errno.ENOSPC)
    assert store_error(error, tmp_path, Files()).code == "disk_failed"


def test_a_write_cut_short_is_told_from_a_failed_one_by_a_write_of_our_own(tmp_path: Path) -> None:
    cut_short = of_lmdb(lmdb.Error, errno.EIO)
    for number, code in (
        (errno.ENOSPC, "disk_full"),
        (errno.EDQUOT, "disk_full"),
        (errno.EIO, "disk_failed"),
    ):
        assert store_error(cut_short, tmp_path, Files(number)).code == code
        assert not (tmp_path / PROBE_NAME).exists()
