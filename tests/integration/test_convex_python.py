"""Convex's own client of Python, which is made of its Rust client, unmodified, in front of a real daemon."""

from __future__ import annotations

import asyncio
import base64
import math
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_clients.driven import ClientError, Peer, python
from support.daemon import RunningDaemon, running
from support.ill_proxy import Illness, IllProxy
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("convex")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("convex-python"), deploy="dialect") as daemon:
        yield daemon


@asynccontextmanager
async def client(daemon: RunningDaemon) -> AsyncIterator[Peer]:
    async with python(f"http://127.0.0.1:{daemon.port}") as peer:
        yield peer


async def test_what_somebody_writes_everybody_sees(daemon: RunningDaemon) -> None:
    async with client(daemon) as one, client(daemon) as other:
        seen = await other.watch("messages:list", {"channel": "all"})
        await other.until(seen, lambda rows: rows == [])
        made = await one.mutate("messages:send", {"channel": "all", "author": "a", "body": "hello"})
        (row,) = await other.until(seen, len)
        assert (row["_id"], row["body"]) == (made, "hello")
        assert await one.do("act", name="messages:think", args={"channel": "all", "body": "thought"}) == 2
        await other.until(seen, lambda rows: len(rows) == 2)
        rows = await one.do("query", name="messages:list", args={"channel": "all"})
        assert [row["body"] for row in rows] == ["hello", "thought"]


async def test_errors_of_functions_reach_who_called(daemon: RunningDaemon) -> None:
    """A mutation that fails with data is over for this client with the transition behind its answer."""
    async with client(daemon) as peer:
        for op, name in (("mutate", "messages:refuse"), ("act", "messages:fail_late")):
            with pytest.raises(ClientError) as application:
                await peer.do(op, name=name, args={"data": {"code": "full"}})
            assert (application.value.name, application.value.data) == ("ConvexError", {"code": "full"})
            with pytest.raises(ClientError, match="Server Error") as fault:
                await peer.do(op, name=name, args={})
            assert not fault.value.has_data
            with pytest.raises(ClientError, match="no function"):
                await peer.do(op, name="messages:nowhere", args={})
        watch = await peer.watch("messages:fail", {"channel": "failing", "data": 7})
        told = await peer.until(watch, bool)
        assert (told.name, told.data) == ("ConvexError", 7)
        await peer.mutate("messages:send", {"channel": "failing", "author": "a", "body": "b"})
        await peer.until(watch, lambda shown: shown == 1)


async def test_without_a_transition_behind_failures_the_client_waits_for_ever(tmp_path: Path) -> None:
    broken = RunningDaemon(tmp_path)
    broken.break_rule("convex_uncovered")
    try:
        await asyncio.to_thread(broken.start)
        await asyncio.to_thread(broken.must_deploy, "dialect")
        async with client(broken) as peer, client(broken) as other:
            refused = peer.start("mutate", name="messages:refuse", args={"data": 1})
            for _ in range(20):
                with pytest.raises(ClientError, match="Server Error"):
                    await other.mutate("messages:refuse")
            assert not refused.done()
            peer.kill()
    finally:
        broken.end()


async def test_unusual_values_come_back_as_they_were(daemon: RunningDaemon) -> None:
    def marked(name: str, layout: str, value: Any) -> dict[str, str]:
        return {name: base64.b64encode(struct.pack(layout, value)).decode()}

    values = [
        None, True, 0, 1.5, -2, 1e300, "", "é 𝄞", [], {}, [[1], {"a": {}}],
        *[marked("$integer", "<q", value) for value in (5, 2**63 - 1, -(2**63))],
        *[marked("$float", "<d", value) for value in (math.nan, math.inf, -math.inf, -0.0)],
        {"$bytes": base64.b64encode(b"\x00\xff").decode()},
    ]  # fmt: skip
    async with client(daemon) as peer:
        assert await peer.mutate("messages:keep", {"name": "unusual", "value": values}) == values
        assert await peer.do("query", name="messages:kept", args={"name": "unusual"}) == values
        told = await peer.do("query", name="messages:types", args={"whole": 3, "number": 3})
        assert told == ["int", "float", {"$bytes": ""}, None]


async def test_many_rows_arrive(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        watch = await peer.watch("messages:list", {"channel": "many"})
        await peer.mutate("messages:send_many", {"channel": "many", "count": 1000})
        rows = await peer.until(watch, lambda rows: len(rows) == 1000)
        assert [row["body"] for row in rows] == [f"{number:04}" for number in range(1000)]


async def test_a_transition_that_is_larger_than_a_frame_may_be_arrives(daemon: RunningDaemon) -> None:
    """After a reconnect all results come together: 19 MB here, and the client refuses frames from 16 MiB on."""
    async with IllProxy(daemon.port) as proxy, python(f"http://127.0.0.1:{proxy.port}") as peer:
        counter = await peer.watch("messages:counter", {"name": "large"})
        for channel in ("large 0", "large 1", "large 2"):
            for number in range(7):
                row = {"channel": channel, "author": "a", "body": f"{number}" + "x" * 900_000}
                sent = {"path": "messages:send", "args": row}
                assert (await asyncio.to_thread(daemon.post, "/api/mutation", sent)).status == 200
            watch = await peer.watch("messages:list", {"channel": channel})
            await peer.until(watch, lambda rows: len(rows) == 7)
        proxy.fall_ill(Illness.RESET)
        add = {"path": "messages:add", "args": {"name": "large"}}
        assert (await asyncio.to_thread(daemon.post, "/api/mutation", add)).json["value"] == 1
        await peer.until(counter, lambda shown: shown == 1)


async def test_users_sign_in_and_out(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        watch = await peer.watch("messages:whoami")
        await peer.until(watch, lambda shown: shown is None)
        await peer.do("auth", tokens=[user_token("ada")])
        await peer.until(watch, lambda shown: shown == f"{STAFF}|ada")
        assert await peer.mutate("messages:signed", {"channel": "s", "body": "b"}) == f"{STAFF}|ada"
        await peer.do("sign_out")
        await peer.until(watch, lambda shown: shown is None)
        await peer.do("admin", key=daemon.key)
        secret = await peer.watch("messages:secret")
        await peer.until(secret, lambda shown: shown == "secret")


async def test_over_cuts_and_a_restart_it_goes_on(tmp_path: Path) -> None:
    """This client takes another session with each connection: what it sends again may take effect twice, for Convex too."""
    with running(tmp_path, deploy="dialect") as daemon:
        async with IllProxy(daemon.port) as proxy, python(f"http://127.0.0.1:{proxy.port}") as peer:
            watch = await peer.watch("messages:counter", {"name": "cut"})
            await peer.until(watch, lambda shown: shown == 0)
            for number in range(1, 6):
                assert await peer.mutate("messages:add", {"name": "cut"}) == number
            proxy.fall_ill(Illness.RESET)
            # What it sends in the moment of a cut it may give up as "channel closed", before a server has a say.
            add = {"path": "messages:add", "args": {"name": "cut"}}
            assert (await asyncio.to_thread(daemon.post, "/api/mutation", add)).json["value"] == 6
            await peer.until(watch, lambda shown: shown == 6)
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.start)
            assert (await asyncio.to_thread(daemon.post, "/api/mutation", add)).json["value"] == 7
            await peer.until(watch, lambda shown: shown == 7)
            assert await peer.mutate("messages:add", {"name": "cut"}) == 8
            await peer.until(watch, lambda shown: shown == 8)
            assert peer.shown[watch] == sorted(peer.shown[watch])
