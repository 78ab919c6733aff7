"""How far a deploy is that has documents to check or indexes to build; a later deploy takes its place here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from headwater_storage.deployment import DeployGivenUpError
from headwater_storage.keys import NUMBER_BYTES, table_range

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from headwater_storage.indexes import IndexDefinition
    from headwater_storage.store import StoreSnapshot

_TIME_DIGITS = 11


@dataclass(slots=True)
class Step:
    """One thing that takes time.

    Attributes:
        what: Documents are checked, or an index is built.
        name: Of the table; `table.index` of an index.
        share: How much of it is done, from 0 to 1, by the time at which the documents were created.
        documents: How many documents this daemon has looked at for it.
    """

    what: Literal["documents", "index"]
    name: str
    share: float = 0.0
    documents: int = 0


class DeployProgress:
    """The steps of one deploy, in the order in which they began.

    Args:
        bundle: Hash of the bundle.
        tables: Names of the tables that there are, by number.
        snapshot: Opens the newest state.

    Attributes:
        steps: What has begun.
    """

    def __init__(self, bundle: str, tables: Mapping[int, str], snapshot: Callable[[], StoreSnapshot]) -> None:
        self.bundle = bundle
        self.steps: list[Step] = []
        self._tables = tables
        self._snapshot = snapshot
        self._spans: dict[int, tuple[int, int]] = {}
        self._successor = ""

    def supersede(self, bundle: str) -> None:
        """Have the deploy give up at its next part: another bundle is to be deployed."""
        self._successor = bundle

    def checked(self, table: int, key: bytes | None, documents: int) -> None:
        """Hear that so many more documents of a table were checked, up to a key; None: to the end.

        Raises:
            DeployGivenUpError: A later deploy takes its place.
        """
        self._advanced("documents", self._tables[table], table, key, documents)

    def built(self, index: IndexDefinition, key: bytes | None) -> None:
        """Hear that an index has the entries of all documents up to a key; None: of all.

        Raises:
            DeployGivenUpError: A later deploy takes its place.
        """
        self._advanced("index", f"{self._tables[index.table]}.{index.name}", index.table, key, 0)

    def _advanced(
        self, what: Literal["documents", "index"], name: str, table: int, key: bytes | None, documents: int
    ) -> None:
        step = next((step for step in self.steps if (step.what, step.name) == (what, name)), None)
        if step is None:
            step = Step(what, name)
            self.steps.append(step)
        step.documents += documents
        step.share = 1.0 if key is None else max(step.share, self._share(table, key))
        if self._successor:
            raise DeployGivenUpError(
                f"a later deploy, of bundle {self._successor[:12]}, takes the place of this one"
            )

    def _share(self, table: int, key: bytes) -> float:
        first, last = self._span(table)
        created = _created(key)
        return min(max((created - first) / (last - first), 0.0), 1.0) if last > first else 0.0

    def _span(self, table: int) -> tuple[int, int]:
        """Return when the first and the last document of a table were created, as of the first look."""
        if table not in self._spans:
            lo, hi = table_range(table)
            with self._snapshot() as snapshot:
                first = next(iter(snapshot.documents(lo, hi)), (lo, b""))[0]
                last = next(iter(snapshot.documents(lo, hi, True)), (lo, b""))[0]
            self._spans[table] = (_created(first), _created(last))
        return self._spans[table]


def _created(key: bytes) -> int:
    """Return the time in a document key, in µs; 0 for a key that ends before it."""
    return int(key[NUMBER_BYTES : NUMBER_BYTES + _TIME_DIGITS].decode() or "0", 32)
