"""The authoring API as type checkers see it: right programs pass, wrong lines are found where they stand.

Behind each line of `wrong/` that is refused stands a mark, see `tools/mistake_reference.py`; what it says of the checkers
is the table of docs/reference/mistakes.md.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.type_checkers import CHECKERS, Found, mypy, pyright

from tools.mistake_reference import NEWEST, OLDEST, Mark, marks

HERE = Path(__file__).parent
EXAMPLES = HERE.parents[1] / "examples"
SMALL = ("chat", "likes", "pages", "self_destruct", "sessions", "typed_arguments", "webhooks")


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with right programs, wrong ones, and those whose mistakes nobody sees."""
    folder = tmp_path_factory.mktemp("types") / "programs"
    for name in ("right", "wrong", "unseen"):
        shutil.copytree(HERE / name, folder / name)
    for name in SMALL:
        shutil.copytree(EXAMPLES / name, folder / "examples" / name)
    (folder / "examples" / "__init__.py").touch()
    return folder


@pytest.mark.parametrize("target", [OLDEST, NEWEST])
@pytest.mark.parametrize("checker", CHECKERS)
def test_a_checker_finds_the_wrong_lines_and_no_other(checker: str, target: str, programs: Path) -> None:
    found = CHECKERS[checker](programs, target, "right", "wrong", "unseen", "examples")
    wanted = marks(programs, (programs / "wrong").glob("*.py"))
    expected = {
        (file, line): mark.word
        for file, lines in wanted.items()
        for line, mark in lines.items()
        if mark.found_by(checker, target)
    }
    told = {(file, line): text for file, lines in found.items() for line, text in lines.items()}
    assert told.keys() == expected.keys()
    assert {place: told[place] for place, word in expected.items() if word not in told[place]} == {}


def test_there_are_many_mistakes() -> None:
    found = marks(HERE, HERE.glob("wrong/*.py"))
    assert sum(map(len, found.values())) > 60
    assert Mark.of("x = 1  # error by ty, mypy from 3.13 about x").checkers == {"ty", "mypy"}  # type: ignore[union-attr]


# ---------------------------------------------------------------------------------------- generated stubs


@pytest.fixture(scope="module")
def uses(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the uses, and the stubs that they import."""
    folder = tmp_path_factory.mktemp("stubs") / "uses"
    shutil.copytree(HERE / "uses", folder)
    examples = HERE.parents[1] / "examples"
    bundles = {
        "chat": examples / "chat" / "functions",
        "departures": examples / "departures" / "functions",
        "right": HERE / "right",
    }
    for name, bundle in bundles.items():
        words = [sys.executable, "-m", "headwater.cli", "codegen", str(bundle), "--python"]
        subprocess.run([*words, "--out", f"{name}_api.py"], cwd=folder, check=True, timeout=110)
    return folder


def wrong_lines(found: Found) -> dict[str, set[int]]:
    return {file: set(lines) for file, lines in found.items()}


def expected_uses(uses: Path, checker: str) -> dict[str, set[int]]:
    found = marks(uses, uses.glob("*_use.py"))
    return {
        file: lines
        for file, marked in found.items()
        if (lines := {line for line, mark in marked.items() if checker in mark.checkers})
    }


@pytest.mark.parametrize("target", [OLDEST, NEWEST])
def test_mypy_finds_the_wrong_uses_of_stubs_and_no_other(uses: Path, target: str) -> None:
    assert wrong_lines(mypy(uses, target, ".")) == expected_uses(uses, "mypy")


def test_pyright_finds_the_wrong_uses_of_stubs_and_no_other(uses: Path) -> None:
    assert wrong_lines(pyright(uses, OLDEST, ".", standard=(".",))) == expected_uses(uses, "pyright")
