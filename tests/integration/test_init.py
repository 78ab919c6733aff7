"""`headwater init`: what it makes is a project that works, is tested and typed, and nothing of anybody's is touched."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from support.daemon import running
from support.type_checkers import mypy, pyright

if TYPE_CHECKING:
    from pathlib import Path

FILES = [
    ".gitignore",
    "README.md",
    "functions/__init__.py",
    "functions/schema.py",
    "functions/tasks.py",
    "pyproject.toml",
    "tests/test_tasks.py",
]


def init(folder: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, "-m", "headwater.cli", "init", *words],
        cwd=folder, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture
def project(tmp_path: Path) -> Path:
    init(tmp_path, "My tasks")
    return tmp_path / "My tasks"


def test_it_says_what_it_made_and_what_comes_next(tmp_path: Path) -> None:
    done = init(tmp_path, "My tasks")
    assert "next: cd 'My tasks' && headwater dev functions/" in done.stderr
    found = [path for path in (tmp_path / "My tasks").rglob("*") if path.is_file()]
    assert sorted(str(path.relative_to(tmp_path / "My tasks")) for path in found) == FILES
    assert 'name = "my-tasks"' in (tmp_path / "My tasks" / "pyproject.toml").read_text()
    assert not [path for path in found if "{" in path.read_text() and path.suffix in (".md", ".toml")]
    told = json.loads(init(tmp_path, "other", "--json").stdout)
    assert told == {"folder": str(tmp_path / "other"), "files": FILES}


def test_the_test_of_the_project_passes_and_can_fail(project: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider"]
    assert subprocess.run(words, cwd=project, capture_output=True, timeout=60, check=False).returncode == 0
    source = project / "functions" / "tasks.py"
    source.write_text(source.read_text().replace("done=True", "done=False"))
    assert subprocess.run(words, cwd=project, capture_output=True, timeout=60, check=False).returncode == 1


def test_the_project_is_typed_through_and_through(project: Path) -> None:
    assert mypy(project, "3.11", "functions", "tests") == {}
    assert pyright(project, "3.11", "functions", "tests") == {}


def test_the_functions_of_the_project_are_served(project: Path, tmp_path: Path) -> None:
    with running(tmp_path / "daemon", deploy=project / "functions") as daemon:
        added = daemon.post("/api/mutation", {"path": "tasks:add", "args": {"text": "Water the plants"}}).json
        (task,) = daemon.post("/api/query", {"path": "tasks:open"}).json["value"]
        assert (task["_id"], task["text"]) == (added["value"], "Water the plants")
        daemon.post("/api/mutation", {"path": "tasks:finish", "args": {"task": task["_id"]}})
        assert daemon.post("/api/query", {"path": "tasks:open"}).json["value"] == []


def test_nothing_that_is_there_is_changed(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "README.md").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("taken", "file"):
        assert "is there already and not empty" in init(tmp_path, name, code=1).stderr
    assert (tmp_path / "taken" / "README.md").read_text() == "mine"
    assert (tmp_path / "file").read_text() == "mine"
    assert len(list((tmp_path / "taken").iterdir())) == 1
    (tmp_path / "repository" / ".git").mkdir(parents=True)
    init(tmp_path, "repository")
    assert "letters or digits" in init(tmp_path, "…", code=2).stderr
    (tmp_path / "deep").write_text("")
    assert "deep" in init(tmp_path, "deep/project", code=1).stderr
