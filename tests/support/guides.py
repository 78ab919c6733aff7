"""The code of a guide: its blocks, and the files that they make.

A block whose first line is a comment with a file's name is that file, or more of it. Others are commands or
excerpts; the test of the guide says which it runs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from tools.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE = re.compile(r"# ([\w./-]+\.\w+)\n")
GUIDES = ROOT / "docs" / "guides"


class Block(NamedTuple):
    """One block: its language, the file it belongs to (None: none), its text without that name."""

    language: str
    file: str | None
    text: str


def blocks(guide: str) -> list[Block]:
    """Return the blocks of a guide, in order."""
    found = []
    for language, text in _BLOCK.findall((GUIDES / f"{guide}.md").read_text()):
        named = _FILE.match(text)
        found.append(Block(language, named[1], text[named.end() :]) if named else Block(language, None, text))
    return found


def write_files(guide: str, folder: Path) -> None:
    """Write the files of a guide; folders with modules become packages."""
    for block in blocks(guide):
        if block.file is None:
            continue
        path = folder / block.file
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.parent != folder:
            (path.parent / "__init__.py").touch()
        with path.open("a") as file:
            file.write(f"\n\n{block.text}" if path.stat().st_size else block.text)
