"""Data directories with something of everything in them, and what they must give: plain dicts, kept while writing.

Tables with plain, cut and unique indexes, small and large documents, deleted ones, request rows, a freelist,
several lives and segments. The same seed makes the same directory, byte for byte.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

from headwater_storage.catalog import REQUESTS
from headwater_storage.checkpoint import CheckpointOptions
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, InlineExecutor
from headwater_storage.file_log import FileLogOptions
from headwater_storage.files import RealFileSystem
from headwater_storage.recovery import StorageOptions

from support.memory_store import encode
from support.storage_world import FakeClock, SeededRandom
from support.tables import IndexOf, TableOf

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.transaction import Transaction

BUNDLE = "prepared"
ARCHIVE = b"archive" * 40


TABLES = [
    TableOf(
        "notes",
        [
            IndexOf("by_author", ["author"]),
            IndexOf("by_title", ["title", "author"]),
            IndexOf("by_slug", ["slug"], unique=True),
        ],
    ),
    TableOf("files", [IndexOf("by_size", ["size"])]),
    TableOf("plain"),
]


@dataclass(frozen=True)
class Recipe:
    """How a directory is made.

    Attributes:
        seed: Of everything random in it.
        lives: How often it is opened.
        commits: Commits in each life.
        clean: Whether its last owner stopped in order.
        checkpoint_at: After which share of the last life's commits a checkpoint was made.
        segment_bytes: Size of a segment.
        keep_bytes: Log kept beyond what recovery needs.
    """

    seed: int
    lives: int = 3
    commits: int = 20
    clean: bool = True
    checkpoint_at: float = 0.5
    segment_bytes: int = 1 << 14
    keep_bytes: int = 64 << 20


@dataclass
class Truth:
    """What a directory must hold.

    Attributes:
        documents: Fields by id, `_id` and `_creationTime` among them.
        requests: Contents of request rows by suffix.
    """

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: dict[bytes, bytes] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return it as text for a file."""
        requests = {suffix.hex(): content.hex() for suffix, content in sorted(self.requests.items())}
        return (
            json.dumps({"documents": self.documents, "requests": requests}, indent=1, sort_keys=True) + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> Truth:
        """Return what `to_json` wrote."""
        raw = json.loads(text)
        requests = {
            bytes.fromhex(suffix): bytes.fromhex(content) for suffix, content in raw["requests"].items()
        }
        return cls(raw["documents"], requests)


def options_of(recipe: Recipe) -> EngineOptions:
    """Return options with small files and no checkpoints but those that are asked for."""
    return EngineOptions(
        storage=StorageOptions(
            log=FileLogOptions(
                segment_bytes=recipe.segment_bytes,
                first_segment_bytes=recipe.segment_bytes // 4,
                keep_bytes=recipe.keep_bytes,
            ),
            checkpoint=CheckpointOptions(log_bytes=1 << 40, growth_bytes=1 << 40, interval_s=1e9),
            map_size_bytes=1 << 30,
            worker_wait_s=1.0,
        ),
        checkpoint_poll_s=1e6,
    )


def prepared_environment(seed: int, clock: FakeClock | None = None) -> Environment:
    """Return real files under a clock and a chance that repeat themselves."""
    return Environment(clock or FakeClock(), SeededRandom(seed), RealFileSystem(), InlineExecutor())


def prepare(path: Path, recipe: Recipe) -> Truth:
    """Make a directory and return what it must hold."""
    return asyncio.run(_prepare(path, recipe))


async def _prepare(path: Path, recipe: Recipe) -> Truth:
    random, truth, clock = Random(recipe.seed), Truth(), FakeClock()
    for life in range(recipe.lives):
        environment = prepared_environment(recipe.seed * 1000 + life, clock)
        engine = Engine.open(path, options_of(recipe), environment)
        task = asyncio.create_task(engine.run())
        last = life == recipe.lives - 1
        if life == 0:
            await engine.deploy(TABLES, BUNDLE, ARCHIVE)
        for number in range(recipe.commits):
            clock.now_s += 0.25
            call = _Call(random, truth, life * recipe.commits + number)
            await engine.transact(call.run)
            call.decided()
            if last and number == int(recipe.commits * recipe.checkpoint_at):
                engine._recovered.checkpointer.run_now()
        engine.stop()
        await task
        engine.close(clean=recipe.clean or not last)
        clock.now_s += 100
    return truth


class _Call:
    """One commit, the same however often it is run: some documents and a request row."""

    def __init__(self, random: Random, truth: Truth, number: int) -> None:
        self._seed = random.randrange(1 << 48)
        self._truth = truth
        self._number = number
        self._changes: dict[str, dict[str, Any] | None] = {}

    def run(self, transaction: Transaction) -> None:
        random = Random(self._seed)
        self._changes = {}
        known = sorted(self._truth.documents)
        for _ in range(random.choice((1, 2, 3, 8))):
            choice = random.random()
            document_id = random.choice(known) if known else ""
            if choice < 0.25 and document_id and document_id not in self._changes:
                transaction.delete(document_id)
                self._changes[document_id] = None
            elif choice < 0.45 and document_id and self._changes.get(document_id, True):
                table = transaction.table_name(document_id) or ""
                creation = self._truth.documents[document_id]["_creationTime"]
                self._put(transaction, document_id, creation, self._fields(random, table, document_id))
            else:
                table = random.choice(("notes", "notes", "notes", "files", "plain"))
                document_id, creation = transaction.new_id(table)
                self._put(transaction, document_id, creation, self._fields(random, table, document_id))
        self._request = b"session-%020d" % (self._number % 5) + self._number.to_bytes(8, "big")
        self._outcome = b"outcome %d" % self._number
        transaction.put_row(REQUESTS, self._request, self._outcome)

    def decided(self) -> None:
        for document_id, fields in self._changes.items():
            if fields is None:
                self._truth.documents.pop(document_id, None)
            else:
                self._truth.documents[document_id] = fields
        self._truth.requests[self._request] = self._outcome

    def _put(
        self, transaction: Transaction, document_id: str, creation: float, fields: dict[str, Any]
    ) -> None:
        self._changes[document_id] = {"_id": document_id, "_creationTime": creation, **fields}
        transaction.put(document_id, encode(document_id, creation, **fields))

    def _fields(self, random: Random, table: str, document_id: str) -> dict[str, Any]:
        if table == "notes":
            title = random.choice(
                ("short", "long " * 120, "long " * 119 + "other", f"title {random.random()}")
            )
            body = "body " * random.randrange(60)
            return {"author": random.randrange(6), "title": title, "slug": document_id[::-1], "body": body}
        if table == "files":
            size = random.choice((10, 3_000, 6_000, 14_000))
            return {"size": size, "content": f"{random.getrandbits(32):08x}" * (size // 8)}
        return {"number": random.random()}
