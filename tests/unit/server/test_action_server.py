"""The loop of a worker of actions: what is stopped before its first step, and the exchange of a route."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from headwater.values import encode
from headwater_protocol.errors import HeadwaterError
from headwater_server.functions.limits import WorkerLimits
from headwater_server.worker.actions import ActionServer
from headwater_server.worker.exchange import RouteExchange
from headwater_server.worker.messages import (
    ActionDone,
    Failure,
    FeedBody,
    RunAction,
    StopAction,
    WantBody,
)


class Sent:
    """Keeps what is sent to the daemon."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def send(self, message: object) -> None:
        self.messages.append(message)


class Never:
    """A bundle whose actions never end by themselves."""

    began = 0

    async def call_action(self, *args: Any, **options: Any) -> bytes:
        self.began += 1
        await asyncio.Event().wait()
        return encode(None)

    def streams(self, name: str) -> bool:
        return False

    def cancels_with_caller(self, name: str) -> bool:
        return True


@pytest.mark.parametrize("at_once", [True, False])
async def test_an_action_that_is_stopped_is_told_of_whenever_that_comes(at_once: bool) -> None:
    """Also in the turn in which it came, before its task has taken a step: its place would be taken for ever."""
    loop = asyncio.get_running_loop()
    page: Any = SimpleNamespace(begin=lambda *_: None, end=lambda: None, beat=lambda: None)
    world: Any = SimpleNamespace(mono_ns=lambda: 0)
    bundle: Any = Never()
    factory = loop.get_task_factory()
    server = ActionServer(loop, bundle, page, WorkerLimits(), world)
    sent = Sent()
    server._sender = sent
    try:
        server.receive(RunAction(1, "m:act", encode({}), None, False, 0))
        if not at_once:
            await asyncio.sleep(0)
        server.receive(StopAction(1, caller_left=True))
        for _ in range(5):
            await asyncio.sleep(0)
    finally:
        loop.set_task_factory(factory)
        if server._beating is not None:
            server._beating.cancel()
    assert [type(message) for message in sent.messages] == [ActionDone]
    assert sent.messages[0].failure.code == "cancelled"
    assert bundle.began == (0 if at_once else 1)


async def nothing(_: bytes) -> None: ...


async def test_no_more_of_a_body_comes_than_was_asked_for() -> None:
    sent = Sent()
    exchange = RouteExchange(7, 100, sent, nothing)
    first = asyncio.ensure_future(exchange.next())
    await asyncio.sleep(0)
    assert sent.messages == [WantBody(7, 100)], "nothing before the route reads"
    exchange.feed(FeedBody(7, b"a" * 60, False))
    exchange.feed(FeedBody(7, b"b" * 40, False))
    assert await first == b"a" * 60
    assert await exchange.next() == b"b" * 40
    assert sent.messages[1:] == [WantBody(7, 60), WantBody(7, 40)], "as much again as was taken"
    exchange.feed(FeedBody(7, b"", True))
    assert await exchange.next() is None
    assert await exchange.next() is None


async def test_a_body_that_fails_does_so_behind_what_came() -> None:
    exchange = RouteExchange(7, 100, Sent(), nothing)
    exchange.feed(FeedBody(7, b"a", False))
    exchange.feed(FeedBody(7, b"", True, Failure("frame_too_large", "too large")))
    assert await exchange.next() == b"a"
    with pytest.raises(HeadwaterError) as caught:
        await exchange.next()
    assert caught.value.code == "frame_too_large"
