"""Convex's hooks of React, unmodified, rendered under jsdom in strict mode in front of a real daemon."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_clients.driven import ClientError, Peer, react, show
from support.daemon import running
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from support.daemon import RunningDaemon

pytestmark = pytest.mark.xdist_group("convex")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("convex-react"), deploy="dialect") as daemon:
        yield daemon


@asynccontextmanager
async def page(daemon: RunningDaemon) -> AsyncIterator[Peer]:
    async with react(f"http://127.0.0.1:{daemon.port}") as peer:
        yield peer


def bodies(rows: Any) -> list[str]:
    return [row["body"] for row in rows]


async def test_a_query_loads_shows_and_follows(daemon: RunningDaemon) -> None:
    async with page(daemon) as one, page(daemon) as other:
        seen = await show(one, "query", "messages:list", {"channel": "react"})
        await one.until(seen, lambda shown: shown == [])
        assert one.shown[seen] == ["loading", []]
        send = await show(other, "mutation", "messages:send")
        await other.until(send, lambda shown: shown == "ready")
        made = await other.do("call", watch=send, args={"channel": "react", "author": "a", "body": "hello"})
        (row,) = await one.until(seen, lambda shown: shown != [])
        assert (row["_id"], row["body"]) == (made, "hello")
        await one.do("change", watch=seen, args={"channel": "elsewhere"})
        await one.until(seen, lambda shown: shown == [])
        await one.do("change", watch=seen, args="skip")
        await one.until(seen, lambda shown: shown == "loading")
        think = await show(one, "action", "messages:think")
        await one.until(think, lambda shown: shown == "ready")
        assert await one.do("call", watch=think, args={"channel": "react", "body": "b"}) == 2
        assert await one.do("lines") == []


async def test_a_failing_query_is_caught_by_the_boundary(daemon: RunningDaemon) -> None:
    async with page(daemon) as peer:
        telling = await show(peer, "query", "messages:fail", {"channel": "bad", "data": {"code": "none"}})
        told = await peer.until(telling, lambda shown: isinstance(shown, ClientError))
        assert (told.name, told.data) == ("ConvexError", {"code": "none"})
        plain = await show(peer, "query", "messages:fail", {"channel": "bad"})
        told = await peer.until(plain, lambda shown: isinstance(shown, ClientError))
        assert not told.has_data
        refuse = await show(peer, "mutation", "messages:refuse")
        await peer.until(refuse, lambda shown: shown == "ready")
        with pytest.raises(ClientError) as refused:
            await peer.do("call", watch=refuse, args={"data": 5})
        assert refused.value.data == 5


async def test_pages_load_follow_and_split(daemon: RunningDaemon) -> None:
    async with page(daemon) as peer, page(daemon) as other:
        many = await show(other, "mutation", "messages:send_many")
        await other.until(many, lambda shown: shown == "ready")
        await other.do("call", watch=many, args={"channel": "paged", "count": 12})
        pages = await show(peer, "pages", "messages:paged", {"channel": "paged"}, pages=5)

        async def shows(count: int, status: str) -> list[str]:
            shown = await peer.until(
                pages, lambda shown: (len(shown["rows"]), shown["status"]) == (count, status)
            )
            return bodies(shown["rows"])

        whole = [f"{number:04}" for number in range(11, -1, -1)]
        assert await shows(5, "CanLoadMore") == whole[:5]
        assert peer.shown[pages][0] == {"rows": [], "status": "LoadingFirstPage"}
        await peer.do("more", watch=pages, count=5)
        assert await shows(10, "CanLoadMore") == whole[:10]
        await peer.do("more", watch=pages, count=5)
        assert await shows(12, "Exhausted") == whole
        await other.do("call", watch=many, args={"channel": "paged", "count": 30})
        assert await shows(42, "Exhausted") == [*[f"{number:04}" for number in range(29, -1, -1)], *whole]
        await other.do("call", watch=many, args={"channel": "paged", "count": 1})
        await shows(43, "Exhausted")


async def test_an_optimistic_update_never_flickers_while_others_write(daemon: RunningDaemon) -> None:
    async with page(daemon) as peer, page(daemon) as other:
        args = {"channel": "optimistic"}
        watch = await show(peer, "query", "messages:list", args)
        append = {"name": "messages:list", "args": args}
        send = await show(peer, "mutation", "messages:send", append=append)
        noise = await show(other, "mutation", "messages:send")
        await peer.until(watch, lambda shown: shown == [])
        await peer.until(send, lambda shown: shown == "ready")
        await other.until(noise, lambda shown: shown == "ready")
        for number in range(20):
            others = [
                other.start("call", watch=noise, args={**args, "author": "other", "body": f"{number} {n}"})
                for n in range(3)
            ]
            await peer.do("call", watch=send, args={**args, "author": "me", "body": f"own {number}"})
            await asyncio.gather(*others)
        before: list[str] = []
        for rows in peer.shown[watch][2:]:
            own = [row["body"] for row in rows if row["author"] == "me"]
            assert len(set(own)) == len(own), "shown twice"
            assert set(before) <= set(own), "shown and gone"
            before = own
        assert len(before) == 20


async def test_users_sign_in_and_out(daemon: RunningDaemon) -> None:
    async with page(daemon) as peer:
        who = await show(peer, "query", "messages:whoami")
        auth = await show(peer, "auth")
        await peer.until(auth, lambda shown: shown == {"isLoading": False, "isAuthenticated": False})
        await peer.until(who, lambda shown: shown is None)
        await peer.do("auth", tokens=[user_token("ada", lasts_s=-60), user_token("ada"), user_token("ada")])
        await peer.until(who, lambda shown: shown == f"{STAFF}|ada")
        await peer.until(auth, lambda shown: shown == {"isLoading": False, "isAuthenticated": True})
        await peer.do("auth", tokens=[])
        await peer.until(who, lambda shown: shown is None)
        await peer.until(auth, lambda shown: shown == {"isLoading": False, "isAuthenticated": False})
