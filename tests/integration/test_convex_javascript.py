"""Convex's own client of JavaScript, unmodified, in front of a real daemon."""

from __future__ import annotations

import asyncio
import base64
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_clients.driven import ClientError, Peer, javascript
from support.daemon import RunningDaemon, running
from support.guides import write_files
from support.ill_proxy import Illness, IllProxy
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("convex")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("convex"), deploy="dialect") as daemon:
        yield daemon


def address(daemon: RunningDaemon) -> str:
    return f"http://127.0.0.1:{daemon.port}"


@asynccontextmanager
async def client(daemon: RunningDaemon, **options: Any) -> AsyncIterator[Peer]:
    async with javascript(address(daemon), **options) as peer:
        yield peer


def bodies(rows: Any) -> list[str]:
    return [row["body"] for row in rows]


async def test_what_somebody_writes_everybody_sees(daemon: RunningDaemon) -> None:
    async with client(daemon) as one, client(daemon) as other:
        seen = [await peer.watch("messages:list", {"channel": "all"}) for peer in (one, other)]
        await one.until(seen[0], lambda rows: rows == [])
        made = await one.mutate("messages:send", {"channel": "all", "author": "a", "body": "hello"})
        (row,) = await other.until(seen[1], len)
        assert row == {
            "_id": made,
            "_creationTime": row["_creationTime"],
            "channel": "all",
            "author": "a",
            "body": "hello",
        }
        # A mutation's promise is kept once what it wrote is shown.
        assert one.shown[seen[0]][-1] == [row]
        assert await one.do("act", name="messages:think", args={"channel": "all", "body": "thought"}) == 2
        await other.until(seen[1], lambda rows: bodies(rows) == ["hello", "thought"])
        assert await other.do("query", name="messages:counter", args={"name": "none"}) == 0
        assert await other.do("lines") == []


async def test_a_query_that_is_left_is_not_sent_any_more(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        left = await peer.watch("messages:list", {"channel": "left"})
        kept = await peer.watch("messages:list", {"channel": "kept"})
        await peer.until(left, lambda rows: rows == [])
        await peer.do("unwatch", watch=left)
        await peer.mutate("messages:send", {"channel": "left", "author": "a", "body": "unseen"})
        await peer.mutate("messages:send", {"channel": "kept", "author": "a", "body": "seen"})
        await peer.until(kept, len)
        assert peer.shown[left] == [[]]


async def test_errors_of_functions_reach_who_called(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        for op, name in (("mutate", "messages:refuse"), ("act", "messages:fail_late")):
            with pytest.raises(ClientError) as application:
                await peer.do(op, name=name, args={"data": {"code": "full", "left": 0}})
            assert (application.value.name, application.value.data) == (
                "ConvexError",
                {"code": "full", "left": 0},
            )
            with pytest.raises(ClientError, match=r"\[Request ID: \w+\] Server Error\n") as fault:
                await peer.do(op, name=name, args={})
            assert (fault.value.name, fault.value.has_data) == ("Error", False)
        for op in ("mutate", "act"):
            with pytest.raises(ClientError, match="no function"):
                await peer.do(op, name="messages:nowhere", args={})
        with pytest.raises(ClientError, match="ArgumentValidationError"):
            await peer.mutate("messages:send", {"channel": 5, "author": "a", "body": "b"})
        with pytest.raises(ClientError, match="no function"):
            await peer.mutate("messages:purge", {"name": "x"})


async def test_a_query_that_fails_tells_why_and_works_once_data_lets_it(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        plain = await peer.watch("messages:fail", {"channel": "failing"})
        telling = await peer.watch("messages:fail", {"channel": "failing", "data": [1, "two"]})
        unknown = await peer.watch("messages:nowhere")
        hidden = await peer.watch("messages:secret")
        fault = await peer.until(plain, bool)
        assert isinstance(fault, ClientError)
        assert not fault.has_data
        assert "ValueError: nothing here" in fault.message
        told = await peer.until(telling, bool)
        assert (told.name, told.data) == ("ConvexError", [1, "two"])
        for watch in (unknown, hidden):
            missing = await peer.until(watch, bool)
            assert "there is no function" in missing.message
        await peer.mutate("messages:send", {"channel": "failing", "author": "a", "body": "b"})
        await peer.until(plain, lambda shown: shown == 1)
        await peer.until(telling, lambda shown: shown == 1)


UNUSUAL = [
    None, True, False, 0, -1, 1.5, -2.25, 2**53 - 1, 1e300, 5e-324, "", "é \u0000 𝄞", [], {}, [[1], {"a": [{}]}],
    {"with space": 1, "~": 2},
]  # fmt: skip


def integer(value: int) -> dict[str, str]:
    return {"$integer": base64.b64encode(struct.pack("<q", value)).decode()}


def special(value: float) -> dict[str, str]:
    return {"$float": base64.b64encode(struct.pack("<d", value)).decode()}


async def test_unusual_values_come_back_as_they_were(daemon: RunningDaemon) -> None:
    marked = [
        *[integer(value) for value in (0, 5, -1, 2**63 - 1, -(2**63))],
        *[special(value) for value in (float("nan"), float("inf"), float("-inf"), -0.0)],
        *[{"$bytes": base64.b64encode(data).decode()} for data in (b"", b"\x00\xff", bytes(1000))],
    ]
    async with client(daemon) as peer:
        for number, value in enumerate([*UNUSUAL, *marked, [*UNUSUAL, *marked]]):
            args = {"name": f"v{number}", "value": value}
            assert await peer.mutate("messages:keep", args) == value
            assert await peer.do("query", name="messages:kept", args={"name": f"v{number}"}) == value
        http = {"url": address(daemon), "name": "messages:keep", "args": {"name": "h", "value": marked}}
        assert await peer.do("http", kind="mutation", **http) == marked


async def test_arguments_arrive_as_they_are_declared(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        for whole in (3, integer(3)):
            told = await peer.do(
                "query", name="messages:types", args={"whole": whole, "number": 3, "many": [1, 2]}
            )
            assert told == ["int", "float", {"$bytes": ""}, [1, 2]]
        for wrong in (3.5, "3", special(float("nan"))):
            with pytest.raises(ClientError, match="ArgumentValidationError"):
                await peer.do("query", name="messages:types", args={"whole": wrong, "number": 1})


async def test_a_key_that_clients_do_not_take_is_told_instead_of_sent(daemon: RunningDaemon) -> None:
    """The client throws an exception that nothing catches if it is sent one."""
    daemon.post(
        "/api/mutation", {"path": "messages:keep", "args": {"name": "keys", "value": {"$x": 1, "é": 2}}}
    )
    async with client(daemon) as peer:
        watch = await peer.watch("messages:kept", {"name": "keys"})
        failure = await peer.until(watch, bool)
        assert "ReturnsValidationError" in failure.message
        assert "'$x'" in failure.message
        await peer.mutate("messages:keep", {"name": "keys", "value": 1})
        await peer.until(watch, lambda value: value == 1)


async def test_a_query_with_arguments_that_nothing_takes_fails_and_the_others_go_on(
    daemon: RunningDaemon,
) -> None:
    async with client(daemon) as peer:
        deep: Any = 1
        for _ in range(70):
            deep = [deep]
        wrong = await peer.watch("messages:kept", {"name": deep})
        failure = await peer.until(wrong, bool)
        assert "ArgumentValidationError: more than 64 lists" in failure.message
        watch = await peer.watch("messages:counter", {"name": "beside"})
        await peer.do("unwatch", watch=wrong)
        await peer.mutate("messages:add", {"name": "beside"})
        await peer.until(watch, lambda shown: shown == 1)


async def test_a_thousand_rows_come_and_change(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        watch = await peer.watch("messages:list", {"channel": "many"})
        await peer.mutate("messages:send_many", {"channel": "many", "count": 1000})
        rows = await peer.until(watch, lambda rows: len(rows) == 1000)
        assert bodies(rows) == [f"{number:04}" for number in range(1000)]
        await peer.mutate("messages:send", {"channel": "many", "author": "a", "body": "last"})
        rows = await peer.until(watch, lambda rows: len(rows) == 1001)
        assert bodies(rows)[-1] == "last"


async def test_more_mutations_than_may_be_in_flight_are_all_decided_in_order(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        calls = [peer.start("mutate", name="messages:add", args={"name": "flood"}) for _ in range(1500)]
        assert await asyncio.wait_for(asyncio.gather(*calls), 60) == list(range(1, 1501))
        assert (await peer.do("state"))["connectionCount"] == 1


async def test_arguments_of_sixteen_megabytes_pass_and_larger_ones_are_refused(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        with pytest.raises(ClientError, match="document_too_large"):
            await peer.mutate("messages:keep", {"name": "big", "value": "x" * (1 << 24)})
        assert await peer.mutate("messages:add", {"name": "after big"}) == 1


async def flickers_while_others_write(daemon: RunningDaemon, times: int) -> list[str]:
    """Send messages with optimistic updates while somebody else sends some; return those that flickered."""
    async with client(daemon) as peer, client(daemon) as other:
        args = {"channel": "optimistic"}
        watch = await peer.watch("messages:list", args)
        await peer.until(watch, lambda rows: rows == [])
        for number in range(times):
            body = f"own {number}"
            row = {
                "_id": "made up",
                "_creationTime": 0,
                "channel": "optimistic",
                "author": "me",
                "body": body,
            }
            noise = [
                other.start(
                    "mutate", name="messages:send", args={**args, "author": "other", "body": f"{number} {n}"}
                )
                for n in range(3)
            ]
            await peer.mutate(
                "messages:send",
                {**args, "author": "me", "body": body},
                append={"name": "messages:list", "args": args, "row": row},
            )
            await asyncio.gather(*noise)
        return flickers(peer.shown[watch])


async def test_an_optimistic_update_never_flickers_while_others_write(daemon: RunningDaemon) -> None:
    assert await flickers_while_others_write(daemon, 40) == []


async def test_it_flickers_where_answers_come_behind_transitions_that_show_them(tmp_path: Path) -> None:
    """So that what the test above sees is the rule, not the patience of the client."""
    daemon = RunningDaemon(tmp_path)
    daemon.break_rule("convex_order")
    try:
        await asyncio.to_thread(daemon.start)
        await asyncio.to_thread(daemon.must_deploy, "dialect")
        assert "own 0" in await flickers_while_others_write(daemon, 3)
    finally:
        await asyncio.to_thread(daemon.end)


async def test_pages_follow_what_others_write_without_gaps_and_split_where_they_grow(
    daemon: RunningDaemon,
) -> None:
    async with client(daemon) as peer, client(daemon) as other:
        args = {"channel": "paged"}
        await other.mutate("messages:send_many", {**args, "count": 12})
        watch = await peer.watch("messages:paged", args, pages=5)

        async def shows(count: int, status: str) -> list[str]:
            shown = await peer.until(
                watch, lambda shown: (len(shown["rows"]), shown["status"]) == (count, status)
            )
            return bodies(shown["rows"])

        whole = [f"{number:04}" for number in range(11, -1, -1)]
        assert await shows(5, "CanLoadMore") == whole[:5]
        await peer.do("more", watch=watch, count=5)
        assert await shows(10, "CanLoadMore") == whole[:10]
        await other.mutate("messages:send", {**args, "author": "a", "body": "new"})
        assert await shows(11, "CanLoadMore") == ["new", *whole[:10]]
        await peer.do("more", watch=watch, count=5)
        assert await shows(13, "Exhausted") == ["new", *whole]
        # The first page grows beyond twice its size; the client splits it, and shows all rows all the while.
        await other.mutate("messages:send_many", {**args, "count": 30})
        assert await shows(43, "Exhausted") == [
            *[f"{number:04}" for number in range(29, -1, -1)],
            "new",
            *whole,
        ]
        await other.mutate("messages:send", {**args, "author": "a", "body": "newest"})
        assert (await shows(44, "Exhausted"))[0] == "newest"
        await other.mutate("messages:clear", args)
        assert await shows(0, "Exhausted") == []


# ---------------------------------------------------------------------------------------- who it is


def token(user: str, lasts_s: float = 3600) -> str:
    return user_token(user, lasts_s=lasts_s)


async def test_users_sign_in_are_refreshed_and_sign_out(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        watch = await peer.watch("messages:whoami")
        await peer.until(watch, lambda shown: shown is None)
        await peer.do("auth", tokens=[token("ada"), token("ada")])  # the second is asked for at once
        await peer.until(watch, lambda shown: shown == f"{STAFF}|ada")
        await peer.until_auth(True)
        assert await peer.mutate("messages:signed", {"channel": "s", "body": "b"}) == f"{STAFF}|ada"
        await peer.do("sign_out")
        await peer.until(watch, lambda shown: shown is None)
        with pytest.raises(ClientError, match="unauthenticated"):
            await peer.mutate("messages:signed", {"channel": "s", "body": "b"})


async def test_a_refused_token_is_asked_for_anew(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        watch = await peer.watch("messages:whoami")
        await peer.do("auth", tokens=[token("ada", -60), token("ada"), token("ada")])
        await peer.until(watch, lambda shown: shown == f"{STAFF}|ada")
        await peer.until_auth(True)


async def test_tokens_that_are_refused_over_and_over_leave_nobody_signed_in(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        await peer.do("auth", tokens=[token("ada", -60 - number) for number in range(6)])
        await peer.until_auth(False)
        watch = await peer.watch("messages:whoami")
        await peer.until(watch, lambda shown: shown is None)


async def test_over_the_end_of_a_token_its_user_stays_signed_in(daemon: RunningDaemon) -> None:
    """There is no newer token when the client asks ahead of its end: the server says when it ends, and it brings the next one."""
    async with client(daemon) as peer:
        watch = await peer.watch("messages:whoami")
        await peer.until(watch, lambda shown: shown is None)
        brief = token("ada", 3.0)
        await peer.do("auth", tokens=[brief, brief, token("ada")])
        await peer.until(watch, lambda shown: shown == f"{STAFF}|ada")

        async def reconnected() -> bool:
            return (await peer.do("state"))["connectionCount"] > 1

        async with asyncio.timeout(30):
            while not await reconnected():
                await asyncio.sleep(0.05)
        assert await peer.mutate("messages:signed", {"channel": "s", "body": "b"}) == f"{STAFF}|ada"
        assert None not in peer.shown[watch][1:]  # nobody's screen was not shown in between


async def test_the_holder_of_a_key_calls_internal_functions_and_acts_as_a_user(daemon: RunningDaemon) -> None:
    async with client(daemon) as peer:
        await peer.do("admin", key=daemon.key)
        watch = await peer.watch("messages:secret")
        await peer.until(watch, lambda shown: shown == "secret")
        await peer.do("admin", key=daemon.key, identity={"subject": "ada", "issuer": STAFF})
        assert await peer.mutate("messages:signed", {"channel": "s", "body": "b"}) == f"{STAFF}|ada"
        http = {"url": address(daemon), "kind": "query", "args": {}}
        assert await peer.do("http", **http, name="messages:secret", key=daemon.key) == "secret"
        assert await peer.do("http", **http, name="messages:whoami", token=token("bob")) == f"{STAFF}|bob"
        acting = {"key": daemon.key, "identity": {"subject": "ada", "issuer": STAFF}}
        assert await peer.do("http", **http, name="messages:whoami", **acting) == f"{STAFF}|ada"


# ---------------------------------------------------------------------------------------- cuts and restarts


async def test_over_cuts_each_mutation_takes_effect_once_and_in_order(daemon: RunningDaemon) -> None:
    async with IllProxy(daemon.port) as proxy, javascript(f"http://127.0.0.1:{proxy.port}") as peer:
        watch = await peer.watch("messages:counter", {"name": "cut"})
        await peer.until(watch, lambda shown: shown == 0)
        calls: list[asyncio.Future[Any]] = []
        for illness in (Illness.RESET, Illness.ENDED, Illness.RESET):
            for _ in range(20):
                calls.append(peer.start("mutate", name="messages:add", args={"name": "cut"}))
                await asyncio.sleep(0)
            await calls[-15]
            proxy.fall_ill(illness)
        assert await asyncio.wait_for(asyncio.gather(*calls), 60) == list(range(1, 61))
        await peer.until(watch, lambda shown: shown == 60)
        assert peer.shown[watch] == sorted(peer.shown[watch])
        assert (await peer.do("state"))["connectionCount"] > 1


async def test_over_a_kill_of_the_daemon_too(tmp_path: Path) -> None:
    with running(tmp_path, deploy="dialect") as daemon:
        async with client(daemon) as peer:
            watch = await peer.watch("messages:counter", {"name": "killed"})
            pages = await peer.watch("messages:paged", {"channel": "killed"}, pages=3)
            await peer.mutate("messages:send_many", {"channel": "killed", "count": 5})
            await peer.until(pages, lambda shown: len(shown["rows"]) == 5 or shown["status"] == "CanLoadMore")
            calls = [peer.start("mutate", name="messages:add", args={"name": "killed"}) for _ in range(50)]
            await calls[10]
            await asyncio.to_thread(daemon.kill)
            await asyncio.to_thread(daemon.start)
            assert await asyncio.wait_for(asyncio.gather(*calls), 60) == list(range(1, 51))
            await peer.until(watch, lambda shown: shown == 50)
            seen = peer.shown[watch]
            assert seen == sorted(seen)
            thinking = peer.start("act", name="messages:think", args={"channel": "killed", "body": "b"})
            assert await thinking == 6


async def test_the_functions_of_the_guide_are_called_as_they_are(tmp_path: Path) -> None:
    write_files("moving-from-convex", tmp_path / "guide")
    with running(tmp_path / "daemon", deploy=tmp_path / "guide" / "functions") as daemon:
        async with client(daemon) as peer:
            args = {"channel": "c"}
            watch = await peer.watch("messages:list", args)
            await peer.mutate("messages:send", {**args, "author": "a", "body": "b"})
            (row,) = await peer.until(watch, len)
            page = await peer.do(
                "query",
                name="messages:paged",
                args={**args, "paginationOpts": {"numItems": 5, "cursor": None}},
            )
            assert page["page"] == [row]


def flickers(screens: list[Any]) -> list[str]:
    """Return the own rows that were shown twice at a time, or went away again."""
    found, before = [], set[str]()
    for rows in screens:
        own = [row["body"] for row in rows if row["author"] == "me"]
        if len(set(own)) != len(own) or not before <= set(own):
            found.append(own[-1])
        before = set(own)
    return found


@pytest.mark.parametrize("production", [False, True])
async def test_what_calls_print_stands_on_the_console_unless_it_is_production(
    tmp_path: Path, production: bool
) -> None:
    with running(tmp_path, *(["--production"] if production else []), deploy="logs") as daemon:
        async with client(daemon) as peer:
            await peer.mutate("says:add", {"name": "x"})
            with pytest.raises(ClientError):
                await peer.mutate("says:refuse")
            (tmp_path / "now").touch()
            assert await peer.do("act", name="says:wait_for", args={"path": str(tmp_path / "now")}) == 0
            with pytest.raises(ClientError):
                await peer.do("act", name="says:break_action", args={})
            lines = [(words[1], words[-1]) for words in await peer.do("lines") if words[0] == "log"]
        assert lines == ([] if production else PRINTED)


PRINTED = [
    ("%c[CONVEX M(says:add)] [INFO]", "adding x"),
    ("%c[CONVEX M(says:add)] [ERROR]", "grave"),
    ("%c[CONVEX M(says:refuse)] [INFO]", "before the refusal"),
    ("%c[CONVEX A(says:wait_for)] [INFO]", "it waits"),
    ("%c[CONVEX A(says:wait_for)] [INFO]", "it has waited"),
    ("%c[CONVEX A(says:break_action)] [INFO]", "before the break"),
]
