from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import RequestError
from headwater_protocol.ids import make_suffix
from headwater_protocol.manifest import IndexManifest, Manifest, TableManifest
from headwater_server.functions import document_checks
from headwater_server.functions.deploy_progress import DeployProgress
from headwater_server.functions.document_checks import DocumentChecks, changed_tables
from headwater_server.worker.messages import DocumentsChecked
from headwater_storage.catalog import TableDefinition
from headwater_storage.deployment import DeployGivenUpError, DocumentsNotCheckedError
from headwater_storage.indexes import IndexDefinition
from headwater_storage.keys import document_key, table_range
from headwater_storage.store import EMPTY_STATE
from support.memory_store import MemorySnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

NOTES = TableDefinition(40, "notes", 1, "{}")
OTHERS = TableDefinition(41, "others", 1, "{}")


def key(number: int, table: TableDefinition = NOTES) -> bytes:
    return document_key(table.number, b"%018d" % number)


class Worker:
    """Checks three parts of a table, or single documents; what happens meanwhile is up to the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, bytes, list[bytes]]] = []
        self.misfits: dict[bytes, str] = {}
        self.meanwhile: Callable[[], None] = lambda: None

    async def check(self, table: int, following: bytes, keys: Sequence[bytes]) -> DocumentsChecked:
        self.asked.append((table, following, list(keys)))
        meanwhile, self.meanwhile = self.meanwhile, lambda: None
        meanwhile()
        if keys:
            found = [(one.decode(errors="replace"), self.misfits[one]) for one in keys if one in self.misfits]
            return DocumentsChecked(1, None, found)
        parts = [b"", key(10), key(20), None]
        return DocumentsChecked(1, parts[parts.index(following) + 1], [])


class Reads:
    """A transaction that keeps what it counts as read."""

    def __init__(self) -> None:
        self.ranges: list[tuple[bytes, bytes]] = []

    def add_range(self, lo: bytes, hi: bytes) -> None:
        self.ranges.append((lo, hi))


class Kept:
    """What an earlier check left: how far it was, and what was written since."""

    def __init__(self) -> None:
        self.positions: dict[int, bytes] = {}
        self.written: set[bytes] = set()
        self.began = 0

    async def resume(self, tables: Sequence[int]) -> set[bytes]:
        return self.written

    def begin_anew(self) -> None:
        self.began += 1
        self.positions.clear()

    def position(self, table: int) -> bytes:
        return self.positions.get(table, b"")

    async def advanced(self, table: int, key: bytes) -> None:
        self.positions[table] = key


def progress() -> DeployProgress:
    return progress_over({})


def progress_over(documents: dict[bytes, bytes]) -> DeployProgress:
    snapshot: Any = partial(MemorySnapshot, documents, {}, EMPTY_STATE)
    return DeployProgress("hash", {40: "notes", 41: "others"}, snapshot)


class World:
    def __init__(self, *tables: TableDefinition) -> None:
        self.worker = Worker()
        self.kept = Kept()
        self.progress = progress()
        self.held_back = 0
        self.checks = self.made(tables or (NOTES,), self.worker.check)

    def made(self, tables: Sequence[TableDefinition], check: Any) -> DocumentChecks:
        kept: Any = self.kept
        return DocumentChecks(tables, check, self.hold_back, kept, self.progress)

    def hold_back(self) -> None:
        self.held_back += 1

    def required(self) -> list[tuple[bytes, bytes]]:
        reads: Any = Reads()
        self.checks.require(reads)
        ranges: list[tuple[bytes, bytes]] = reads.ranges
        return ranges


async def test_all_parts_of_all_tables_are_looked_at_and_count_as_read_by_the_switch() -> None:
    world = World(NOTES, OTHERS)
    with pytest.raises(DocumentsNotCheckedError):
        world.required()
    await world.checks.catch_up()
    parts = [b"", key(10), key(20)]
    assert world.worker.asked == [(table, part, []) for table in (40, 41) for part in parts]
    assert world.required() == [table_range(40), table_range(41)]


async def test_what_is_written_meanwhile_is_looked_at_as_well() -> None:
    world = World()
    world.worker.meanwhile = lambda: world.checks.published({key(5), key(7, OTHERS)})
    await world.checks.catch_up()
    assert world.worker.asked[-1] == (40, b"", [key(5)])
    assert world.required()
    world.checks.published({key(6)})
    with pytest.raises(DocumentsNotCheckedError):
        world.required()
    world.worker.meanwhile = lambda: world.checks.published({key(6)})  # again, while it is looked at
    await world.checks.catch_up()
    assert [keys for _, _, keys in world.worker.asked[-2:]] == [[key(6)], [key(6)]]
    assert world.required()


async def test_one_that_was_written_meanwhile_and_does_not_fit_is_refused() -> None:
    world = World()
    world.worker.misfits[key(5)] = "Expected `int`"
    world.worker.meanwhile = lambda: world.checks.published({key(5)})
    with pytest.raises(RequestError, match=r"'notes'.*Expected `int`") as caught:
        await world.checks.catch_up()
    assert caught.value.code == "invalid_document"


async def test_more_writes_than_are_remembered_mean_to_look_at_all_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(document_checks, "TOUCHED_MAX", 3)
    world = World()
    world.worker.meanwhile = lambda: world.checks.published({key(number) for number in range(4)})
    await world.checks.catch_up()
    with pytest.raises(DocumentsNotCheckedError):
        world.required()
    await world.checks.catch_up()
    assert [part for _, part, _ in world.worker.asked] == [b"", key(10), key(20)] * 2
    assert world.required()


async def test_writers_are_held_back_only_after_some_patience() -> None:
    world = World()
    for attempt in range(1, 6):
        world.checks.published({key(attempt)})
        await world.checks.catch_up()
        assert world.held_back == max(0, attempt - 3)


async def test_a_check_goes_on_where_an_earlier_one_was_and_looks_again_at_what_was_written_since() -> None:
    world = World(NOTES, OTHERS)
    world.kept.positions = {40: table_range(40)[1], 41: key(20)}
    world.kept.written = {key(3), key(4, OTHERS)}
    await world.checks.catch_up()
    assert world.worker.asked == [(41, key(20), []), (40, b"", [key(3)]), (41, b"", [key(4, OTHERS)])]
    assert world.required()
    assert not world.kept.began


async def test_a_later_deploy_ends_it_at_its_next_part() -> None:
    world = World()
    world.worker.meanwhile = lambda: world.progress.supersede("f" * 32)
    with pytest.raises(DeployGivenUpError, match="ffffffffffff"):
        await world.checks.catch_up()
    assert len(world.worker.asked) == 1
    assert world.kept.positions == {40: key(10)}


def test_the_share_of_a_step_is_that_of_the_time_in_which_the_documents_were_created() -> None:
    documents: dict[bytes, bytes] = {}
    for created in (1_000, 2_000, 3_000):
        documents[document_key(40, make_suffix(created, 0, bytes(10)).encode())] = b""
    told = progress_over(documents)
    shares = []
    for created in (1_000, 1_500, 2_500, None):
        following = created and document_key(40, make_suffix(created, 0, bytes(10)).encode())
        told.checked(40, following or None, 10)
        shares.append(told.steps[0].share)
    assert shares == [0.0, 0.25, 0.75, 1.0]
    told.built(IndexDefinition(7, 40, "by_a", ["a"], False, "building"), None)
    assert [(step.name, step.share, step.documents) for step in told.steps] == [
        ("notes", 1.0, 40),
        ("notes.by_a", 1.0, 0),
    ]


def test_only_tables_whose_shape_changes_are_looked_at() -> None:
    index = IndexManifest("by_a", ("a",))
    manifest = Manifest((TableManifest("notes", '{"a":1}'), TableManifest("others", "{}")))
    gone = TableDefinition(42, "gone", 1, "{}")
    assert changed_tables([NOTES, OTHERS, gone], manifest) == [NOTES]
    indexed = Manifest((TableManifest("notes", "{}"), TableManifest("others", "{}", (index,))))
    assert changed_tables([NOTES, OTHERS, gone], indexed) == [OTHERS], "an index holds what is stored"
    has = TableDefinition(41, "others", 1, "{}", [IndexDefinition(7, 41, "by_a", ["a"], False, "ready")])
    assert changed_tables([NOTES, has], indexed) == []
    had = TableDefinition(41, "others", 1, "{}", [IndexDefinition(7, 41, "by_a", ["a"], False, "dropping")])
    assert changed_tables([NOTES, had], indexed) == [had], "nobody has looked since it was given up"


async def test_writers_that_never_pause_do_not_keep_it_for_ever() -> None:
    world = World()

    async def check(table: int, following: bytes, keys: Sequence[bytes]) -> DocumentsChecked:
        world.checks.published({key(1)})
        return await world.worker.check(table, following, keys)

    world.checks = world.made((NOTES,), check)
    for _ in range(5):
        async with asyncio.timeout(5):
            await world.checks.catch_up()
        with pytest.raises(DocumentsNotCheckedError):
            world.required()
    assert world.held_back == 2
