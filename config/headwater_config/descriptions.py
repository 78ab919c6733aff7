"""What the declarations of the settings say, in words: for the reference page and `--help`."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from headwater_config.settings import ENVIRONMENT_PREFIX, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic.fields import FieldInfo


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
    schema = Settings.model_json_schema()["properties"]
    found = {name: _description(name, field, schema[name]) for name, field in Settings.model_fields.items()}
    return MappingProxyType(found)


def _description(name: str, field: FieldInfo, schema: Mapping[str, Any]) -> Description:
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "yes or no"}
    kind = " or ".join(f"`{choice}`" for choice in schema["enum"]) if "enum" in schema else ""
    if not kind:
        kind = "path" if "anyOf" in schema or schema.get("format") == "path" else words[schema["type"]]
    bounds = [_number(schema[key]) for key in ("minimum", "maximum") if key in schema]
    return Description(
        name=name,
        kind=kind,
        default=_default(field.default),
        bounds=" to ".join(bounds),
        unit=schema["unit"],
        text=schema["description"],
        why=schema["why"],
        group=schema["group"],
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
