from __future__ import annotations

from headwater_config.declarations import declarations
from headwater_config.reference import PAGE, page
from headwater_config.settings import Settings


def test_the_page_in_the_repository_is_the_generated_one() -> None:
    assert PAGE.read_text("utf-8") == page(), "run: python -m headwater_config.reference"


def test_the_page_has_every_setting_under_a_heading() -> None:
    text = page()
    assert [name for name in declarations(Settings) if f"### `{name}`" not in text] == []
    assert "## Storage" in text
