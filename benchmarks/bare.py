"""The limit that commits are held against: the same bytes to disk and into LMDB, and nothing else.

No code of Headwater: one file of zeros for the log, appended and fdatasynced once a batch;
one LMDB environment with sync off, finished keys and values put in one transaction a batch.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import lmdb

if TYPE_CHECKING:
    from pathlib import Path

SEGMENT_BYTES = 64 * 1024 * 1024
SECTOR = 512

Puts = Sequence[tuple[bytes, bytes]]
Batch = tuple[bytes, Puts, Puts]
"""Log bytes, puts into `documents`, puts into `entries`."""


class BarePipeline:
    """Appends and puts batches as fast as this machine can in Python."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._segment = 0
        self._position = 0
        self._file = self._new_segment()
        self._env = lmdb.open(
            str(folder / "bare"), map_size=1 << 40, max_dbs=4, sync=False, metasync=False, lib_version=0
        )
        self._documents = self._env.open_db(b"documents")
        self._entries = self._env.open_db(b"entries")

    def _new_segment(self) -> int:
        path = self._folder / f"bare-{self._segment}.log"
        self._segment += 1
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        zeros = bytes(1 << 20)
        for offset in range(0, SEGMENT_BYTES, len(zeros)):
            os.pwrite(descriptor, zeros, offset)
        os.fsync(descriptor)
        return descriptor

    def commit(self, batch: Batch) -> None:
        """Make one batch durable and visible."""
        record, documents, entries = batch
        if self._position + len(record) > SEGMENT_BYTES:
            self._position = 0
        os.pwrite(self._file, record, self._position)
        os.fdatasync(self._file)
        self._position += -(-len(record) // SECTOR) * SECTOR
        with self._env.begin(write=True) as transaction:
            transaction.cursor(self._documents).putmulti(documents)
            transaction.cursor(self._entries).putmulti(entries)

    def run(self, batches: Iterator[tuple[int, Batch]], seconds: float) -> float:
        """Commit batches for that long; returns transactions a second. The batches are made outside the clock."""
        done, spent = 0, 0.0
        while spent < seconds:
            count, batch = next(batches)
            start = time.perf_counter()
            self.commit(batch)
            spent += time.perf_counter() - start
            done += count
        return done / spent

    def close(self) -> None:
        """Close the file and the environment."""
        os.close(self._file)
        self._env.close()
