"""Unique indexes over several fields on a real daemon: of those who want the same values at once, one gets them."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import connect
from headwater.packing import pack
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from pathlib import Path

    from headwater.client.aio import Client

FUNCTIONS = """
from headwater import HeadwaterError, Id, Index, MutationCtx, QueryCtx, Struct, Table, mutation, query

class Place(Struct, frozen=True):
    row: int | None = None

class Pair(Table, name="pairs"):
    left: str | None
    right: int | None
    by_pair = Index("left", "right", unique=True)

class Seat(Table, name="seats"):
    hall: str | None
    place: Place | None
    letter: str | None
    by_seat = Index("hall", "place.row", "letter", unique=True)

def made(table: str, values: list[str | int | None]) -> Pair | Seat:
    if table == "pairs":
        return Pair(left=values[0], right=values[1])
    # Without a place the field inside it is missing, not null.
    place = None if values[1] == -1 else Place(row=values[1])
    return Seat(hall=values[0], place=place, letter=values[2])

@mutation
def insert(ctx: MutationCtx, table: str, values: list[str | int | None]) -> str:
    return ctx.db.insert(made(table, values))

@mutation
def move(ctx: MutationCtx, table: str, id: str, values: list[str | int | None]) -> str:
    ctx.db.replace(id, made(table, values))
    return id

@mutation
def insert_anew(ctx: MutationCtx, table: str, id: str, values: list[str | int | None]) -> str:
    ctx.db.delete(id)
    return ctx.db.insert(made(table, values))

@mutation
def delete(ctx: MutationCtx, table: str, id: str) -> None:
    ctx.db.delete(id)

@mutation
def try_each(ctx: MutationCtx, table: str, id: str, wanted: list[list[str | int | None]]) -> list[str]:
    told = []
    for values in wanted:
        try:
            id = ctx.run_mutation(insert_anew, table=table, id=id, values=values)
        except HeadwaterError as error:
            told.append(error.code)
    return told

@query
def pairs(ctx: QueryCtx) -> dict[str, list[str | int | None]]:
    return {row.id: [row.left, row.right] for row in ctx.db.scan(Pair)}

@query
def seats(ctx: QueryCtx) -> dict[str, list[str | int | None]]:
    return {row.id: [row.hall, row.place.row if row.place else -1, row.letter] for row in ctx.db.scan(Seat)}
"""
CLIENTS = 6
LONG = "l" * 600  # cut in keys: two of them collide only as a whole
WANTED = {
    "pairs": [
        ["a", 1],
        ["a", 2],
        ["b", 1],
        [LONG, 1],
        [LONG, 2],
        [LONG + "b", 1],
        ["", 0],
        [None, 1],
        ["a", None],
    ],
    "seats": [
        *(["x", 1, "a"], ["x", 1, "b"], ["x", 2, "a"], ["y", 1, "a"], ["x", 1, LONG], ["x", 1, LONG + "b"]),
        *([None, 1, "a"], ["x", None, "a"], ["x", -1, "a"], ["x", 1, None], [None, None, None]),
    ],
}
INDEX = {"pairs": "by_pair", "seats": "by_seat"}
Values = list[Any]


def can_collide(values: Values) -> bool:
    return None not in values and -1 not in values


@pytest.fixture
def bundle(tmp_path: Path) -> bytes:
    folder = tmp_path / "source" / "unique"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("")
    (folder / "f.py").write_text(FUNCTIONS)
    return pack(folder)


@dataclass
class Owner:
    """A client and the documents that are its own.

    Attributes:
        own: What each of them holds, as the client was told.
        won: What it got by inserting.
        refused: What it was refused.
        wrong: What it should not have been told.
    """

    client: Client
    own: dict[tuple[str, str], Values] = field(default_factory=dict)
    won: list[tuple[str, Values]] = field(default_factory=list)
    refused: int = 0
    wrong: list[str] = field(default_factory=list)

    async def call(self, name: str, table: str, values: Values, **arguments: Any) -> str | None:
        """Return the id of what holds the values now, None if somebody else does."""
        try:
            found: str = await self.client.mutation(f"f:{name}", table=table, values=values, **arguments)
        except HeadwaterError as error:
            self.refused += 1
            named = (f"'{table}'", f"'{INDEX[table]}'", *(repr(value)[:100] for value in values))
            if error.code != "unique_violation" or not all(text in error.message for text in named):
                self.wrong.append(f"{name} {values}: {error.code}: {error.message}")
            if not can_collide(values):
                self.wrong.append(f"{name}: {values} was said to collide")
            return None
        return found

    async def insert(self, table: str, values: Values) -> None:
        if (found := await self.call("insert", table, values)) is not None:
            self.own[table, found] = values
            self.won.append((table, values))

    async def change(self, chance: random.Random) -> None:
        """Insert, or move, delete or insert anew one of its own."""
        table = chance.choice(sorted(WANTED))
        values = chance.choice(WANTED[table])
        mine = sorted(document_id for kind, document_id in self.own if kind == table)
        if not mine or chance.random() < 0.3:
            await self.insert(table, values)
            return
        chosen = chance.choice(mine)
        match chance.choice(["move", "insert_anew", "delete"]):
            case "delete":
                await self.client.mutation("f:delete", table=table, id=chosen)
                del self.own[table, chosen]
            case name:
                if (found := await self.call(name, table, values, id=chosen)) is not None:
                    del self.own[table, chosen]
                    self.own[table, found] = values


def stored(daemon: RunningDaemon) -> dict[tuple[str, str], Values]:
    return {
        (table, document_id): values
        for table in WANTED
        for document_id, values in daemon.call("query", f"f:{table}").items()
    }


def twice(found: dict[tuple[str, str], Values]) -> list[tuple[str, ...]]:
    """Return what two documents hold that only one may."""
    counts = Counter(
        (table, *map(repr, values)) for (table, _), values in found.items() if can_collide(values)
    )
    return [values for values, count in counts.items() if count > 1]


async def all_at_once(daemon: RunningDaemon, changes: int) -> list[Owner]:
    """Everybody inserts the same, and then changes this and that."""
    async with AsyncExitStack() as stack:
        urls = [daemon.url, daemon.tcp_url] * (CLIENTS // 2)
        owners = [Owner(await stack.enter_async_context(connect(url))) for url in urls]
        for table, wanted in WANTED.items():
            for values in wanted:
                await asyncio.gather(*(owner.insert(table, values) for owner in owners))

        async def go_on(owner: Owner, chance: random.Random) -> None:
            for _ in range(changes):
                await owner.change(chance)

        seed = random.SystemRandom().randrange(2**32)
        print(f"seed {seed}")
        async with asyncio.TaskGroup() as tasks:
            for number, owner in enumerate(owners):
                tasks.create_task(go_on(owner, random.Random(seed + number)))
    return owners


def start(daemon: RunningDaemon, bundle: bytes) -> None:
    daemon.start()
    daemon.must_deploy(bundle)


async def test_one_wins_and_the_others_are_told_which_values_are_taken(tmp_path: Path, bundle: bytes) -> None:
    daemon = RunningDaemon(tmp_path / "daemon", ("--workers", "3"))
    try:
        start(daemon, bundle)
        owners = await all_at_once(daemon, 0)
        won = Counter((table, repr(values)) for owner in owners for table, values in owner.won)
        for table, wanted in WANTED.items():
            for values in wanted:
                assert won[table, repr(values)] == (1 if can_collide(values) else CLIENTS), (table, values)
        assert twice(stored(daemon)) == []

        owners += await all_at_once(daemon, 20)
        assert not [line for owner in owners for line in owner.wrong]
        assert sum(owner.refused for owner in owners) > CLIENTS
        found = stored(daemon)
        assert found == {key: values for owner in owners for key, values in owner.own.items()}
        assert twice(found) == []
        # What was moved away or deleted is free again, what is held is not.
        async with connect(daemon.url) as client:
            last = Owner(client)
            for table, wanted in WANTED.items():
                for values in filter(can_collide, wanted):
                    is_held = values in [other for (kind, _), other in found.items() if kind == table]
                    assert (await last.call("insert", table, values) is None) == is_held
            assert not last.wrong
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()


async def test_the_trial_finds_that_absence_was_not_validated(tmp_path: Path, bundle: bytes) -> None:
    daemon = RunningDaemon(tmp_path / "daemon", ("--workers", "3"))
    daemon.break_rule("ranges")
    try:
        start(daemon, bundle)
        await all_at_once(daemon, 10)
        assert twice(stored(daemon))
    finally:
        daemon.end()


def test_a_nested_mutation_that_is_refused_leaves_nothing_and_its_caller_goes_on(
    tmp_path: Path, bundle: bytes
) -> None:
    daemon = RunningDaemon(tmp_path / "daemon", ())
    try:
        start(daemon, bundle)
        daemon.call("mutation", "f:insert", table="pairs", values=["a", 1])
        mine = daemon.call("mutation", "f:insert", table="pairs", values=["b", 1])
        wanted = [["a", 1], ["c", 1], ["a", 1]]
        told = daemon.call("mutation", "f:try_each", table="pairs", id=mine, wanted=wanted)
        assert told == ["unique_violation", "unique_violation"]
        assert sorted(daemon.call("query", "f:pairs").values()) == [["a", 1], ["c", 1]]
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()
