"""What a setting is declared with, and how a value is checked against it.

Written by hand: a library for it would keep 8 MB of the daemon's memory for what is done once, at its start.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MIB = 1024 * 1024
_YES_NO = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


@dataclass(frozen=True, slots=True)
class About:
    """Describes a setting; stands beside its type.

    Attributes:
        text: What it is, without its unit.
        why: When one would change it.
        unit: Unit of the number; also the last word of the setting's name.
        group: Heading that begins with this setting.
        ge: Smallest value.
        le: Largest value.
        check: Of a text, raises ValueError where it says nothing.
    """

    text: str
    why: str
    unit: str = ""
    group: str = ""
    ge: float | None = None
    le: float | None = None
    check: Callable[[str], object] | None = None


@dataclass(frozen=True, slots=True)
class Declaration:
    """One setting as it is declared.

    Attributes:
        name: Its name.
        type: int, float, bool, str or Path; for a choice, `str`.
        choices: The texts that may be chosen; empty unless it is a choice.
        default: Its value where none is given.
        about: All else.
    """

    name: str
    type: type
    choices: tuple[str, ...]
    default: Any
    about: About

    def checked(self, value: object) -> object:
        """Return a value as the setting has it; texts are converted.

        Raises:
            ValueError: It does not fit; says what would.
        """
        if self.choices:
            if value not in self.choices:
                raise ValueError(f"must be {' or '.join(map(repr, self.choices))}")
            return value
        if self.type is Path:
            if not isinstance(value, str | Path):
                raise ValueError("must be a path")
            return Path(value)
        if self.type is str:
            if not isinstance(value, str):
                raise ValueError("must be a text")
            if self.about.check is not None:
                self.about.check(value)
            return value
        if self.type is bool:
            found = _YES_NO.get(value.lower()) if isinstance(value, str) else value
            if not isinstance(found, bool):
                raise ValueError("must be true or false")
            return found
        return self._number(value)

    def _number(self, value: object) -> float:
        what = "an integer" if self.type is int else "a number"
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise ValueError(f"must be {what}")
        try:
            number: float = self.type(value)
        except (ValueError, OverflowError):
            raise ValueError(f"must be {what}") from None
        if not isinstance(value, str) and number != value:
            raise ValueError(f"must be {what}")
        least, most = self.about.ge, self.about.le
        if (least is not None and not number >= least) or (most is not None and not number <= most):
            raise ValueError(f"must be from {least} to {most}")
        return number


def declarations(settings: type) -> Mapping[str, Declaration]:
    """Return what a class of settings declares, by name, in order."""
    hints = get_type_hints(settings, include_extras=True)
    found = {}
    for field in fields(settings):
        kind, about = get_args(hints[field.name])
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        plain = next(part for part in get_args(kind) or (kind,) if part is not NoneType)
        found[field.name] = Declaration(field.name, str if choices else plain, choices, field.default, about)
    return MappingProxyType(found)
