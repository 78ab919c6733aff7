"""The reference page of the settings.

`python -m headwater_config.reference` writes the page into the checkout's `docs/`.
"""

from __future__ import annotations

import sys
from pathlib import Path

from headwater_config.descriptions import Description, descriptions

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"

_INTRODUCTION = """\
# Settings

Generated from `config/headwater_config/groups/`; do not edit.

The daemon reads `headwater.toml` in its folder (or the file that `--config` or `HEADWATER_CONFIG` names), then
environment variables, then flags; each overrides the one before. A setting `tcp_port` is `tcp_port = 4511` in the
file, `HEADWATER_TCP_PORT=4511` in the environment and `--tcp-port 4511` on the command line of `headwater serve`.
Unknown names are errors. `headwater config` prints every value and where it came from.
"""


def page() -> str:
    """Return the reference page."""
    parts = [_INTRODUCTION]
    for item in descriptions().values():
        if item.group:
            parts.append(f"## {item.group}\n")
        parts.append(_entry(item))
    return "\n".join(parts)


def _entry(item: Description) -> str:
    unit = f" {item.unit}" if item.unit else ""
    facts = [item.kind, f"default `{item.default}`{unit}"]
    if item.bounds:
        facts.append(f"from {item.bounds}")
    return f"### `{item.name}`\n\n{item.text}. ({'; '.join(facts)})\n\n{item.why}\n"


def main() -> None:
    """Write the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(page(), "utf-8")
    sys.stdout.write(f"{PAGE}\n")


if __name__ == "__main__":
    main()
