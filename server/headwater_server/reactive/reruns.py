"""What made live queries stale, and how often they were run again for it.

Pure. Of each rerun a line is kept in one bounded log, whatever the number of live queries; a live query itself
carries counters only. The lines name a key and a function; they become text where somebody asks.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from headwater_server.reactive.sessions import LiveQuery, Version


class Writers(Protocol):
    """Knows who wrote what in a batch."""

    def __call__(self, keys: set[bytes], /) -> Mapping[bytes, str]:
        """Return the function that wrote each of some keys; without those that the server itself wrote."""
        ...


class Cause(NamedTuple):
    """Why a live query became stale.

    Attributes:
        number: Rises with each.
        query: Number of the live query.
        ts: When: the end of the batch.
        key: What it had read and was written: the first key that was found of perhaps several.
        function: Who wrote it; "" if it was no function: a deploy, or what the server keeps itself.
    """

    number: int
    query: int
    ts: int
    key: bytes
    function: str


class RerunLog:
    """The causes of the newest reruns.

    Args:
        kept: So many.
    """

    def __init__(self, kept: int) -> None:
        self._causes: deque[Cause] = deque(maxlen=kept)
        self.noted = 0

    def stale(self, hits: Mapping[Version, bytes], ts: int, writers: Writers) -> None:
        """Note which versions a batch has ended, and which key did."""
        functions = writers(set(hits.values()))
        for version, key in hits.items():
            function = functions.get(key, "")
            for query in version.homes:
                self.noted += 1
                self._causes.append(Cause(self.noted, query.number, ts, key, function))
                query.ended(version)

    def of(self, numbers: Collection[int], after: int = 0) -> list[Cause]:
        """Return what is kept of some live queries, the oldest first; only later ones than the cause of a number."""
        return [cause for cause in self._causes if cause.query in numbers and cause.number > after]


class LiveReport(NamedTuple):
    """How live queries get on that are one to their developer: the same function and arguments.

    Attributes:
        queries: How many they are: with pages, each has its own.
        subscribers: How many look at them.
        held: Whether one of them has a result that is right now and that the caller may see.
        reruns: How often a result took the place of one that had become stale.
        unchanged: How many of those were equal to what they replaced.
        causes: Of the newest.
    """

    queries: int
    subscribers: int
    held: bool
    reruns: int
    unchanged: int
    causes: list[Cause]


def report(
    queries: Iterable[LiveQuery], log: RerunLog, identity: bytes | None, published_ts: int, after: int
) -> LiveReport:
    """Return how some live queries get on, as somebody sees it who asks now."""
    found = list(queries)
    return LiveReport(
        len(found),
        sum(query.subscribers for query in found),
        any(query.result_at(identity, published_ts) is not None for query in found),
        sum(query.reruns for query in found),
        sum(query.unchanged for query in found),
        log.of({query.number for query in found}, after),
    )
