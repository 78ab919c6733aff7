"""Write docs/reference/mistakes.md: which type checker finds which mistake, and what finds the others.

    python -m tools.mistake_reference

Made of the marks in `tests/typing/wrong` and `tests/typing/unseen`, which the tests hold against the checkers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tools.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PAGE = ROOT / "docs" / "reference" / "mistakes.md"
TYPING = ROOT / "tests" / "typing"
CHECKERS = ("mypy", "pyright", "ty", "pyrefly")
NEWEST, OLDEST = "3.13", "3.11"
"""Checkers make `__replace__`, which the checks of field names rest on, from 3.13 on; pyrefly always does."""

HEAD = """# Mistakes, and what finds them

Generated from the tests by `python -m tools.mistake_reference`. Tried with mypy `--strict`, pyright, ty and pyrefly: right programs pass
all four without an ignore, for targets 3.11 and 3.13. "3.13" stands for: found if the target is Python 3.13 or later.

## What type checkers find

| mistake | written | mypy | pyright | ty | pyrefly |
| --- | --- | --- | --- | --- | --- |
"""
UNSEEN = """
## What no type checker finds

Refused when the bundle is loaded, so at the latest by `headwater deploy --dry-run`, or at the first call; with the line of your file.

| mistake | refused | what is said |
| --- | --- | --- |
"""


class Mark:
    """What stands behind a wrong line: `# error [by checkers] [from 3.13] [about word]`.

    Attributes:
        checkers: Who finds it.
        from_newest: Only for the newest target, but for pyrefly.
        word: What each of them mentions.
    """

    _WRITTEN = re.compile(r"# error(?: by ([\w, ]+?))?( from 3\.13)?(?: about (\w+))?$")

    def __init__(self, match: re.Match[str]) -> None:
        self.checkers = set((match[1] or ", ".join(CHECKERS)).split(", "))
        self.from_newest = match[2] is not None
        self.word = match[3] or ""

    @classmethod
    def of(cls, line: str) -> Mark | None:
        """Return the mark of a line, None if it has none."""
        match = cls._WRITTEN.search(line)
        assert match or "# error" not in line, f"no mark: {line}"
        return cls(match) if match else None

    def found_by(self, checker: str, target: str) -> bool:
        """Tell whether a checker finds it for a target."""
        newest = not self.from_newest or target == NEWEST or checker == "pyrefly"
        return checker in self.checkers and newest

    def told(self, checker: str) -> str:
        """Return a cell of the table."""
        if self.found_by(checker, OLDEST):
            return "yes"
        return NEWEST if self.found_by(checker, NEWEST) else "no"


def marks(folder: Path, files: Iterable[Path]) -> dict[str, dict[int, Mark]]:
    """Return the marks of some files, by name relative to a folder and by line."""
    return {
        str(file.relative_to(folder)): {
            number: mark
            for number, line in enumerate(file.read_text().splitlines(), 1)
            if (mark := Mark.of(line)) is not None
        }
        for file in files
    }


def found_rows() -> Iterator[str]:
    """Yield a line of the table for each marked line of `wrong/`."""
    for file in sorted(TYPING.glob("wrong/*.py")):
        lines = file.read_text().splitlines()
        for number, line in enumerate(lines):
            mark = Mark.of(line)
            if mark is None:
                continue
            written = lines[number + 1] if line.startswith("@") else line
            cells = " | ".join(mark.told(checker) for checker in CHECKERS)
            yield f"| {_name(lines, number)} | {_code(written)} | {cells} |"


def refused_rows() -> Iterator[str]:
    """Yield a line of the table for each marked line of `unseen/`."""
    case = ""
    for file, when in (("declared", "when it is loaded"), ("called", "at the first call")):
        lines = (TYPING / "unseen" / f"{file}.py").read_text().splitlines()
        for number, line in enumerate(lines):
            begins = re.match(r"# case: (.*)", line)
            case = begins[1] if begins else case
            refused = re.search(r"# refused (?:later )?about (.*)$", line)
            if refused is not None:
                name = case if file == "declared" else _name(lines, number)
                yield f"| {name} | {when} | {_code(refused[1])} |"


def _name(lines: list[str], number: int) -> str:
    """Return in words what the function or class is called in which a line stands, or that follows it."""
    nearby = [*lines[number::-1], *lines[number:]] if not lines[number].startswith("@") else lines[number:]
    found = next(filter(None, (re.match(r"(?:async )?(?:def|class) (\w+)", line) for line in nearby)))
    return found[1].replace("_", " ").strip().lower()


def _code(text: str) -> str:
    plain = re.sub(r"\s*# error.*$", "", text).strip().replace("|", "\\|")
    return f"`` {plain} ``" if "`" in plain else f"`{plain}`"


def page() -> str:
    """Return the whole page."""
    return HEAD + "\n".join(found_rows()) + "\n" + UNSEEN + "\n".join(refused_rows()) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
