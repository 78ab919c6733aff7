"""The client's pages over a real daemon, against plain dicts: joined without gaps and doubles, at any moment.

Rows come, go and change their places while connections are cut. Whatever the pages show together
is the beginning of the sorted rows as they were behind one commit, and never of an earlier one than before.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import connect
from headwater.client.blocking import connect_blocking
from headwater.client.pages import Exchange, PageChain, PageSlot
from headwater_protocol.errors import HeadwaterError, RequestError
from support.cutting_proxy import CuttingProxy, Figures, Plan, Point
from support.daemon import BUNDLES, running
from support.eager_client import EagerClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from headwater.client.pages import Paged
    from headwater_protocol.client_events import ClientEvent
    from support.daemon import RunningDaemon
    from support.runs import LongRun

ROUNDS = 60
KEYS = 60
RANKS = 1_000_000
WAIT_S = 60.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("paged"), deploy="paged") as daemon:
        yield daemon


class Model:
    """The rows of one board behind each commit.

    Attributes:
        states: What was stored, oldest first; the last one may not be committed yet.
    """

    def __init__(self, chance: random.Random) -> None:
        self.states: list[list[tuple[int, str]]] = [[]]
        self._ranks: dict[str, int] = {}
        self._used: set[int] = set()  # equal ranks would be told apart by ids, which the model does not know
        self._chance = chance

    def change(self) -> dict[str, int | None]:
        """Return a change, and take note of what it makes."""
        chance, ranks = self._chance, self._ranks
        change: dict[str, int | None] = {}
        # Now and then many rows come into one place, or whole stretches go.
        centre = chance.randrange(RANKS) if chance.random() < 0.3 else None
        for _ in range(chance.choice((1, 1, 2, 5, 20))):
            key = f"key {chance.randrange(KEYS)}"
            if key in ranks and chance.random() < 0.4:
                change[key] = None
            else:
                rank = chance.randrange(RANKS) if centre is None else centre + chance.randrange(1000)
                rank = rank if rank not in self._used else max(self._used) + 1
                self._used.add(rank)
                change[key] = rank
        for key, rank in change.items():
            if rank is None:
                ranks.pop(key, None)
            else:
                ranks[key] = rank
        self.states.append(sorted((rank, key) for key, rank in ranks.items()))
        return change


class WatchedClient(EagerClient):
    """A client whose pages are looked at behind every step.

    Attributes:
        faults: What was wrong.
        looks: How many different lists were looked at.
        pages: The most pages that were loaded at a time.
        cuts: How many connections were cut.
    """

    def __init__(self, url: str, chance: random.Random, model: Model) -> None:
        super().__init__(url, chance)
        self.faults: list[str] = []
        self.looks = 0
        self.pages = self.cuts = 0
        self.chain: PageChain | None = None
        self._model = model
        self._at = 0
        self._seen: Paged | None = None

    def _dispatch(self, events: Sequence[ClientEvent]) -> None:
        super()._dispatch(events)
        if self.chain is not None and self.chain.shown is not self._seen:
            self._seen = self.chain.shown
            self.looks += 1
            self.pages = max(self.pages, len(self.chain._pages))
            self._look(self._seen)

    def _look(self, shown: Paged) -> None:
        rows = rows_of(shown)
        states = self._model.states
        for number in range(self._at, len(states)):
            state = states[number]
            if rows == state[: len(rows)] and (shown.status != "exhausted" or rows == state):
                self._at = number
                return
        self.faults.append(f"{shown.status} at {self._at} of {len(states)}: {rows}")


async def watched(
    daemon: RunningDaemon, name: str, seed: int, *, rounds: int = ROUNDS, tcp: bool = False
) -> WatchedClient:
    """Load pages while rows come and go and connections are cut, and return the client with what it saw."""
    chance = random.Random(f"{name} {seed} {tcp}")
    model, figures = Model(chance), Figures()
    board = f"{name} {seed} {tcp}"

    def plan() -> Plan:
        point = chance.choice([Point.IN_ANSWER, Point.AFTER_ANSWER, Point.BEFORE_REQUEST])
        return Plan(point=point, count=chance.choice((2, 5, 9)), reset=chance.random() < 0.5)

    target = daemon.tcp_port if tcp else daemon.port
    async with (
        CuttingProxy(target, plan, figures, websocket=not tcp) as proxy,
        connect(daemon.url) as other,
        asyncio.timeout(WAIT_S * (1 + rounds / ROUNDS)),
    ):
        client = WatchedClient(f"{'tcp' if tcp else 'ws'}://127.0.0.1:{proxy.port}", chance, model)
        async with client:
            for _ in range(4):
                await other.mutation("rows:change", board=board, ranks=model.change())
            pages = client.paginate("rows:ranked", chance.choice((2, 3, 5)), board=board)
            client.chain = pages._chain
            for number in range(rounds):
                # Those of the watched client are what the proxy cuts at.
                writer = client if number % 2 else other
                await writer.mutation("rows:change", board=board, ranks=model.change())
                if chance.random() < 0.5:
                    pages.load_more()
            proxy.cutting = False
            while not client.faults and (
                pages.status != "exhausted" or rows_of(pages._chain.shown) != model.states[-1]
            ):
                pages.load_more()
                await asyncio.sleep(0.005)
            stored = await other.query("rows:whole", board=board)
            assert [(row["rank"], row["key"]) for row in stored] == model.states[-1]
    client.cuts = sum(figures.cuts.values())
    assert client.cuts > rounds / 20
    return client


def rows_of(paged: Paged) -> list[tuple[int, str]]:
    return [(row["rank"], row["key"]) for row in paged.items]


@pytest.mark.parametrize("tcp", [False, True])
async def test_pages_are_joined_without_gaps_and_doubles(
    daemon: RunningDaemon, tcp: bool, exchanges: Counter[str]
) -> None:
    pages = 0
    for seed in range(3):
        client = await watched(daemon, "sound", seed, tcp=tcp)
        assert client.faults == [], f"seed {seed}"
        assert client.looks > ROUNDS / 4
        pages = max(pages, client.pages)
    assert pages > 3
    assert set(exchanges) == {"splits", "joins"}


@pytest.fixture(autouse=True)
def exchanges(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count how often pages were split and joined."""
    counts: Counter[str] = Counter()
    put_in_place = PageChain._put_in_place

    def counting(chain: PageChain, exchange: Exchange) -> None:
        counts["splits" if exchange.splits else "joins"] += 1
        put_in_place(chain, exchange)

    monkeypatch.setattr(PageChain, "_put_in_place", counting)
    return counts


def at_once(page: PageSlot, value: Any, error: Any) -> None:
    """Show a page as it comes, not behind the step in which all of them have come."""
    page.value, page.error = value, error
    page._chain.settle()


def unended(make: Callable[..., PageSlot]) -> Callable[..., PageSlot]:
    """Leave the end of the second half of a page open."""
    return lambda chain, size, begin, end=None, mark=False: make(chain, size, begin, end=None, mark=mark)


@pytest.mark.parametrize("broken", ["torn", "unended"])
async def test_pages_with_a_rule_taken_out_are_seen(
    daemon: RunningDaemon, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if broken == "torn":
        monkeypatch.setattr(PageSlot, "put", at_once)
    else:
        monkeypatch.setattr(PageChain, "_subscribe", unended(PageChain._subscribe))
        monkeypatch.setattr(Exchange, "fits", True)
        monkeypatch.setattr(PageChain, "_keep_chained", lambda _: None)
    for seed in range(20):
        client = await watched(daemon, broken, seed)
        if client.faults:
            return
    raise AssertionError("twenty runs showed no fault")


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_pages_at_length(daemon: RunningDaemon, long_run: LongRun, exchanges: Counter[str]) -> None:
    for seed in long_run.seeds():
        exchanges.clear()
        client = await watched(daemon, "long", seed, rounds=600, tcp=seed % 2 == 0)
        assert client.faults == [], f"seed {seed}"
        long_run.record(
            "pages", seed, lists=client.looks, cuts=client.cuts, max_pages=client.pages, **exchanges
        )


# ---------------------------------------------------------------------------------------------- plain use


def keys(paged: Paged) -> list[str]:
    return [row["key"] for row in paged.items]


async def test_pages_say_whether_there_is_more(daemon: RunningDaemon) -> None:
    ranks = {f"k{number}": number for number in range(7)}
    async with connect(daemon.url) as client, asyncio.timeout(WAIT_S):
        await client.mutation("rows:change", board="status", ranks=ranks)
        async with client.paginate("rows:ranked", 3, board="status") as pages:
            assert pages.status == "loading_first_page"
            assert not pages.load_more()
            first = await anext(pages)
            assert (keys(first), first.status) == (["k0", "k1", "k2"], "can_load_more")
            assert pages.load_more()
            assert not pages.load_more()  # it is on its way
            assert pages.status == "loading_more"
            while (shown := await anext(pages)).status == "loading_more":
                assert keys(shown) == keys(first)
            assert keys(shown) == [f"k{number}" for number in range(6)]
            assert pages.load_more(100)
            while (shown := await anext(pages)).status == "loading_more":
                pass
            assert (keys(shown), shown.status) == (list(ranks), "exhausted")
            assert not pages.load_more()
            await client.mutation("rows:change", board="status", ranks={"new": -1, "k6": None})
            shown = await anext(pages)
            assert keys(shown) == ["new", *list(ranks)[:-1]]
            shown.items[0]["key"] = "changed by its owner"
            await client.mutation("rows:change", board="status", ranks={"k5": None})
            assert keys(await anext(pages)) == ["new", "k0", "k1", "k2", "k3", "k4"]
            assert client.state.queries == 3
        assert client.state.queries == 0
        with pytest.raises(StopAsyncIteration):
            await anext(pages)


async def test_the_argument_is_found_by_name_by_the_function_or_as_told(daemon: RunningDaemon) -> None:
    class Downwards:
        name = "rows:downwards"
        page_argument = "how"

    async with connect(daemon.url) as client, asyncio.timeout(WAIT_S):
        await client.mutation("rows:change", board="names", ranks={"a": 1, "b": 2})
        assert keys(await anext(client.paginate(Downwards(), 5, board="names"))) == ["b", "a"]
        assert keys(await anext(client.paginate("rows:downwards", 5, "how", board="names"))) == ["b", "a"]
        with pytest.raises(RequestError, match="how"):
            await anext(client.paginate("rows:downwards", 5, board="names"))
        with pytest.raises(HeadwaterError, match="returns a Page"):
            await anext(client.paginate("rows:unpaged", 5, board="names"))


async def test_pages_are_loaded_again_where_a_deploy_has_changed_their_query(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    ranks = {f"k{number}": 100 - number for number in range(9)}
    changed = tmp_path / "functions"
    shutil.copytree(BUNDLES / "paged" / "functions", changed)
    source = (changed / "rows.py").read_text()
    (changed / "rows.py").write_text(source.replace("Row.by_rank", "Row.by_key"))
    async with connect(daemon.url) as client, asyncio.timeout(WAIT_S):
        await client.mutation("rows:change", board="deploy", ranks=ranks)
        async with client.paginate("rows:ranked", 2, board="deploy") as pages:
            for count in (2, 4, 6):
                while len((await anext(pages)).items) != count:
                    pass
                pages.load_more()
            while len((shown := await anext(pages)).items) != 8:
                pass
            assert keys(shown) == [f"k{number}" for number in range(8, 0, -1)]
            try:
                await asyncio.to_thread(daemon.must_deploy, changed)
                while (
                    shown.status != "can_load_more" or len(shown.items) != 8 or shown.items[0]["key"] != "k0"
                ):
                    shown = await anext(pages)
                assert keys(shown) == [f"k{number}" for number in range(8)]
            finally:
                await asyncio.to_thread(daemon.must_deploy, "paged")


async def test_pages_that_nobody_holds_are_left(daemon: RunningDaemon) -> None:
    async with connect(daemon.url) as client, asyncio.timeout(WAIT_S):
        async for _ in client.paginate("rows:ranked", 3, board="nobody"):
            break
        while client.state.queries:
            await asyncio.sleep(0.005)


async def test_pages_end_with_their_client(daemon: RunningDaemon) -> None:
    async with connect(daemon.url) as client, asyncio.timeout(WAIT_S):
        pages = client.paginate("rows:ranked", 3, board="ends")
        await anext(pages)
    with pytest.raises(StopAsyncIteration):
        await anext(pages)
    assert not pages.load_more()


def test_blocking_callers_have_pages_too(daemon: RunningDaemon) -> None:
    with connect_blocking(daemon.tcp_url) as client:
        client.mutation("rows:change", board="blocking", ranks={f"k{number}": number for number in range(4)})
        with client.paginate("rows:ranked", 2, board="blocking") as pages:
            assert keys(pages.next(WAIT_S)) == ["k0", "k1"]
            assert pages.load_more()
            while (shown := pages.next(WAIT_S)).status == "loading_more":
                pass
            assert keys(shown) == ["k0", "k1", "k2", "k3"]
