"""Convex's own hooks of React in tabs of a real Chromium, in front of a real daemon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_clients.driven import show, tabs
from support.daemon import running
from support.ill_proxy import Illness, IllProxy
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.convex_clients.driven import Tab
    from support.daemon import RunningDaemon

pytestmark = pytest.mark.xdist_group("convex")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("convex-chromium"), deploy="dialect") as daemon:
        yield daemon


def address(daemon: RunningDaemon) -> str:
    return f"http://127.0.0.1:{daemon.port}"


def bodies(rows: Any) -> list[str]:
    return [row["body"] for row in rows]


async def list_and_send(tab: Tab, channel: str) -> tuple[int, int]:
    """Show a list of messages, and a mutation that puts its own into it before the server has answered."""
    args = {"channel": channel}
    listed = await show(tab, "query", "messages:list", args)
    send = await show(tab, "mutation", "messages:send", append={"name": "messages:list", "args": args})
    await tab.until(listed, lambda shown: shown == [])
    await tab.until(send, lambda shown: shown == "ready")
    return listed, send


async def test_two_tabs_stay_in_step_and_nothing_flickers(daemon: RunningDaemon) -> None:
    async with tabs(address(daemon), address(daemon)) as both:
        held = [await list_and_send(tab, "step") for tab in both]
        for number in range(15):
            calls = [
                tab.start(
                    "call",
                    watch=send,
                    args={"channel": "step", "author": author, "body": f"{author} {number}"},
                )
                for tab, (_, send), author in zip(both, held, "ab", strict=True)
            ]
            await asyncio.gather(*calls)
        for tab, (listed, _), author in zip(both, held, "ab", strict=True):
            rows = await tab.until(
                listed, lambda rows: len(rows) == 30 and all(row["_id"] != "made up" for row in rows)
            )
            assert sorted(bodies(rows)) == sorted(f"{who} {n}" for who in "ab" for n in range(15))
            before: list[str] = []
            made_up = 0
            for rows in tab.shown[listed][1:]:
                own = [row["body"] for row in rows if row["author"] == author]
                made_up += any(row["_id"] == "made up" for row in rows)
                assert len(set(own)) == len(own), "shown twice"
                assert set(before) <= set(own), "shown and gone"
                before = own
            assert made_up >= 15, "its own are shown before the server has answered"
        assert [row["_id"] for row in both[0].shown[held[0][0]][-1]] == [
            row["_id"] for row in both[1].shown[held[1][0]][-1]
        ]
        assert await both[0].do("lines") == []


async def test_pages_load_and_follow(daemon: RunningDaemon) -> None:
    async with tabs(address(daemon)) as (tab,):
        many = await show(tab, "mutation", "messages:send_many")
        await tab.until(many, lambda shown: shown == "ready")
        await tab.do("call", watch=many, args={"channel": "tab pages", "count": 12})
        pages = await show(tab, "pages", "messages:paged", {"channel": "tab pages"}, pages=5)
        shown = await tab.until(pages, lambda shown: shown["status"] == "CanLoadMore")
        whole = [f"{number:04}" for number in range(11, -1, -1)]
        assert bodies(shown["rows"]) == whole[:5]
        await tab.do("more", watch=pages, count=20)
        shown = await tab.until(pages, lambda shown: shown["status"] == "Exhausted")
        assert bodies(shown["rows"]) == whole
        await tab.do("call", watch=many, args={"channel": "tab pages", "count": 30})
        shown = await tab.until(pages, lambda shown: len(shown["rows"]) == 42)
        assert bodies(shown["rows"])[30:] == whole


async def test_what_is_done_offline_is_shown_at_once_and_saved_once_when_there_is_a_network(
    daemon: RunningDaemon,
) -> None:
    async with (
        IllProxy(daemon.port) as proxy,
        tabs(f"http://127.0.0.1:{proxy.port}", address(daemon)) as both,
    ):
        one, other = both
        (listed, send), (seen, write) = [await list_and_send(tab, "offline") for tab in both]
        await one.do("offline", offline=True)  # which takes new connections alone
        proxy.fall_ill(Illness.RESET)
        own = {"channel": "offline", "author": "one", "body": "offline"}
        saved = one.start("call", watch=send, args=own)
        await one.until(listed, lambda rows: bodies(rows) == ["offline"])
        await other.do("call", watch=write, args={"channel": "offline", "author": "other", "body": "online"})
        await other.until(seen, lambda rows: bodies(rows) == ["online"])
        assert bodies(one.shown[listed][-1]) == ["offline"]
        await one.do("offline", offline=False)
        await asyncio.wait_for(saved, 60)
        for tab, watch in ((one, listed), (other, seen)):
            await tab.until(watch, lambda rows: bodies(rows) == ["online", "offline"])
        assert (await one.do("state"))["connectionCount"] > 1


async def test_users_sign_in_are_refreshed_and_sign_out(daemon: RunningDaemon) -> None:
    async with tabs(address(daemon)) as (tab,):
        who = await show(tab, "query", "messages:whoami")
        auth = await show(tab, "auth")
        await tab.until(auth, lambda shown: shown == {"isLoading": False, "isAuthenticated": False})
        # One that has ended is asked for anew; the next one ends while it is used, and another takes its place.
        brief = user_token("ada", lasts_s=3.0)
        await tab.do("auth", tokens=[user_token("ada", lasts_s=-60), brief, brief, user_token("ada")])
        await tab.until(who, lambda shown: shown == f"{STAFF}|ada")
        await tab.until(auth, lambda shown: shown == {"isLoading": False, "isAuthenticated": True})
        async with asyncio.timeout(30):
            while (await tab.do("state"))["connectionCount"] < 3:
                await asyncio.sleep(0.1)
        signed = await show(tab, "mutation", "messages:signed")
        await tab.until(signed, lambda shown: shown == "ready")
        assert await tab.do("call", watch=signed, args={"channel": "s", "body": "b"}) == f"{STAFF}|ada"
        shown = tab.shown[who]
        assert None not in shown[shown.index(f"{STAFF}|ada") :], "nobody's screen was shown in between"
        await tab.do("auth", tokens=[])
        await tab.until(who, lambda shown: shown is None)
