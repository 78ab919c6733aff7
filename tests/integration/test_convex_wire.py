"""The rules that Convex's clients rely on, on the wire; each taken out once, and then found missing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from support.convex_wire import START, Wire, ts_of, wire
from support.daemon import RunningDaemon, running
from support.users import STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("convex")


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("wire"), deploy="dialect") as daemon:
        yield daemon


def write(daemon: RunningDaemon, channel: str, body: str) -> None:
    args = {"channel": channel, "author": "other", "body": body}
    assert daemon.post("/api/mutation", {"path": "messages:send", "args": args}).json["status"] == "success"


async def trial(daemon: RunningDaemon) -> list[str]:
    """Call and look at what others write as well; return the rules that were broken."""
    async with wire(daemon) as client:
        await client.add(0, "messages:list", {"channel": "trial"})
        await client.add(1, "messages:fail", {"channel": "trial"})
        await client.until(lambda: len(client.screen) == 2 or client.wrong)
        for number in range(0, 12, 4):
            others = asyncio.create_task(asyncio.to_thread(write, daemon, "trial", f"other {number}"))
            for request, (path, args) in enumerate(CALLS, start=number):
                await client.mutate(request, path, args)
            for request in range(number, number + 4):
                if not client.wrong:
                    try:
                        await client.answer(request)
                    except TimeoutError:
                        client.wrong.append(f"no transition behind answer {request}")
            await others
        return client.wrong


CALLS: list[tuple[str, Any]] = [
    ("messages:send", {"channel": "trial", "author": "me", "body": "mine"}),
    ("messages:refuse", {"data": {"code": "no"}}),
    ("messages:send", {"channel": "trial", "author": "me", "body": "mine again"}),
    ("messages:refuse", {}),
]


async def test_no_rule_is_broken(daemon: RunningDaemon) -> None:
    assert await trial(daemon) == []


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ("convex_chain", "a transition from"),
        ("convex_order", "behind a transition that shows it"),
        ("convex_uncovered", "no transition behind answer"),
        ("convex_error_data", "errorData of an ordinary error"),
    ],
)
async def test_a_rule_that_is_taken_out_is_missed(
    tmp_path: Path, rule: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("support.convex_wire.TIMEOUT_S", 3.0)
    broken = RunningDaemon(tmp_path)
    broken.break_rule(rule)
    try:
        await asyncio.to_thread(broken.start)
        await asyncio.to_thread(broken.must_deploy, "dialect")
        assert told in " ".join(await trial(broken))
    finally:
        broken.end()


async def test_a_session_as_the_clients_write_it(daemon: RunningDaemon) -> None:
    async with wire(daemon, path="/api/sync") as client:
        await client.add(0, "messages.js:list", {"channel": "wire"})
        await client.add(1, "messages")
        await client.until(lambda: client.screen.keys() == {0, 1})
        assert client.screen == {0: [], 1: "the default"}
        assert (client.place["querySet"], client.place["identity"]) == (2, 0)
        await client.mutate(0, "messages:send", {"channel": "wire", "author": "a", "body": "b"})
        answer = await client.answer(0)
        assert answer.keys() == {"type", "requestId", "success", "result", "ts", "logLines"}
        assert ts_of(client.place["ts"]) >= ts_of(answer["ts"])
        assert [row["_id"] for row in client.screen[0]] == [answer["result"]]
        await client.mutate(1, "messages:refuse", {"data": {"code": "nope"}})
        refused = await client.answer(1)
        assert (refused["success"], refused["ts"], refused["errorData"]) == (False, None, {"code": "nope"})
        assert refused["result"].startswith("[Request ID: ")
        await client.modify({"type": "Remove", "queryId": 0})
        await client.until(lambda: client.screen == {1: "the default"})
        await client.send("Event", eventType="ClientConnect", event=[])
        await client.send(
            "Action", requestId=2, udfPath="messages:think", args=[{"channel": "wire", "body": "c"}]
        )
        acted = await client.answer(2, "ActionResponse")
        assert (acted["success"], acted["result"], "ts" in acted) == (True, 2, False)
        assert client.wrong == []


async def test_a_request_takes_effect_once_however_often_it_is_sent(daemon: RunningDaemon) -> None:
    async with wire(daemon) as client:
        await client.modify()
        await client.mutate(0, "messages:add", {"name": "once"})
        first = await client.answer(0)
        seen = client.place["ts"]
    async with wire(daemon, session=client.session, seen=seen) as again:
        await again.modify()
        await again.mutate(0, "messages:add", {"name": "once"})
        await again.mutate(1, "messages:add", {"name": "once"})
        assert (await again.answer(0))["result"] == first["result"] == 1
        assert (await again.answer(1))["result"] == 2
        assert again.messages[0]["startVersion"] == START
        assert ts_of(again.place["ts"]) >= ts_of(seen)


async def test_who_has_seen_what_is_not_there_yet_has_to_come_back(daemon: RunningDaemon) -> None:
    async with wire(daemon, seen="////////DwA=") as client:
        code, reason = await client.end()
        assert code == 1013
        assert "older copy" in (reason or "")
        assert client.messages == []  # a FatalError would end the application


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("{", "no message of the protocol"),
        ('{"type":"Nothing"}', "no message of the protocol"),
        ('{"type":"ModifyQuerySet","baseVersion":7,"newVersion":8,"modifications":[]}', "baseVersion"),
        ('{"type":"ModifyQuerySet","baseVersion":0,"newVersion":1,"modifications":[{"type":"Remove","queryId":5}]}', "not subscribed"),
        ('{"type":"Authenticate","tokenType":"User","value":"x","baseVersion":3}', "baseVersion"),
        ('{"type":"Mutation","requestId":-1,"udfPath":"a:b","args":[{}]}', "requestId"),
        ('{"type":"Connect","sessionId":"00000000-0000-0000-0000-000000000000","clientTs":0}', "only once"),
        ("[" * 100_000, "no message of the protocol"),
    ],
)  # fmt: skip
async def test_faults_of_a_client_are_fatal(daemon: RunningDaemon, message: str, told: str) -> None:
    async with wire(daemon) as client:
        await client.modify()
        await client.until(lambda: client.messages)
        await client._socket.send_str(
            message.replace('"baseVersion":0,"newVersion":1', '"baseVersion":1,"newVersion":2')
        )
        code, _ = await client.end()
        assert code == 1002
        assert client.messages[-1]["type"] == "FatalError"
        assert told in client.messages[-1]["error"]


async def test_a_mutation_that_meets_a_fault_of_the_system_is_not_answered(tmp_path: Path) -> None:
    """Its client sends it again by itself; an answer would be final. Here: nothing has been deployed yet."""
    with running(tmp_path) as daemon:
        async with wire(daemon) as client:
            await client.mutate(0, "messages:add", {"name": "early"})
            code, _ = await client.end()
            assert (code, client.messages) == (1013, [])
        await asyncio.to_thread(daemon.must_deploy, "dialect")
        async with wire(daemon, session=client.session) as client:
            await client.mutate(0, "messages:add", {"name": "early"})
            assert (await client.answer(0))["result"] == 1


async def test_bytes_that_are_too_many_are_refused_before_they_are_parsed(daemon: RunningDaemon) -> None:
    async with wire(daemon) as client:
        await client.modify()
        await client.until(lambda: client.messages)
        sending = asyncio.create_task(client._socket.send_str("x" * (18 << 20)))
        await client.end()
        await asyncio.gather(sending, return_exceptions=True)
        assert client.messages[-1]["type"] == "FatalError"
    async with wire(daemon) as client:
        await client._socket.send_bytes(b"{}")
        assert (await client.end())[0] == 1002


# ---------------------------------------------------------------------------------------- who it is


async def authenticate(client: Wire, base: int, token: str | None, **more: Any) -> None:
    kind = "None" if token is None else "User"
    await client.send("Authenticate", baseVersion=base, **{"tokenType": kind, "value": token, **more})


async def test_tokens_say_who_it_is_and_each_is_announced(daemon: RunningDaemon) -> None:
    async with wire(daemon) as client:
        await authenticate(client, 0, user_token("ada"))
        await client.add(0, "messages:whoami")
        await client.mutate(0, "messages:signed", {"channel": "signed", "body": "b"})
        assert (await client.answer(0))["result"] == f"{STAFF}|ada"
        assert (client.place["identity"], client.screen[0]) == (1, f"{STAFF}|ada")
        await authenticate(client, 1, user_token("bob"))
        await client.until(lambda: client.place["identity"] == 2)
        assert client.screen[0] == f"{STAFF}|bob"
        await authenticate(client, 2, None)
        await client.until(lambda: client.place["identity"] == 3)
        assert client.screen[0] is None
        assert client.wrong == []


async def test_a_refused_token_is_told_and_ends_the_connection(daemon: RunningDaemon) -> None:
    async with wire(daemon) as client:
        await authenticate(client, 0, user_token("ada", lasts_s=-60))
        await client.add(0, "messages:whoami")
        code, _ = await client.end()
        (told,) = client.messages
        assert (told["type"], told["baseVersion"], told["authUpdateAttempted"]) == ("AuthError", 0, True)
        assert code == 1000


async def test_a_token_that_ends_is_told_and_ends_the_connection(daemon: RunningDaemon) -> None:
    async with wire(daemon) as client:
        await authenticate(client, 0, user_token("ada", lasts_s=2.5))
        await client.add(0, "messages:whoami")
        await client.end()
        assert client.screen == {0: f"{STAFF}|ada"}  # what nobody sees is not shown in between
        told = client.messages[-1]
        assert (told["type"], told["baseVersion"], told["authUpdateAttempted"]) == ("AuthError", 1, False)


async def test_a_key_opens_internal_functions_to_its_holder_alone(daemon: RunningDaemon) -> None:
    async with wire(daemon) as admin, wire(daemon) as client:
        await admin.send("Authenticate", baseVersion=0, tokenType="Admin", value=daemon.key)
        for each in (admin, client):
            await each.add(0, "messages:secret")
            await each.add(1, "messages:whoami")
            await each.until(lambda each=each: len(each.screen) == 2)
        assert admin.screen[0] == "secret"
        assert "no function" in client.screen[0]["errorMessage"]
        await admin.mutate(0, "messages:purge", {"name": "x"})
        await client.mutate(0, "messages:purge", {"name": "x"})
        assert (await admin.answer(0))["success"]
        assert not (await client.answer(0))["success"]
        await admin.send("Authenticate", baseVersion=1, tokenType="None")
        await admin.until(lambda: admin.place["identity"] == 2)
        await admin.until(lambda: admin.screen[0] != "secret")
        assert "no function" in admin.screen[0]["errorMessage"]
        await admin.mutate(1, "messages:purge", {"name": "x"})
        assert not (await admin.answer(1))["success"]


async def test_a_key_acts_as_a_user(daemon: RunningDaemon) -> None:
    ada = {"subject": "ada", "issuer": STAFF, "tokenIdentifier": f"{STAFF}|ada"}
    async with wire(daemon) as admin:
        fields = {"tokenType": "Admin", "value": daemon.key, "impersonating": ada}
        await admin.send("Authenticate", baseVersion=0, **fields)
        await admin.add(0, "messages:whoami")
        await admin.mutate(0, "messages:signed", {"channel": "signed", "body": "b"})
        assert (await admin.answer(0))["result"] == f"{STAFF}|ada"
        await admin.until(lambda: admin.screen.get(0) == f"{STAFF}|ada")
    made = daemon.post(
        "/api/admin/keys", {"name": "r", "role": "read"}, Authorization=f"Headwater {daemon.key}"
    )
    for key, more, why in (
        ("hw-wrong", {}, "none of this deployment"),
        (made.json["key"], {"impersonating": ada}, "this needs one for admin"),
        (daemon.key, {"impersonating": {"subject": "ada", "issuer": "https://elsewhere.example"}}, "issuer"),
    ):
        async with wire(daemon) as refused:
            await refused.send("Authenticate", baseVersion=0, tokenType="Admin", value=key, **more)
            await refused.add(0, "messages:whoami")
            await refused.end()
            (told,) = refused.messages
            assert (told["type"], told["authUpdateAttempted"]) == ("AuthError", True)
            assert why in told["error"]


async def test_a_key_that_is_revoked_opens_nothing_any_more(daemon: RunningDaemon) -> None:
    owner = {"Authorization": f"Headwater {daemon.key}"}
    made = daemon.post("/api/admin/keys", {"name": "brief", "role": "read"}, **owner)
    async with wire(daemon) as reader:
        await reader.send("Authenticate", baseVersion=0, tokenType="Admin", value=made.json["key"])
        await reader.add(0, "messages:secret")
        await reader.until(lambda: reader.screen.get(0) == "secret")
        await reader.mutate(0, "messages:purge", {"name": "x"})
        assert not (await reader.answer(0))["success"]
        gone = daemon.post("/api/admin/keys/revoke", {"name": "brief"}, **owner)
        assert gone.status == 200, gone.text
        await reader.end()
        assert reader.messages[-1]["type"] == "AuthError"
        assert reader.screen[0] == "secret"


def test_an_address_that_is_no_websocket_says_so(daemon: RunningDaemon) -> None:
    assert daemon.get("/api/1.48.0/sync").status == 426
    assert json.loads(daemon.get("/health").text)
