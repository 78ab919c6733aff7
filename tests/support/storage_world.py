"""Deterministic commits and a model of them that knows nothing of log and store."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.environment import Environment, InlineExecutor, RealRandom
from headwater_storage.file_log import FileLogOptions
from headwater_storage.files import FileSystem, RealFileSystem
from headwater_storage.keys import document_key, encode_fields, entry_key
from headwater_storage.log import Appended, EncodedRecord, LoggedTransaction, Record
from headwater_storage.recovery import StorageOptions
from headwater_storage.store import AppliedBatch, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_storage.recovery import Recovered
    from headwater_storage.store import Store

TABLE = 40
INDEX = 3

SMALL = StorageOptions(
    log=FileLogOptions(segment_bytes=1 << 17, first_segment_bytes=1 << 14, keep_bytes=0),
    checkpoint=CheckpointOptions(log_bytes=1 << 16, growth_bytes=1 << 22, interval_s=1e9),
    map_size_bytes=1 << 30,
    worker_wait_s=1.0,
    replay_group_bytes=0,
)
"""Small files, checkpoints by bytes only, and a write transaction for each record that is replayed."""


class FakeClock:
    """Stands still until it is moved; sleeping moves it."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def wall_us(self) -> int:
        return int(self.now_s * 1e6)

    def mono_s(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


class SeededRandom:
    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def bytes(self, count: int) -> bytes:
        return self._random.randbytes(count)


def inline_environment(files: FileSystem | None = None, clock: FakeClock | None = None) -> Environment:
    return Environment(clock or FakeClock(), RealRandom(), files or RealFileSystem(), InlineExecutor())


def suffix(number: int) -> bytes:
    return b"%031d" % number


@dataclass
class Commits:
    """Commit `i` of a seed is the same wherever it is made."""

    seed: int
    documents: int = 300

    def transaction(self, number: int) -> LoggedTransaction:
        random = Random(self.seed * 1_000_003 + number)
        writes: dict[bytes, bytes | None] = {}
        for _ in range(random.choice((1, 2, 5, 30))):
            place = random.randrange(self.documents)
            if random.random() < 0.25:
                run = range(place, min(place + random.choice((1, 1, 10)), self.documents))
                writes.update((document_key(TABLE, suffix(i)), None) for i in run)
            else:
                size = random.choice((20, 300, 900, 900, 5_000, 13_000))
                writes[document_key(TABLE, suffix(place))] = random.randbytes(4) * (size // 4)
        return LoggedTransaction(list(writes.items()))

    def batch(self, first: int, count: int) -> list[LoggedTransaction]:
        return [self.transaction(number) for number in range(first, first + count)]


Contents = tuple[dict[bytes, bytes], dict[bytes, bytes]]
"""Documents and entries."""


def model(transactions: Iterable[LoggedTransaction]) -> Contents:
    """What the database must hold after these commits: plain dicts, by after-images alone."""
    documents: dict[bytes, bytes] = {}
    for transaction in transactions:
        for key, value in transaction.writes:
            if value is None:
                documents.pop(key, None)
            else:
                documents[key] = value
    return documents, {entry_of(key, value): b"" for key, value in documents.items()}


def entry_of(key: bytes, value: bytes) -> bytes:
    return entry_key(INDEX, encode_fields([value[:4], len(value)]), key[4:])[0]


def changes_of(store: Store, transactions: Iterable[LoggedTransaction]) -> AppliedBatch:
    changes = AppliedBatch()
    with store.snapshot() as snapshot:
        for transaction in transactions:
            for key, value in transaction.writes:
                old = changes.documents[key] if key in changes.documents else snapshot.get_document(key)
                if old is not None:
                    changes.entries[entry_of(key, old)] = None
                if value is not None:
                    changes.entries[entry_of(key, value)] = b""
                changes.documents[key] = value
    return changes


def apply_record(store: Store, record: Record) -> None:
    changes = changes_of(store, record.transactions)
    store.apply(changes, State(record.last_ts, record.number, record.digest, record.first_ts, record.wall_us))


def commit(recovered: Recovered, transactions: list[LoggedTransaction], wall_us: int = 1) -> EncodedRecord:
    """Log and apply one batch, as the committer does."""
    log, store = recovered.log, recovered.store
    encoded = log.encode(log.head, transactions, wall_us)
    assert log.append(encoded) == Appended()
    head = encoded.head
    first_ts = encoded.previous.last_ts + 1
    store.apply(
        changes_of(store, transactions), State(head.last_ts, head.number, head.digest, first_ts, wall_us)
    )  # type: ignore[arg-type]
    return encoded


def contents(store: Store) -> Contents:
    with store.snapshot() as snapshot:
        return dict(snapshot.documents(b"", b"\xff" * 9)), dict(snapshot.entries(b"", b"\xff" * 9))


class Gate:
    """Holds a thread at a place until the test lets it go."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.release = threading.Event()

    def wait(self) -> None:
        self.reached.set()
        assert self.release.wait(10)
