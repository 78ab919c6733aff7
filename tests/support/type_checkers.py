"""Four type checkers, and what each finds wrong in a folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

Found = dict[str, dict[int, str]]
"""By file, relative to the folder: what is said of each line that has errors."""

_BIN = Path(sys.executable).parent
_MYPY = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+): error: (?P<told>.*)$", re.MULTILINE)
_TY = re.compile(r"^(?P<file>[^:\n]+):(?P<line>\d+):\d+: error(?P<told>.*)$", re.MULTILINE)
_PYREFLY = re.compile(r"^ *ERROR (?P<file>[^:\n]+):(?P<line>\d+)[^ ]* (?P<told>.*)$", re.MULTILINE)


def mypy(folder: Path, target: str, *paths: str) -> Found:
    """`--strict`, without any configuration."""
    options = [
        "--strict",
        "--python-version",
        target,
        "--config-file",
        "",
        "--no-error-summary",
        "--no-pretty",
    ]
    cache = folder.parent / f"mypy-{target}"
    words = [sys.executable, "-m", "mypy", *options, "--cache-dir", str(cache), *paths]
    return _grouped(folder, _MYPY, _output(words, folder))


def pyright(folder: Path, target: str, *paths: str, standard: tuple[str, ...] = ("wrong",)) -> Found:
    """Strict, but for folders where what is wrong would be told several times over."""
    strict = [path for path in paths if path not in standard]
    config = {"include": paths, "strict": strict, "pythonVersion": target, "typeCheckingMode": "standard"}
    (folder / "pyrightconfig.json").write_text(json.dumps(config))
    words = [sys.executable, "-m", "pyright", "--outputjson", "-p", ".", "--pythonpath", sys.executable]
    run = _output(words, folder)
    found: Found = defaultdict(dict)
    for item in json.loads(run[run.index("{") :])["generalDiagnostics"]:
        if item["severity"] == "error":
            name = os.path.relpath(item["file"], folder)
            line = item["range"]["start"]["line"] + 1
            found[name][line] = f"{found[name].get(line, '')} {item['message']}"
    return found


def ty(folder: Path, target: str, *paths: str) -> Found:
    """As it comes."""
    options = ["--python", sys.prefix, "--python-version", target, "--output-format", "concise"]
    return _grouped(folder, _TY, _output([str(_BIN / "ty"), "check", *options, *paths], folder))


def pyrefly(folder: Path, target: str, *paths: str) -> Found:
    """As it comes: it would take a configuration of mypy's for its own."""
    config = folder / "pyrefly.toml"
    config.write_text("")
    files = [str(file) for path in paths for file in sorted((folder / path).rglob("*.py"))]
    options = ["--config", str(config), "--python-version", target, "--output-format", "min-text"]
    options += ["--python-interpreter-path", sys.executable, "--search-path", "."]
    return _grouped(folder, _PYREFLY, _output([str(_BIN / "pyrefly"), "check", *options, *files], folder))


CHECKERS: dict[str, Callable[..., Found]] = {"mypy": mypy, "pyright": pyright, "ty": ty, "pyrefly": pyrefly}


def _output(words: list[str], folder: Path) -> str:
    run = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=110, check=False)
    assert run.returncode in (0, 1), run.stdout + run.stderr
    return run.stdout


def _grouped(folder: Path, pattern: re.Pattern[str], output: str) -> Found:
    found: Found = defaultdict(dict)
    for match in pattern.finditer(output):
        name, line = os.path.relpath(folder / match["file"], folder), int(match["line"])
        found[name][line] = f"{found[name].get(line, '')} {match['told']}"
    return found
