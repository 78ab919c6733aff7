"""The truth about screens: plain dicts that apply the log's after-images, and the queries written again.

Nothing here looks at the store, at the tracker or at results. Of the product it uses the reading of log records;
keys and stored values are taken apart by hand.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgpack
from headwater_storage.environment import real_environment
from headwater_storage.segments import read_log

from support.screen_client import Failure

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

Document = dict[str, Any]

_TABLES, _DEPLOYMENT, _USER_TABLES = 1, 4, 32
_STORED_HEADER_BYTES = 8
_SUFFIX_CHARACTERS = 31


@dataclass(frozen=True)
class Commit:
    """One commit: what became of each document.

    Attributes:
        ts: Its ts.
        writes: (table number, document id or row name, document or None if it is gone).
    """

    ts: int
    writes: list[tuple[int, bytes, Document | None]]


def read_commits(data: Path) -> list[Commit]:
    """Return all commits of a stopped daemon's log, from the very first."""
    environment = real_environment()
    try:
        log_id = bytes.fromhex(json.loads((data / "format").read_text())["log_id"])
        return [
            Commit(record.first_ts + position, [_write(key, value) for key, value in transaction.writes])
            for record in read_log(environment.files, data / "log", log_id, 1)
            for position, transaction in enumerate(record.transactions)
        ]
    finally:
        environment.executor.close()


def _write(key: bytes, value: bytes | None) -> tuple[int, bytes, Document | None]:
    table = int.from_bytes(key[:4], "big")
    if value is None or (table not in (_TABLES, _DEPLOYMENT) and table < _USER_TABLES):
        return table, key[4:], None
    return table, key[4:], msgpack.unpackb(value[_STORED_HEADER_BYTES:])


class World:
    """The database of the bundles `screens_one` and `screens_two` as of one commit."""

    def __init__(self, second_bundle: str) -> None:
        self.ts = 0
        self.second = False
        self._second_bundle = second_bundle
        self._names: dict[int, str] = {}
        self._tables: dict[int, dict[bytes, Document]] = {}
        self._sorted: dict[tuple[str, ...], list[Document]] = {}
        self._results: dict[str, Any] = {}

    def apply(self, commit: Commit) -> None:
        self.ts = commit.ts
        for table, suffix, document in commit.writes:
            if table == _TABLES and document is not None:
                self._names[document["number"]] = document["name"]
            elif table == _DEPLOYMENT and document is not None and suffix == b"active":
                self.second = document["bundle"] == self._second_bundle
            elif table >= _USER_TABLES and document is not None:
                self._tables.setdefault(table, {})[suffix] = document
            elif table >= _USER_TABLES:
                self._tables.setdefault(table, {}).pop(suffix, None)
        self._sorted.clear()
        self._results.clear()

    def table(self, name: str) -> list[Document]:
        """Return the documents of a table as the bundle of this moment shows them."""
        number = next((number for number in self._names if self._names[number] == name), 0)
        documents = list(self._tables.get(number, {}).values())
        if name == "players" and self.second:
            return [{"bonus": 0} | document for document in documents]
        return documents

    def players(self, *fields: str) -> list[Document]:
        """Return all players by these fields, then by creation."""
        if fields not in self._sorted:
            self._sorted[fields] = sorted(self.table("players"), key=lambda player: place(player, fields))
        return self._sorted[fields]

    def teams(self) -> list[Document]:
        return sorted(self.table("teams"), key=lambda team: place(team, ("name",)))

    def result(self, name: str, arguments: dict[str, Any], user: str | None) -> Any:
        """Return what a query gives a user at this moment: a value or a `Failure`."""
        of_user = name in OF_USERS
        key = f"{name} {arguments} {user if of_user else None}"
        if key not in self._results:
            as_ = {"user": user} if of_user else {}
            self._results[key] = QUERIES[name](self, **arguments, **as_)
        return self._results[key]


def place(document: Document, fields: Iterable[str]) -> tuple[Any, ...]:
    """Return what sorts a document where it stands in an index of these fields."""
    return (*[order(document[field]) for field in fields], document["_id"][-_SUFFIX_CHARACTERS:])


def order(value: Any) -> tuple[int, Any]:
    """Return what sorts values of several types: null, numbers, text by its UTF-8 bytes."""
    if value is None:
        return 0, 0
    return (2, value.encode()) if isinstance(value, str) else (1, value)


# ---------------------------------------------------------------------------------------------- queries


def _top(world: World, team: str, count: int) -> Any:
    return [player for player in reversed(world.players("score")) if player["team"] == team][:count]


def _between(world: World, team: str | None, low: int, high: int) -> Any:
    return [
        player
        for player in world.players("score")
        if player["team"] == team and low <= player["score"] < high
    ]


def _worst(world: World, count: int) -> Any:
    players = world.players("score")
    return players[::-1][:count] if world.second else players[:count]


def _above(world: World, score: int, count: int) -> Any:
    return [player["name"] for player in reversed(world.players("score")) if player["score"] > score][:count]


def _named(world: World, name: str) -> Any:
    return next((player for player in world.players("name") if player["name"] == name), None)


def _after(world: World, name: str) -> Any:
    return next((player for player in world.players("name") if player["name"] > name), None)


def _levels(world: World, low: float, high: float) -> Any:
    players = reversed(world.players("level", "name"))
    return [player for player in players if player["level"] is not None and low <= player["level"] <= high]


def _beginners(world: World) -> Any:
    return [player["name"] for player in world.players("name") if player["level"] is None]


def _player(world: World, player: str) -> Any:
    return next((found for found in world.players() if found["_id"] == player), None)


def _table(world: World) -> Any:
    lines = []
    for team in world.teams():
        players = [player for player in world.players("score") if player["team"] == team["_id"]]
        best = players[-1]["name"] if players else None
        lines.append({"team": team["name"], "city": team["city"], "best": best, "players": len(players)})
    return lines


def _total(world: World) -> Any:
    players = world.players()
    return {"players": len(players), "score": sum(player["score"] for player in players)}


def _newest(world: World, count: int) -> Any:
    return world.players()[::-1][:count]


def _full(world: World, team: str, least: int) -> Any:
    names = [player["name"] for player in world.players("score") if player["team"] == team]
    return names if len(names) >= least else Failure("application_error", {"missing": least - len(names)})


def _strongest(world: World, level: float | None, count: int) -> Any:
    if not world.second:
        return Failure("unknown_function")
    return [player for player in reversed(world.players("score")) if player["level"] == level][:count]


def _mine(world: World, count: int, user: str | None) -> Any:
    least = 10 * _number(user) if user else 0
    players = [player["name"] for player in world.players("score") if player["score"] >= least]
    return {"user": user, "players": players[:count]}


def _guarded(world: World, team: str, user: str | None) -> Any:
    city = next((found["city"] for found in world.teams() if found["_id"] == team), "0")
    players = [player for player in reversed(world.players("score")) if player["team"] == team]
    if city[-1] not in "13579":
        return [player["name"] for player in players[:3]]
    if user is None:
        return Failure("unauthenticated")
    return [player["name"] for player in players if player["score"] % 5 == _number(user) % 5]


def _number(user: str) -> int:
    return int(user.partition("|")[2])


OF_USERS = {"screens:mine", "screens:guarded"}
"""Queries that look at who asks, always or sometimes."""

QUERIES: dict[str, Callable[..., Any]] = {
    "screens:top": _top,
    "screens:between": _between,
    "screens:worst": _worst,
    "screens:above": _above,
    "screens:named": _named,
    "screens:after": _after,
    "screens:levels": _levels,
    "screens:beginners": _beginners,
    "screens:player": _player,
    "screens:table": _table,
    "screens:total": _total,
    "screens:newest": _newest,
    "screens:full": _full,
    "screens:strongest": _strongest,
    "screens:mine": _mine,
    "screens:guarded": _guarded,
}
"""Each query of the bundles, written again over plain dicts."""


class PageModel:
    """One subscription to `screens:page`: a page keeps its end from the moment it was first full.

    Attributes:
        end: Place of its last document at that moment, None while it is open.
    """

    def __init__(self) -> None:
        self.end: tuple[Any, ...] | None = None

    def result(self, world: World, team: str, size: int) -> Any:
        """Return what is shown now; call it once for each transition that shows the page, in order."""
        players = [player for player in reversed(world.players("score")) if player["team"] == team]
        if self.end is None:
            players = players[:size]
            if len(players) == size:
                self.end = place(players[-1], ("score",))
        else:
            players = [player for player in players if place(player, ("score",)) >= self.end]
        return {"page": players, "isDone": self.end is None}
