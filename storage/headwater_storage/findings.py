"""What is wrong with files on disk, and where. Pure."""

from __future__ import annotations

from typing import NamedTuple


class Finding(NamedTuple):
    """One thing that is not as it should be.

    Attributes:
        file: In which file; None if it is in no particular one.
        offset: Where in it, in bytes; None if it is about no particular place.
        text: What is wrong.
    """

    file: str | None
    offset: int | None
    text: str

    def __str__(self) -> str:
        """Return all of it as one line."""
        if self.file is None:
            return self.text
        return (
            f"{self.file}: {self.text}"
            if self.offset is None
            else f"{self.file}, offset {self.offset}: {self.text}"
        )
