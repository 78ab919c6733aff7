"""Names with values as HTTP has them, several of one name included: headers, query parameters, form fields.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

Pairs = Mapping[str, str] | Iterable[tuple[str, str]]

HEADERS_MAX = 128
HEADER_BYTES_MAX = 16 * 1024
OURS = frozenset(
    {
        "connection",
        "content-length",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers of an answer that say how it is sent, which is not up to a route."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+").fullmatch
_UNSENDABLE = re.compile(r"[^\t\x20-\x7e]")


def _pairs_of(pairs: Pairs) -> Iterable[tuple[str, str]]:
    match pairs:
        case Mapping():
            return pairs.items()  # pyright: ignore[reportReturnType]  # a mapping is also an iterable, of anything
    return pairs


class Fields(Mapping[str, str]):
    """Names with values. As a mapping it has the first value of each name.

    Args:
        pairs: A mapping, or pairs of name and value.
    """

    def __init__(self, pairs: Pairs = ()) -> None:
        self._pairs = tuple(_pairs_of(pairs))
        self._first: dict[str, str] = {}
        for name, value in self._pairs:
            self._first.setdefault(self._key(name), value)

    @staticmethod
    def _key(name: str) -> str:
        return name

    def __getitem__(self, name: str) -> str:
        return self._first[self._key(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._first)

    def __len__(self) -> int:
        return len(self._first)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({list(self._pairs)!r})"

    @property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """All of it, in order."""
        return self._pairs

    def get_all(self, name: str) -> list[str]:
        """Return all values of a name, in order."""
        key = self._key(name)
        return [value for other, value in self._pairs if self._key(other) == key]


class Headers(Fields):
    """Headers: as `Fields`, and the case of a name does not matter."""

    @staticmethod
    def _key(name: str) -> str:
        return name.lower()


def header_problem(headers: Iterable[tuple[str, str]]) -> str | None:
    """Return what is wrong with the headers of an answer, None if they can be sent.

    A line break in one would be the end of it, and let whoever chose the value write headers or an answer of their own.
    """
    size = 0
    for number, (name, value) in enumerate(headers, 1):
        if not isinstance(name, str) or not isinstance(value, str):
            return f"header {name!r}: names and values are text, got {type(value).__name__}"
        if not _NAME(name):
            return f"{name[:100]!r} cannot be the name of a header"
        if name.lower() in OURS:
            return f"the header {name} says how an answer is sent, and is set by the server"
        if wrong := _UNSENDABLE.search(value):
            return f"the value of the header {name} has {wrong[0]!r} in it, which a header cannot have: it is printable ASCII"
        size += len(name) + len(value)
        if number > HEADERS_MAX or size > HEADER_BYTES_MAX:
            return f"an answer has at most {HEADERS_MAX} headers with {HEADER_BYTES_MAX} bytes in all"
    return None
