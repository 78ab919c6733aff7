"""Documents of an earlier shape are brought to the current one in the background, and indexes hold what calls read."""

from __future__ import annotations

import asyncio
from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import lmdb
import pytest
from headwater import connect
from headwater.packing import pack
from headwater_storage.catalog import FIRST_USER_TABLE
from headwater_storage.stored import KEY_COVERED
from support.daemon import RunningDaemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FUNCTIONS = """
from datetime import datetime
from headwater import Id, Index, MutationCtx, QueryCtx, Struct, Table, field, mutation, query

class Place(Struct, frozen=True, kw_only=True):
    city: str = "Utrecht"

class Note(Table, name="notes"):
    FIELDS

@mutation
def add(ctx: MutationCtx, first: int, many: int = 1) -> list[str]:
    return [ctx.db.insert(Note(MADE)) for number in range(first, first + many)]

@mutation
def renumber(ctx: MutationCtx, id: Id[Note], number: int) -> None:
    ctx.db.patch(id, number=number)

@query
def notes(ctx: QueryCtx) -> list[Note]:
    return ctx.db.scan(Note).collect()
"""
PLAIN = ("number: int\nwhen: str", "number=number, when=f'2024-01-01T00:{number % 60:02}:00Z'")
DATED = ("number: int\nwhen: datetime\nkind: str = 'a'", "number=number, when=datetime.now().astimezone()")


def bundle(folder: Path, version: int, shape: tuple[str, str], more: str = "") -> bytes:
    source = folder / f"v{version}" / "app"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text(f"VERSION = {version}\n")
    fields, made = shape
    text = FUNCTIONS.replace("FIELDS", fields.replace("\n", "\n    ")).replace("MADE", made)
    (source / "f.py").write_text(text + more)
    return pack(source)


def started(folder: Path, *options: str) -> RunningDaemon:
    running = RunningDaemon(folder / "daemon", ("--document-rewrite-delay-s", "0", *options))
    running.start()
    return running


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = started(tmp_path, "--document-rewrite-limit", "10")
    try:
        yield running
        assert running.terminate() == 0
        assert running.doctor() == []
    finally:
        running.end()


def shapes(daemon: RunningDaemon) -> dict[int, int]:
    """Return how many documents there are of each shape, in the store of a daemon that has been stopped."""
    with (
        lmdb.open(str(daemon.data / "store"), readonly=True, lock=False, max_dbs=3) as environment,
        environment.begin() as transaction,
        transaction.cursor(environment.open_db(b"documents", transaction, create=False)) as cursor,
    ):
        cursor.set_range(FIRST_USER_TABLE.to_bytes(4, "big"))
        return dict(Counter(int.from_bytes(value[4:8], "big") & ~KEY_COVERED for _, value in cursor))


def rewritten(daemon: RunningDaemon) -> float:
    return daemon.metric("headwater_documents_rewritten_total")


QUERY_BY_KIND_ONLY = """
@query
def of_kind(ctx: QueryCtx, kind: str) -> list[int]:
    return [note.number for note in ctx.db.query(Note.by_kind, kind=kind).collect()]
"""
QUERY_BY_KIND = f"""{QUERY_BY_KIND_ONLY}
@query
def in_city(ctx: QueryCtx, city: str) -> list[int]:
    return [note.number for note in ctx.db.query(Note.by_city, **{{"place.city": city}}).collect()]

@mutation
def set_kind(ctx: MutationCtx, id: Id[Note], kind: str) -> None:
    ctx.db.patch(id, kind=kind)
"""
PLACED = (
    "number: int\nkind: str = 'a'\nplace: Place = Place()\nby_kind = Index('kind')\nby_city = Index('place.city')",
    "number=number",
)


@pytest.mark.parametrize("delay", [3600, 0])
def test_an_index_holds_documents_that_lack_its_field_under_the_default(tmp_path: Path, delay: int) -> None:
    """Before they are rewritten, meanwhile, and after."""
    daemon = started(tmp_path, "--document-rewrite-delay-s", str(delay))
    try:
        daemon.must_deploy(bundle(tmp_path, 1, ("number: int", "number=number")))
        ids = daemon.call("mutation", "f:add", first=0, many=600)
        daemon.must_deploy(bundle(tmp_path, 2, PLACED, QUERY_BY_KIND))
        assert daemon.call("query", "f:of_kind", kind="a") == list(range(600))
        assert daemon.call("query", "f:in_city", city="Utrecht") == list(range(600))
        daemon.call("mutation", "f:set_kind", id=ids[7], kind="b")
        daemon.call("mutation", "f:renumber", id=ids[8], number=-8)
        if not delay:
            wait_until(lambda: rewritten(daemon) >= 598)
        assert daemon.call("query", "f:of_kind", kind="b") == [7]
        found = daemon.call("query", "f:of_kind", kind="a")
        assert found == [0, 1, 2, 3, 4, 5, 6, -8, *range(9, 600)]
        other = ("number: int\nkind: str = 'z'\nby_kind = Index('kind')", "number=number")
        daemon.must_deploy(bundle(tmp_path, 3, other, QUERY_BY_KIND))
        unwritten = len(daemon.call("query", "f:of_kind", kind="z"))
        assert unwritten == (598 if delay else 0), "what was not written anew has the new default"
        assert daemon.call("query", "f:of_kind", kind="b") == [7]
        assert len(daemon.call("query", "f:notes")) == 600
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()


async def test_rewriting_goes_on_after_a_kill_and_wakes_nobody(tmp_path: Path) -> None:
    slow = ("--document-rewrite-limit", "40", "--document-rewrite-share-percent", "4")
    daemon = await asyncio.to_thread(started, tmp_path, *slow)
    try:
        await asyncio.to_thread(daemon.must_deploy, bundle(tmp_path, 1, PLAIN))
        ids = daemon.call("mutation", "f:add", first=0, many=2_000)
        async with connect(daemon.url) as client:
            await asyncio.to_thread(daemon.must_deploy, bundle(tmp_path, 2, DATED))
            updates = client.subscribe("f:notes")
            shown = await anext(updates)
            assert len(shown) == 2_000
            assert {note["kind"] for note in shown} == {"a"}
            before = (
                rewritten(daemon),
                daemon.metric('headwater_calls_total{kind="query",outcome="success"}'),
            )
            await asyncio.to_thread(wait_until, lambda: rewritten(daemon) > before[0] + 300)
            assert daemon.metric('headwater_calls_total{kind="query",outcome="success"}') == before[1]
            await client.mutation("f:renumber", id=ids[1_999], number=-1)
            shown = await anext(updates)
            assert shown[-1]["number"] == -1
            reached = rewritten(daemon)
            assert reached < 1_900
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.start)
            await asyncio.to_thread(wait_until, lambda: "table_rewritten" in daemon.log_text(), 60.0)
            assert rewritten(daemon) <= 1_999 - reached, "it began anew"
            assert await client.query("f:notes") == shown
        indexed = (DATED[0] + "\nby_when = Index('when')", DATED[1])
        daemon.must_deploy(bundle(tmp_path, 3, indexed))
        assert daemon.terminate() == 0
        assert shapes(daemon) == {2: 2_000}
        assert daemon.doctor() == []
    finally:
        await asyncio.to_thread(daemon.end)


QUERY_SCORES = """
@query
def scores(ctx: QueryCtx) -> list[str]:
    return [repr(note.score) for note in ctx.db.query(Note.by_score, score=0).collect()]
"""
SCORED = ("number: int\nscore: float = 0\nby_score = Index('score')", "number=number")


async def test_what_calls_read_otherwise_once_it_is_rewritten_is_shown_anew(tmp_path: Path) -> None:
    """The default is an integer, what the field holds is not."""
    daemon = await asyncio.to_thread(started, tmp_path, "--document-rewrite-delay-s", "2")
    try:
        await asyncio.to_thread(daemon.must_deploy, bundle(tmp_path, 1, ("number: int", "number=number")))
        daemon.call("mutation", "f:add", first=0, many=20)
        await asyncio.to_thread(daemon.must_deploy, bundle(tmp_path, 2, SCORED, QUERY_SCORES))
        async with connect(daemon.url) as client:
            updates = client.subscribe("f:scores")
            assert await anext(updates) == ["0"] * 20
            assert await asyncio.wait_for(anext(updates), 30) == ["0.0"] * 20
        assert daemon.terminate() == 0
        assert shapes(daemon) == {2: 20}
        assert daemon.doctor() == []
    finally:
        await asyncio.to_thread(daemon.end)


def test_an_index_over_what_is_stored_in_another_form_waits_for_the_rewriting(tmp_path: Path) -> None:
    daemon = started(tmp_path, "--document-rewrite-delay-s", "2")
    try:
        daemon.must_deploy(bundle(tmp_path, 1, PLAIN))
        daemon.call("mutation", "f:add", first=0, many=50)
        daemon.must_deploy(bundle(tmp_path, 2, DATED))
        indexed = bundle(tmp_path, 3, (DATED[0] + "\nby_when = Index('when')", DATED[1]))
        answer = daemon.deploy(indexed)
        assert answer.status == 400
        assert "an index would hold '2024-01-01T00:00:00Z'" in answer.json["message"]
        wait_until(lambda: rewritten(daemon) == 50)
        daemon.must_deploy(indexed)
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    finally:
        daemon.end()


def test_what_a_roll_back_would_miss_stays(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.must_deploy(bundle(tmp_path, 1, PLAIN))
    daemon.call("mutation", "f:add", first=0, many=30)
    daemon.must_deploy(bundle(tmp_path, 2, ("number: int\nkind: str = 'a'", "number=number")))
    assert daemon.call("query", "f:notes")[0].get("when") is None
    wait_until(lambda: "table_rewritten" in daemon.log_text())
    assert daemon.log_text().count("document_left_as_it_is") == 3
    answer = daemon.post("/api/admin/rollback", b"", Authorization=f"Headwater {daemon.key}")
    assert answer.status == 200, answer.text
    assert daemon.call("query", "f:notes")[7]["when"] == "2024-01-01T00:07:00Z"


async def test_deploys_roll_backs_and_kills_in_the_middle_of_rewriting(tmp_path: Path) -> None:
    """Each deploy gives documents another shape before those of the one before are done."""
    random = Random(7)
    daemon = await asyncio.to_thread(started, tmp_path, "--document-rewrite-limit", "5")
    try:
        await asyncio.to_thread(daemon.must_deploy, bundle(tmp_path, 1, ("number: int", "number=number")))
        ids = daemon.call("mutation", "f:add", first=0, many=400)
        numbers = dict(zip(ids, range(400), strict=True))
        async with connect(daemon.url) as client:
            for version in range(2, 9):
                kind = "abcdefghij"[version]
                fields = (
                    f"number: int\nkind: str = {kind!r}\nscore: float = 0\nby_kind = Index('kind', 'score')"
                )
                if version % 3 == 1:
                    fields = f"number: int\nkind: str = {kind!r}\nby_kind = Index('kind')"
                new = bundle(tmp_path, version, (fields, "number=number"), QUERY_BY_KIND_ONLY)
                await asyncio.to_thread(daemon.must_deploy, new)
                for _ in range(20):
                    chosen = random.choice(ids)
                    numbers[chosen] = random.randrange(10**6)
                    await client.mutation("f:renumber", id=chosen, number=numbers[chosen])
                if version % 3 == 0:
                    await asyncio.to_thread(daemon.kill)
                    await asyncio.to_thread(daemon.start)
                if version % 4 == 0:
                    back = await asyncio.to_thread(
                        daemon.post, "/api/admin/rollback", b"", Authorization=f"Headwater {daemon.key}"
                    )
                    assert back.status == 200, back.text
                notes = await client.query("f:notes")
                assert {note["_id"]: note["number"] for note in notes} == numbers
                for kind in {note["kind"] for note in notes}:
                    found = await client.query("f:of_kind", kind=kind)
                    assert sorted(found) == sorted(note["number"] for note in notes if note["kind"] == kind)
                    assert found
        assert daemon.terminate() == 0
        assert len(shapes(daemon)) > 2, "nothing was interrupted"
        assert daemon.doctor() == []
    finally:
        await asyncio.to_thread(daemon.end)
