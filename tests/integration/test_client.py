"""The client against a toy server that cuts, garbles, goes silent and answers late."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import TYPE_CHECKING, Any

import pytest
from headwater.client.aio import Client, connect
from headwater.client.blocking import connect_blocking
from headwater.client.transport import CannotConnectError
from headwater_protocol.errors import (
    ApplicationError,
    OutcomeUnknown,
    ProtocolError,
    RequestError,
    TransientError,
)
from support.toy_server import ToyServer, toy_server

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

WAIT_S = 10.0


@pytest.fixture
async def toy() -> AsyncIterator[ToyServer]:
    async with toy_server(ToyServer()) as toy, asyncio.timeout(60):
        yield toy


@pytest.fixture(params=["websocket", "tcp"])
def url(request: pytest.FixtureRequest, toy: ToyServer) -> str:
    return toy.ws_url if request.param == "websocket" else toy.tcp_url


async def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds; a test that waits in vain fails by the time limit."""
    async with asyncio.timeout(WAIT_S):
        while not holds():
            await asyncio.sleep(0.005)


def bodies(value: list[dict[str, Any]]) -> list[str]:
    return [row["body"] for row in value]


async def send(client: Client, body: str, channel: str = "c") -> Any:
    return await client.mutation("messages:send", channel=channel, body=body)


# ------------------------------------------------------------------------------------------- ordinary use


async def test_query_mutation_and_subscription(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        assert client.state.connected
        assert await client.query("messages:list", channel="c") == []
        updates = client.subscribe("messages:list", channel="c")
        assert await anext(updates) == []
        assert await send(client, "one") == 1
        # The mutation has returned: its effect is already in the value that waits.
        assert bodies(await anext(updates)) == ["one"]
        await toy.insert("c", "two")
        assert bodies(await anext(updates)) == ["one", "two"]
        assert toy.deltas == 2
        await toy.insert("other", "elsewhere")
        assert bodies(await client.query("messages:list", channel="c")) == ["one", "two"]
        await updates.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(updates)
        await until(lambda: toy.subscriptions == 0)
    assert client.state.closed


async def test_failures_come_as_errors_of_their_code(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        with pytest.raises(RequestError) as unknown:
            await client.query("messages:lst")
        assert unknown.value.code == "unknown_function"
        with pytest.raises(ApplicationError) as refused:
            await client.mutation("messages:refuse")
        assert refused.value.data == {"why": "closed"}
        assert refused.value.message == "no more messages"
        with pytest.raises(RequestError) as naive:
            await client.mutation("messages:send", channel="c", body=object())
        assert naive.value.code == "invalid_arguments"
        assert client.state.queries == client.state.mutations == 0
        assert len(toy.requests) == 1


async def test_functions_are_taken_by_name_or_as_themselves(toy: ToyServer) -> None:
    class Registered:
        name = "messages:list"

    async with connect(toy.ws_url) as client:
        assert await client.query(Registered(), channel="c") == []
        with pytest.raises(RequestError, match="expected a function"):
            await client.query(len)  # type: ignore[arg-type]


async def test_a_slow_consumer_sees_the_newest_value(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        updates = client.subscribe("messages:list", channel="c")
        assert await anext(updates) == []
        for number in range(50):
            await send(client, str(number))
        assert bodies(await anext(updates)) == [str(number) for number in range(50)]


async def test_values_belong_to_the_consumer(toy: ToyServer) -> None:
    """A consumer that reverses its list once spoilt the base of the next delta."""
    async with connect(toy.ws_url) as client:
        updates = client.subscribe("messages:list", channel="c")
        await anext(updates)
        await send(client, "one")
        value = await anext(updates)
        value[0]["body"] = "changed"
        value[0]["tags"].append("changed")
        value.append("more")
        await send(client, "two")
        assert toy.deltas == 2
        assert await anext(updates) == [
            {"channel": "c", "body": "one", "tags": ["one"]},
            {"channel": "c", "body": "two", "tags": ["two"]},
        ]


async def test_a_failing_query_raises_and_lives_on(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        updates = client.subscribe("messages:list", channel="c")
        await anext(updates)
        toy.query_error = RequestError("read too much", code="too_many_documents")
        await toy.push_all()
        with pytest.raises(RequestError) as caught:
            await anext(updates)
        assert caught.value.code == "too_many_documents"
        toy.query_error = None
        await toy.insert("c", "better")
        assert bodies(await anext(updates)) == ["better"]


async def test_mutations_beyond_the_bound_wait_and_keep_their_order(toy: ToyServer) -> None:
    async with connect(toy.ws_url, in_flight_max=3) as client:
        toy.mute = True
        calls = [asyncio.create_task(send(client, str(number))) for number in range(10)]
        await until(lambda: len(toy.requests) == 3)
        await asyncio.sleep(0.05)
        assert client.state.mutations == 3
        toy.mute = False
        toy.cut()
        assert await asyncio.gather(*calls) == list(range(1, 11))
    assert toy.effects == {str(number): 1 for number in range(10)}


# --------------------------------------------------------------------------------------- lost connections


async def test_a_lost_connection_is_mended_and_missed_changes_arrive(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        updates = client.subscribe("messages:list", channel="c")
        assert await anext(updates) == []
        toy.cut()
        toy.rows.append({"channel": "c", "body": "missed", "tags": []})
        assert bodies(await anext(updates)) == ["missed"]
        assert len(toy.connects) == 2
        assert len(set(toy.connects)) == 1, "one session across its connections"


async def test_an_unchanged_value_is_not_shown_again(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        updates = client.subscribe("messages:list", channel="c")
        await anext(updates)
        toy.cut()
        await until(lambda: len(toy.connects) == 2 and client.state.connected)
        await toy.insert("c", "new")
        assert bodies(await anext(updates)) == ["new"]


async def test_a_mutation_whose_answer_is_lost_is_sent_again_and_takes_effect_once(
    toy: ToyServer, url: str
) -> None:
    async with connect(url) as client:
        toy.cut_before_answers = 2
        assert await send(client, "once") == 1
    assert toy.effects == {"once": 1}
    assert len(toy.requests) == 3
    assert len({(session, number) for session, number, _ in toy.requests}) == 1


async def test_many_cuts_under_load_lose_and_repeat_nothing(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        updates = client.subscribe("messages:list", channel="c")

        async def follow() -> None:
            async for value in updates:
                if len(value) == 60:
                    return

        follower = asyncio.create_task(follow())

        async def cut() -> None:
            for _ in range(5):
                await asyncio.sleep(0.02)
                toy.cut()

        async with asyncio.TaskGroup() as group:
            group.create_task(cut())
            for number in range(60):
                group.create_task(send(client, str(number)))
                await asyncio.sleep(0.003)
        await follower
    assert toy.effects == {str(number): 1 for number in range(60)}
    assert bodies(toy.rows) == [str(number) for number in range(60)]


async def test_a_server_that_comes_later_is_found() -> None:
    toy = ToyServer()
    async with toy_server(toy):
        port = int(toy.ws_url.rsplit(":", 1)[1])
    async with connect(f"ws://127.0.0.1:{port}", connect_timeout_s=None) as client:
        query = asyncio.create_task(client.query("messages:list", channel="c"))
        mutation = asyncio.create_task(send(client, "early"))
        await until(lambda: client.state.last_problem is not None)
        assert not client.state.connected
        async with toy_server(toy, port=port):
            await client.wait_connected(WAIT_S)
            assert await mutation == 1
            await query


async def test_garbage_ends_the_connection_not_the_client(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        updates = client.subscribe("messages:list", channel="c")
        await anext(updates)
        for garbage in (b"", b"\xc1", b"\x93\x22\x01\x02", b"\xdd\xff\xff\xff\xff", b"\x91\x21"):
            before = len(toy.connects)
            await toy.send_raw(garbage)
            await until(lambda before=before: len(toy.connects) > before and client.state.connected)
        await toy.insert("c", "still here")
        # After a broken frame values are fetched anew, so equal ones may come again before.
        while bodies(value := await anext(updates)) != ["still here"]:
            assert value == []


async def test_a_frame_above_the_limit_ends_the_connection(toy: ToyServer) -> None:
    async with connect(toy.tcp_url, frame_limit_bytes=10_000) as client:
        await toy.send_raw(bytes(10_001))
        await until(lambda: len(toy.connects) == 2 and client.state.connected)


async def test_a_silent_server_is_left(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        toy.silent = True
        await until(lambda: not client.state.connected)
        assert client.state.last_problem == "the server has gone silent"
        toy.silent = False
        await until(lambda: client.state.connected)


async def test_heartbeats_keep_an_idle_connection(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        await asyncio.sleep(1.0)  # five heartbeats; without them the client leaves after three
        assert client.state.connected
        assert len(toy.connects) == 1


# -------------------------------------------------------------------------------------------- the server's no


async def test_a_final_refusal_ends_everything_that_waits(toy: ToyServer, url: str) -> None:
    async with connect(url) as client:
        updates = client.subscribe("messages:list", channel="c")
        await anext(updates)
        toy.mute = True
        call = asyncio.create_task(send(client, "lost"))
        await until(lambda: toy.requests)
        await toy.end_all(ProtocolError("speak 9 or later", code="unsupported_version"))
        with pytest.raises(OutcomeUnknown):
            await call
        with pytest.raises(ProtocolError) as caught:
            await anext(updates)
        assert caught.value.code == "unsupported_version"
        with pytest.raises(StopAsyncIteration):
            await anext(updates)
        for refused in (send(client, "late"), client.query("messages:list", channel="c")):
            with pytest.raises(ProtocolError):
                await refused
        assert client.state.closed
    assert len(toy.connects) == 1


async def test_a_final_refusal_at_the_start_is_raised_at_once(toy: ToyServer) -> None:
    toy.fatal_next = ProtocolError("speak 9 or later", code="unsupported_version")
    with pytest.raises(ProtocolError, match="speak 9"):
        async with connect(toy.ws_url):
            pass


async def test_a_passing_refusal_is_tried_again(toy: ToyServer) -> None:
    toy.fatal_next = TransientError("starting", code="unavailable")
    async with connect(toy.ws_url) as client:
        assert await client.query("messages:list", channel="c") == []


async def test_a_session_id_that_is_taken_is_changed(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        toy.mute = True
        call = asyncio.create_task(send(client, "whose"))
        await until(lambda: toy.requests)
        toy.mute = False
        await toy.end_all(TransientError("taken", code="session_in_use"))
        with pytest.raises(OutcomeUnknown):
            await call
        assert await send(client, "mine") == 2
        assert len(set(toy.connects)) == 2


# ------------------------------------------------------------------------------------- cancelling and closing


async def test_cancelled_calls_leave_nothing_behind(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        toy.mute = True
        toy.query_error = None
        call = asyncio.create_task(send(client, "cancelled"))
        await until(lambda: toy.requests)
        call.cancel()
        await asyncio.wait({call})
        assert call.cancelled()
        assert client.state.mutations == 0
        toy.mute = False
        toy.cut()
        await until(lambda: len(toy.connects) == 2 and client.state.connected)
        assert await send(client, "next") == 2
        assert len(toy.requests) == 2, "what was cancelled is not sent again"
        toy.silent = True
        query = asyncio.create_task(client.query("messages:list", channel="c"))
        await until(lambda: toy.subscriptions == 1)
        query.cancel()
        await asyncio.wait({query})
        assert client.state.queries == 0
        toy.silent = False
        await until(lambda: toy.subscriptions == 0)


async def test_a_subscription_that_is_dropped_ends_at_the_server(toy: ToyServer) -> None:
    async with connect(toy.ws_url) as client:
        async for value in client.subscribe("messages:list", channel="c"):
            assert value == []
            break
        gc.collect()
        await until(lambda: toy.subscriptions == 0)
        assert client.state.queries == 0


async def test_closing_ends_what_waits_and_leaves_no_task(toy: ToyServer, url: str) -> None:
    before = len(asyncio.all_tasks())
    client = connect(url)
    async with client:
        toy.mute = True
        updates = client.subscribe("messages:list", channel="c")
        await anext(updates)
        waiting = asyncio.create_task(anext(updates, "ended"))
        call = asyncio.create_task(send(client, "unknown"))
        await until(lambda: toy.requests)
    assert await waiting == "ended"
    with pytest.raises(OutcomeUnknown) as caught:
        await call
    assert caught.value.code == "connection_lost"
    await client.close()
    with pytest.raises(TransientError, match="closed"):
        client.subscribe("messages:list", channel="c")
    await until(lambda: toy.connected == 0)
    await until(lambda: len(asyncio.all_tasks()) <= before)


async def test_nobody_there_is_told_by_address_and_reason() -> None:
    toy = ToyServer()
    async with toy_server(toy):
        urls = toy.ws_url, toy.tcp_url
    for url in urls:
        with pytest.raises(CannotConnectError) as caught:
            async with connect(url, connect_timeout_s=0.3):
                pass
        assert url in caught.value.message
        assert "refused" in caught.value.message


async def test_a_server_of_another_kind_is_told_as_such(toy: ToyServer) -> None:
    other = toy.ws_url + "/elsewhere"
    with pytest.raises(CannotConnectError, match="404"):
        async with connect(other, connect_timeout_s=0.5):
            pass


async def test_a_client_is_used_inside_its_block() -> None:
    client = connect("ws://127.0.0.1:1")
    with pytest.raises(TransientError, match="not open"):
        await client.query("messages:list", channel="c")
    with pytest.raises(RequestError):
        connect("nowhere")
    with pytest.raises(RequestError):
        connect("ws://127.0.0.1:1", in_flight_max=0)


# ------------------------------------------------------------------------------------------------ blocking


async def test_the_blocking_client_does_the_same(toy: ToyServer, url: str) -> None:
    def use() -> list[list[str]]:
        seen = []
        with connect_blocking(url) as client:
            assert client.query("messages:list", channel="c") == []
            assert client.mutation("messages:send", channel="c", body="one") == 1
            for value in client.subscribe("messages:list", channel="c"):
                seen.append(bodies(value))
                if len(value) == 2:
                    break
                client.mutation("messages:send", channel="c", body="two")
            with pytest.raises(RequestError):
                client.query("messages:nothing")
            with client.subscribe("messages:list", channel="c") as updates:
                assert len(updates.next(timeout_s=WAIT_S)) == 2
                with pytest.raises(TimeoutError):
                    updates.next(timeout_s=0.05)
            assert list(updates) == []
            assert client.state.connected
        with pytest.raises(TransientError, match="not open"):
            client.query("messages:list", channel="c")
        return seen

    assert await asyncio.to_thread(use) == [["one"], ["one", "two"]]
    assert not [thread for thread in threading.enumerate() if thread.name == "headwater-client"]


async def test_the_blocking_client_tells_when_nobody_is_there() -> None:
    def use() -> None:
        with pytest.raises(CannotConnectError), connect_blocking("tcp://127.0.0.1:1", connect_timeout_s=0.2):
            pass

    await asyncio.to_thread(use)


async def test_closing_the_blocking_client_ends_calls_of_other_threads(toy: ToyServer) -> None:
    toy.mute = True

    def use() -> None:
        with connect_blocking(toy.ws_url) as client:
            caught: list[Exception] = []

            def call() -> None:
                try:
                    client.mutation("messages:send", channel="c", body="x")
                except (OutcomeUnknown, TransientError) as error:
                    caught.append(error)

            thread = threading.Thread(target=call)
            thread.start()
            while not toy.requests:
                threading.Event().wait(0.01)
            client.close()
            thread.join(WAIT_S)
            assert len(caught) == 1

    await asyncio.to_thread(use)
