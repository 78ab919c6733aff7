"""Documents are rewritten on a real engine, with anything else happening between two steps of it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import RequestError, TransientError
from headwater_server.functions.document_rewriter import DocumentRewriter, RewriteOptions
from headwater_server.observe.metrics import Metrics
from headwater_server.worker.document_rewrite import rewrite_documents
from headwater_server.worker.messages import DocumentsRewritten, RewriteDocuments
from headwater_storage.catalog import ACTIVE_BUNDLE_KEY
from headwater_storage.chain import Chain, ChainSnapshot
from headwater_storage.check import check, reaches_back
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.recovery import StorageOptions
from headwater_storage.stored import unpack_stored
from support.bundles import World, decode, encode, small_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from headwater_protocol.errors import HeadwaterError
    from headwater_server.worker.messages import Question, Reply
    from headwater_storage.committer import PublishedBatch
    from headwater_storage.proposal import CommitTs, Proposal, Range

OPTIONS = EngineOptions(
    storage=StorageOptions(log=FileLogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 16))
)
SOURCE = """
class Place(Struct, frozen=True, kw_only=True):
    city: str = "Utrecht"

class Note(Table, name="notes"):
    number: int
    FIELDS

class Other(Table, name="others"):
    number: int
"""
FIELDS = """kind: str = "KIND"
    place: Place = Place()
    score: float = 0
    by_kind = Index("kind", "number")
    by_city = Index("place.city")
    by_number = Index("number", unique=True)
"""

FUNCTIONS = """
@mutation
def add(ctx: MutationCtx, numbers: list[int]) -> list[str]:
    return [ctx.db.insert(Note(number=number)) for number in numbers]

@mutation
def other(ctx: MutationCtx) -> None:
    ctx.db.insert(Other(number=0))

@mutation
def grow(ctx: MutationCtx, id: Id[Note], other: Id[Note]) -> None:
    note, second = ctx.db.get(id), ctx.db.get(other)
    if note is not None and second is not None:
        ctx.db.patch(id, score=note.score + 1, number=note.number + 10_000)

@mutation
def label(ctx: MutationCtx, id: Id[Note], kind: str) -> None:
    if ctx.db.get(id) is not None:
        ctx.db.patch(id, kind=kind, place=Place(city=kind))

@mutation
def drop(ctx: MutationCtx, id: Id[Note]) -> None:
    if ctx.db.get(id) is not None:
        ctx.db.delete(id)

@query
def listed(ctx: QueryCtx, kind: str) -> Any:
    found = ctx.db.query(Note.by_kind, kind=kind).collect()
    placed = ctx.db.query(Note.by_city, **{"place.city": kind}).take(5)
    return [[repr(note) for note in found], found, placed]

@query
def everything(ctx: QueryCtx) -> Any:
    return [(note.id, note.number, note.kind, note.place.city, repr(note.score)) for note in ctx.db.scan(Note)]
"""
BEFORE = FUNCTIONS.split("@mutation\ndef grow", maxsplit=1)[0]


def loaded(folder: Path, version: int, fields: str, functions: str = FUNCTIONS) -> World:
    source = SOURCE.replace("FIELDS", fields) + functions
    with small_world(folder / f"v{version}", {"f": source}) as world:
        return world


@dataclass
class Database:
    """An engine with an active bundle, and hooks into the rewriting.

    Attributes:
        engine: The engine.
        world: The bundle.
        between: Called between the reading and the commit of each part.
        refuse: Raised by each of the next commits.
        mono_s: What the rewriter's clock shows.
    """

    engine: Engine
    world: World | None = None
    between: Callable[[], Awaitable[None]] | None = None
    refuse: list[Exception] = field(default_factory=list)
    mono_s: float = 0.0

    def __post_init__(self) -> None:
        self.begin = self.engine.begin
        self.next_us = self.engine.next_us
        self.hold = self.engine.hold
        self.release = self.engine.release
        self.turn = asyncio.Lock()
        self.metrics = Metrics()

    @property
    def published_ts(self) -> CommitTs:
        return self.engine.published_ts

    async def commit(self, proposal: Proposal) -> CommitTs:
        if self.refuse:
            raise self.refuse.pop()
        return await self.engine.commit(proposal)

    async def deploy(self, world: World, name: str) -> None:
        await self.engine.deploy(world.manifest.tables, name, b"archive of " + name.encode())
        self.world = world

    def part(self, question: RewriteDocuments) -> DocumentsRewritten:
        """Do what a worker does."""
        assert self.world is not None
        with self.engine.begin() as transaction:
            transaction.add_point(ACTIVE_BUNDLE_KEY)
            return rewrite_documents(self.world.bundle, transaction, question)

    async def ask(self, question: Question) -> Reply:
        assert isinstance(question, RewriteDocuments)
        reply = self.part(question)
        if self.between is not None:
            await self.between()
        return reply

    def mutation(self, name: str, over: ChainSnapshot | None = None, **arguments: Any) -> Proposal:
        """Run a mutation, maybe as the next member of a chain, and return what it wants to commit."""
        assert self.world is not None
        with self.engine.begin() as transaction:
            if over is not None:
                transaction.snapshot, transaction.begin_ts = over, over.ts
            transaction.add_point(ACTIVE_BUNDLE_KEY)
            outcome = self.world.bundle.call_mutation(
                name, encode(arguments), transaction, internal_allowed=True
            )
            assert outcome.failure is None, outcome.failure
            self.result = decode(outcome.result.content) if outcome.result else None
            return transaction.proposal()

    def query(self, name: str, **arguments: Any) -> tuple[bytes, CommitTs, list[bytes], list[Range]]:
        """Run a query and return its result, its snapshot and what it read."""
        assert self.world is not None
        with self.engine.begin(writable=False) as transaction:
            transaction.add_point(ACTIVE_BUNDLE_KEY)
            outcome = self.world.bundle.call_query(
                name, encode(arguments), transaction, internal_allowed=True
            )
            assert outcome.failure is None, outcome.failure
            assert outcome.result is not None
            return outcome.result.content, transaction.begin_ts, transaction.points, transaction.ranges

    def rewriter(self, **options: Any) -> DocumentRewriter:
        chosen = RewriteOptions(
            **{"delay_s": 0.0, "documents_max": 10, "share": 1.0, "retry_s": 0.001, **options}
        )
        return DocumentRewriter(self, self.ask, self.turn, chosen, lambda: self.mono_s, self.metrics)

    @property
    def rewritten(self) -> float:
        return self.metrics.registry.get_sample_value("headwater_documents_rewritten_total") or 0.0


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    environment = real_environment()
    async with Engine.open(tmp_path / "data", OPTIONS, environment).running() as engine:
        database = Database(engine)
        yield database
        assert reaches_back(engine.log)
        assert check(engine.store, engine.log, tmp_path / "scratch") == []
    environment.executor.close()


async def prepared(database: Database, folder: Path, count: int = 30, score: str = "0") -> list[str]:
    """Deploy a first bundle, insert documents, and deploy one with defaults."""
    await database.deploy(loaded(folder, 1, "", BEFORE), "v1")
    await database.commit(database.mutation("f:add", numbers=list(range(count))))
    ids: list[str] = database.result
    await database.deploy(
        loaded(folder, 2, FIELDS.replace("KIND", "a").replace("= 0\n", f"= {score}\n")), "v2"
    )
    return ids


async def test_what_others_write_elsewhere_does_not_make_a_part_start_over(
    database: Database, tmp_path: Path
) -> None:
    await prepared(database, tmp_path)

    async def others() -> None:
        for _ in range(3):
            await database.commit(database.mutation("f:other"))

    database.between = others
    await asyncio.wait_for(database.rewriter(retry_s=1000.0).rewrite_all(), 20)
    assert database.rewritten == 30


async def test_it_goes_on_after_a_disk_was_full_for_long(database: Database, tmp_path: Path) -> None:
    await prepared(database, tmp_path)
    database.refuse = [TransientError("no room", code="disk_full") for _ in range(30)]
    await database.rewriter(failures_max=3).rewrite_all()
    assert database.rewritten == 30
    assert not database.refuse


async def test_it_gives_up_what_fails_for_reasons_of_its_own(database: Database, tmp_path: Path) -> None:
    await prepared(database, tmp_path)
    database.refuse = [RequestError("worker ended", code="invalid_bundle") for _ in range(30)]
    await database.rewriter(failures_max=3).rewrite_all()
    assert len(database.refuse) == 27


async def test_a_long_deploy_is_not_rested_after(database: Database, tmp_path: Path) -> None:
    await prepared(database, tmp_path)
    async with database.turn:
        task = asyncio.create_task(database.rewriter(share=0.5).rewrite_all())
        await asyncio.sleep(0)
        database.mono_s = 1e6
    await asyncio.wait_for(task, 20)
    assert database.rewritten == 30


@dataclass
class Trial:
    """Mutations and parts of the rewriting that began at any time and commit at any later one.

    Attributes:
        database: Where.
        random: What happens.
        ids: Documents that were once there.
        running: Proposals that are not committed, and what follows when they are.
        shown: Results as if somebody looked at them: arguments, what was run and read.
        expected: Numbers and scores by id, as mutations left them in the order in which they committed.
    """

    database: Database
    random: Random
    ids: list[str]
    running: list[tuple[Proposal, Callable[[], None]]] = field(default_factory=list)
    shown: list[tuple[str, tuple[bytes, CommitTs, list[bytes], list[Range]]]] = field(default_factory=list)
    expected: dict[str, list[Any]] = field(default_factory=dict)
    kept: int = 0

    def begin(self, over: ChainSnapshot | None = None) -> None:
        random, expected = self.random, self.expected
        one, other = random.choice(self.ids), random.choice(self.ids)
        kind = random.choice("abc")
        name = random.choice(["grow", "label", "drop"] if random.random() < 0.2 else ["grow", "label"])

        def done() -> None:
            if name == "grow" and one in expected and other in expected:
                expected[one][0] += 10_000
                expected[one][2] += 1
            elif name == "label" and one in expected:
                expected[one][1] = kind
            elif name == "drop":
                expected.pop(one, None)

        further = {"grow": {"other": other}, "label": {"kind": kind}, "drop": {}}[name]
        self.hold(self.database.mutation(f"f:{name}", over, id=one, **further), done)

    def rewrite(self) -> None:
        table = self.table()
        found = self.database.part(
            RewriteDocuments(table, self.random.randint(1, 8), self.database.next_us())
        )
        if found.proposal is not None:
            self.kept += found.proposal.quiet
            self.hold(found.proposal, lambda: None)

    def table(self) -> int:
        with self.database.begin(writable=False) as transaction:
            return transaction.catalog.by_name["notes"].definition.number

    def hold(self, proposal: Proposal, done: Callable[[], None]) -> None:
        self.database.hold(proposal.begin_ts)
        self.running.append((proposal, done))

    async def commit(self) -> None:
        proposal, done = self.running.pop(self.random.randrange(len(self.running)))
        try:
            if proposal.writes:
                await self.database.commit(proposal)
            done()
        except TransientError as error:
            if error.code != "conflict":
                raise
        finally:
            self.database.release(proposal.begin_ts)

    def look(self) -> None:
        kind = self.random.choice("abc")
        self.shown.append((kind, self.database.query("f:listed", kind=kind)))
        self.database.hold(self.shown[-1][1][1])

    def check(self) -> None:
        """What nothing has touched is still so; indexes hold what calls read."""
        still = []
        for kind, (content, ts, points, ranges) in self.shown:
            if self.database.engine.window.touched_after(ts, points, ranges):
                self.database.release(ts)
            else:
                assert content == self.database.query("f:listed", kind=kind)[0]
                still.append((kind, (content, ts, points, ranges)))
        self.shown = still
        everything = decode(self.database.query("f:everything")[0])
        for kind in "abc":
            found = {note["_id"] for note in decode(self.database.query("f:listed", kind=kind)[0])[1]}
            assert found == {note[0] for note in everything if note[2] == kind}
        assert {note[0]: [note[1], note[2], float(note[4])] for note in everything} == self.expected


@pytest.mark.parametrize("seed", range(12))
async def test_mutations_and_rewriting_in_any_order(database: Database, tmp_path: Path, seed: int) -> None:
    """Nothing is lost, nobody is shown what is no longer so, and the log gives the same store."""
    random = Random(seed)
    score = random.choice(["0", "0.0"])
    fields = FIELDS.replace("= 0\n", f"= {score}\n")
    await database.deploy(loaded(tmp_path, 1, "", BEFORE), "v1")
    await database.commit(database.mutation("f:add", numbers=list(range(40))))
    trial = Trial(database, random, database.result)
    await database.deploy(loaded(tmp_path, 2, fields.replace("KIND", "a")), "v2")
    trial.expected = {name: [number, "a", 0.0] for number, name in enumerate(trial.ids)}
    steps: list[Callable[[], Any]] = [
        trial.begin,
        trial.begin,
        trial.rewrite,
        trial.commit,
        trial.commit,
        trial.look,
    ]
    for step in range(150):
        chosen = random.choice(steps)
        if chosen != trial.commit:
            chosen()
        elif trial.running:
            await trial.commit()
        if step % 10 == 9:
            trial.check()
        if step == 75:
            while trial.running:
                await trial.commit()
            lacking = {name for name, lacks in lacking_kind(database, trial.table()).items() if lacks}
            await database.deploy(loaded(tmp_path, 3, fields.replace("KIND", "b")), "v3")
            for name in lacking & trial.expected.keys():
                trial.expected[name][1] = "b"
    while trial.running:
        await trial.commit()
    await database.rewriter().rewrite_all()
    trial.check()
    assert not any(lacking_kind(database, trial.table()).values())
    assert trial.kept or score == "0"


class Told:
    """Tells whoever submitted a member of a chain how it ended."""

    def published(self, batch: PublishedBatch) -> None:
        for commit in batch.commits:
            commit.owner.set_result(None)

    def rejected(self, owner: asyncio.Future[None], error: HeadwaterError) -> None:
        owner.set_exception(error)


@pytest.mark.parametrize("seed", range(6))
async def test_a_chain_goes_on_while_what_it_reads_is_rewritten(
    database: Database, tmp_path: Path, seed: int
) -> None:
    random = Random(seed)
    engine = database.engine
    engine.listener = Told()
    trial = Trial(database, random, await prepared(database, tmp_path, 40, "0.0"))
    trial.expected = {name: [number, "a", 0.0] for number, name in enumerate(trial.ids)}
    members = 0
    for _ in range(5):
        chain, base = Chain(), engine.snapshot()
        engine.hold(base.state.ts)
        over = ChainSnapshot(base, base.state.ts)
        submitted: list[tuple[asyncio.Future[None], Callable[[], None]]] = []
        for _ in range(10):
            trial.begin(over)
            proposal, done = trial.running.pop()
            database.release(proposal.begin_ts)
            over.lay_over(proposal.writes)
            future = asyncio.get_running_loop().create_future()
            engine.submit(proposal, future, chain)
            submitted.append((future, done))
            if random.random() < 0.6:
                trial.rewrite()
            if trial.running and random.random() < 0.6:
                await trial.commit()
        for future, done in submitted:
            await future  # a conflict fails the test: nobody but the rewriting wrote
            done()
            members += 1
        engine.end_chain(chain)
        engine.release(base.state.ts)
        over.close()
        while trial.running:
            await trial.commit()
        trial.check()
    assert members == 50
    assert trial.kept


def lacking_kind(database: Database, table: int) -> dict[str, bool]:
    with database.begin(writable=False) as transaction:
        handle = transaction.catalog.by_number[table]
        found = [
            decode(unpack_stored(value, key)[1])
            for key, value in transaction.snapshot.documents(*handle.documents)
        ]
    return {document["_id"]: "kind" not in document for document in found}
