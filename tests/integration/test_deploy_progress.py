"""Deploys that take long: how far they are is told, a restart goes on with them, a later deploy takes their place."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

import pytest
from headwater.packing import pack
from support.daemon import RunningDaemon, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.daemon import Answer

FUNCTIONS = """
import time
from typing import Annotated
from headwater import Id, Index, Meta, MutationCtx, QueryCtx, Struct, Table, mutation, query

class Slow(Struct, frozen=True, kw_only=True):
    def __post_init__(self) -> None:
        time.sleep(SECONDS)

class Note(Table, name="notes"):
    number: Annotated[int, Meta(le=LIMIT)]
    slow: Slow = Slow()
    FIELDS

@mutation
def add(ctx: MutationCtx, first: int, many: int) -> list[str]:
    return [ctx.db.insert(Note(number=number)) for number in range(first, first + many)]

@mutation
def renumber(ctx: MutationCtx, id: Id[Note], number: int) -> None:
    ctx.db.patch(id, number=number)

@query
def version(ctx: QueryCtx) -> int:
    return VERSION
"""


def source(
    folder: Path, version: int, *, limit: int = 10_000, seconds: float = 0.0, fields: str = ""
) -> Path:
    made = folder / f"v{version}" / "app"
    made.mkdir(parents=True)
    (made / "__init__.py").write_text("")
    text = FUNCTIONS.replace("LIMIT", str(limit)).replace("SECONDS", str(seconds)).replace("FIELDS", fields)
    (made / "f.py").write_text(text.replace("VERSION", str(version)))
    return made


def bundle(folder: Path, version: int, **how: Any) -> bytes:
    return pack(source(folder, version, **how))


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "daemon")
    running.start()
    try:
        running.must_deploy(bundle(tmp_path, 1))
        yield running
        assert running.terminate() == 0
        assert running.doctor() == []
    finally:
        running.end()


class Deploying(threading.Thread):
    """A deploy that goes on beside the test."""

    def __init__(self, daemon: RunningDaemon, archive: bytes) -> None:
        super().__init__()
        self.answer: Answer | None = None
        self._daemon, self._archive = daemon, archive
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # the daemon was killed
            self.answer = self._daemon.deploy(self._archive)


def fill(daemon: RunningDaemon, many: int) -> list[str]:
    parts = [daemon.call("mutation", "f:add", first=first, many=1_000) for first in range(0, many, 1_000)]
    return [one for part in parts for one in part]


def steps(daemon: RunningDaemon) -> list[dict[str, Any]]:
    answer = daemon.get("/api/admin/progress", Authorization=f"Headwater {daemon.key}")
    found: list[dict[str, Any]] = answer.json["steps"]
    return found


def checked(daemon: RunningDaemon) -> float:
    return daemon.metric("headwater_documents_checked_total")


def test_a_check_goes_on_after_a_kill_and_sees_what_was_written_in_between(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    """Parts are 2,000 documents, some two seconds here."""
    ids = fill(daemon, 8_000)
    slow = bundle(tmp_path, 2, limit=9_000, seconds=0.0008)
    deploying = Deploying(daemon, slow)
    wait_until(
        lambda: any(0 < step["share"] < 1 and step["documents"] >= 4_000 for step in steps(daemon)), 60
    )
    daemon.kill()
    deploying.join()
    assert deploying.answer is None
    daemon.start()
    assert daemon.call("query", "f:version") == 1
    daemon.call("mutation", "f:renumber", id=ids[3], number=9_500)
    refused = daemon.deploy(slow)
    assert refused.status == 400
    assert ids[3] in refused.json["message"]
    daemon.call("mutation", "f:renumber", id=ids[3], number=8_500)
    daemon.must_deploy(slow)
    assert checked(daemon) <= 4_010, "it began anew"
    assert daemon.call("query", "f:version") == 2


def test_a_later_deploy_takes_the_place_of_one_that_checks_documents(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    fill(daemon, 6_000)
    indexed = "by_number = Index('number')"
    deploying = Deploying(daemon, bundle(tmp_path, 2, seconds=0.0008, limit=9_000, fields=indexed))
    wait_until(lambda: steps(daemon), 60)
    assert daemon.deploy(b"no bundle").status == 400
    daemon.must_deploy(bundle(tmp_path, 3, limit=9_001))
    deploying.join()
    assert deploying.answer is not None
    assert deploying.answer.status == 400
    assert "a later deploy" in deploying.answer.json["message"]
    assert daemon.call("query", "f:version") == 3
    daemon.must_deploy(bundle(tmp_path, 4, fields=indexed))


def command(daemon: RunningDaemon, *words: str) -> subprocess.CompletedProcess[str]:
    options = ["--url", daemon.url.replace("ws://", "http://"), "--key-file", str(daemon.data / "admin-key")]
    return subprocess.run(
        [sys.executable, "-m", "headwater.cli", *words, *options],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_command_line_shows_how_far_it_is_and_a_dry_run_checks_documents(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    fill(daemon, 4_000)
    narrow = command(daemon, "deploy", str(source(tmp_path, 2, limit=100)), "--dry-run")
    assert narrow.returncode == 1
    assert "invalid_document" in narrow.stderr
    slow = source(tmp_path, 3, seconds=0.0008, limit=9_000, fields="by_number = Index('number')")
    done = command(daemon, "deploy", str(slow), "--json", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert daemon.call("query", "f:version") == 1
    told = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {(step["what"], step["name"]) for step in told} == {("documents", "notes")}
    assert [step["share"] for step in told] == sorted({step["share"] for step in told})
    seen = checked(daemon)
    done = command(daemon, "deploy", str(slow), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["changed"]
    assert daemon.call("query", "f:version") == 3
    assert checked(daemon) == seen, "the dry run had looked at all of them"
