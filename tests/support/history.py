"""Is a history strictly serializable? Decided from what clients saw, by looking for cycles.

Pure, and shares nothing with the database: it knows transactions, the lists they appended to, the items
they moved, and when they began and ended.

A list tells its own order of versions: the longest that was read holds all shorter ones as beginnings. An
item counts its versions. From that follow, between transactions, *ww* (next version), *wr* (version that
was read) and *rw* (version after the one that was read; also: item that was not yet there in a range that
was read). With *rt* (began after the other had ended) these edges have no cycle if and only if all
transactions could have run one after the other, in an order that agrees with time. Names of anomalies are
those of Adya: G0, G1a, G1b, G1c, G-single, G2; those with `-realtime` need edges of time.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict, deque
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Outcome(Enum):
    """How a transaction ended, as far as its client knows."""

    COMMITTED = "committed"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Append(NamedTuple):
    """Put a value, which nobody else ever puts, behind a list."""

    key: int
    value: int


class Read(NamedTuple):
    """Read a list."""

    key: int
    values: Sequence[int]


Position = tuple[int, int]
"""Where an item lies: group and place."""


class Placed(NamedTuple):
    """Make version 0 of an item, or the next of one that was read; without a position it is gone."""

    item: int
    version: int
    position: Position | None


class Found(NamedTuple):
    """Read a range of places; the versions of all items in it, and nothing else."""

    lo: Position
    hi: Position
    versions: dict[int, int]


Operation = Append | Read | Placed | Found


@dataclass(frozen=True, slots=True)
class Transaction:
    """What one client saw of one transaction.

    Attributes:
        number: Its name.
        began_s: Before it was sent.
        ended_s: After its answer came; infinite if none did.
        operations: In order. Of one that failed, or nobody knows of: what it would have written.
        outcome: How it ended.
    """

    number: int
    began_s: float
    ended_s: float
    operations: Sequence[Operation]
    outcome: Outcome = Outcome.COMMITTED


class Anomaly(NamedTuple):
    """What no serial order explains.

    Attributes:
        kind: Its name.
        text: What was seen.
    """

    kind: str
    text: str


_WW, _WR, _RW, _RT = range(4)
_SHOWN = 20
_TRIED = 200


@dataclass
class _Graph:
    """Edges by kind, between transactions `0 … count - 1` and moments behind them."""

    count: int
    edges: list[list[tuple[int, int]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.edges = [[] for _ in range(self.count)]

    def add(self, source: int, target: int, kind: int) -> None:
        if source != target:
            self.edges[source].append((target, kind))


class History:
    """One history under examination.

    Args:
        transactions: All that were begun.
        complete: The last ones read everything: an acknowledged append that no list holds is lost.
    """

    def __init__(self, transactions: Sequence[Transaction], *, complete: bool = True) -> None:
        self._all = transactions
        self._complete = complete
        self._anomalies: list[Anomaly] = []
        self._writer: dict[tuple[int, int], int] = {}
        self._final: dict[tuple[int, int], int] = {}  # the last value that a transaction gave a key
        self._graph = _Graph(len(transactions))

    def anomalies(self) -> list[Anomaly]:
        """Return everything that is wrong, what is simplest to understand first."""
        self._lists()
        self._items()
        self._time()
        for component in strong_components(self._graph.edges):
            members = [number for number in component if number < len(self._all)]
            if len(members) > 1:
                self._anomalies.append(self._cycle(members, set(component)))
        return self._anomalies

    @property
    def edges(self) -> int:
        """How many edges there are."""
        return sum(map(len, self._graph.edges))

    def _wrong(self, kind: str, index: int | None, text: str) -> None:
        name = "" if index is None else f"transaction {self._all[index].number}: "
        self._anomalies.append(Anomaly(kind, name + text))

    # ------------------------------------------------------------------ lists

    def _lists(self) -> None:
        for index, transaction in enumerate(self._all):
            for operation in transaction.operations:
                if isinstance(operation, Append):
                    assert operation not in self._writer, f"{operation} was asked for twice"
                    self._writer[operation] = index
                    self._final[index, operation.key] = operation.value
        reads = [(index, *read) for index in range(len(self._all)) for read in self._external_reads(index)]
        longest: dict[int, Sequence[int]] = {}
        for _, key, _, whole in reads:
            if len(whole) > len(longest.get(key, [])):
                longest[key] = whole
        for key, values in longest.items():
            self._list_order(key, values)
        for index, key, values, whole in reads:
            self._list_read(index, key, values, whole, longest.get(key, []))
        if self._complete:
            seen = {(key, value) for key, values in longest.items() for value in values}
            for append, index in self._writer.items():
                if append not in seen and self._all[index].outcome is Outcome.COMMITTED:
                    self._wrong("lost", index, f"its {append} is in no list")

    def _external_reads(self, index: int) -> Iterator[tuple[int, Sequence[int], Sequence[int]]]:
        """Yield key, what others had put there, and what was read, once for each key that was read."""
        transaction = self._all[index]
        if transaction.outcome is not Outcome.COMMITTED:
            return
        own: dict[int, list[int]] = defaultdict(list)
        first: dict[int, Sequence[int]] = {}
        for operation in transaction.operations:
            if isinstance(operation, Append):
                own[operation.key].append(operation.value)
            elif isinstance(operation, Read):
                key, values = operation
                mine = own.get(key, [])
                outer = values[: len(values) - len(mine)]
                if list(values[len(outer) :]) != mine:
                    self._wrong("internal", index, f"read {_short(values)} of {key} without its own {mine}")
                elif key not in first:
                    first[key] = outer
                    yield key, outer, values
                elif first[key] != outer:
                    self._wrong("internal", index, f"read {key} twice: {_short(first[key])}, {_short(outer)}")

    def _list_order(self, key: int, values: Sequence[int]) -> None:
        """Look at a list in full length; its writers follow each other."""
        if len(set(values)) < len(values):
            self._wrong("duplicate", None, f"list {key} holds a value twice: {_short(values)}")
        before: int | None = None
        for value in values:
            writer = self._writer.get((key, value))
            if writer is None:
                self._wrong("garbage", None, f"list {key} holds {value}, which nobody put there")
                continue
            if self._all[writer].outcome is Outcome.FAILED:
                self._wrong("G1a", writer, f"it failed, and {value} stands in list {key}")
            if before is not None:
                self._graph.add(before, writer, _WW)
            before = writer

    def _list_read(
        self, index: int, key: int, values: Sequence[int], whole: Sequence[int], longest: Sequence[int]
    ) -> None:
        if whole != longest[: len(whole)]:
            self._wrong("order", index, f"read {_short(whole)} of list {key}, others {_short(longest)}")
            return
        if values:
            writer = self._writer.get((key, values[-1]))
            if writer is not None and writer != index:
                if self._final[writer, key] != values[-1]:
                    self._wrong(
                        "G1b", index, f"read {values[-1]} of list {key}, which was not its writer's last"
                    )
                self._graph.add(writer, index, _WR)
        if len(values) < len(longest):
            following = self._writer.get((key, longest[len(values)]))
            if following is not None:
                self._graph.add(index, following, _RW)

    # ------------------------------------------------------------------ items

    def _items(self) -> None:
        found = {
            version
            for transaction in self._all
            for operation in transaction.operations
            if isinstance(operation, Found) and transaction.outcome is Outcome.COMMITTED
            for version in operation.versions.items()
        }
        writers: dict[tuple[int, int], int] = {}
        chains: dict[int, list[Placed]] = defaultdict(list)
        for index, transaction in enumerate(self._all):
            for operation in transaction.operations:
                if not isinstance(operation, Placed):
                    continue
                version = operation[:2]
                if transaction.outcome is Outcome.FAILED:
                    writers.setdefault(version, index)
                    continue
                if transaction.outcome is Outcome.UNKNOWN and version not in found:
                    continue
                other = writers.get(version)
                if other is not None and self._all[other].outcome is not Outcome.FAILED:
                    self._wrong("lost", index, f"and {self._all[other].number}: both made version {version}")
                writers[version] = index
                chains[operation.item].append(operation)
        for chain in chains.values():
            chain.sort(key=lambda placed: placed.version)
            for before, after in pairwise(chain):
                self._graph.add(writers[before[:2]], writers[after[:2]], _WW)
        resting = _resting(chains)
        for index, transaction in enumerate(self._all):
            if transaction.outcome is Outcome.COMMITTED:
                self._ranges(index, writers, resting)

    def _ranges(
        self, index: int, writers: dict[tuple[int, int], int], resting: list[tuple[Position, Placed]]
    ) -> None:
        own: dict[int, int] = {}
        for operation in self._all[index].operations:
            if isinstance(operation, Placed):
                own[operation.item] = operation.version
            elif isinstance(operation, Found):
                for item, version in operation.versions.items():
                    if own.get(item) == version:
                        continue
                    self._item_read(index, item, version, writers)
                lo = bisect_left(resting, (operation.lo,))
                hi = bisect_left(resting, (operation.hi,))
                for _, placed in resting[lo:hi]:
                    # It came into the range and stayed: who did not find it was there before.
                    writer = writers[placed[:2]]
                    if placed.item not in operation.versions and placed.item not in own:
                        self._graph.add(index, writer, _RW)

    def _item_read(self, index: int, item: int, version: int, writers: dict[tuple[int, int], int]) -> None:
        writer = writers.get((item, version))
        if writer is None:
            self._wrong("garbage", index, f"found version {version} of item {item}, which nobody made")
            return
        if self._all[writer].outcome is Outcome.FAILED:
            self._wrong("G1a", index, f"found version {version} of {item}; {self._all[writer].number} failed")
        self._graph.add(writer, index, _WR)
        following = writers.get((item, version + 1))
        if following is not None and self._all[following].outcome is not Outcome.FAILED:
            self._graph.add(index, following, _RW)

    # ------------------------------------------------------------------ time

    def _time(self) -> None:
        """Let whatever began after an end follow it, by way of a chain of all ends: edges stay few."""
        edges, first = self._graph.edges, len(self._all)
        ended = sorted(
            (transaction.ended_s, index)
            for index, transaction in enumerate(self._all)
            if transaction.outcome is Outcome.COMMITTED and transaction.ended_s < math.inf
        )
        ends = [end_s for end_s, _ in ended]
        edges += [[] for _ in ended]
        for place, (_, index) in enumerate(ended):
            edges[index].append((first + place, _RT))
            if place:
                edges[first + place - 1].append((first + place, _RT))
        for index, transaction in enumerate(self._all):
            before = bisect_left(ends, transaction.began_s) - 1
            if before >= 0:
                edges[first + before].append((index, _RT))

    # ------------------------------------------------------------------ cycles

    def _cycle(self, members: list[int], component: set[int]) -> Anomaly:
        """Name a set of transactions that follow each other in a circle, by the simplest circle in it."""
        for kinds, name in (
            ({_WW}, "G0"),
            ({_WW, _WR}, "G1c"),
            ({_WW, _WR, _RW}, "G2"),
            ({_WW, _RT}, "G0-realtime"),
            ({_WW, _WR, _RT}, "G1c-realtime"),
            ({_WW, _WR, _RW, _RT}, "G2-realtime"),
        ):
            if _RW in kinds:
                anti = [(a, b) for a in members for b, kind in self._graph.edges[a] if kind == _RW]
                for reader, writer in [edge for edge in anti if edge[1] in component][:_TRIED]:
                    path = self._path(writer, reader, kinds - {_RW}, component)
                    if path:
                        return self._told(name.replace("G2", "G-single"), [reader, *path])
            starts = members if len(kinds) < 3 else members[:_TRIED]
            paths = (self._path(start, start, kinds, component) for start in starts)
            found = next((path for path in paths if path), None)
            if found:
                return self._told(name, found)
        return self._told("G2-realtime", members)

    def _path(self, source: int, target: int, kinds: set[int], inside: set[int]) -> list[int] | None:
        """Return the shortest way between two transactions over edges of some kinds."""
        edges = self._graph.edges
        came_from: dict[int, int] = {}
        queue = deque([source])
        while queue:
            node = queue.popleft()
            for other, kind in edges[node]:
                if kind not in kinds or other in came_from or other not in inside:
                    continue
                came_from[other] = node
                if other == target:
                    way = [target]
                    while way[-1] != source or len(way) == 1:
                        way.append(came_from[way[-1]])
                    return way[::-1]
                queue.append(other)
        return None

    def _told(self, kind: str, way: list[int]) -> Anomaly:
        names = [str(self._all[index].number) for index in way if index < len(self._all)]
        shown = names[:_SHOWN] + ["…"] * (len(names) > _SHOWN)
        return Anomaly(kind, f"a circle of transactions: {' → '.join(shown)}")


def find_anomalies(transactions: Sequence[Transaction], *, complete: bool = True) -> list[Anomaly]:
    """Return what is wrong with a history; nothing if it is strictly serializable as far as was seen."""
    return History(transactions, complete=complete).anomalies()


def _resting(chains: dict[int, list[Placed]]) -> list[tuple[Position, Placed]]:
    """Return, by last position, the items that never left again, with the version that came there."""
    return sorted(
        (chain[-1].position, chain[-1]) for chain in chains.values() if chain[-1].position is not None
    )


def _short(values: Sequence[int]) -> str:
    return str(list(values)) if len(values) <= _SHOWN else f"[… {str(list(values[-_SHOWN:]))[1:]}"


def strong_components(edges: Sequence[Iterable[tuple[int, int]]]) -> Iterator[list[int]]:
    """Yield the sets of more than one node that can all reach each other (Tarjan's, without recursion)."""
    order = [0] * len(edges)
    low = [0] * len(edges)
    on_stack = bytearray(len(edges))
    stack: list[int] = []
    counter = 0
    for root in range(len(edges)):
        if order[root]:
            continue
        work = [(root, iter(edges[root]))]
        counter += 1
        order[root] = low[root] = counter
        stack.append(root)
        on_stack[root] = 1
        while work:
            node, following = work[-1]
            for other, _ in following:
                if not order[other]:
                    counter += 1
                    order[other] = low[other] = counter
                    stack.append(other)
                    on_stack[other] = 1
                    work.append((other, iter(edges[other])))
                    break
                if on_stack[other]:
                    low[node] = min(low[node], order[other])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == order[node]:
                    component = []
                    while not component or component[-1] != node:
                        component.append(stack.pop())
                        on_stack[component[-1]] = 0
                    if len(component) > 1:
                        yield component
