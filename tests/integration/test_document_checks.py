"""A deploy is refused while a document does not fit it, however busy the writers are; nothing has changed then."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from headwater.packing import pack
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FUNCTIONS = """
from typing import Annotated, Literal
from headwater import Id, Index, Meta, MutationCtx, QueryCtx, Struct, Table, mutation, query

class Tag(Struct, frozen=True):
    word: str

class Note(Table, name="notes"):
    FIELDS

class Other(Table, name="others"):
    count: int = 0

@mutation
def add(ctx: MutationCtx, number: int, many: int = 1) -> str:
    return [ctx.db.insert(MADE) for _ in range(many)][-1]

@mutation
def add_other(ctx: MutationCtx) -> str:
    return ctx.db.insert(Other())

@mutation
def remove(ctx: MutationCtx, id: Id[Note]) -> None:
    ctx.db.delete(id)

@query
def version(ctx: QueryCtx) -> int:
    return VERSION

@query
def numbers(ctx: QueryCtx) -> list[int | float | str | None]:
    return [note.number for note in ctx.db.scan(Note)]

@query
def count(ctx: QueryCtx) -> int:
    return len(ctx.db.scan(Note).collect())
"""


def bundle(
    folder: Path, version: int, fields: str, made: str = "Note(number=number)", *, others: bool = True
) -> bytes:
    source = folder / f"v{version}" / "app"
    source.mkdir(parents=True)
    (source / "__init__.py").write_text("")
    text = FUNCTIONS.replace("FIELDS", fields.replace("\n", "\n    ")).replace("MADE", made)
    if not others:
        start, end = text.index("class Other"), text.index("@mutation")
        text = text[:start] + text[end:]
        start, end = text.index("@mutation\ndef add_other"), text.index("@mutation\ndef remove")
        text = text[:start] + text[end:]
    (source / "f.py").write_text(text.replace("VERSION", str(version)))
    return pack(source)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "daemon", ())
    running.start()
    try:
        running.must_deploy(bundle(tmp_path, 1, "number: int"))
        yield running
        assert running.terminate() == 0
        assert running.doctor() == []
    finally:
        running.end()


def refusal(daemon: RunningDaemon, archive: bytes) -> str:
    """Deploy what has to be refused, and see that nothing has changed; return why."""
    answer = daemon.deploy(archive)
    assert answer.status == 400, answer.text
    assert answer.json["code"] == "invalid_document"
    assert daemon.call("query", "f:version") == 1
    message: str = answer.json["message"]
    return message


def test_the_first_documents_that_do_not_fit_are_named(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.call("mutation", "f:add", number=5, many=4_000)
    bad = [daemon.call("mutation", "f:add", number=500 + i) for i in range(7)]
    limited = bundle(tmp_path, 2, "number: Annotated[int, Meta(le=100)]")
    message = refusal(daemon, limited)
    assert "'notes'" in message
    assert all(f"{document_id}: Expected `int` <= 100 - at `$.number`" in message for document_id in bad[:5])
    assert bad[5] not in message
    assert "Object missing required field `tags`" in refusal(
        daemon, bundle(tmp_path, 3, "number: int\ntags: list[Tag]", "Note(number=number, tags=[])")
    )
    assert daemon.call("mutation", "f:add", number=501)
    for document_id in [*bad, daemon.call("mutation", "f:add", number=502)]:
        daemon.call("mutation", "f:remove", id=document_id)
    assert "Expected `int` <= 100" in refusal(daemon, limited), "the one of 501 is left"


def test_what_fits_is_deployed_and_other_tables_do_not_matter(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.call("mutation", "f:add", number=5, many=3_000)
    daemon.call("mutation", "f:add_other")
    wider = bundle(tmp_path, 2, 'number: float | str\nkind: Literal["a", "b"] = "a"')
    daemon.must_deploy(wider)
    assert daemon.call("query", "f:version") == 2
    assert daemon.call("query", "f:count") == 3_000


def test_what_is_no_id_of_the_table_does_not_pass_for_one(daemon: RunningDaemon, tmp_path: Path) -> None:
    daemon.must_deploy(bundle(tmp_path, 11, "number: int | str", "Note(number=ctx.db.insert(Other()))"))
    other = daemon.call("query", "f:numbers")[-1] if daemon.call("mutation", "f:add", number=1) else ""
    assert (
        daemon.deploy(
            bundle(tmp_path, 12, 'number: "Id[Other]"', "Note(number=ctx.db.insert(Other()))")
        ).status
        == 200
    )
    answer = daemon.deploy(bundle(tmp_path, 13, 'number: "Id[Note]"', "Note(number='x')"))
    assert answer.status == 400
    assert "others" in answer.json["message"]
    daemon.must_deploy(
        bundle(tmp_path, 14, "number: str", f"Note(number={other[:2] + ' NO ID' * 5 + 'x'!r})")
    )
    daemon.call("mutation", "f:add", number=1)
    answer = daemon.deploy(bundle(tmp_path, 15, 'number: "Id[Other]"', "Note(number=ctx.db.insert(Other()))"))
    assert answer.status == 400, "only its beginning is that of an id"


def test_a_rollback_brings_back_a_table_and_the_ids_of_its_documents(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    daemon.must_deploy(bundle(tmp_path, 11, 'number: "Id[Other]"', "Note(number=ctx.db.insert(Other()))"))
    daemon.call("mutation", "f:add", number=1)
    text = "number: str"
    without = bundle(tmp_path, 12, text, "Note(number='x')", others=False)
    daemon.must_deploy(without)
    answer = daemon.post("/api/admin/rollback", b"", Authorization=f"Headwater {daemon.key}")
    assert answer.status == 200, answer.text
    assert daemon.call("query", "f:version") == 11


def test_nothing_that_does_not_fit_slips_in_while_the_old_bundle_writes(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    """Writers insert what the new bundle does not allow, and stop now and then; each deploy is refused or right."""
    daemon.call("mutation", "f:add", number=5, many=2_000)
    limited = bundle(tmp_path, 2, "number: Annotated[int, Meta(le=100)]")
    stop = threading.Event()
    told: list[Any] = []

    def write(first: int) -> None:
        number = first
        while not stop.is_set():
            number += 1
            answer = daemon.post(
                "/api/mutation", {"path": "f:add", "args": {"number": number % 103}, "format": "json"}
            )
            told.append((number % 103, answer.json.get("status")))

    writers = [threading.Thread(target=write, args=(start,)) for start in (0, 20)]
    for writer in writers:
        writer.start()
    try:
        answer = daemon.deploy(limited)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    kept = [number for number, status in told if status == "success"]
    assert kept
    if answer.status == 200:
        assert daemon.call("query", "f:version") == 2
        assert max(kept) <= 100
        assert daemon.call("query", "f:count") == 2_000 + len(kept)
    else:
        assert answer.json["code"] == "invalid_document", answer.text
        assert daemon.call("query", "f:version") == 1


def test_a_deploy_gets_through_between_writers_that_never_pause(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    daemon.call("mutation", "f:add", number=5, many=2_000)
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            daemon.call("mutation", "f:add", number=7)

    writers = [threading.Thread(target=write) for _ in range(4)]
    for writer in writers:
        writer.start()
    try:
        for version in (2, 3, 4):
            daemon.must_deploy(bundle(tmp_path, version, f"number: Annotated[int, Meta(le={100 + version})]"))
            assert daemon.call("query", "f:version") == version
    finally:
        stop.set()
        for writer in writers:
            writer.join()
