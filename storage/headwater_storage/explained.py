"""A transaction that notes what each of its reads cost. It is slower, so it takes the place of others only to explain a call."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from headwater_protocol.ids import SUFFIX_LENGTH

from headwater_storage.catalog import FIRST_USER_TABLE, SYSTEM_HANDLES
from headwater_storage.keys import document_parts
from headwater_storage.readset import ReadSet
from headwater_storage.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from headwater_protocol.documents import StoredDocument

    from headwater_storage.bounds import Bound
    from headwater_storage.catalog import Catalog
    from headwater_storage.limits import CallLimits
    from headwater_storage.proposal import Range
    from headwater_storage.readset import Scan
    from headwater_storage.store import StoreSnapshot

READS_MAX = 1_000
"""So many different reads are told one by one."""


class ReadCost(NamedTuple):
    """One range, or one document by its id, and what reading it cost.

    Attributes:
        lo: Where the range begins; the key of the document.
        hi: Where it ends: behind what was consumed of it; empty for a document.
        times: How often it was read.
        documents: How many documents were read, each time counted.
        size: Their encoded bytes.
    """

    lo: bytes
    hi: bytes
    times: int
    documents: int
    size: int


class WriteCost(NamedTuple):
    """What a transaction would write to one table.

    Attributes:
        table: Name of the table.
        deed: `inserted`, `changed` or `deleted`.
        documents: How many documents.
        size: Their encoded bytes.
    """

    table: str
    deed: str
    documents: int
    size: int


class _Tally:
    """One read that is noted: a scan that may go on, or a range or document that was read at once."""

    __slots__ = ("documents", "place", "size")

    def __init__(self, place: Scan | Range) -> None:
        self.place = place
        self.documents = 0
        self.size = 0


class _NotingReads(ReadSet):
    """A read set that knows its newest scan, and notes ranges that were read at once."""

    def __init__(self, ranges_max: int) -> None:
        super().__init__(ranges_max)
        self.newest: Scan | None = None
        self.whole: list[Range] = []

    def add_range(self, lo: bytes, hi: bytes) -> None:
        super().add_range(lo, hi)
        if len(self.whole) < READS_MAX:
            self.whole.append((lo, hi))

    def scan(self, lo: bytes, hi: bytes, *, descending: bool) -> Scan:
        self.newest = scan = super().scan(lo, hi, descending=descending)
        return scan


class ExplainedTransaction(Transaction):
    """See the module.

    Attributes:
        clock_read: Whether anything has asked for the time of the call.
        more: How many reads were not noted, as there were too many.
    """

    def __init__(
        self,
        snapshot: StoreSnapshot,
        catalog: Catalog,
        limits: CallLimits,
        *,
        now_us: int,
        random_bytes: Callable[[int], bytes],
        writable: bool,
    ) -> None:
        super().__init__(
            snapshot, catalog, limits, now_us=now_us, random_bytes=random_bytes, writable=writable
        )
        self._noting = self._reads = _NotingReads(limits.ranges_max)
        self._tallies: list[_Tally] = []
        self._gets: dict[bytes, _Tally] = {}
        self.clock_read = False
        self.more = 0

    @property
    def now_us(self) -> int:
        """The time of the call; asking for it is noted."""
        self.clock_read = True
        return self._now_us

    @now_us.setter
    def now_us(self, value: int) -> None:
        self._now_us = value

    def get(self, document_id: str, *, counted: bool = True) -> StoredDocument | None:
        """Read one document, noted."""
        found = super().get(document_id, counted=counted)
        handle = self._handle_of(document_id)
        if handle is not None:
            key = handle.prefix + document_id[-SUFFIX_LENGTH:].encode()
            tally = self._gets.get(key)
            if tally is None:
                tally = _Tally((key, b""))
                self._gets[key] = tally
                self._note(tally)
            if found is not None:
                tally.documents += 1
                tally.size += len(found.document)
        return found

    def read_range(
        self,
        table: str,
        index: str | None,
        equal: Sequence[Any],
        lower: Bound | None,
        upper: Bound | None,
        *,
        descending: bool,
        after: bytes | None = None,
        until: bytes | None = None,
    ) -> Iterator[StoredDocument]:
        """Read a range lazily, noted."""
        return self._noted(
            super().read_range(
                table, index, equal, lower, upper, descending=descending, after=after, until=until
            )
        )

    def read_costs(self) -> list[ReadCost]:
        """Return what was read so far, equal ones together, in the order of their first reading."""
        found: dict[Range, ReadCost] = {}
        at_once = [_Tally(place) for place in [*self._noting.whole, *self._points_beside()]]
        for tally in (*self._tallies, *at_once):
            place = tally.place if isinstance(tally.place, tuple) else tally.place.consumed()
            if place is None:
                continue
            before = found.get(place, ReadCost(*place, 0, 0, 0))
            found[place] = ReadCost(
                *place, before.times + 1, before.documents + tally.documents, before.size + tally.size
            )
        return list(found.values())

    def write_costs(self) -> list[WriteCost]:
        """Return what it would write so far, by table and deed; rows of the system left out."""
        documents: Counter[tuple[str, str]] = Counter()
        sizes: Counter[tuple[str, str]] = Counter()
        for change in self._changes.values():
            if change.is_void():
                continue
            deed = "deleted" if change.document is None else "inserted" if not change.original else "changed"
            documents[change.handle.definition.name, deed] += 1
            sizes[change.handle.definition.name, deed] += len(change.document or b"")
        return [WriteCost(*kind, count, sizes[kind]) for kind, count in documents.items()]

    def _points_beside(self) -> Iterator[Range]:
        """Yield documents that were read otherwise than by `get`, as those are that are deleted unseen."""
        for key in self._noting.points - self._gets.keys():
            number, _ = document_parts(key)
            if number >= FIRST_USER_TABLE or number in SYSTEM_HANDLES:
                yield key, b""

    def _noted(self, found: Iterable[StoredDocument]) -> Iterator[StoredDocument]:
        tally: _Tally | None = None
        for stored in found:
            if tally is None:
                tally = self._begun()
            tally.documents += 1
            tally.size += len(stored.document)
            yield stored
        if tally is None:
            self._begun()

    def _begun(self) -> _Tally:
        """Note the scan that has begun in this very step."""
        scan = self._noting.newest
        assert scan is not None, "reading a range makes a scan"
        tally = _Tally(scan)
        self._note(tally)
        return tally

    def _note(self, tally: _Tally) -> None:
        if len(self._tallies) < READS_MAX:
            self._tallies.append(tally)
        else:
            self.more += 1
