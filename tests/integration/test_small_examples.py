"""The small examples on a real daemon with real clients; what their functions do, their own tests show."""

from __future__ import annotations

import asyncio
import re
import shlex
import subprocess
import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import headwater
import pytest
from headwater import webhooks
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
EXAMPLES = ["likes", "pages", "self_destruct", "sessions", "typed_arguments", "webhooks"]


@asynccontextmanager
async def two_clients(
    folder: Path, example: str
) -> AsyncIterator[tuple[RunningDaemon, headwater.Client, headwater.Client]]:
    """One over WebSocket, one over TCP."""
    with running(folder, deploy=ROOT / "examples" / example / "functions") as daemon:
        async with headwater.connect(daemon.url) as ada, headwater.connect(daemon.tcp_url) as bob:
            yield daemon, ada, bob


async def until(updates: AsyncIterator[Any], holds: Any) -> Any:
    async with asyncio.timeout(20):
        async for value in updates:
            if holds(value):
                return value
    raise AssertionError("the subscription has ended")


async def test_likes_of_many_at_once_are_counted_right(tmp_path: Path) -> None:
    async with two_clients(tmp_path, "likes") as (_, ada, bob):
        users = [await ada.mutation("users:join", name=f"user {number}") for number in range(8)]
        hi = await ada.mutation("messages:send", author=users[0], body="hi")
        updates = bob.subscribe("messages:list", viewer=users[0])
        calls = [
            client.mutation("messages:like", message=hi, user=user) for user in users for client in (ada, bob)
        ]
        liked = await asyncio.gather(*calls)
        assert sorted(liked[:2]) == [False, True]  # pressed at two places: on, and off again
        await asyncio.gather(*(ada.mutation("messages:like", message=hi, user=user) for user in users[:3]))
        (row,) = await until(updates, lambda rows: rows and rows[0]["likes"] == 3)
        assert (row["author"], row["liked"], row["message"]["body"]) == ("user 0", True, "hi")
        await bob.mutation("users:rename", user=users[0], name="ada")
        assert await until(updates, lambda rows: rows[0]["author"] == "ada")


async def test_two_tabs_of_a_session_show_one_basket(tmp_path: Path) -> None:
    async with two_clients(tmp_path, "sessions") as (_, one, other):
        session = str(uuid4())
        tab = other.subscribe("basket:list", session=session)
        await one.mutation("basket:add", session=session, product="tea")
        await one.mutation("basket:add", session=session, product="tea", count=2)
        assert await until(tab, bool) is not None
        assert await until(tab, lambda lines: lines == [{"product": "tea", "count": 3}])
        assert await other.query("basket:list", session=str(uuid4())) == []
        with pytest.raises(HeadwaterError) as caught:
            await one.mutation("basket:claim", session=session)
        assert caught.value.data == {"code": "signed_out"}


async def test_a_message_destroys_itself(tmp_path: Path) -> None:
    async with two_clients(tmp_path, "self_destruct") as (_, ada, bob):
        start = datetime.now(UTC)
        screen = bob.subscribe("messages:list", room="attic", at=start)
        await ada.mutation("messages:send", room="attic", body="keep this", seconds=3600)
        await ada.mutation("messages:send", room="attic", body="burn this", seconds=4)
        shown = await until(screen, lambda found: len(found) == 2)
        assert [message["body"] for message in shown] == ["burn this", "keep this"]
        assert start < shown[0]["expires"] < shown[1]["expires"]
        later = start + timedelta(minutes=1)
        seen = await ada.query("messages:list", room="attic", at=later)
        assert [message["body"] for message in seen] == ["keep this"]
        left = await until(screen, lambda found: len(found) == 1)
        assert left[0]["body"] == "keep this"
        with pytest.raises(HeadwaterError) as caught:
            await ada.mutation("messages:burn", message=shown[1]["_id"])
        assert caught.value.code == "unknown_function"


async def test_typed_arguments_cross_the_wire_both_ways(tmp_path: Path) -> None:
    delivery = {"type": "shipping", "street": "1 Example Street", "country": "NZ"}
    lines = [{"product": "cup", "count": 2.0, "size": "large"}]
    async with two_clients(tmp_path, "typed_arguments") as (_, ada, bob):
        made = await ada.mutation(
            "orders:place", lines=lines, delivery=delivery, reference=headwater.Int64(2**60)
        )
        order = await bob.query("orders:get", order=made)
        assert (order["delivery"], order["lines"][0]["count"]) == (delivery, 2)
        assert (Decimal(order["price"]), order["reference"]) == (Decimal("14.50"), 2**60)
        assert abs(datetime.now(UTC) - order["placed"]) < timedelta(minutes=1)
        for wrong, told in [
            (
                {"delivery": {"type": "drone"}},
                "'drone', expected 'pickup' or 'shipping' - at `$.delivery.type`",
            ),
            ({"lines": []}, "length >= 1 - at `$.lines`"),
            ({"priority": "yesterday"}, "'yesterday', expected 'express' or 'normal' - at `$.priority`"),
        ]:
            with pytest.raises(HeadwaterError) as caught:
                await bob.mutation("orders:place", **{"lines": lines, "delivery": delivery, **wrong})
            assert caught.value.code == "invalid_arguments"
            assert told in caught.value.message


async def test_pages_stay_live_while_more_are_loaded(tmp_path: Path) -> None:
    async with two_clients(tmp_path, "pages") as (_, ada, bob):
        for number in range(12):
            await ada.mutation("articles:publish", title=f"{number}", section="news", words=number)
        async with bob.paginate("articles:newest", 5, section="news") as pages:
            async with asyncio.timeout(20):
                async for paged in pages:
                    titles = [article["title"] for article in paged.items]
                    if paged.status == "can_load_more" and len(titles) == 5:
                        assert titles == ["11", "10", "9", "8", "7"]
                        await ada.mutation("articles:withdraw", article=paged.items[1]["_id"])
                        await ada.mutation("articles:publish", title="new", section="news", words=1)
                        pages.load_more(20)
                    if paged.status == "exhausted" and "new" in titles:
                        break
        assert titles == ["new", "11", *(str(number) for number in range(9, -1, -1))]


async def test_a_signed_webhook_shows_on_screens_at_once(tmp_path: Path) -> None:
    daemon = RunningDaemon(tmp_path, environment={"GITHUB_WEBHOOK_SECRET": "a secret"})
    try:
        daemon.start()
        daemon.must_deploy(ROOT / "examples" / "webhooks" / "functions")
        async with headwater.connect(daemon.url) as client:
            shown = client.subscribe("deliveries:count", source="github")
            assert await anext(shown) == 0
            body = b'{"ref": "refs/heads/main"}'
            headers = webhooks.sign("a secret", body, scheme="github")
            headers |= {"X-GitHub-Event": "push", "X-GitHub-Delivery": "1"}
            for status, sent in ((401, body + b" "), (204, body), (204, body)):
                answer = await asyncio.to_thread(daemon.request, "POST", "/http/github", sent, headers)
                assert answer.status == status, answer
            assert await until(shown, lambda count: count == 1) == 1
            options = {"numItems": 5, "cursor": None}
            page = await client.query("deliveries:list", source="github", options=options)
            assert [row["body"]["ref"] for row in page["page"]] == ["refs/heads/main"]
    finally:
        daemon.end()


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_commands_of_the_readme_run(example: str, tmp_path: Path) -> None:
    """Those that need no id of an earlier one; a call that shall be refused is told of as such."""
    text = (ROOT / "examples" / example / "README.md").read_text()
    lines = [line for line in re.findall(r"^    headwater (run .*)$", text, re.MULTILINE) if "<" not in line]
    assert lines
    with running(tmp_path, deploy=ROOT / "examples" / example / "functions") as daemon:
        for line in lines:
            words = [*shlex.split(line), "--url", daemon.url.removesuffix("/sync"), "--key-file"]
            command = [sys.executable, "-m", "headwater.cli", *words, str(daemon.data / "admin-key")]
            run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
            if "drone" in line:
                assert run.returncode != 0
                assert "Expected `array` of length >= 1 - at `$.lines`" in re.sub(
                    r"\s+", " ", run.stdout + run.stderr
                )
            else:
                assert run.returncode == 0, run.stdout + run.stderr
