"""How fast a start replays the log: one with as much log since its checkpoint as is asked for.

Ours: the whole of recovery, from taking the directory to the claim that begins the log's new
life, over batches of 64 transactions that each insert two documents of 1 kB with two indexes;
entries are derived from the documents. The limit: the same finished keys and values, read from
a prepared file and put into a bare LMDB environment with sync off, in write transactions of the
same size, without any code of Headwater.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import lmdb
import msgspec
from headwater_storage.apply import record_applier
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, real_environment
from headwater_storage.lmdb_store import DATA_FILE
from headwater_storage.log import Appended, LoggedTransaction
from headwater_storage.recovery import StorageOptions, recover
from headwater_storage.replay import GROUP_BYTES

from benchmarks import slices
from benchmarks.commit import Writes, prepare

BATCH = 64
LOG_BYTES = 128 << 20
LENGTH_BYTES = 4


class Prepared:
    """A data directory that has a log to replay, and the same changes in a file.

    Attributes:
        folder: Of the data directory.
        log_bytes: Of the records to replay.
    """

    def __init__(self, folder: Path, environment: Environment, log_bytes: int) -> None:
        self.folder = folder / "data"
        self.log_bytes = 0
        self._environment = environment
        self._file = folder / "changes"
        self._bare = folder / "bare"
        writes = asyncio.run(self._made())
        recovered = recover(self.folder, StorageOptions(), environment, record_applier())
        with self._file.open("wb") as file:
            while self.log_bytes < log_bytes:
                batch = [writes.transaction() for _ in range(BATCH)]
                logged = [LoggedTransaction([(w.key, w.value) for w in transaction]) for transaction in batch]
                record = recovered.log.encode(recovered.log.head, logged, recovered.claim.wall_us)
                if recovered.log.append(record) != Appended():
                    raise RuntimeError("the log could not be prepared")
                self.log_bytes += len(record.data)
                flat = [write for transaction in batch for write in transaction]
                documents = [(write.key, write.value or b"") for write in flat]
                entries = [(entry, b"") for write in flat for entry in write.new_entries]
                part = msgspec.msgpack.encode((documents, entries))
                file.write(len(part).to_bytes(LENGTH_BYTES, "big") + part)
        recovered.close(clean=False)
        self._store = self.folder / "store" / DATA_FILE
        self._empty = self._store.read_bytes()

    async def _made(self) -> Writes:
        engine = Engine.open(self.folder, EngineOptions(), self._environment)
        async with engine.running():
            return await prepare(engine)

    def ours(self) -> float:
        """Return the seconds of one start that replays everything. It leaves no checkpoint, so the next does too."""
        with self._store.open("r+b") as file:
            file.write(self._empty)
            file.truncate()
        start = time.perf_counter()
        recovered = recover(self.folder, StorageOptions(), self._environment, record_applier())
        spent = time.perf_counter() - start
        recovered.close(clean=False)
        return spent

    def limit(self) -> float:
        """Return the seconds of the bare puts."""
        shutil.rmtree(self._bare, ignore_errors=True)
        kind = tuple[list[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]
        decode = msgspec.msgpack.Decoder(kind).decode
        start = time.perf_counter()
        environment = lmdb.open(
            str(self._bare), map_size=1 << 40, max_dbs=4, sync=False, metasync=False, lib_version=0
        )
        documents, entries = environment.open_db(b"documents"), environment.open_db(b"entries")
        with self._file.open("rb") as file:
            while True:
                with environment.begin(write=True) as transaction:
                    done = 0
                    while done < GROUP_BYTES and (head := file.read(LENGTH_BYTES)):
                        part = file.read(int.from_bytes(head, "big"))
                        puts = decode(part)
                        transaction.cursor(documents).putmulti(puts[0])
                        transaction.cursor(entries).putmulti(puts[1])
                        done += len(part)
                if not done:
                    break
        spent = time.perf_counter() - start
        environment.close()
        return spent


def main() -> int:
    """Run the benchmark."""
    parser = slices.arguments(__doc__)
    parser.add_argument(
        "--bytes", type=int, default=LOG_BYTES, help="log to replay (default: what may be due)"
    )
    chosen = parser.parse_args()
    environment = real_environment()
    try:
        with tempfile.TemporaryDirectory(prefix="headwater-bench-") as folder:
            prepared = Prepared(Path(folder), environment, chosen.bytes)
            result = slices.Paired([], [], more_is_better=True)
            seconds = []
            for _ in range(chosen.slices):
                seconds.append(prepared.ours())
                result.ours.append(prepared.log_bytes / seconds[-1] / 1e6)
                result.limit.append(prepared.log_bytes / prepared.limit() / 1e6)
            report = slices.Report("recovery", result.row("MB of log/s"))
            report.further["log_bytes"] = prepared.log_bytes
            report.further["start_s"] = [round(spent, 2) for spent in sorted(seconds)]
            report.further["machine"] = slices.machine()
            report.print(as_json=chosen.json)
    finally:
        environment.executor.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
