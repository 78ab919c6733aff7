from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import IndexManifest, Manifest, TableManifest
from headwater_server.functions import document_checks
from headwater_server.functions.document_checks import DocumentChecks, changed_tables
from headwater_server.worker.messages import DocumentsChecked
from headwater_storage.catalog import TableDefinition
from headwater_storage.deployment import DocumentsNotCheckedError
from headwater_storage.indexes import IndexDefinition
from headwater_storage.keys import document_key, table_range

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


class World:
    def __init__(self, *tables: TableDefinition) -> None:
        self.worker = Worker()
        self.held_back = 0
        self.checks = DocumentChecks(tables or (NOTES,), self.worker.check, self.hold_back)

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
    monkeypatch.setattr(document_checks, "_TOUCHED_MAX", 3)
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

    world.checks = DocumentChecks((NOTES,), check, world.hold_back)
    for _ in range(5):
        async with asyncio.timeout(5):
            await world.checks.catch_up()
        with pytest.raises(DocumentsNotCheckedError):
            world.required()
    assert world.held_back == 2
