"""Repairs: what is restored from what, what is refused, and crashes in the middle."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.errors import StorageError
from headwater_protocol.values import pack_value
from headwater_storage.doctor import examine
from headwater_storage.engine import Engine
from headwater_storage.repair import repair
from support.damage import DATA_FILE, Original, write
from support.full_read import differences, expected, read_all
from support.memory_files import Crashed
from support.memory_store import encode
from support.prepared_stores import Recipe, Truth, options_of, prepare, prepared_environment
from support.real_files import RecordingFiles
from support.tables import IndexOf, TableOf

if TYPE_CHECKING:
    from pathlib import Path

    from headwater_storage.transaction import Transaction

WHOLE_LOG = Recipe(3, commits=15)
SHORT_LOG = Recipe(4, commits=30, keep_bytes=0)


def answers(path: Path, truth: Truth) -> list[str]:
    """Open a directory and return what it answers otherwise than the truth."""
    options = options_of(WHOLE_LOG)
    object.__setattr__(options.storage, "check_bytes", 1 << 26)
    engine = Engine.open(path, options, prepared_environment(8))
    try:
        return differences(read_all(engine.store, truth), expected(truth))
    finally:
        engine.close()


def tree(path: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}
    return {name: data for name, data in files.items() if "lock" not in name}


def zero_page(path: Path, number: int) -> None:
    data = (path / DATA_FILE).read_bytes()
    write(path / DATA_FILE, data[: number * 4096] + bytes(4096) + data[(number + 1) * 4096 :])


@pytest.mark.parametrize("missing", [DATA_FILE, "checkpoint", "format"])
def test_a_whole_log_gives_everything_again(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "data"
    truth = prepare(path, WHOLE_LOG)
    (path / missing).unlink()
    before = tree(path)
    findings = examine(path, prepared_environment(1), tmp_path / "scratch").findings
    assert any(missing in str(finding) for finding in findings)
    assert tree(path) == before
    report = repair(path, prepared_environment(2))
    assert (report.lost, report.source) == ([], "the log")
    assert report.aside is not None
    assert examine(path, prepared_environment(1), tmp_path / "scratch").findings == []
    assert answers(path, truth) == []


async def towns(path: Path) -> None:
    """Make a directory whose index has a declared default, with documents of both kinds."""
    engine = Engine.open(path, options_of(WHOLE_LOG), prepared_environment(3))
    task = asyncio.create_task(engine.run())
    by_city = IndexOf("by_city", ["city"], defaults={"city": pack_value("Utrecht")})
    await engine.deploy([TableOf("towns", [by_city])], "towns", b"archive")
    for fields in ({}, {"city": "Aarhus"}, {}):
        await engine.transact(lambda transaction, fields=fields: _put_town(transaction, fields))
    engine.stop()
    await task
    engine.close(clean=True)


def _put_town(transaction: Transaction, fields: dict[str, str]) -> None:
    document_id, creation = transaction.new_id("towns")
    transaction.put(document_id, encode(document_id, creation, **fields))


@pytest.mark.parametrize("missing", [DATA_FILE, "checkpoint"])
def test_entries_of_declared_defaults_are_restored(tmp_path: Path, missing: str) -> None:
    path = tmp_path / "data"
    asyncio.run(towns(path))
    (path / missing).unlink()
    assert repair(path, prepared_environment(2)).lost == []
    assert examine(path, prepared_environment(1), tmp_path / "scratch").findings == []
    engine = Engine.open(path, options_of(WHOLE_LOG), prepared_environment(8))
    try:
        with engine.begin() as transaction:
            found = transaction.read_range("towns", "by_city", ["Utrecht"], None, None, descending=False)
            assert len(list(found)) == 2
    finally:
        engine.close()


def test_a_short_log_gives_what_it_still_has(tmp_path: Path) -> None:
    """Every used page in turn is zeroed: the rest of the store and the log give all, or it is refused untouched."""
    path = tmp_path / "data"
    truth = prepare(path, SHORT_LOG)
    original = Original.of(path)
    restored = refused = 0
    for page in original.used_pages[::7]:
        original.restore()
        zero_page(path, page)
        before = tree(path)
        try:
            report = repair(path, prepared_environment(2))
        except StorageError as error:
            told = error.message
            refused += 1
        else:
            told = ""
        if told:
            assert "cannot be repaired" in told
            assert tree(path) == before
            continue
        if report.lost:
            assert report.aside is None
            assert tree(path) == before
            refused += 1
        else:
            assert answers(path, truth) == []
            restored += 1
    assert restored
    assert refused


def test_what_is_lost_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "data"
    truth = prepare(path, SHORT_LOG)
    data = (path / DATA_FILE).read_bytes()
    old = min(truth.documents, key=lambda document_id: document_id[-31:])
    key_at = [place for place in range(len(data) - 31) if data.startswith(old[-31:].encode(), place)]
    for place in key_at:
        data = data[: place + 40] + bytes([data[place + 40] ^ 1]) + data[place + 41 :]
    write(path / DATA_FILE, data)
    report = repair(path, prepared_environment(2))
    assert any("1 documents" in text for text in report.lost)
    assert any(old[-31:].encode().hex() in text for text in report.lost)
    report = repair(path, prepared_environment(2), accept_loss=True)
    assert report.aside is not None
    assert examine(path, prepared_environment(1), tmp_path / "scratch").findings == []
    told = answers(path, truth)
    assert told
    assert all(old in name or "." in name or name.startswith(("notes", "files", "plain")) for name in told)


def test_damage_in_the_log_that_the_store_has_outlived_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "data"
    truth = prepare(path, WHOLE_LOG)
    segment = min((path / "log").glob("segment-*"))
    write(segment, segment.read_bytes()[:700] + b"damage" + segment.read_bytes()[706:])
    findings = examine(path, prepared_environment(1), tmp_path / "scratch").findings
    assert any(f"{segment}, offset 512" in str(finding) for finding in findings)
    report = repair(path, prepared_environment(2))
    assert (report.lost, report.source) == ([], "documents and the log")
    assert examine(path, prepared_environment(1), tmp_path / "scratch").findings == []
    assert answers(path, truth) == []


def test_a_repair_that_is_cut_short_anywhere_is_gone_on_with(tmp_path: Path) -> None:
    truth, cut_short = Truth(), 0
    for crash_at in range(200):
        path = tmp_path / str(crash_at) / "data"
        truth = prepare(path, Recipe(3, lives=1, commits=4))
        (path / DATA_FILE).unlink()
        files = RecordingFiles()
        files.crash_at = crash_at
        environment = prepared_environment(2)
        object.__setattr__(environment, "files", files)
        try:
            repair(path, environment)
            break
        except Crashed:
            try:
                assert answers(path, truth) == []  # all was in its place
            except StorageError as refusal:
                cut_short += "cut short" in refusal.message
                assert repair(path, prepared_environment(2)).aside is not None
            assert answers(path, truth) == []
    assert 5 < cut_short < crash_at


def test_nothing_is_repaired_under_a_daemon(tmp_path: Path) -> None:
    path = tmp_path / "data"
    prepare(path, WHOLE_LOG)
    engine = Engine.open(path, options_of(WHOLE_LOG), prepared_environment(8))
    for work in (repair, lambda path, environment: examine(path, environment, tmp_path / "scratch")):
        with pytest.raises(StorageError) as caught:
            work(path, prepared_environment(2))
        assert caught.value.code == "directory_in_use"
    engine.close()
