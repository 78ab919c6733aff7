"""A write reruns the queries that it concerns and no other, counted on a real daemon by its own metric.

One client has one subscription; a mutation resolves once its screen is at the commit, and by then every run that the commit
caused has ended.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from support.daemon import running

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.daemon import RunningDaemon

RUNS = 'headwater_calls_total{kind="query",outcome="success"}'
TEAMS = {"A": [10, 20, 30, 40, 50], "B": [15, 25, 35]}
LEVELS = {"A10": 1.0, "A20": 1.0, "A30": 1.0, "B15": 2.0, "B25": 2.0, "B35": 2.0}

Write = tuple[str, str, Any]
"""`score` or `train` a player to a value, have one `leave`, or have one of this name `join` a team with a score."""


def joins(team: str, score: int, name: str = "somebody") -> Write:
    return "join", name, (team, score)


CASES: dict[str, tuple[str, dict[str, Any], list[Write], list[Write]]] = {
    "take, in falling order": (
        "top", {"team": "A", "count": 2},  # A50, A40
        [("score", "A30", 45), ("score", "A40", 39), ("score", "A50", 60), joins("A", 55), ("train", "A50", 3.0),
         ("leave", "A40", None)],
        [("score", "A10", 12), ("score", "A10", 39), joins("A", 1), ("score", "B15", 99), ("leave", "A20", None),
         ("train", "A30", 2.0), joins("B", 45)],
    ),
    "take that runs dry": (
        "top", {"team": "A", "count": 20},
        [joins("A", 1), joins("A", 99), ("leave", "A10", None)],
        [joins("B", 30), ("score", "B25", 1)],
    ),
    "a range within an equal prefix": (
        "between", {"team": "A", "low": 20, "high": 40},
        [("score", "A10", 20), ("score", "A20", 19), ("score", "A50", 39), joins("A", 39), ("train", "A20", 9.0)],
        [("score", "A10", 19), ("score", "A40", 45), ("score", "A50", 40), joins("B", 30), joins("A", 40),
         ("train", "A40", 9.0)],
    ),
    "an empty range": (
        "between", {"team": "B", "low": 60, "high": 70},
        [joins("B", 60), joins("B", 69), ("score", "B15", 65)],
        [joins("B", 59), joins("B", 70), joins("A", 65), ("score", "A50", 65), ("leave", "B35", None)],
    ),
    "an open range": (
        "above", {"score": 25, "count": 8},
        [("score", "A10", 26), ("score", "A30", 25), joins("B", 90)],
        [("score", "A10", 25), joins("A", 1), ("leave", "B15", None)],
    ),
    "the first one": (
        "worst", {"count": 1},  # A10
        [joins("B", 9), ("score", "A10", 11), ("score", "B35", 1)],
        [("score", "A20", 11), joins("A", 11), ("leave", "B15", None)],
    ),
    "one that is not there": (
        "named", {"name": "nobody"},
        [joins("A", 5, "nobody")],
        [joins("A", 5, "nobody else"), joins("A", 5, "nobod"), ("score", "A10", 11)],
    ),
    "one that is there, by a unique index": (
        "named", {"name": "A30"},
        [("score", "A30", 31), ("leave", "A30", None)],
        [("score", "A40", 41), joins("B", 7, "A3"), joins("B", 7, "A300")],
    ),
    "the first of a range": (
        "after", {"name": "A20"},  # A30
        [joins("B", 5, "A25"), ("train", "A30", 7.0), ("leave", "A30", None)],
        [joins("B", 5, "A35"), joins("B", 5, "A15"), ("train", "A40", 7.0), ("leave", "A20", None)],
    ),
    "a range with both ends": (
        "levels", {"low": 1.0, "high": 1.5},
        [("train", "A40", 1.0), ("train", "A40", 1.5), ("train", "A10", None), ("score", "A10", 11)],
        [("train", "B15", 1.6), ("train", "B15", 0.9), ("score", "A50", 51), joins("A", 3)],
    ),
    "one document": (
        "player", {"player": "A20"},
        [("score", "A20", 21), ("leave", "A20", None)],
        [("score", "A10", 11), joins("A", 20)],
    ),
    "the newest of a table": (
        "newest", {"count": 2},  # B35, B25
        [joins("A", 1), ("score", "B25", 26)],
        [("score", "B15", 16), ("score", "A50", 51), ("leave", "A10", None)],
    ),
    "a page, which keeps its end": (
        "page", {"team": "A", "size": 2},  # A50, A40
        [joins("A", 45), joins("A", 99), ("score", "A10", 41), ("leave", "A50", None)],
        [("score", "A10", 39), joins("A", 1), joins("B", 45), ("leave", "A30", None)],
    ),
}  # fmt: skip


class League:
    """The data, and how each write is done and undone."""

    def __init__(self, client: headwater.Client) -> None:
        self._client = client
        self._teams: dict[str, str] = {}
        self._players: dict[str, str] = {}

    async def found(self) -> None:
        for team in TEAMS:
            self._teams[team] = await self._client.mutation("game:found", name=team, city="")
        await self.rebuild()

    async def rebuild(self) -> None:
        """Have the players that all cases begin with."""
        for player in self._players.values():
            await self._client.mutation("game:leave", player=player)
        self._players.clear()
        for team, scores in TEAMS.items():
            for score in scores:
                await self._join(f"{team}{score}", team, score)

    def arguments(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Put ids in place of names."""
        ids = {"team": self._teams, "player": self._players}
        return {name: ids[name][value] if name in ids else value for name, value in arguments.items()}

    async def do(self, write: Write) -> None:
        match write:
            case "join", name, (team, score):
                await self._join(name, team, score)
            case "score", name, score:
                await self._client.mutation("game:score", player=self._players[name], score=score)
            case "train", name, level:
                await self._client.mutation("game:train", player=self._players[name], level=level)
            case _, name, _:
                await self._client.mutation("game:leave", player=self._players.pop(name))

    async def _join(self, name: str, team: str, score: int) -> None:
        level = LEVELS.get(name)
        self._players[name] = await self._client.mutation(
            "game:join", name=name, team=self._teams[team], score=score, level=level
        )


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("precision"), deploy="screens_one") as daemon:
        yield daemon


async def test_a_write_reruns_what_it_concerns_and_nothing_else(daemon: RunningDaemon) -> None:
    async with headwater.connect(daemon.url) as client:
        league = League(client)
        await league.found()
        wrong = []
        for case, (query, arguments, concerning, others) in CASES.items():
            for expected, write in [(1, write) for write in concerning] + [(0, write) for write in others]:
                async with client.subscribe(f"screens:{query}", **league.arguments(arguments)) as results:
                    await anext(results)
                    before = await asyncio.to_thread(daemon.metric, RUNS)
                    await league.do(write)
                    runs = await asyncio.to_thread(daemon.metric, RUNS) - before
                if runs != expected:
                    wrong.append(f"{case}: {write} had {query} run {runs:g} times, not {expected}")
                await league.rebuild()
        assert not wrong, "\n".join(wrong)
