"""Transactions over the bundle `registers`: which ones to run, what they mean, and a model that runs them.

Shares nothing with the database. A transaction is a list of steps, each answered with what it read.
Registers and slots belong to an *epoch*, so that lists stay short and everything is fought over for a while.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from support.history import Append, Found, Operation, Placed, Read

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

Step = list[Any]

KEYS = 8
GROUPS = 3
PLACES = 4
EPOCH_TRANSACTIONS = 250
_UNIQUE = 1 << 32
"""A place is one of a few, times this, plus a number of its own: no two slots lie at the same."""


@dataclass
class Script:
    """Makes transactions up, and remembers which documents there are.

    Attributes:
        chance: Decides.
        transactions: How many it has made.
    """

    chance: random.Random
    transactions: int = 0
    _values: int = 0
    _ids: dict[int, str] = field(default_factory=dict)

    @property
    def epochs(self) -> int:
        """How many epochs have begun."""
        return self.transactions // EPOCH_TRANSACTIONS + 1

    def change(self) -> list[Step]:
        """Return a transaction that may write; sometimes it only reads, sometimes it fails at its end."""
        self.transactions += 1
        steps = [self._step() for _ in range(self.chance.randint(2, 8))]
        if self.chance.random() < 0.1:
            return [self._read() for _ in steps]
        return [*steps, ["fail"]] if self.chance.random() < 0.03 else steps

    def look(self) -> list[Step]:
        """Return a transaction that only reads."""
        self.transactions += 1
        return [self._read() for _ in range(self.chance.randint(2, 8))]

    def learn(self, steps: Sequence[Step], results: Sequence[Any]) -> None:
        """Take note of the documents that were found: later transactions read them by id."""
        for step, result in zip(steps, results, strict=True):
            if step[0] == "append":
                self._ids[step[1]] = result[0]

    def everything(self) -> list[list[Step]]:
        """Return transactions that together read all there is."""
        return [
            [
                ["scan", epoch * KEYS, (epoch + 1) * KEYS],
                *(["count", epoch * GROUPS + i, 0, PLACES * _UNIQUE, None] for i in range(GROUPS)),
            ]
            for epoch in range(self.epochs)
        ]

    def _epoch(self) -> int:
        return max(0, self.epochs - 1 - (self.chance.random() < 0.05))

    def _value(self) -> int:
        self._values += 1
        return self._values

    def _register(self) -> tuple[int, str | None]:
        key = self._epoch() * KEYS + self.chance.randrange(KEYS)
        return key, self._ids.get(key) if self.chance.random() < 0.6 else None

    def _range(self) -> tuple[int, int, int]:
        group = self._epoch() * GROUPS + self.chance.randrange(GROUPS)
        lo = self.chance.randrange(PLACES)
        return group, lo * _UNIQUE, self.chance.randint(lo + 1, PLACES) * _UNIQUE

    def _read(self) -> Step:
        kind = self.chance.random()
        if kind < 0.5:
            return ["read", *self._register()]
        if kind < 0.65:
            lo = self._epoch() * KEYS + self.chance.randrange(KEYS)
            return ["scan", lo, lo + self.chance.randint(1, KEYS)]
        return ["count", *self._range(), self.chance.choice([None, 1, 2, 4])]

    def _step(self) -> Step:
        kind = self.chance.random()
        if kind < 0.35:
            return self._read()
        if kind < 0.6:
            return ["append", *self._register(), self._value()]
        group, lo, hi = self._range()
        item = self._value()
        place = self.chance.randrange(lo, hi, _UNIQUE) + item
        if kind < 0.8:
            return ["claim", group, lo, hi, self.chance.randint(1, 4), item, place]
        if kind < 0.85:
            return ["insert", group, item, place]
        if kind < 0.93:
            to_group, to_lo, to_hi = self._range()
            return ["move", group, lo, hi, to_group, self.chance.randrange(to_lo, to_hi, _UNIQUE) + item]
        return ["drop", group, lo, hi]


def operations(steps: Sequence[Step], results: Sequence[Any] | None) -> list[Operation]:
    """Say what a transaction did; without results, what it would have written for certain."""
    if results is None:
        return [operation for step in steps for operation in _intended(step)]
    return [
        operation for step, result in zip(steps, results, strict=True) for operation in _done(step, result)
    ]


def _intended(step: Step) -> list[Operation]:
    match step:
        case ["append", key, _, value]:
            return [Append(key, value)]
        case ["claim", group, _, _, _, item, place] | ["insert", group, item, place]:
            return [Placed(item, 0, (group, place))]
    return []


def _done(step: Step, result: Any) -> list[Operation]:
    match step:
        case ["read", key, _]:
            return [Read(key, result)]
        case ["scan", lo, hi]:
            found = dict(result)
            return [Read(key, found.get(key, [])) for key in range(lo, hi)]
        case ["append", key, _, value]:
            return [Read(key, result[1]), Append(key, value)]
        case ["count", group, lo, hi, limit]:
            return [_found(group, lo, hi, limit, result)]
        case ["claim", group, lo, hi, count, item, place]:
            placed = [Placed(item, 0, (group, place))] if len(result) < count else []
            return [_found(group, lo, hi, count, result), *placed]
        case ["insert", group, item, place]:
            return [Placed(item, 0, (group, place))]
        case ["move", group, lo, hi, to_group, to_place]:
            moved = [Placed(item, version + 1, (to_group, to_place)) for item, version, _ in result]
            return [_found(group, lo, hi, 1, result), *moved]
        case ["drop", group, lo, hi]:
            gone = [Placed(item, version + 1, None) for item, version, _ in result]
            return [_found(group, lo, hi, 1, result), *gone]
    raise AssertionError(step)


def _found(group: int, lo: int, hi: int, limit: int | None, result: Sequence[Any]) -> Found:
    """A limit that was reached says nothing of what lies behind the last that was found."""
    end = hi if limit is None or len(result) < limit else result[-1][2] + 1
    return Found((group, lo), (group, end), {item: version for item, version, _ in result})


class Model:
    """Runs transactions one after the other over plain dicts."""

    def __init__(self) -> None:
        self._lists: dict[int, list[int]] = {}
        self._ids: dict[int, str] = {}
        self._slots: dict[int, tuple[int, int, int]] = {}  # group, place, version
        self._groups: dict[int, set[int]] = {}

    def difference(self, steps: Sequence[Step], results: Sequence[Any]) -> str | None:
        """Run a transaction; return where it reads something else here, None if nowhere."""
        for step, result in zip(steps, results, strict=True):
            expected = self.run(step, result)
            if expected != result:
                return f"{step} read {result}, and not {expected}"
        return None

    def run(self, step: Step, result: Any) -> Any:
        """Run one step; ids are taken from the result of whoever inserted first."""
        match step:
            case ["read", key, _]:
                return self._lists.get(key, [])
            case ["scan", lo, hi]:
                return [[key, self._lists[key]] for key in range(lo, hi) if key in self._lists]
            case ["append", key, _, value]:
                before = self._lists.get(key, [])
                self._lists[key] = [*before, value]
                return [self._ids.setdefault(key, result[0]), before]
            case ["count", group, lo, hi, limit]:
                return self._found(group, lo, hi, limit)
            case ["claim", group, lo, hi, count, item, place]:
                found = self._found(group, lo, hi, count)
                if len(found) < count:
                    self._put(item, group, place, 0)
                return found
            case ["insert", group, item, place]:
                self._put(item, group, place, 0)
                return None
            case ["move", group, lo, hi, to_group, to_place]:
                found = self._found(group, lo, hi, 1)
                for item, version, _ in found:
                    self._groups[group].discard(item)
                    self._put(item, to_group, to_place, version + 1)
                return found
            case ["drop", group, lo, hi]:
                found = self._found(group, lo, hi, 1)
                for item, _, _ in found:
                    self._groups[group].discard(item)
                    del self._slots[item]
                return found
        raise AssertionError(step)

    def _put(self, item: int, group: int, place: int, version: int) -> None:
        self._slots[item] = group, place, version
        self._groups.setdefault(group, set()).add(item)

    def _found(self, group: int, lo: int, hi: int, limit: int | None) -> list[list[int]]:
        rows = [(self._slots[item][1], item) for item in self._groups.get(group, ())]
        found = sorted((place, item) for place, item in rows if lo <= place < hi)
        return [[item, self._slots[item][2], place] for place, item in found[:limit]]
