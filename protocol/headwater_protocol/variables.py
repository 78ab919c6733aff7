"""Environment variables of a deployment: what they may be called, and the rows that they are stored as.

Pure. A secret one is stored sealed, so that nobody has it who has the files alone; whoever reads it opens it with a
key that is kept elsewhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError
from headwater_protocol.values import pack_value, unpack_value

if TYPE_CHECKING:
    from collections.abc import Callable

_NAME = re.compile(r"[A-Z][A-Z0-9_]*").fullmatch
_SHOWN = 100


@dataclass(frozen=True, slots=True)
class VariableRow:
    """A variable as it is stored.

    Attributes:
        value: What it is; None for one that is sealed.
        sealed: That of a secret one.
        updated_us: When it was set, µs since 1970.
    """

    value: str | None
    sealed: bytes | None
    updated_us: int

    def to_bytes(self) -> bytes:
        """Return it encoded."""
        return pack_value({"value": self.value, "sealed": self.sealed, "updated_us": self.updated_us})

    @classmethod
    def from_bytes(cls, data: bytes) -> VariableRow:
        """Read what `to_bytes` wrote."""
        return cls(**unpack_value(data))

    def text(self, name: str, unseal: Callable[[str, bytes], str]) -> str:
        """Return what it is, opened if it is sealed."""
        return self.value if self.value is not None else unseal(name, self.sealed or b"")


def checked_name(name: str, characters_max: int) -> str:
    """Return a name that a variable may have.

    Raises:
        RequestError: This is none.
    """
    if not _NAME(name) or len(name) > characters_max:
        raise RequestError(
            f"{name[:_SHOWN]!r} cannot name a variable: use capital letters, digits and underscores, a letter first,"
            f" {characters_max} at most"
        )
    return name
