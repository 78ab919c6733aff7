from __future__ import annotations

from typing import TYPE_CHECKING

from tools import check_docs

if TYPE_CHECKING:
    from pathlib import Path


def test_links_lead_somewhere_named_documents_exist_and_generated_pages_are_current() -> None:
    mistakes = check_docs.mistakes()
    assert not mistakes, "\n".join(mistakes)


def test_headings_make_anchors_as_on_the_web() -> None:
    assert check_docs.anchors("# One page\n## Life of a `query`, in short\n```\n# no heading\n```\n") == {
        "one-page",
        "life-of-a-query-in-short",
    }


def test_links_that_lead_nowhere_are_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# Here\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[a](other.md) [b](other.md#here) [c](https://example.org/x) `[d](code.md)` [e](#own)\n# Own\n"
    )
    assert list(check_docs.broken_links([str(page)])) == []
    page.write_text("[a](gone.md) [b](other.md#gone) [c](#gone)\n")
    assert len(list(check_docs.broken_links([str(page)]))) == 3


def test_documents_that_are_named_but_missing_are_found(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("# see ARCHITECTURE" + ".md, reference/settings" + ".md and no-such-page" + ".md\n")
    (mistake,) = check_docs.missing_pages([str(source)])
    assert "names no-such-page" in mistake
