"""The client and the command line end when they are told to, whatever is lost on the way."""

from __future__ import annotations

import asyncio
import random
import sys
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client import aio, connection, race
from headwater.client.aio import IN_FLIGHT_MAX, Client
from headwater.client.transport import open_transport, parse_address
from support.toy_server import ToyServer, toy_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from headwater.client.transport import Address, OpenTransport, Transport

WAIT_S = 20.0
STEPS = 80  # turns of the loop; connecting takes about 40 over WebSocket


@pytest.fixture
async def toy() -> AsyncIterator[ToyServer]:
    async with toy_server(ToyServer()) as toy, asyncio.timeout(100):
        yield toy


def client_of(url: str, opening: OpenTransport = open_transport) -> Client:
    return Client(
        parse_address(url),
        random.Random(5),
        wall_s=lambda: 0.0,
        connect_timeout_s=None,
        in_flight_max=IN_FLIGHT_MAX,
        frame_limit_bytes=1 << 20,
        open_transport=opening,
    )


class Deaf:
    """A way to connect that loses cancellations, as code that uses `asyncio.wait_for` may.

    Attributes:
        lost: How many.
    """

    def __init__(self, losses: int) -> None:
        self.lost = 0
        self.opening = asyncio.Event()
        self._losses = losses

    async def __call__(self, address: Address, /, *, frame_limit_bytes: int) -> Transport:
        self.opening.set()
        while self.lost < self._losses:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.lost += 1
        return await open_transport(address, frame_limit_bytes=frame_limit_bytes)


@pytest.mark.parametrize("kind", ["ws_url", "tcp_url"])
async def test_a_client_is_closed_although_connecting_lost_a_cancellation(
    toy: ToyServer, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It once waited for ever: it had cancelled its task once, and the task went on with a connection."""
    monkeypatch.setattr(race, "_CANCEL_AGAIN_S", 0.05)
    for losses in (1, 2):
        deaf = Deaf(losses)
        client = client_of(getattr(toy, kind), deaf)
        async with asyncio.timeout(WAIT_S), client:
            await deaf.opening.wait()
        assert deaf.lost == losses
        assert client.state.closed
        assert client._task is not None
        assert client._task.done()


async def test_closing_is_given_up_where_no_cancellation_is_heard(
    toy: ToyServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(race, "_CANCEL_AGAIN_S", 0.05)
    deaf = Deaf(7)
    client = client_of(toy.ws_url, deaf)
    async with asyncio.timeout(WAIT_S), client:
        await deaf.opening.wait()
    assert client.state.closed
    assert "does not end" in caplog.text
    assert client._task is not None
    while not client._task.done():
        client._task.cancel()
        await asyncio.sleep(0)


async def test_one_cancellation_alone_would_not_do(toy: ToyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cancelled_once(task: asyncio.Task[Any]) -> bool:
        task.cancel()
        await asyncio.wait({task})
        return True

    deaf = Deaf(1)
    client = client_of(toy.ws_url, deaf)
    async with client:
        await deaf.opening.wait()
        with monkeypatch.context() as patch:
            patch.setattr(aio, "ended", cancelled_once)
            closing = asyncio.create_task(client.close())
            while not client.state.connected:  # the cancellation is lost: it is connected, and stays so
                await asyncio.sleep(0.005)
            assert not closing.done()
            closing.cancel()
            await asyncio.wait({closing})
    assert client._task is not None
    assert client._task.done()


@pytest.mark.parametrize("kind", ["ws_url", "tcp_url"])
@pytest.mark.parametrize("reconnect", [False, True])
async def test_a_client_may_be_closed_at_every_step_of_connecting(
    toy: ToyServer, kind: str, reconnect: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "backoff_s", lambda *_: 0.0)
    others = asyncio.all_tasks()
    found = set()
    for turns in range(STEPS):
        client = client_of(getattr(toy, kind))
        async with asyncio.timeout(WAIT_S), client:
            if reconnect:
                updates = client.subscribe("messages:list", channel="c")
                await anext(updates)
                toy.cut()
                while client.state.connected:
                    await asyncio.sleep(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            found.add(client.state.connected)
        assert client._task is not None
        assert client._task.done()
    assert found == {False, True}  # the steps span all of it
    while toy.connected:
        await asyncio.sleep(0.005)
    left = [task for task in asyncio.all_tasks() - others if "headwater" in task.get_name()]
    assert left == []


# --------------------------------------------------------------------------------------- the command line

# Exit with the code of a command that waits for ever, when another thread than the main one is given SIGINT:
# what the kernel does as well when a signal comes between a loop's last look and its sleep.
INTERRUPTED_ELSEWHERE = """
import asyncio, os, signal, sys, threading, time
from headwater.cli.deployment import output_for, run_command
import typer

ready = threading.Event()

def interrupt():
    ready.wait()
    time.sleep(0.2)  # let the loop fall asleep
    os.kill(os.getpid(), signal.SIGINT)

async def wait():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    ready.set()
    await asyncio.Event().wait()

threading.Thread(target=interrupt, daemon=True).start()
try:
    run_command(output_for(), wait())
except typer.Exit as exit:
    sys.exit(exit.exit_code)
"""


async def test_an_interrupt_wakes_a_command_that_sleeps() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", INTERRUPTED_ELSEWHERE)
    try:
        async with asyncio.timeout(WAIT_S):
            assert await process.wait() == 130
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
