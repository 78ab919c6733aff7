"""What is true of the simulated world: plain dicts fed from the log, the functions and queries written again.

Shares nothing with engine, tracker, transactions or results. Of the product it uses the reading of log
records; keys and stored values are taken apart by hand.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgpack

if TYPE_CHECKING:
    from collections.abc import Iterable

    from headwater_storage.log import Record

ACCOUNTS, BALANCE, SEATS = 6, 100, 5
_TABLES, _REQUESTS, _USER_TABLES = 1, 5, 32
_HEADER_BYTES = 8


class Wrong(AssertionError):  # noqa: N818
    """The daemon broke a promise."""


@dataclass
class State:
    """The world's tables as of one commit.

    Attributes:
        rows: Rows of each table by id.
    """

    rows: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)

    def table(self, name: str) -> Iterable[dict[str, Any]]:
        return self.rows.get(name, {}).values()

    def balances(self) -> dict[str, int]:
        return {row["name"]: row["balance"] for row in self.table("accounts")}

    def query(self, name: str, arguments: dict[str, Any]) -> Any:
        match name:
            case "screens:total":
                return [len(self.balances()), sum(self.balances().values())]
            case "screens:balance":
                return self.balances().get(arguments["name"])
            case "screens:newest":
                items = [row for row in self.table("items") if row["queue"] == arguments["queue"]]
                items.sort(key=lambda row: -row["position"])
                return [row["tag"] for row in items[: arguments["count"]]]
            case "screens:room":
                seats = [row for row in self.table("seats") if row["room"] == arguments["room"]]
                return sorted(seats, key=lambda row: row["number"])
            case "screens:names":
                names = sorted(row["name"] for row in self.table("names"))
                return [name for name in names if name > arguments["after"]][:3]
            case "screens:largest":
                rows = sorted(self.table("transfers"), key=lambda row: (-row["amount"], row["tag"]))
                rows.sort(key=lambda row: (row["amount"], row["tag"]), reverse=True)
                return [row["tag"] for row in rows[: arguments["count"]]]
        raise KeyError(name)


class Truth:
    """All commits of a log, checked one after the other.

    Attributes:
        effects: Tag of each mutation that took effect, with its commit ts and what it must have returned.
        requests: Request rows, by session and number.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.effects: dict[str, tuple[int, Any]] = {}
        self.requests: dict[bytes, int] = {}
        self._stamps: list[int] = [0]
        self._states: list[State] = [State()]
        self._names: dict[int, str] = {}
        self._results: dict[tuple[int, str, str], Any] = {}
        self._last_wall_us = 0
        for record in records:
            self._take(record)

    def _take(self, record: Record) -> None:
        if record.first_ts <= self._stamps[-1]:
            raise Wrong(f"record {record.number} begins at {record.first_ts}, which is past")
        if record.wall_us < self._last_wall_us:
            raise Wrong(f"the log's time goes back in record {record.number}")
        self._last_wall_us = record.wall_us
        for position, transaction in enumerate(record.transactions):
            self._commit(record.first_ts + position, transaction.writes)

    def _commit(self, ts: int, writes: list[tuple[bytes, bytes | None]]) -> None:
        before = self._states[-1]
        rows = dict(before.rows)
        made: list[tuple[str, dict[str, Any]]] = []
        for key, value in writes:
            number = int.from_bytes(key[:4], "big")
            if number == _REQUESTS and value is not None:
                if key[4:] in self.requests:
                    raise Wrong(
                        f"request {key[4:].hex()} was decided twice, at {self.requests[key[4:]]} and {ts}"
                    )
                self.requests[key[4:]] = ts
            document = None if value is None else value[_HEADER_BYTES:]
            if number == _TABLES and document is not None:
                row = msgpack.unpackb(document)
                self._names[row["number"]] = row["name"]
            if number < _USER_TABLES:
                continue
            name = self._names[number]
            table = rows[name] = dict(rows.get(name, {}))
            suffix = key[4:].decode()
            if document is None:
                del table[suffix]
                continue
            row = msgpack.unpackb(document)
            if suffix not in table:
                made.append((name, row))
            table[suffix] = row
        after = State(rows)
        for name, row in made:
            if "tag" in row:
                self._effect(ts, name, row, before, after)
        if rows is not before.rows:
            self._stamps.append(ts)
            self._states.append(after)

    def _effect(self, ts: int, table: str, row: dict[str, Any], before: State, after: State) -> None:
        """Check what a mutation did against what it had to do over the state before it."""
        tag = row["tag"]
        if tag in self.effects:
            raise Wrong(f"{tag} took effect twice, at {self.effects[tag][0]} and {ts}")
        match table:
            case "transfers":
                wanted = before.balances()
                wanted[row["source"]] -= row["amount"]
                wanted[row["target"]] += row["amount"]
                if after.balances() != wanted:
                    raise Wrong(f"{tag} at {ts} left {after.balances()}, not {wanted}")
                result: Any = [wanted[row["source"]], wanted[row["target"]]]
            case "items":
                result = 1 + sum(other["queue"] == row["queue"] for other in before.table("items"))
                if row["position"] != result:
                    raise Wrong(f"{tag} at {ts} has position {row['position']}, not {result}")
            case "seats":
                result = sum(other["room"] == row["room"] for other in before.table("seats"))
                if row["number"] != result or result >= SEATS:
                    raise Wrong(f"{tag} at {ts} has seat {row['number']} of {result} taken ones")
            case "names":
                result = row["name"]
                if any(other["name"] == row["name"] for other in before.table("names")):
                    raise Wrong(f"{tag} at {ts} took the name {row['name']}, which was taken")
            case _:
                raise Wrong(f"{tag} made a row of {table}")
        self.effects[tag] = (ts, result)

    @property
    def last(self) -> State:
        return self._states[-1]

    def result(self, ts: int, name: str, arguments: dict[str, Any]) -> Any:
        """Return what a query shows at a commit ts."""
        position = bisect_right(self._stamps, ts) - 1
        key = (position, name, str(arguments))
        if key not in self._results:
            self._results[key] = self._states[position].query(name, arguments)
        return self._results[key]
