"""The authoring API as type checkers see it: right bundles pass, wrong lines are found where they stand.

A line of `wrong/` that must be refused ends in `# error`; `# error: mypy` if one checker alone finds it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

HERE = Path(__file__).parent
TARGET = "3.13"  # checkers make `__replace__` from here on, which the checks of field names rest on
OLDEST = "3.11"
MARK = re.compile(r"# error(?:: (\w+))?$")
FOUND_BY_MYPY = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: ", re.MULTILINE)

Found = dict[str, set[int]]


def expected(checker: str, folder: str = "wrong") -> Found:
    lines: Found = defaultdict(set)
    for path in HERE.glob(f"{folder}/*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            mark = MARK.search(line)
            if mark and mark.group(1) in (None, checker):
                lines[path.name].add(number)
    return lines


def mypy(cache: Path, target: str, *folders: str, where: Path = HERE) -> Found:
    options = [
        "--strict",
        "--python-version",
        target,
        "--config-file",
        "",
        "--no-error-summary",
        "--no-pretty",
    ]
    run = checked([sys.executable, "-m", "mypy", *options, "--cache-dir", str(cache), *folders], where)
    return grouped((match["file"], int(match["line"])) for match in FOUND_BY_MYPY.finditer(run))


def pyright(where: Path = HERE) -> Found:
    run = checked(
        [sys.executable, "-m", "pyright", "--outputjson", "-p", ".", "--pythonpath", sys.executable], where
    )
    found = json.loads(run[run.index("{") :])["generalDiagnostics"]
    return grouped(
        (item["file"], item["range"]["start"]["line"] + 1) for item in found if item["severity"] == "error"
    )


def checked(command: list[str], where: Path) -> str:
    run = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


def grouped(places: Iterator[tuple[str, int]]) -> Found:
    found: Found = defaultdict(set)
    for file, line in places:
        path = Path(file)
        own = path.parent.name in ("wrong", "uses", "")
        name = path.name if own else f"{path.parent.name}/{path.name}"
        found[name].add(line)
    return found


def test_mypy_finds_the_wrong_lines_and_no_other(tmp_path: Path) -> None:
    assert mypy(tmp_path, TARGET, "right", "wrong") == expected("mypy")


def test_right_code_is_right_for_the_oldest_python_too(tmp_path: Path) -> None:
    assert mypy(tmp_path, OLDEST, "right") == {}


def test_pyright_finds_the_wrong_lines_and_no_other() -> None:
    assert pyright() == expected("pyright")


def test_the_marks_are_read() -> None:
    assert sum(map(len, expected("mypy").values())) > 20


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
    (folder / "pyrightconfig.json").write_text('{"typeCheckingMode": "standard", "pythonVersion": "3.11"}')
    return folder


@pytest.mark.parametrize("target", [OLDEST, TARGET])
def test_mypy_finds_the_wrong_uses_of_stubs_and_no_other(uses: Path, tmp_path: Path, target: str) -> None:
    assert mypy(tmp_path, target, ".", where=uses) == expected("mypy", "uses")


def test_pyright_finds_the_wrong_uses_of_stubs_and_no_other(uses: Path) -> None:
    assert pyright(uses) == expected("pyright", "uses")
