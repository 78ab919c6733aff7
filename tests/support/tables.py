"""Tables and indexes as a bundle's manifest declares them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class IndexOf:
    """An index."""

    name: str
    fields: list[str]
    unique: bool = False
    defaults: dict[str, bytes] = field(default_factory=dict)


@dataclass
class TableOf:
    """A table that takes any document."""

    name: str
    indexes: list[IndexOf] = field(default_factory=list)
    shape: str = "{}"
