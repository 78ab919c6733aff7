"""What the declarations of the settings say, in words: for the reference page and `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from headwater_config.declarations import Declaration, declarations
from headwater_config.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

_KINDS = {str: "text", int: "whole number", float: "number", bool: "yes or no", Path: "path"}


@dataclass(frozen=True, slots=True)
class Description:
    """What the declaration of one setting says, ready to be printed.

    Attributes:
        name: As in the file; the flag and the variable are made from it.
        kind: Type in words.
        default: Default in words.
        bounds: Least and largest value in words, "" if there are none.
        unit: Unit of the number, "" if there is none.
        text: What it is.
        why: When one would change it.
        group: Heading that begins here, "" within a group.
    """

    name: str
    kind: str
    default: str
    bounds: str
    unit: str
    text: str
    why: str
    group: str

    @property
    def flag(self) -> str:
        """The flag on the daemon's command line."""
        return "--" + self.name.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable."""
        return ENVIRONMENT_PREFIX + self.name.upper()


def descriptions() -> Mapping[str, Description]:
    """Return what is declared, by name, in order."""
    found = {name: _description(item) for name, item in declarations(Settings).items()}
    return MappingProxyType(found)


def _description(item: Declaration) -> Description:
    about = item.about
    bounds = [_number(bound) for bound in (about.ge, about.le) if bound is not None]
    return Description(
        name=item.name,
        kind=" or ".join(f"`{choice}`" for choice in item.choices) or _KINDS[item.type],
        default=_default(item.default),
        bounds=" to ".join(bounds),
        unit=about.unit,
        text=about.text,
        why=about.why,
        group=about.group,
    )


def _default(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return _number(value) if isinstance(value, int | float) else str(value)


def _number(value: float) -> str:
    """Return a number as one would write it into the file; underscores once it is hard to read."""
    if value != int(value):
        return str(value)
    return str(int(value)) if abs(value) < 100_000 else f"{int(value):_}"
