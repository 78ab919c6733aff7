"""What a client tells of its connection and of the calls that wait, at any moment and change by change."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import connect
from headwater.client.blocking import connect_blocking
from headwater.client.states import States
from headwater_protocol.errors import HeadwaterError, RequestError
from support.toy_server import ToyServer, toy_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from headwater.client.aio import Client
    from headwater.client.states import ClientState

WAIT_S = 20.0


@pytest.fixture
async def toy() -> AsyncIterator[ToyServer]:
    async with toy_server(ToyServer()) as toy, asyncio.timeout(60):
        yield toy


async def when(states: States, holds: Callable[[ClientState], Any]) -> ClientState:
    """Return the first state of the stream for which something holds."""
    async with asyncio.timeout(WAIT_S):
        async for state in states:
            if holds(state):
                return state
    raise AssertionError("the states have ended")


async def test_a_client_tells_how_its_connection_stands() -> None:
    toy = ToyServer()
    async with toy_server(toy):
        port = int(toy.ws_url.rsplit(":", 1)[1])
    async with connect(f"ws://127.0.0.1:{port}", connect_timeout_s=None) as client:
        states = client.states()
        state = await anext(states)
        assert (state.phase, state.connections, state.retries, state.last_problem) == (
            "connecting",
            0,
            0,
            None,
        )
        failed = await when(states, lambda state: state.retries >= 2)
        assert failed.phase == "connecting"
        assert failed.last_problem is not None
        assert "refused" in failed.last_problem
        async with toy_server(toy, port=port):
            opened = await when(states, lambda state: state.connected)
            assert (opened.phase, opened.connections) == ("open", 1)
            assert opened.last_problem == failed.last_problem
            await when(states, lambda state: state.retries == 0)
            toy.cut()
            lost = await when(states, lambda state: not state.connected)
            assert (lost.phase, lost.connections) == ("reconnecting", 1)
            assert lost.since_mono >= opened.since_mono > 0
            assert lost.last_problem != failed.last_problem
            again = await when(states, lambda state: state.connected)
            assert again.connections == 2
            assert again.since_mono >= lost.since_mono
        lost_again = await when(states, lambda state: not state.connected)
        later = await when(states, lambda state: state.retries >= 1)
        assert later.since_mono == lost_again.since_mono  # when it was lost, not when it was last tried
    assert (await anext(states)).closed
    with pytest.raises(StopAsyncIteration):
        await anext(states)
    assert client.state.phase == "closed"


async def test_a_refused_client_tells_that_it_is_over(toy: ToyServer) -> None:
    toy.fatal_next = RequestError("who are you", code="unauthenticated")
    async with connect(toy.ws_url, connect_timeout_s=None) as client:
        state = await when(client.states(), lambda state: state.closed)
        assert state.last_problem is not None
        assert "who are you" in state.last_problem


@pytest.mark.parametrize("kind", ["ws_url", "tcp_url"])
async def test_a_client_tells_what_it_waits_for_and_since_when(toy: ToyServer, kind: str) -> None:
    loop = asyncio.get_running_loop()
    async with connect(getattr(toy, kind)) as client:
        states = client.states()
        assert (await anext(states)).requests == 0
        assert client.state.oldest_request_mono is None
        toy.mute = True

        def call(body: str) -> asyncio.Task[Any]:
            return asyncio.create_task(client.mutation("messages:send", channel="c", body=body))

        began = loop.time()
        first = call("one")
        one = await when(states, lambda state: state.requests == 1)
        assert one.oldest_request_mono is not None
        assert began <= one.oldest_request_mono <= loop.time()
        between = loop.time()
        second = call("two")
        two = await when(states, lambda state: state.requests == 2)
        assert two.oldest_request_mono == one.oldest_request_mono
        first.cancel()
        left = await when(states, lambda state: state.requests == 1)
        assert left.oldest_request_mono is not None
        assert left.oldest_request_mono >= between
        # A query that waits counts as well, and requests wait on over a lost connection.
        toy.silent = True
        query = asyncio.create_task(client.query("messages:list", channel="c"))
        await when(states, lambda state: state.requests == 2 and state.queries == 1)
        toy.mute = toy.silent = False
        toy.cut()
        assert await second
        await query
        done = await when(states, lambda state: state.requests == 0)
        assert (done.oldest_request_mono, done.queries, done.mutations) == (None, 0, 0)


async def test_calls_that_wait_for_their_turn_are_counted(toy: ToyServer) -> None:
    async with connect(toy.ws_url, in_flight_max=1) as client:
        toy.mute = True
        calls = [
            asyncio.create_task(client.mutation("messages:send", channel="c", body=str(number)))
            for number in range(3)
        ]
        state = await when(client.states(), lambda state: state.requests == 3)
        assert state.mutations == 1
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert all(isinstance(outcome, HeadwaterError) for outcome in outcomes)


async def test_a_stream_that_nobody_holds_is_forgotten(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        for _ in range(3):
            await anext(client.states())
        assert watched(client) == 0
        held = client.states()
        assert watched(client) == 1
        await anext(held)


def watched(client: Client) -> int:
    return len(client._watching)


async def test_blocking_callers_follow_states_too(toy: ToyServer) -> None:
    loop = asyncio.get_running_loop()

    def follow() -> list[str]:
        with connect_blocking(toy.ws_url) as client:
            states = client.states()
            phases = [states.next(WAIT_S).phase]
            with pytest.raises(TimeoutError):
                states.next(0.01)
            loop.call_soon_threadsafe(toy.cut)
            while "reconnecting" not in phases or phases[-1] != "open":
                phases.append(states.next(WAIT_S).phase)
            assert client.state.connected
        return phases

    phases = await asyncio.to_thread(follow)
    assert phases[0] == "open"


async def test_a_client_that_forgets_to_tell_is_seen(toy: ToyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(States, "changed", lambda _: None)
    async with connect(toy.ws_url) as client:
        states = client.states()
        assert (await anext(states)).connected
        following = asyncio.create_task(anext(states))
        await asyncio.sleep(0)
        toy.cut()
        while client.state.connections < 2:
            await asyncio.sleep(0.005)
        assert not following.done()
        following.cancel()
        await asyncio.wait({following})
