"""Every screen, at every transition, against a model of its own made from the log.

Clients note what they are shown while others write, sockets are cut, workers are killed, users change, their tokens
end or are refused, and another bundle is deployed, which does not know one of the two providers any more. Then the daemon is stopped and its log is replayed into plain dicts, in which the queries are written
again: what was shown at a ts must be what they give at that ts.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import HeadwaterError
from support.daemon import running
from support.screen_client import Failure, ScreenClient, Values
from support.screen_model import OF_USERS, PageModel, World, read_commits
from support.users import GUESTS, STAFF, user_token

if TYPE_CHECKING:
    from pathlib import Path

    from support.daemon import RunningDaemon
    from support.runs import LongRun
    from support.screen_model import Commit

TEAMS = 4
PLAYERS_MAX = 80
LEVELS = (None, 1.0, 1.5, 2.0, 3.0)
KILLS = 2
FIRST_SUBSCRIPTIONS = 6  # a new watcher has so many at once, and then more
# What a worker was running when it was killed may show this error until it is tried again.
ENDED_BY_FORCE = {"worker_died"}
REFUSALS = {"application_error", "unique_violation", "worker_died", "unauthenticated", "outcome_unknown"}
USERS = [f"{issuer}|{number}" for issuer in (STAFF, GUESTS) for number in range(7)]


@dataclass(frozen=True)
class Scale:
    """How large a trial is.

    Attributes:
        writes: How often each writer writes.
        subscriptions: How many each watcher has at a time.
    """

    writers: int = 4
    watchers: int = 5
    subscriptions: int = 12
    writes: int = 300
    workers: int = 2

    @property
    def clients(self) -> int:
        return self.writers + self.watchers


SHORT = Scale()
LARGE = Scale(watchers=196, subscriptions=50, writes=100)


@dataclass
class Game:
    """What the clients know together.

    Attributes:
        teams: Ids.
        players: Ids of players that may still be there.
        done: Writes so far.
        refused: Refused writes by code.
    """

    chance: random.Random
    scale: Scale
    teams: list[str] = field(default_factory=list)
    players: list[str] = field(default_factory=list)
    done: int = 0
    refused: dict[str, int] = field(default_factory=dict)

    def write(self) -> tuple[str, dict[str, Any]]:
        """Choose a mutation."""
        chance, players = self.chance, self.players
        kinds = ["join"] * 4 + ["score"] * 8 + ["train"] * 3 + ["move", "sign", "sign", "refuse", "twin"]
        if len(players) > 2:
            kinds += ["trade"] * 2 + ["leave"] * (3 if len(players) < PLAYERS_MAX else 12)
        kind = chance.choice(kinds)
        team, score = chance.choice(self.teams), chance.randrange(100)
        if kind == "join" or not players:
            team_or_none, name = chance.choice([None, *self.teams]), f"player {chance.getrandbits(40)}"
            return "join", {
                "name": name,
                "team": team_or_none,
                "score": score,
                "level": chance.choice(LEVELS),
            }
        match kind:
            case "score":
                return kind, {"player": chance.choice(players), "score": score}
            case "train":
                return kind, {"player": chance.choice(players), "level": chance.choice(LEVELS)}
            case "sign":
                return kind, {"team": team}
            case "move":
                return kind, {"team": team, "city": f"city {score}"}
            case "refuse":
                return kind, {"team": team, "why": f"reason {score}"}
            case "twin":  # a name that is taken
                return "found", {"name": "team 0", "city": "nowhere"}
            case "trade":
                first, second = chance.sample(players, 2)
                return kind, {"first": first, "second": second}
        return "leave", {"player": players.pop(chance.randrange(len(players)))}

    def user(self) -> str | None:
        """Choose a user, or nobody."""
        return self.chance.choice([None, *USERS])

    def token(self, user: str) -> str:
        """Return a token; of two, one ends soon."""
        issuer, _, subject = user.partition("|")
        return user_token(subject, issuer=issuer, lasts_s=self.chance.choice([0.3, 1.0, 3600.0, 3600.0]))

    def query(self) -> tuple[str, dict[str, Any]]:
        """Choose a query."""
        chance = self.chance
        team, low = chance.choice(self.teams), chance.randrange(90)
        return chance.choice(
            [
                ("top", {"team": team, "count": chance.choice([1, 3, 20])}),
                ("between", {"team": chance.choice([None, team]), "low": low, "high": low + 25}),
                ("worst", {"count": chance.choice([1, 10])}),
                ("above", {"score": low, "count": 8}),
                ("named", {"name": "nobody"}),
                ("after", {"name": f"player {chance.randrange(10)}"}),
                ("levels", {"low": 1.0, "high": chance.choice([1.0, 1.5, 9.0])}),
                ("beginners", {}),
                ("player", {"player": chance.choice(self.players)}),
                ("table", {}),
                ("total", {}),
                ("newest", {"count": 5}),
                ("full", {"team": team, "least": chance.choice([5, 12])}),
                ("strongest", {"level": chance.choice(LEVELS), "count": 4}),
                ("mine", {"count": 6}),
                ("mine", {"count": 6}),
                ("guarded", {"team": team}),
                ("guarded", {"team": team}),
                ("page", {"team": team, "size": chance.choice([2, 6])}),
            ]
        )


async def write(client: ScreenClient, game: Game) -> None:
    """Write, as fast as answers come, and cut the connection now and then."""
    for _ in range(game.scale.writes):
        kind, arguments = game.write()
        try:
            user = client.user
            done = await client.mutation(f"game:{kind}", **arguments)
            assert kind != "sign" or done == user, "run as somebody else's"
            if kind == "join":
                game.players.append(done)
        except HeadwaterError as error:
            if error.code not in REFUSALS:
                raise
            game.refused[error.code] = game.refused.get(error.code, 0) + 1
        game.done += 1
        if game.chance.random() < 0.03:
            client.sign_in(game.user())
        if game.chance.random() < 0.01:
            client.cut()


async def watch(client: ScreenClient, game: Game) -> None:
    """Subscribe and unsubscribe, and cut the connection now and then, until cancelled."""
    subscribed: list[int] = []
    slower = game.scale.watchers / SHORT.watchers
    while True:
        if len(subscribed) > game.scale.subscriptions:
            client.unsubscribe(subscribed.pop(game.chance.randrange(len(subscribed))))
        while len(subscribed) <= game.scale.subscriptions:
            name, arguments = game.query()
            subscribed.append(client.subscribe(f"screens:{name}", **arguments))
            if len(subscribed) % FIRST_SUBSCRIPTIONS == 0:
                break
        await asyncio.sleep(game.chance.uniform(0.02, 0.2) * slower)
        what = game.chance.random()
        if what < 0.08:
            client.cut()
        elif what < 0.16:
            client.sign_in(game.user())
        elif what < 0.2:
            client.refresh()


async def disturb(daemon: RunningDaemon, game: Game) -> str:
    """Kill a worker and deploy the second bundle, each at its time; return the name of that bundle."""
    await reached(game, 1 / 4)
    assert daemon.kill_worker(game.chance)
    await reached(game, 1 / 2)
    bundle = await asyncio.to_thread(daemon.must_deploy, "screens_two")
    await reached(game, 3 / 4)
    assert daemon.kill_worker(game.chance)
    return bundle


async def reached(game: Game, part: float) -> None:
    while game.done < part * game.scale.writers * game.scale.writes:
        await asyncio.sleep(0.005)


async def play(daemon: RunningDaemon, game: Game) -> tuple[list[ScreenClient], str]:
    """Run all clients; return them and the second bundle's name."""
    urls, values = [daemon.tcp_url, daemon.url], Values()
    clients = [
        ScreenClient(urls[number % 2], game.chance.randbytes(16), values, game.token)
        for number in range(game.scale.clients)
    ]
    writers, watchers = clients[: game.scale.writers], clients[game.scale.writers :]
    async with asyncio.TaskGroup() as tasks:
        running_clients = [tasks.create_task(client.run()) for client in clients]
        for number in range(TEAMS):
            game.teams.append(await writers[0].mutation("game:found", name=f"team {number}", city="city"))
        for number in range(20):
            arguments = {"team": game.chance.choice(game.teams), "score": number, "level": None}
            game.players.append(await writers[0].mutation("game:join", name=f"founder {number}", **arguments))
        for writer in writers:
            for _ in range(4):
                name, arguments = game.query()
                writer.subscribe(f"screens:{name}", **arguments)
        watching = [tasks.create_task(watch(client, game)) for client in watchers]
        disturbing = tasks.create_task(disturb(daemon, game))
        await asyncio.gather(*[write(client, game) for client in writers])
        second = await disturbing
        for task in watching:
            task.cancel()
        # An answer is followed by a transition that covers it: then every screen is at the last write, or later.
        for client in clients:
            client.sign_in(None)
            await client.mutation("game:move", team=game.teams[0], city="the end")
            client.check_covered()
        for task in running_clients:
            task.cancel()
    return clients, second


class Comparison:
    """Holds every screen of every client against the model, ts by ts."""

    def __init__(self, clients: list[ScreenClient]) -> None:
        self.clients = clients
        self.pages: dict[tuple[int, int], PageModel] = {}
        self.compared: dict[str, int] = {}
        self.different: dict[str, set[int]] = {}
        self.users: dict[str, set[str | None]] = {}
        self.forced: set[str] = set()

    def against(self, commits: list[Commit], second_bundle: str) -> None:
        world = World(second_bundle)
        rest = iter(commits)
        upcoming = next(rest, None)
        moments = [
            (shown.ts, order, number)
            for number, client in enumerate(self.clients)
            for order, shown in enumerate(client.shown)
        ]
        for ts, order, number in sorted(moments):
            while upcoming is not None and upcoming.ts <= ts:
                world.apply(upcoming)
                upcoming = next(rest, None)
            self._compare(world, number, order)

    def _compare(self, world: World, number: int, order: int) -> None:
        client = self.clients[number]
        shown = client.shown[order]
        for query, value in shown.values.items():
            subscribed = client.queries[query]
            self.compared[subscribed.name] = self.compared.get(subscribed.name, 0) + 1
            self.different.setdefault(subscribed.name, set()).add(id(value))
            if isinstance(value, Failure) and value.code in ENDED_BY_FORCE:
                assert shown is not client.shown[-1], f"client {number}: {subscribed} was never tried again"
                self.forced.add(str(subscribed))
                continue
            if subscribed.name == "screens:page":
                page = self.pages.setdefault((number, query), PageModel())
                expected = page.result(world, **subscribed.arguments)
                value = {name: value[name] for name in expected}
            else:
                expected = world.result(subscribed.name, subscribed.arguments, shown.user)
                self.users.setdefault(subscribed.name, set()).add(shown.user)
            told = f"client {number} as {shown.user}, {subscribed} at {shown.ts} (commit {world.ts})"
            assert value == expected, f"{told}:\nshown    {value}\nexpected {expected}"


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    chosen = request.config.getoption("--seed") or os.environ.get("HEADWATER_SEED")
    return int(chosen) if chosen else random.SystemRandom().randrange(2**32)


@pytest.mark.timeout(180)
def test_every_screen_is_what_its_queries_give_at_its_ts(tmp_path: Path, seed: int) -> None:
    screen_trial(tmp_path, seed, SHORT)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_the_screens_of_two_hundred_clients(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        workers = (1, 2, 4)[seed % 3]
        counts = screen_trial(tmp_path / str(seed), seed, replace(LARGE, workers=workers))
        long_run.record("screens", seed, workers=workers, **counts)


def screen_trial(folder: Path, seed: int, scale: Scale) -> dict[str, int]:
    """Run a trial and return what it has counted."""
    print(f"HEADWATER_SEED={seed}")
    folder.mkdir(exist_ok=True)
    game = Game(random.Random(seed), scale)
    options = ("--workers", str(scale.workers), "--session-tokens-limit-per-minute", "10000")
    with running(folder, *options, "--token-leeway-s", "0", deploy="screens_one") as daemon:
        clients, second = asyncio.run(play(daemon, game))
        assert daemon.terminate() == 0
        commits = read_commits(daemon.data)

    comparison = Comparison(clients)
    comparison.against(commits, second)
    counts = sum((client.counts for client in clients), start=Counter[str]())
    print(f"{len(commits)} commits, {dict(counts)}, {comparison.compared}, refused {game.refused}")

    committed = {commit.ts for commit in commits}
    assert all(set(client.answers) <= committed for client in clients), (
        "an answer names a ts without a commit"
    )
    assert max(client.shown[-1].ts for client in clients) == commits[-1].ts
    # The trial is worth something only if all of this has happened.
    assert counts["Delta"] > 500
    assert counts["Unchanged"] > 5
    assert counts["connections"] > len(clients) + 5
    assert game.refused["application_error"]
    assert game.refused["unique_violation"]
    assert counts["identities"] > 20
    assert counts["lost"]
    assert counts["refused"]
    for name in OF_USERS:
        assert len(comparison.users[name]) > 4
    assert len(comparison.forced) <= KILLS
    assert comparison.compared.keys() == {f"screens:{name}" for name in ALL_QUERIES}
    assert sum(len(values) for values in comparison.different.values()) > 1_000
    return {
        "updates": sum(counts[kind] for kind in ("Value", "Delta", "Failed", "Unchanged")),
        "values": sum(comparison.compared.values()),
        "transitions": sum(len(client.shown) for client in clients),
        "commits": len(commits),
        "connections": counts["connections"],
        "identities": counts["identities"],
        "identities_lost": counts["lost"],
        "worker_kills": KILLS,
        "deploys": 2,
    }


ALL_QUERIES = [
    "top",
    "between",
    "worst",
    "above",
    "named",
    "after",
    "levels",
    "beginners",
    "player",
    "table",
    "total",
    "newest",
    "full",
    "strongest",
    "mine",
    "guarded",
    "page",
]
