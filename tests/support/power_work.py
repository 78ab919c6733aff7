"""What is done to a database while the recorder runs, and what must be in it after each record.

Three workloads: many small commits with rotations and trims; documents of many pages; the engine with
clients, unique indexes, request rows and deploys. The first two are the same, call for call, for a seed:
commits "during" a checkpoint are made inside its syncs. The engine has threads of its own.
"""

from __future__ import annotations

import asyncio
import ctypes
import time
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec
from headwater_protocol.ids import table_prefix
from headwater_storage.apply import apply_record
from headwater_storage.catalog import (
    DEPLOYMENT,
    NUMBERS_SUFFIX,
    REQUESTS,
    TABLES,
    CatalogCache,
    Numbers,
    encode_table,
)
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.committer import CommitterOptions
from headwater_storage.engine import Engine, EngineOptions, record_applier
from headwater_storage.environment import Environment, InlineExecutor, ThreadExecutor
from headwater_storage.file_log import FileLogOptions
from headwater_storage.files import RealFileSystem
from headwater_storage.keys import document_key
from headwater_storage.log import Appended, LoggedTransaction, Record, RecordKind
from headwater_storage.recovery import Recovered, StorageOptions, recover
from headwater_storage.replay import GROUP_BYTES
from headwater_storage.stored import pack_stored

from support.memory_store import decode, encode, insert, table
from support.storage_world import SeededRandom, suffix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from headwater_protocol.errors import HeadwaterError
    from headwater_storage.committer import PublishedBatch
    from headwater_storage.log import Log
    from headwater_storage.store import Store
    from headwater_storage.transaction import Transaction

ACKNOWLEDGED, RECOVERING, RECOVERED = 0, 1, 2
"""What a mark means; its number is that of the last record that must survive."""

_TABLE = table(32, "x", ("by_a", ["a"], False), ("by_u", ["u"], True))
_CATALOG_ROWS = {
    document_key(TABLES, b"x"): encode_table(_TABLE),
    document_key(DEPLOYMENT, NUMBERS_SUFFIX): msgspec.msgpack.encode(Numbers(33, 400)),
}
_CATALOG = LoggedTransaction([(key, pack_stored(0, row, key)) for key, row in _CATALOG_ROWS.items()])


class Recording:
    """The recorder in this process, which must have been started with it preloaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._callback: Any = None

    def start(self, folder: Path, trace: Path) -> None:
        self._library.record_start(str(folder).encode(), str(trace).encode())

    def stop(self) -> None:
        self._library.record_stop()

    def mark(self, meaning: int, number: int) -> None:
        """Enter into the order of events that records up to this number are acknowledged."""
        self._library.record_mark(ctypes.c_uint64(number), ctypes.c_uint64(meaning))

    def during_sync(self, work: Callable[[], None]) -> None:
        """Call this inside each sync, before it is done."""
        self._callback = ctypes.CFUNCTYPE(None, ctypes.c_uint64)(lambda _: work())
        self._library.record_during_sync(self._callback)


class Model:
    """What the documents are after each record: plain after-images, summed up in one number.

    Attributes:
        sums: By record number; a record that is not there changes nothing.
    """

    def __init__(
        self, documents: dict[bytes, bytes] | None = None, sums: dict[int, int] | None = None
    ) -> None:
        self._documents = documents or {}
        self._sum = sum_of(self._documents.items())
        self.sums = sums or {0: self._sum}

    def add(self, number: int, transactions: Iterable[LoggedTransaction]) -> None:
        for transaction in transactions:
            for key, value in transaction.writes:
                if (old := self._documents.pop(key, None)) is not None:
                    self._sum -= _hash(key, old)
                if value is not None:
                    self._documents[key] = value
                    self._sum += _hash(key, value)
        self.sums[number] = self._sum

    def watch(self, log: Any) -> None:
        """Take over every record of a log from the moment it is encoded; its claim is there already."""
        self.add(log.head.number, ())
        encode_record = log.encode

        def encode_and_add(
            previous: Any, transactions: Sequence[LoggedTransaction], *rest: Any, **more: Any
        ) -> Any:
            encoded = encode_record(previous, transactions, *rest, **more)
            self.add(encoded.head.number, transactions)
            return encoded

        log.encode = encode_and_add


def sum_of(documents: Iterable[tuple[bytes, bytes]]) -> int:
    return sum(_hash(key, value) for key, value in documents)


def _hash(key: bytes, value: bytes) -> int:
    digest = blake2b(value, digest_size=12, key=b"%d" % len(key))
    digest.update(key)
    return int.from_bytes(digest.digest(), "big")


@dataclass
class MovingClock:
    """Each look is a little later."""

    now_us: int = 1_700_000_000_000_000

    def wall_us(self) -> int:
        self.now_us += 7
        return self.now_us

    def mono_s(self) -> float:
        return self.wall_us() / 1e6

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclass(frozen=True)
class Workload:
    """What is written, and how it lies on disk.

    Attributes:
        documents: How many there may be.
        sizes: Of documents, in bytes.
        steps: Batches in each life.
        lives: How often the database is opened.
        clients: Of the engine; 0 without it.
        log_bytes: Of a segment.
    """

    documents: int
    sizes: Sequence[int]
    steps: int
    lives: int
    clients: int = 0
    log_bytes: int = 1 << 15


WORKLOADS = {
    "small": Workload(100, (20, 60, 300, 300, 900), 24, 3),
    "pages": Workload(20, (300, 5_000, 13_000, 20_000), 10, 3, log_bytes=1 << 16),
    "engine": Workload(0, (20, 300, 2_500), 12, 2, clients=5),
}


def storage_of(name: str, seed: int) -> StorageOptions:
    """Return how a workload lies on disk for one seed: with or without trims, and with another way to be durable."""
    random = Random(seed)
    log_bytes = WORKLOADS[name].log_bytes
    keep_bytes = random.choice((0, 0, 2 * log_bytes, 1 << 30))
    return StorageOptions(
        durability="lmdb" if random.random() < 0.1 else "log",
        log=FileLogOptions(log_bytes, first_segment_bytes=log_bytes // 4, keep_bytes=keep_bytes),
        checkpoint=CheckpointOptions(log_bytes // 2, growth_bytes=1 << 30, interval_s=1e9),
        map_size_bytes=1 << 30,
        worker_wait_s=1.0,
        replay_group_bytes=random.choice((0, 0, log_bytes, GROUP_BYTES)),
    )


class Writer:
    """Commits to an open database as the committer does, from one thread; commit `i` is a function of `i`."""

    def __init__(
        self, seed: int, workload: Workload, recording: Recording, model: Model, first: int = 0
    ) -> None:
        self._seed = seed
        self._workload = workload
        self._recording = recording
        self._model = model
        self._next = first
        self._random = Random(seed)
        self._database: Recovered | None = None
        self._saving = False
        self._failure: BaseException | None = None

    def transaction(self, number: int) -> LoggedTransaction:
        if number == 0:
            return _CATALOG
        random = Random(self._seed * 1_000_003 + number)
        request = document_key(REQUESTS, b"request%d" % number)
        writes: dict[bytes, bytes | None] = {request: pack_stored(0, b"%d" % number, request)}
        documents = self._workload.documents or 50
        for _ in range(random.choice((1, 1, 2, 6))):
            place = random.randrange(documents)
            if random.random() < 0.25:
                run = range(place, min(place + random.choice((1, 1, 10)), documents))
                writes.update((document_key(_TABLE.number, suffix(i)), None) for i in run)
            else:
                body = random.randbytes(random.choice(self._workload.sizes))
                name = suffix(place)
                document = encode(
                    table_prefix(_TABLE.number) + name.decode(),
                    1.0,
                    a=random.randrange(30),
                    u=place * 10_000_000 + number,
                    body=body,
                )
                key = document_key(_TABLE.number, name)
                writes[key] = pack_stored(1, document, key)
        return LoggedTransaction(list(writes.items()))

    def live(self, database: Recovered, steps: int) -> None:
        """Write for a while, with checkpoints in which more is written."""
        self._database = database
        self._catalogs = CatalogCache()
        self._model.watch(database.log)
        self._recording.during_sync(self._during_sync)
        for _ in range(steps):
            self.commit()
            if database.checkpointer.due() or self._random.random() < 0.05:
                self._saving = True
                database.checkpointer.run_now()
                self._saving = False
            if self._failure is not None:
                raise self._failure
        self._database = None

    def commit(self) -> None:
        assert self._database is not None
        log, store = self._database.log, self._database.store
        count = self._random.choice((1, 1, 3))
        transactions = [self.transaction(self._next + i) for i in range(count)]
        self._next += count
        wall_us = 1
        encoded = log.encode(log.head, transactions, wall_us)
        assert log.append(encoded) == Appended()
        previous, head = encoded.previous, encoded.head
        record = Record(
            head.number,
            RecordKind.BATCH,
            log.incarnation,
            previous.digest,
            head.digest,
            type(head.last_ts)(previous.last_ts + 1),
            wall_us,
            transactions,
        )
        apply_record(store, record, self._catalogs)
        self._recording.mark(ACKNOWLEDGED, head.number)

    def _during_sync(self) -> None:
        """Commit while a checkpoint waits for the disk: what this thread does, another could."""
        if not self._saving or self._failure is not None:
            return
        self._saving = False
        try:
            for _ in range(self._random.choice((0, 1, 2, 5))):
                self.commit()
        except BaseException as error:
            self._failure = error
        self._saving = True


def steady_environment(seed: int) -> Environment:
    return Environment(MovingClock(), SeededRandom(seed), RealFileSystem(), InlineExecutor())


def work(name: str, seed: int, data: Path, recording: Recording, lives: int | None = None) -> Model:
    """Run a workload on a data directory that does not exist yet; leaves it as a killed process would."""
    random = Random(seed)
    workload, storage = WORKLOADS[name], storage_of(name, seed)
    lives = lives or workload.lives
    model = Model()
    environment = steady_environment(seed)
    if workload.clients:
        environment = replace(environment, executor=ThreadExecutor())
        engine_work = _EngineWork(workload, storage, random, environment, recording, model)
        for life in range(lives):
            asyncio.run(engine_work.live(data, life))
        environment.executor.close()
        return model
    writer = Writer(seed, workload, recording, model)
    for life in range(lives):
        recording.mark(RECOVERING, 0)
        database = recover(data, storage, environment, record_applier())
        recording.mark(RECOVERED, database.log.head.number)
        writer.live(database, random.randint(workload.steps // 2, workload.steps))
        if life < lives - 1:
            database.close(clean=random.random() < 0.5)
    return model


# ------------------------------------------------------------------------------------------- the engine


@dataclass
class _IndexOf:
    name: str
    fields: list[str]
    unique: bool = False
    defaults: dict[str, bytes] = field(default_factory=dict)


@dataclass
class _TableOf:
    name: str
    indexes: list[_IndexOf]
    shape: str = "{}"


_INDEXES = [_IndexOf("by_channel", ["channel"]), _IndexOf("by_key", ["key"], unique=True)]


class _Marks:
    """Marks what is published; every record that a published one follows is durable with it."""

    def __init__(self, recording: Recording, log: Log) -> None:
        self._recording = recording
        self._numbers: dict[int, int] = {}
        encode_record = log.encode

        def encode_and_note(*arguments: Any, **more: Any) -> Any:
            encoded = encode_record(*arguments, **more)
            self._numbers[encoded.head.last_ts] = encoded.head.number
            return encoded

        log.encode = encode_and_note  # type: ignore[method-assign]

    def published(self, batch: PublishedBatch) -> None:
        if (number := self._numbers.get(batch.ts)) is not None:
            self._recording.mark(ACKNOWLEDGED, number)

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        pass


@dataclass
class _EngineWork:
    workload: Workload
    storage: StorageOptions
    random: Random
    environment: Environment
    recording: Recording
    model: Model

    async def live(self, data: Path, life: int) -> None:
        """Open, let clients write, maybe deploy meanwhile, close."""
        options = EngineOptions(
            storage=self.storage,
            committer=CommitterOptions(free_bytes_min=0, batch_count_max=4),
            checkpoint_poll_s=0.002,
        )
        self.recording.during_sync(lambda: time.sleep(0.0003))  # a disk takes its time, and others go on
        self.recording.mark(RECOVERING, 0)
        engine = Engine.open(data, options, self.environment)
        self.recording.mark(RECOVERED, engine.log.head.number)
        self.model.watch(engine.log)
        engine.listener = _Marks(self.recording, engine.log)
        running = asyncio.create_task(engine.run())
        if life == 0:
            await engine.deploy([_TableOf("messages", _INDEXES)], "bundle 0", b"archive" * 50)
        clients = [
            asyncio.create_task(
                _client(engine, Random(self.random.random()), self.workload, f"{life}-{number}")
            )
            for number in range(self.workload.clients)
        ]
        if self.random.random() < 0.7:
            more = [*_INDEXES, _IndexOf(f"by_score_{life}", ["score", "channel"])]
            await engine.deploy([_TableOf("messages", more)], f"bundle {life + 1}", b"archive" * 60)
        await asyncio.gather(*clients)
        engine.stop()
        await running
        engine.close(clean=self.random.random() < 0.3)


async def _client(engine: Engine, random: Random, workload: Workload, name: str) -> None:
    mine: list[str] = []
    for number in range(workload.steps):
        choice = random.random()

        def mutate(transaction: Transaction, number: int = number, choice: float = choice) -> str:
            fields = {
                "channel": number % 4,
                "key": f"{name}-{number}",
                "score": random.randrange(1000),
                "body": random.randbytes(random.choice(workload.sizes)),
            }
            transaction.put_row(REQUESTS, f"{name} {number}".encode(), b"done")
            if not mine or choice < 0.6:
                return insert(transaction, "messages", **fields)
            old = mine[number % len(mine)]
            stored = transaction.get(old)
            if stored is not None and choice < 0.8:
                created = decode(stored.document)["_creationTime"]
                transaction.put(old, encode(old, created, **fields))
            elif stored is not None:
                transaction.delete(old)
            return old

        found, _ = await engine.transact(mutate)
        mine.append(found)


def continued(
    name: str, seed: int, database: Recovered, documents: dict[bytes, bytes], recording: Recording
) -> Model:
    """Go on writing to a database that was just recovered."""
    number = database.log.head.number
    model = Model(documents, {number - 1: sum_of(documents.items())})
    has_table = any(key[:4] == TABLES.to_bytes(4, "big") for key in documents)
    first = 1_000_000 + seed % 8_000_000 if has_table else 0
    writer = Writer(seed, WORKLOADS[name], recording, model, first)
    writer.live(database, Random(seed).randint(1, 8))
    return model


def documents_of(store: Store) -> dict[bytes, bytes]:
    with store.snapshot() as snapshot:
        return dict(snapshot.documents(b"\x00", b"\xff" * 9))
