"""Write `docs/reference/commands.md` from the command line itself.

`python -m tools.command_reference`
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer
from headwater.cli.main import EPILOG, app

from tools.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = ROOT / "docs" / "reference" / "commands.md"

_DAEMONS = ("serve", "doctor", "config")
_INTRODUCTION = f"""\
# Commands

Generated from `sdk/headwater/cli`; do not edit.

Data goes to standard output, talk to standard error. {EPILOG} Those of the daemon are in [exit codes](exit-codes.md).
On a terminal lists are tables; `--json` prints one line of JSON for each value, as does an output that is no terminal.
`headwater --install-completion` teaches bash, zsh and fish to complete commands and options.
"""


def page() -> str:
    """Return the reference page."""
    root: Any = typer.main.get_command(app)
    return _INTRODUCTION + "".join(
        text for name in root.commands for text in _told(root.commands[name], name)
    )


def _told(command: Any, name: str) -> Iterator[str]:
    if hasattr(command, "commands"):
        for inner in command.commands:
            yield from _told(command.commands[inner], f"{name} {inner}")
        return
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    words = " ".join(["headwater", name, *(each.metavar or each.name.upper() for each in arguments)])
    yield f"\n## `{words}`\n\n{' '.join((command.help or '').split())}\n"
    if name in _DAEMONS:
        yield "\nFurther options are [settings](settings.md), as in `--port 4600`.\n"
    options = [each for each in command.params if each.param_type_name == "option"]
    if arguments or options:
        yield "\n| | |\n| --- | --- |\n"
    for each in arguments:
        yield f"| `{each.metavar or each.name.upper()}` | {_help(each)} |\n"
    for each in options:
        spelt = ", ".join(f"`{word}`" for word in (*each.opts, *each.secondary_opts))
        value = "" if each.is_flag else f" {each.metavar or each.name.upper()}"
        yield f"| {spelt}{value} | {_help(each)} |\n"


def _help(parameter: Any) -> str:
    text = " ".join((parameter.help or "").split()).replace("|", "\\|")
    shown = parameter.default
    if parameter.param_type_name == "option" and shown is not None and not parameter.is_flag:
        text += f" Default: `{shown}`."
    return text


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), "utf-8")
    print(PAGE)


if __name__ == "__main__":
    main()
