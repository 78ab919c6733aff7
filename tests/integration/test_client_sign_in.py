"""The Python clients signed in against a real daemon: refresh, refusal, expiry, out, another user."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import connect
from headwater.client.blocking import connect_blocking
from headwater_protocol.errors import RequestError
from support.daemon import running
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from headwater.client.aio import Client
    from headwater.client.subscription import Subscription
    from support.daemon import RunningDaemon

WAIT_S = 15.0


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("sign_in")
    options = ("--token-leeway-s", "0", "--session-tokens-limit-per-minute", "10000")
    with running(folder, *options, deploy="identity") as daemon:
        yield daemon


@pytest.fixture(params=["websocket", "tcp"])
def url(request: pytest.FixtureRequest, daemon: RunningDaemon) -> str:
    return daemon.url if request.param == "websocket" else daemon.tcp_url


class Service:
    """A sign-in service of one user.

    Attributes:
        asked: For each token, whether a fresh one was asked for.
        bad: How many of the next tokens the daemon refuses.
    """

    def __init__(self, user: str, lasts_s: float = 3600) -> None:
        self.user = user
        self.lasts_s = lasts_s
        self.asked: list[bool] = []
        self.bad = 0

    async def __call__(self, force_refresh: bool) -> str | None:
        self.asked.append(force_refresh)
        if self.bad:
            self.bad -= 1
            return "a.bad.token"
        return user_token(self.user, lasts_s=self.lasts_s)


async def shows(subscription: Subscription[Any], wanted: Any) -> None:
    async with asyncio.timeout(WAIT_S):
        async for value in subscription:
            if value == wanted:
                return


async def stands(client: Client, auth: str) -> None:
    async with asyncio.timeout(WAIT_S):
        async for state in client.states():
            if state.auth == auth:
                return


async def test_a_client_signs_in_switches_and_signs_out(url: str) -> None:
    ada = Service("ada")
    async with connect(url, auth=ada) as client:
        # Made before the verdict: they are hers, and wait for it.
        assert await client.mutation("notes:write", topic="t", text="x") == f"{STAFF}|ada: x"
        assert client.state.auth == "signed_in"
        who = client.subscribe("notes:whoami")
        await shows(who, f"{STAFF}|ada")
        await client.sign_in(lambda force: user_token("bob"))
        await shows(who, f"{STAFF}|bob")
        assert await client.mutation("notes:write", topic="t", text="y") == f"{STAFF}|bob: y"
        client.sign_out()
        assert client.state.auth == "nobody"
        await shows(who, None)
        with pytest.raises(RequestError) as caught:
            await client.mutation("notes:write", topic="t", text="z")
        assert caught.value.code == "unauthenticated"
    assert ada.asked == [False]


async def test_a_refused_token_is_replaced_by_a_fresh_one(url: str) -> None:
    ada = Service("ada")
    ada.bad = 1
    async with connect(url) as client:
        await client.sign_in(ada)
        assert ada.asked == [False, True]
        assert await client.query("notes:whoami") == f"{STAFF}|ada"


async def test_tokens_that_are_refused_again_and_again_sign_nobody_in(url: str) -> None:
    ada = Service("ada")
    ada.bad = 100
    async with connect(url, auth=ada) as client:
        with pytest.raises(RequestError) as caught:
            await client.mutation("notes:write", topic="t", text="never run as nobody")
        assert caught.value.code == "unauthenticated"
        await stands(client, "nobody")
        assert ada.asked == [False, True, True]
        with pytest.raises(RequestError) as caught:
            await client.sign_in("a fixed one that is bad")
        assert caught.value.code == "unauthenticated"
        assert await client.query("notes:whoami") is None


async def test_a_token_is_replaced_ahead_of_its_end_and_nobody_notices(url: str) -> None:
    ada = Service("ada", lasts_s=2.0)
    async with connect(url, auth=ada) as client:
        seen: list[Any] = []
        who = client.subscribe("notes:whoami")
        began_s = time.monotonic()

        async def watch() -> None:
            async for value in who:
                seen.append(value)  # noqa: PERF401 - looked at while it goes on

        watching = asyncio.create_task(watch())
        while time.monotonic() - began_s < 3.0:
            assert await client.query("notes:whoami") == f"{STAFF}|ada"
            await asyncio.sleep(0.1)
        watching.cancel()
        assert seen == [f"{STAFF}|ada"], "the first one has ended meanwhile"
        assert ada.asked[0] is False
        assert ada.asked[1:3] == [True, True]


async def test_a_token_that_ends_unnoticed_is_replaced_and_calls_wait_for_that(url: str) -> None:
    asked: list[bool] = []
    seen_as_nobody = asyncio.Event()

    async def opaque(force_refresh: bool) -> str:
        asked.append(force_refresh)
        if not force_refresh:
            return user_token("ada", lasts_s=1.0)
        await seen_as_nobody.wait()
        return user_token("ada")

    async with connect(url) as client:
        client._authentication._plan = lambda token: None  # type: ignore[method-assign] # a client whose clock is far off
        await client.sign_in(opaque)
        states = []

        async def watch() -> None:
            async for state in client.states():
                states.append(state.auth)  # noqa: PERF401 - likewise

        watching = asyncio.create_task(watch())
        who = client.subscribe("notes:whoami")
        await shows(who, f"{STAFF}|ada")
        await shows(who, None)
        writing = asyncio.create_task(client.mutation("notes:write", topic="t", text="w"))
        await asyncio.sleep(0)
        seen_as_nobody.set()
        assert await writing == f"{STAFF}|ada: w"
        await shows(who, f"{STAFF}|ada")
        watching.cancel()
    assert asked == [False, True]
    assert [state for state, last in zip(states, [None, *states], strict=False) if state != last] == [
        "signed_in",
        "signing_in",
        "signed_in",
    ]


async def test_a_service_that_is_down_signs_nobody_in(url: str) -> None:
    def down(force_refresh: bool) -> str:
        raise ConnectionError("the service is down")

    async with connect(url, auth=down) as client:
        assert client.state.auth == "nobody"
        assert await client.query("notes:whoami") is None


async def test_a_client_is_the_same_user_after_its_connection_was_lost(daemon: RunningDaemon) -> None:
    ada = Service("ada")
    async with connect(daemon.url, auth=ada) as client:
        who = client.subscribe("notes:whoami")
        await shows(who, f"{STAFF}|ada")
        await asyncio.to_thread(daemon.kill)
        writing = asyncio.create_task(client.mutation("notes:write", topic="t", text="on the way"))
        await asyncio.to_thread(daemon.start)
        async with asyncio.timeout(WAIT_S):
            assert await writing == f"{STAFF}|ada: on the way"


def test_the_blocking_client_does_the_same(daemon: RunningDaemon) -> None:
    threads = set()

    def fetch(force_refresh: bool) -> str:
        threads.add(threading.current_thread().name)
        return user_token("ada")

    with connect_blocking(daemon.url, auth=fetch) as client:
        assert client.mutation("notes:write", topic="t", text="x") == f"{STAFF}|ada: x"
        assert client.state.auth == "signed_in"
        client.sign_in(user_token("bob"))
        assert client.query("notes:whoami") == f"{STAFF}|bob"
        client.sign_out()
        assert client.query("notes:whoami") is None
        assert client.state.auth == "nobody"
        with pytest.raises(RequestError):
            client.sign_in("bad")
    assert "headwater-client" not in threads, "a slow service must not hold up the connection"
