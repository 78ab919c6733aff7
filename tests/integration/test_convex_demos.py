"""The demos in `examples/convex-demos`: the calls that their front ends make, by Convex's own client."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_clients.driven import ClientError, Peer, javascript
from support.daemon import running

from tools.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from support.daemon import RunningDaemon

pytestmark = pytest.mark.xdist_group("convex")
DEMOS = ROOT / "examples" / "convex-demos"
HELLO = {"body": "hello", "author": "User 7"}


@asynccontextmanager
async def demo(folder: Path, name: str | Path) -> AsyncIterator[tuple[RunningDaemon, Peer]]:
    """Run a demo, named or in a folder of functions."""
    functions = DEMOS / name / "functions" if isinstance(name, str) else name
    with running(folder, deploy=functions) as daemon:
        async with javascript(f"http://127.0.0.1:{daemon.port}") as peer:
            yield daemon, peer


def plain(row: Any) -> dict[str, Any]:
    return {name: value for name, value in row.items() if not name.startswith("_")}


@pytest.mark.parametrize("name", ["tutorial", "typescript", "args-validation"])
async def test_messages_are_listed_and_sent(tmp_path: Path, name: str) -> None:
    async with demo(tmp_path, name) as (_, peer):
        watch = await peer.watch("messages:list")
        await peer.until(watch, lambda rows: rows == [])
        assert await peer.mutate("messages:send", HELLO) is None
        (row,) = await peer.until(watch, len)
        assert row.keys() == {"_id", "_creationTime", "body", "author"}
        assert plain(row) == HELLO
        with pytest.raises(ClientError, match="ArgumentValidationError"):
            await peer.mutate("messages:send", {"body": 5, "author": "a"})


async def test_custom_errors(tmp_path: Path) -> None:
    async with demo(tmp_path, "custom-errors") as (_, peer):
        watch = await peer.watch("messages:list")
        with pytest.raises(ClientError) as refused:
            await peer.mutate("messages:sendMessage", {**HELLO, "body": "x" * 51})
        assert refused.value.data == "Message is over 50 characters."
        for _ in range(21):
            await peer.mutate("messages:sendMessage", HELLO)
        told = await peer.until(watch, lambda shown: isinstance(shown, ClientError))
        assert told.data == {"message": "Too many messages!", "length": 21, "code": "MESSAGE_LIMIT"}
        assert len(await peer.mutate("messages:clearMessages")) == 21
        await peer.until(watch, lambda shown: shown == [])


async def test_pagination(tmp_path: Path) -> None:
    async with demo(tmp_path, "pagination") as (_, peer):
        for number in range(8):
            await peer.mutate("messages:send", {"body": str(number), "author": "ab"[number % 2]})
        for name, args, bodies in (
            ("messages:list", {}, "76543210"),
            ("messages:listWithArgsValidation", {}, "76543210"),
            ("messages:listWithExtraArg", {"author": "a"}, "6420"),
        ):
            watch = await peer.watch(name, args, pages=3)
            shown = await peer.until(watch, lambda shown: shown["status"] == "CanLoadMore")
            assert [row["body"] for row in shown["rows"]] == list(bodies[:3])
            await peer.do("more", watch=watch, count=10)
            shown = await peer.until(watch, lambda shown: shown["status"] == "Exhausted")
            assert [row["body"] for row in shown["rows"]] == list(bodies)


async def test_scheduling(tmp_path: Path) -> None:
    async with demo(tmp_path, "scheduling") as (_, peer):
        watch = await peer.watch("messages:list")
        await peer.mutate("messages:sendExpiringMessage", HELLO)
        await peer.until(watch, lambda rows: rows == [] and len(peer.shown[watch]) > 2)
        shown = [rows[0]["body"] for rows in peer.shown[watch] if rows]
        assert shown == [
            f"hello (This message will self-destruct in {seconds} seconds)" for seconds in (5, 4, 3, 2, 1)
        ]


async def test_cron_jobs(tmp_path: Path) -> None:
    """The demo's own table is cleared each minute; for the test, each second."""
    functions = tmp_path / "cron-jobs" / "functions"
    shutil.copytree(DEMOS / "cron-jobs" / "functions", functions)
    crons = (functions / "crons.py").read_text()
    assert "every(minutes=1), messages.clear_all" in crons
    (functions / "crons.py").write_text(crons.replace("every(minutes=1)", "every(seconds=1)"))
    async with demo(tmp_path / "daemon", functions) as (_, peer):
        watch = await peer.watch("messages:list")
        await peer.until(watch, lambda rows: rows == [])
        # It runs again and again. A message that is sent as the job runs may never be seen: then another one is.
        while peer.shown[watch].count([]) < 3:
            await peer.mutate("messages:send", HELLO)
            await peer.until(watch, lambda rows: rows == [])
        assert all(plain(row) == HELLO for rows in peer.shown[watch] for row in rows)


async def test_http(tmp_path: Path) -> None:
    async with demo(tmp_path, "http") as (daemon, peer):
        watch = await peer.watch("messages:list")
        posted = await asyncio.to_thread(daemon.post, "/http/postMessage", HELLO)
        assert posted.status == 200
        (row,) = await peer.until(watch, len)
        assert plain(row) == {"body": "Sent via HTTP action: hello", "author": "User 7"}
        found = await asyncio.to_thread(daemon.get, "/http/getMessagesByAuthor?authorNumber=7")
        assert found.json == [plain(row)]
        assert (await asyncio.to_thread(daemon.get, "/http/getMessagesByAuthor?authorNumber=8")).json == []
        named = await asyncio.to_thread(daemon.get, "/http/getMessagesByAuthor", authorNumber="7")
        assert named.json == [plain(row)]
        assert (await asyncio.to_thread(daemon.get, "/http/getMessagesByAuthor")).status == 400


async def test_sessions(tmp_path: Path) -> None:
    async with demo(tmp_path, "sessions") as (_, peer):
        session = {"sessionId": "0b5e7c1e-1111-4000-8000-000000000001"}
        name = await peer.watch("name:get", session)
        watch = await peer.watch("messages:list", session)
        await peer.until(name, lambda shown: shown is None)
        await peer.mutate("messages:send", {**session, "body": "hello"})
        (row,) = await peer.until(watch, len)
        assert plain(row) == {"body": "hello", "author": "Anonymous"}
        await peer.mutate("name:set", {**session, "name": "Ada"})
        await peer.until(name, lambda shown: shown == "Ada")
        await peer.until(watch, lambda rows: rows[0]["author"] == "Ada")
        assert len(await peer.do("query", name="messages:list", args={})) == 1


async def test_relational_data_modeling(tmp_path: Path) -> None:
    async with demo(tmp_path, "relational-data-modeling") as (_, peer):
        channels = await peer.watch("channels:list")
        made = [await peer.mutate("channels:add", {"name": name}) for name in ("one", "two")]
        rows = await peer.until(channels, lambda rows: len(rows) == 2)
        assert [(row["_id"], row["name"]) for row in rows] == list(zip(made, ("one", "two"), strict=True))
        watch = await peer.watch("messages:list", {"channelId": made[0]})
        other = await peer.watch("messages:list", {"channelId": made[1]})
        await peer.mutate("messages:send", {"channel": made[0], **HELLO})
        (row,) = await peer.until(watch, len)
        assert plain(row) == {"channel": made[0], **HELLO}
        await peer.until(other, lambda rows: rows == [])
