"""Which mutations lost to which others, and on which table."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from prometheus_client import Counter as CounterMetric

_ROWS_MAX = 1_000
_OTHER = "other"


class Lost(NamedTuple):
    """Who lost to whom.

    Attributes:
        function: Whose proposal had to be rerun.
        table: Where both met; "" if that is not known.
        lost_to: Whose commit came first; "" if that is not known, or was none of a function.
    """

    function: str
    table: str
    lost_to: str


class Named(Protocol):
    """A mutation.

    Attributes:
        name: Function.
    """

    name: str


class ConflictCounts:
    """Counts conflicts since the start of the daemon; beyond a number of kinds, further ones are counted together.

    Args:
        table_of: Tells the table that a key belongs to.
        metric: Counts them by function and table, too.
    """

    def __init__(self, table_of: Callable[[bytes], str], metric: CounterMetric) -> None:
        self._table_of = table_of
        self._metric = metric
        self._counts: Counter[Lost] = Counter()
        self._tables: dict[bytes, str] = {}  # by what keys begin with: numbers are never used again

    def lost(self, call: Named, key: bytes | None, other: Named | None) -> None:
        """Count that a mutation has lost to another one.

        Args:
            call: Who lost.
            key: What it had read and the other one wrote, None if that is not known.
            other: Who came first, None if that is not known.
        """
        lost = Lost(call.name, "" if key is None else self._table(key), "" if other is None else other.name)
        if lost not in self._counts and len(self._counts) >= _ROWS_MAX:
            lost = Lost(_OTHER, _OTHER, _OTHER)
        self._counts[lost] += 1
        self._metric.labels(lost.function, lost.table).inc()

    def of(self, function: str = "") -> list[tuple[Lost, int]]:
        """Return how often who lost to whom, the most frequent first; of one function only if it is said."""
        return [
            (lost, count) for lost, count in self._counts.most_common() if function in ("", lost.function)
        ]

    def _table(self, key: bytes) -> str:
        space = key[:4]
        table = self._tables.get(space)
        if table is None:
            table = self._tables[space] = self._table_of(key)
        return table
