"""Check the documents: links lead somewhere, files they name exist, generated pages are up to date.

`python -m tools.check_docs` prints every mistake and ends with 1 if there is one.
"""

from __future__ import annotations

import re
import sys
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from headwater_config import reference as settings_reference

from tools import command_reference, error_reference, metrics_reference, mistake_reference
from tools.checkout import ROOT, files, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"^```.*?^```|^ {4}.*?$|`[^`\n]*`", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"[\w./-]*\w\.md\b")


def anchors(text: str) -> set[str]:
    """Return the anchors that a page's headings make."""
    plain = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in _HEADING.findall(plain)}


def broken_links(pages: Iterable[str]) -> Iterator[str]:
    """Yield a line for each link of a page that leads to no file or no heading of the checkout."""
    for page in pages:
        text = text_of(page) or ""
        for target in _LINK.findall(_CODE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue
            name, _, anchor = target.partition("#")
            path = (ROOT / page).parent / name if name else ROOT / page
            if not path.exists():
                yield f"{page}: link to {target}: there is no such file"
            elif anchor and anchor not in anchors(path.read_text("utf-8")):
                yield f"{page}: link to {target}: there is no such heading"


def missing_pages(paths: Iterable[str]) -> Iterator[str]:
    """Yield a line for each document that a file names and that the checkout does not hold."""
    pages = {PurePosixPath(path).parts for path in files() if path.endswith(".md")}
    for path in paths:
        for named in sorted(set(_NAMED.findall(text_of(path) or ""))):
            parts = PurePosixPath(named.lstrip("./")).parts
            if not any(page[-len(parts) :] == parts for page in pages):
                yield f"{path}: names {named}: there is no such document"


def outdated_pages() -> Iterator[str]:
    """Yield a line for each generated page that is not what its generator writes now."""
    for generator in (
        settings_reference,
        error_reference,
        mistake_reference,
        metrics_reference,
        command_reference,
    ):
        if not generator.PAGE.exists() or generator.PAGE.read_text("utf-8") != generator.page():
            yield f"{generator.PAGE.relative_to(ROOT)}: out of date; run: python -m {generator.__name__}"


def mistakes() -> list[str]:
    """Return all mistakes."""
    pages = [path for path in files() if path.endswith(".md")]
    endings = (".py", ".md", ".toml", ".sh", "Makefile", "Dockerfile", ".ci/run")
    sources = [path for path in files() if path.endswith(endings) and not path.startswith("tests/repo/")]
    return [*broken_links(pages), *missing_pages(sources), *outdated_pages()]


def main() -> None:
    """Print the mistakes."""
    found = mistakes()
    print("\n".join(found) if found else "docs: links, named files and generated pages are right")
    sys.exit(bool(found))


if __name__ == "__main__":
    main()
