"""Optimistic updates in front of a real daemon, on connections that are cut: no value that is shown flickers."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import connect
from headwater.client.blocking import connect_blocking
from headwater_protocol.client_events import ValueChanged
from headwater_protocol.client_session import ClientSession
from headwater_protocol.errors import ApplicationError, HeadwaterError, RequestError
from support.cutting_proxy import CuttingProxy, Figures, Plan, Point
from support.daemon import RunningDaemon
from support.eager_client import EagerClient
from support.flickering_sessions import BROKEN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from headwater.client.local_results import LocalResults
    from headwater_protocol.client_events import ClientEvent
    from support.runs import LongRun

CALLS = 60
TASKS = 3


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    daemon = RunningDaemon(tmp_path_factory.mktemp("optimistic"))
    try:
        daemon.start()
        daemon.must_deploy("once")
        yield daemon
    finally:
        daemon.end()


def adding(writer: str, number: int) -> Callable[[LocalResults], None]:
    """Return an update that shows an entry at the end of its list, and counts it."""

    def update(results: LocalResults) -> None:
        entries = results.get("once:entries", writer=writer, after=-1)
        counters = results.get("once:counters")
        if entries is not None and counters is not None:
            place = counters.get(writer, 0) + 1
            results.set("once:entries", [*entries, [place, number, 0]], writer=writer, after=-1)
            results.set("once:counters", counters | {writer: place})

    return update


class WatchedClient(EagerClient):
    """A client whose every single value is looked at, not only those that a consumer comes round to take.

    Attributes:
        pending: Numbers of the entries that are to be seen: called, and not failed.
        failing: Those whose call is asked to fail: they may be seen until it has.
        values: How many values were looked at.
        cuts: How many connections were cut.
        faults: What was wrong.
    """

    def __init__(self, url: str, writer: str, session: type[ClientSession], chance: random.Random) -> None:
        super().__init__(url, chance)
        self._session = self._connection.session = session(chance.randbytes(16), "test")
        self.writer = writer
        self.pending: set[int] = set()
        self.failing: set[int] = set()
        self.values = 0
        self.cuts = 0
        self.faults: list[str] = []
        self.shown: dict[int, Any] = {}

    def _dispatch(self, events: Sequence[ClientEvent]) -> None:
        for event in events:
            if isinstance(event, ValueChanged):
                self.values += 1
                self.shown[event.query] = event.value
                if event.query == 1:
                    self.look([entry[1] for entry in event.value])
        if 1 in self.shown and 2 in self.shown:
            count = self.shown[2].get(self.writer, 0)
            if count != len(self.shown[1]):
                self.faults.append(f"torn: {count} counted, {len(self.shown[1])} shown")
        super()._dispatch(events)

    def look(self, numbers: list[int]) -> None:
        if len(set(numbers)) != len(numbers):
            self.faults.append(f"shown twice: {numbers}")
        if not self.pending <= set(numbers):
            self.faults.append(f"not shown: {self.pending - set(numbers)}")
        if not set(numbers) <= self.pending | self.failing:
            self.faults.append(f"not rolled back: {set(numbers) - self.pending - self.failing}")

    async def add(self, number: int, *, fail: bool) -> None:
        (self.failing if fail else self.pending).add(number)
        try:
            update = adding(self.writer, number)
            await self.mutation("once:add", update, writer=self.writer, number=number, fail=fail)
        except ApplicationError:
            self.failing.discard(number)
            if number in [entry[1] for entry in self.shown[1]]:
                self.faults.append(f"{number} failed and is still shown")


@contextlib.asynccontextmanager
async def proxied(
    daemon: RunningDaemon, chance: random.Random, *, tcp: bool
) -> AsyncIterator[tuple[str, Figures]]:
    figures = Figures()

    def plan() -> Plan:
        return Plan(
            point=chance.choice(list(Point)),
            count=chance.choice((1, 2, 3, 5)),
            reset=chance.random() < 0.5,
            lag_s=chance.choice((0.0, 0.002, 0.02)),
        )

    target, scheme = (daemon.tcp_port, "tcp") if tcp else (daemon.port, "ws")
    async with CuttingProxy(target, plan, figures, websocket=not tcp) as proxy:
        yield f"{scheme}://127.0.0.1:{proxy.port}", figures


async def watched(
    daemon: RunningDaemon,
    writer: str,
    session: type[ClientSession],
    seed: int,
    *,
    tcp: bool = False,
    calls: int = CALLS,
) -> WatchedClient:
    """Add entries under cuts and while another client writes, and return the client with what it saw."""
    chance = random.Random(f"{writer} {seed}")  # a session id of its own
    numbers = iter(range(calls))
    async with (
        proxied(daemon, chance, tcp=tcp) as (url, figures),
        connect(daemon.url) as other,
        asyncio.timeout(60 + calls),
    ):
        client = WatchedClient(url, writer, session, chance)
        async with client:
            entries = client.subscribe("once:entries", writer=writer, after=-1)
            counters = client.subscribe("once:counters")
            await anext(entries)
            await anext(counters)

            async def call() -> None:
                for number in numbers:
                    await client.add(number, fail=chance.random() < 0.2)

            async def write() -> None:
                for number in range(calls):
                    await other.mutation("once:add", writer=f"not {writer}", number=number)

            await asyncio.gather(write(), *(call() for _ in range(TASKS)))
            await entries.aclose()
            await counters.aclose()
        client.cuts = sum(figures.cuts.values())
        assert client.cuts > calls / 20
        stored = await other.query("once:entries", writer=writer, after=-1)
        assert {entry[1] for entry in stored} == client.pending
    return client


@pytest.mark.parametrize("tcp", [False, True])
async def test_no_value_flickers_on_connections_that_are_cut(daemon: RunningDaemon, tcp: bool) -> None:
    for seed in range(3):
        client = await watched(daemon, f"writer {seed} {tcp}", ClientSession, seed, tcp=tcp)
        assert client.faults == [], f"seed {seed}"
        assert client.values > CALLS


@pytest.mark.slow
@pytest.mark.timeout(0)
async def test_no_value_flickers_at_length(daemon: RunningDaemon, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        tcp = seed % 2 == 0
        client = await watched(daemon, f"long {seed}", ClientSession, seed, tcp=tcp, calls=10 * CALLS)
        assert client.faults == [], f"seed {seed}"
        long_run.record("flicker", seed, values=client.values, cuts=client.cuts, calls=10 * CALLS)


@pytest.mark.parametrize("broken", BROKEN)
async def test_a_session_that_flickers_is_seen(daemon: RunningDaemon, broken: type[ClientSession]) -> None:
    for seed in range(30):
        client = await watched(daemon, f"{broken.__name__} {seed}", broken, seed, tcp=seed % 2 == 0)
        if client.faults:
            return
    raise AssertionError("thirty runs showed no fault")


async def test_a_change_shows_before_the_server_knows_and_goes_with_its_failure(
    daemon: RunningDaemon,
) -> None:
    async with connect(daemon.url) as client, asyncio.timeout(60):
        entries = client.subscribe("once:entries", writer="eve", after=-1)
        counters = client.subscribe("once:counters")
        assert await anext(entries) == []
        await anext(counters)
        call = asyncio.create_task(
            client.mutation("once:add", adding("eve", 7), writer="eve", number=7, fail=True)
        )
        assert await anext(entries) == [[1, 7, 0]]
        assert not call.done()
        with pytest.raises(ApplicationError):
            await call
        assert await anext(entries) == []


async def test_an_update_that_raises_sends_nothing(daemon: RunningDaemon) -> None:
    def wrong(results: LocalResults) -> None:
        results.set("once:counters", object())

    def all_of_them(results: LocalResults) -> None:
        seen.extend(results.all("once:entries"))

    async with connect(daemon.url) as client, asyncio.timeout(60):
        with pytest.raises(RequestError):
            await client.mutation("once:add", wrong, writer="mallory", number=1)
        entries = client.subscribe("once:entries", after=-1, writer="mallory")
        assert await anext(entries) == []
        seen: list[Any] = []
        await client.mutation("once:add", all_of_them, writer="mallory", number=2)
        assert seen[0] == ({"writer": "mallory", "after": -1}, [])
        assert [entry[1] for entry in await anext(entries)] == [2]


async def test_a_cancelled_call_keeps_its_change_until_it_is_decided(daemon: RunningDaemon) -> None:
    async with connect(daemon.url) as client, asyncio.timeout(60):
        entries = client.subscribe("once:entries", writer="dan", after=-1)
        counters = client.subscribe("once:counters")
        await anext(entries)
        await anext(counters)
        call = asyncio.create_task(client.mutation("once:add", adding("dan", 1), writer="dan", number=1))
        assert await anext(entries) == [[1, 1, 0]]
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        value = await anext(entries)
        assert [entry[:2] for entry in value] == [[1, 1]]
        assert value[0][2] != 0


def test_blocking_callers_have_updates_too(daemon: RunningDaemon) -> None:
    with connect_blocking(daemon.url) as client:
        with client.subscribe("once:entries", writer="bob", after=-1) as entries:
            assert entries.next(30) == []
            client.mutation("once:add", adding("bob", 5), writer="bob", number=5)
            assert [entry[1] for entry in entries.next(30)] == [5]
        with pytest.raises(HeadwaterError):
            client.mutation("once:add", adding("bob", 6), writer="bob", number=6, fail=True)
