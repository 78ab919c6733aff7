"""Addresses of HTTP routes: how they are written, which of them a path belongs to, and which cannot stand side by side.

Pure. A pattern is `/hooks/{name}` or, to its end, `/files/{path:rest}`. Paths are taken apart before they are
decoded, so that an encoded slash stays in its part; what could lead out of a folder is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote_to_bytes

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
PATTERN_CHARACTERS_MAX = 1000
_REST = ":rest"
_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@-]+").fullmatch
_PERCENT = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_BREAKS = re.compile(r"[/\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Part(NamedTuple):
    """One part of a pattern, between two slashes.

    Attributes:
        rank: 0: the text itself; 1: a parameter; 2: a parameter that takes all that is left. What sorts first fits more closely.
        text: The text; of a parameter nothing, so that patterns which differ in names alone are equal.
    """

    rank: int
    text: str = ""


@dataclass(frozen=True, slots=True)
class Pattern:
    """An address with its parameters.

    Attributes:
        path: As it is written.
        parts: What it consists of.
        names: Its parameters, in order.
    """

    path: str
    parts: tuple[Part, ...]
    names: tuple[str, ...]

    @property
    def rest(self) -> str | None:
        """The parameter that takes all that is left, None without one."""
        return self.names[-1] if self.parts[-1].rank == 2 else None

    def match(self, segments: tuple[str, ...]) -> dict[str, str] | None:
        """Return the parameters of a path that fits, None for one that does not."""
        parts = self.parts
        if len(segments) < len(parts) or (self.rest is None and len(segments) != len(parts)):
            return None
        values = []
        for place, part in enumerate(parts):
            if part.rank == 2:
                values.append("/".join(segments[place:]))
            elif part.rank == 1 and segments[place]:
                values.append(segments[place])
            elif part.rank == 1 or segments[place] != part.text:
                return None
        return dict(zip(self.names, values, strict=True))


def parse_pattern(path: str) -> Pattern:
    """Read a pattern as an author writes it.

    Raises:
        RequestError: `invalid_bundle`, with what is wrong.
    """
    if not path.startswith("/") or len(path) > PATTERN_CHARACTERS_MAX:
        raise _refused(path, f"a path begins with / and has at most {PATTERN_CHARACTERS_MAX} characters")
    texts = path[1:].split("/")
    parts: list[Part] = []
    names: list[str] = []
    for place, text in enumerate(texts):
        is_last = place == len(texts) - 1
        part, name = _part(path, text, is_last=is_last)
        if name in names:
            raise _refused(path, f"two of its parameters are called `{name}`")
        parts.append(part)
        names += [name] * bool(name)
    return Pattern(path, tuple(parts), tuple(names))


def _part(path: str, text: str, *, is_last: bool) -> tuple[Part, str]:
    if text.startswith("{") and text.endswith("}"):
        name = text[1:-1]
        takes_rest = name.endswith(_REST)
        name = name.removesuffix(_REST)
        if not name.isidentifier() or not name.isascii():
            raise _refused(path, f"{text!r} is no parameter: write {{name}}, or {{name:rest}} at the end")
        if takes_rest and not is_last:
            raise _refused(path, f"{text!r} takes all that is left, so nothing can stand behind it")
        return Part(2 if takes_rest else 1), name
    if text in (".", ".."):
        raise _refused(path, f"{text!r} is a step and no name")
    if not text and is_last:
        return Part(0, ""), ""
    if not _LITERAL(text):
        raise _refused(
            path, f"{text!r} is neither plain text for an address nor one whole parameter as {{name}}"
        )
    return Part(0, text), ""


def _refused(path: str, problem: str) -> RequestError:
    return RequestError(f"the path {path[:200]!r}: {problem}", code="invalid_bundle")


def segments_of(raw_path: str) -> tuple[str, ...]:
    """Take the path of a request apart and decode its parts.

    Args:
        raw_path: As it was sent, from its slash on, without a query.

    Raises:
        RequestError: `invalid_request`: it is not encoded as it should be, or a part of it would lead out of a folder.
    """
    if not raw_path.startswith("/"):
        raise RequestError("the path does not begin with /")
    if not raw_path.isascii() or _PERCENT.search(raw_path.encode()):
        raise RequestError("the path is not percent-encoded as it should be")
    try:
        segments = tuple(unquote_to_bytes(part).decode() for part in raw_path[1:].split("/"))
    except UnicodeDecodeError:
        raise RequestError("the path is not UTF-8") from None
    for segment in segments:
        if _CONTROL.search(segment) or any(step in (".", "..") for step in _BREAKS.split(segment)):
            raise RequestError("the path has steps (`.` or `..`) or control characters in it")
    return segments


class Candidate(NamedTuple):
    """A route that may be asked for.

    Attributes:
        method: One of `METHODS`.
        pattern: Its address.
        route: What it is, for who made the table.
    """

    method: str
    pattern: Pattern
    route: Any


class Found(NamedTuple):
    """What a path leads to.

    Attributes:
        route: Of the asked method; None: the path has none of it.
        parameters: Its parameters, decoded.
        methods: The methods that the path has; empty: nothing is there.
    """

    route: Any
    parameters: Mapping[str, str]
    methods: frozenset[str]


class RouteTable:
    """The routes of a bundle.

    Of the routes of one method that a path fits, the one counts that fits most closely: compared part by part from
    the left, a text comes before a parameter, and that before one that takes all that is left.

    Args:
        candidates: The routes, no two of them `twin`.
    """

    def __init__(self, candidates: Iterable[Candidate] = ()) -> None:
        self._candidates = sorted(candidates, key=lambda one: (one.pattern.parts, one.method))

    def find(self, method: str, segments: tuple[str, ...]) -> Found:
        """Return what a path leads to; HEAD is taken for GET."""
        wanted = "GET" if method == "HEAD" else method
        methods: set[str] = set()
        route, parameters = None, {}
        for candidate in self._candidates:
            values = candidate.pattern.match(segments)
            if values is None:
                continue
            methods.add(candidate.method)
            if route is None and candidate.method == wanted:
                route, parameters = candidate.route, values
        if "GET" in methods:
            methods.add("HEAD")
        return Found(route, parameters, frozenset(methods))


def twin(one: Candidate, others: Iterable[Candidate]) -> Candidate | None:
    """Return another route that takes the same requests, None if there is none: which of them counts could not be told."""
    return next(
        (other for other in others if (other.method, other.pattern.parts) == (one.method, one.pattern.parts)),
        None,
    )
