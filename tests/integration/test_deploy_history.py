"""What was deployed, what a deploy would change, and the way back, on a real daemon with the real command line."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import RunningDaemon

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TABLE = """
from headwater import Id, Index, MutationCtx, QueryCtx, Table, mutation, query

class Note(Table, name="notes"):
    text: str
    by_text = Index("text")

@mutation
def add(ctx: MutationCtx, text: str) -> Id[Note]:
    return ctx.db.insert(Note(text=text))

@query
def version(ctx: QueryCtx) -> int:
    return 1
"""
NO_TABLE = """
from headwater import QueryCtx, query

@query
def version(ctx: QueryCtx, why: str = "") -> int:
    return VERSION
"""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "daemon", ("--deployed-bundles-kept", "3"))
    running.start()
    try:
        yield running
    finally:
        running.end()


class Developer:
    """Edits a folder of functions and runs the command line beside it."""

    def __init__(self, folder: Path, daemon: RunningDaemon) -> None:
        self.folder = folder
        self.functions = folder / "functions"
        self.functions.mkdir()
        (self.functions / "__init__.py").write_text("")
        key = daemon.data / "admin-key"
        self._options = ["--url", daemon.url.replace("ws://", "http://"), "--key-file", str(key)]

    def writes(self, text: str) -> None:
        (self.functions / "n.py").write_text(text)

    def runs(self, *words: str, code: int = 0) -> tuple[str, str]:
        """Run `headwater` with words; return what it printed as data and what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", *words, *self._options],
            cwd=self.folder, env={"USER": "ada"}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    def deploys(self) -> list[dict[str, Any]]:
        listed: list[dict[str, Any]] = json.loads(self.runs("deploys", "--json")[0])
        return listed


def version(daemon: RunningDaemon) -> Any:
    return daemon.call("query", "n:version")


def test_a_dry_run_changes_nothing_and_a_rollback_brings_back_what_was(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    developer = Developer(tmp_path, daemon)
    assert developer.deploys() == []
    _, said = developer.runs("rollback", code=1)
    assert "no other was deployed" in said
    developer.writes(TABLE)
    _, said = developer.runs("deploy", "functions")
    assert said.splitlines()[:-1] == [
        "+ table notes", "+ index notes.by_text", "+ function n:add", "+ function n:version",
    ]  # fmt: skip
    first = developer.deploys()
    daemon.call("mutation", "n:add", text="kept")

    developer.writes(NO_TABLE.replace("VERSION", "2"))
    told = json.loads(developer.runs("deploy", "functions", "--dry-run", "--json")[0])
    assert [(change["sign"], change["name"]) for change in told["changes"]] == [
        ("removed", "notes"), ("removed", "n:add"), ("changed", "n:version"),
    ]  # fmt: skip
    assert version(daemon) == 1
    assert developer.deploys() == first
    for odd in ("True", "1", ""):
        answer = daemon.post(
            f"/api/admin/deploy?dry_run={odd}", b"PK", Authorization=f"Headwater {daemon.key}"
        )
        assert (answer.status, "dry_run" in answer.text) == (400, True)
    developer.writes("def broken(:")
    assert "SyntaxError" in developer.runs("deploy", "functions", "--dry-run", code=1)[1]

    for number in (2, 3):
        developer.writes(NO_TABLE.replace("VERSION", str(number)))
        developer.runs("deploy", "functions")
        assert version(daemon) == number
    past = developer.deploys()
    assert [one["number"] for one in past] == [3, 2, 1]
    assert {one["by"] for one in past} == {"ada"}
    assert all(one["kept"] for one in past)

    developer.runs("rollback")
    assert version(daemon) == 2
    assert daemon.terminate() == 0
    daemon.start()
    assert version(daemon) == 2
    developer.runs("rollback", past[2]["bundle"][:10])
    assert version(daemon) == 1
    daemon.call("mutation", "n:add", text="kept")  # the table is there again, with its documents
    _, said = developer.runs("rollback", "0000nothing", code=1)
    assert "none begins with" in said
    listed = developer.deploys()
    assert [one["bundle"] for one in listed[:2]] == [past[2]["bundle"], past[1]["bundle"]]
    assert [one["number"] for one in listed] == [5, 4, 3, 2, 1]
    assert daemon.terminate() == 0
    assert daemon.doctor() == []


def test_only_so_many_bundles_are_kept(daemon: RunningDaemon, tmp_path: Path) -> None:
    developer = Developer(tmp_path, daemon)
    for number in range(1, 6):
        developer.writes(NO_TABLE.replace("VERSION", str(number)))
        developer.runs("deploy", "functions")
    past = developer.deploys()
    assert [one["kept"] for one in past] == [True, True, True, False, False]
    _, said = developer.runs("rollback", past[4]["bundle"], code=1)
    assert "not kept any more" in said
    assert version(daemon) == 5


PROVIDER = (
    NO_TABLE
    + """
from headwater import oidc_provider
oidc_provider(issuer="https://id.example", audience="app", algorithms=["RS256"])
"""
)


def test_providers_stand_in_the_spec_and_among_the_changes(daemon: RunningDaemon, tmp_path: Path) -> None:
    developer = Developer(tmp_path, daemon)
    developer.writes(NO_TABLE.replace("VERSION", "1"))
    developer.runs("deploy", "functions")
    developer.writes(PROVIDER.replace("VERSION", "1"))
    told = developer.runs("deploy", "functions", "--dry-run")[1]
    assert "+ provider https://id.example for app" in told
    developer.runs("deploy", "functions")
    (declared,) = json.loads(developer.runs("spec")[0])["providers"]
    assert (declared["issuer"], declared["algorithms"]) == ("https://id.example", ["RS256"])
    developer.runs("rollback")
    assert json.loads(developer.runs("spec")[0])["providers"] == []
