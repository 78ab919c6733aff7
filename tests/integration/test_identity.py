"""Who is calling, over a real daemon: signed in, refreshed, expired, removed, over HTTP and over both transports."""

from __future__ import annotations

import asyncio
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import BUNDLES, running
from support.spec_client import Refused, SpecClient
from support.users import GUESTS, STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from support.daemon import RunningDaemon

LOST_WITHIN_S = 5.0
LEEWAY_S = 0.5


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("identity")
    options = ("--token-leeway-s", str(LEEWAY_S), "--token-refusals-logged", "1000")
    with running(folder, *options, deploy="identity") as daemon:
        yield daemon


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Awaitable[SpecClient]]]:
    """Open clients, which are cut at the end."""
    clients: list[SpecClient] = []

    async def open_client(url: str, **more: Any) -> SpecClient:
        client = SpecClient(url, **more)
        await client.connect()
        clients.append(client)
        return client

    yield open_client
    for client in clients:
        await client.cut()


@pytest.fixture(params=["websocket", "tcp"])
async def client(
    request: pytest.FixtureRequest, daemon: RunningDaemon, opened: Callable[..., Awaitable[SpecClient]]
) -> SpecClient:
    return await opened(daemon.url if request.param == "websocket" else daemon.tcp_url)


def failed(client: SpecClient, query: int, code: str) -> bool:
    found = client.queries[query]
    return found.error is not None and found.error.code == code


async def told(client: SpecClient, errors: int) -> float:
    """Return when the client has been told so many errors of its tokens."""
    await client.until(lambda: len(client.auth_errors) >= errors)
    return time.monotonic()


def runs(daemon: RunningDaemon) -> float:
    return daemon.metric('headwater_calls_total{kind="query",outcome="success"}')


async def test_signed_in_refreshed_switched_and_out(client: SpecClient, daemon: RunningDaemon) -> None:
    who, mine = await client.subscribe("notes:whoami"), await client.subscribe("notes:mine")
    topics = await client.subscribe("notes:topics")
    await client.shows(who, None)
    await client.until(lambda: failed(client, mine, "unauthenticated"))
    await client.sign_in(user_token("ada"))
    await client.shows(who, f"{STAFF}|ada")
    await client.shows(mine, lambda notes: isinstance(notes, list))
    await client.shows(topics, lambda topics: isinstance(topics, list))
    before = runs(daemon)
    await client.sign_in(user_token("ada"))
    await client.until(lambda: client.version[1] == 2)
    assert runs(daemon) == before, "it is the same identity"
    await client.sign_in(user_token("ada", email="ada@example.com"))
    await client.until(lambda: client.version[1] == 3)
    assert runs(daemon) == before + 2, "another identity of the same user: what read it is run again"
    text = f"{time.monotonic()}"
    assert await client.mutation("notes:write", topic="t", text=text) == f"{STAFF}|ada: {text}"
    await client.shows(mine, lambda notes: notes[-1]["text"] == text)
    await client.sign_in("no token")
    await told(client, 1)
    assert client.auth_errors == ["the token was refused"]
    await client.sign_in(user_token("bob", issuer=GUESTS))
    await client.shows(who, f"{GUESTS}|bob")
    await client.shows(mine, [])
    await client.sign_in(None)
    await client.shows(who, None)


async def test_a_token_that_ends_takes_the_identity_along_and_nothing_else(
    client: SpecClient, daemon: RunningDaemon
) -> None:
    who, topics = await client.subscribe("notes:whoami"), await client.subscribe("notes:topics")
    await client.sign_in(user_token("ada", lasts_s=1.0))
    ends_s = time.monotonic() + 1.0 + LEEWAY_S
    await client.shows(who, f"{STAFF}|ada")
    await client.shows(topics, lambda topics: isinstance(topics, list))
    before = runs(daemon)
    told_s = await told(client, 1)
    await client.shows(who, None)
    assert -0.1 < told_s - ends_s < LOST_WITHIN_S
    assert runs(daemon) == before + 1, "one query read the identity"
    with pytest.raises(Refused) as caught:
        await client.mutation("notes:write", topic="t", text="as nobody?")
    assert caught.value.code == "unauthenticated"
    await client.sign_in(user_token("ada"))
    await client.shows(who, f"{STAFF}|ada")
    assert await client.mutation("notes:write", topic="t", text="here again") == f"{STAFF}|ada: here again"


async def test_a_mutation_that_is_sent_again_is_known_by_its_user_whatever_the_token(
    client: SpecClient, opened: Callable[..., Awaitable[SpecClient]]
) -> None:
    await client.sign_in(user_token("ada"))
    text = f"once {time.monotonic()}"
    outcome = await client.begin("notes:write", {"topic": "t", "text": text})
    await client.until(lambda: 1 not in client.calls)
    await outcome
    again = await opened(client.url, session=client.session)
    await again.sign_in(user_token("ada", lasts_s=1800, email="new@example.com"))
    assert await again.mutation("notes:write", topic="t", text=text) == f"{STAFF}|ada: {text}"
    mine = await again.subscribe("notes:mine")
    await again.shows(mine, lambda notes: [note["text"] for note in notes].count(text) == 1)
    other = await opened(client.url, session=client.session)
    await other.sign_in(user_token("bob"))
    await other.begin("notes:write", {"topic": "t", "text": text})
    with pytest.raises(Refused) as caught:
        await other.until(lambda: False)
    assert caught.value.code == "session_in_use"


async def test_a_deploy_that_removes_a_provider_takes_its_users_along(
    tmp_path: Path, opened: Callable[..., Awaitable[SpecClient]]
) -> None:
    with running(tmp_path, deploy="identity") as daemon:
        staff, guest = await opened(daemon.url), await opened(daemon.tcp_url)
        numbers = {}
        for client, issuer in ((staff, STAFF), (guest, GUESTS)):
            await client.sign_in(user_token("ada", issuer=issuer))
            numbers[issuer] = await client.subscribe("notes:whoami")
            await client.shows(numbers[issuer], f"{issuer}|ada")
        functions = tmp_path / "functions"
        _copy_without_guests(functions)
        await asyncio.to_thread(daemon.must_deploy, functions)
        deployed_s = time.monotonic()
        assert await told(guest, 1) - deployed_s < LOST_WITHIN_S
        await guest.shows(numbers[GUESTS], None)
        await guest.sign_in(user_token("ada", issuer=GUESTS))
        await told(guest, 2)
        assert staff.auth_errors == []
        await staff.shows(numbers[STAFF], f"{STAFF}|ada")
        assert daemon.metric("headwater_identities_lost_total") == 1


def _copy_without_guests(folder: Path) -> None:
    shutil.copytree(BUNDLES / "identity" / "functions", folder)
    providers = folder / "providers.py"
    lines = providers.read_text().splitlines(keepends=True)
    providers.write_text("".join(line for line in lines if "guests" not in line))


async def test_why_a_token_was_refused_is_in_the_log_alone(client: SpecClient, daemon: RunningDaemon) -> None:
    await client.sign_in(user_token("ada", aud="another application"))
    await told(client, 1)
    assert client.auth_errors == ["the token was refused"]
    assert "aud: expected 'tests', got 'another application'" in daemon.log_text()


async def test_a_flood_of_tokens_is_slowed_down_and_harms_nobody_else(
    daemon: RunningDaemon, opened: Callable[..., Awaitable[SpecClient]]
) -> None:
    flood, other = await opened(daemon.url), await opened(daemon.tcp_url)
    checks = 'headwater_tokens_total{outcome="refused"}'
    before = daemon.metric(checks)
    for _ in range(500):
        await flood.sign_in(user_token("ada", aud="another"))
    began_s = time.monotonic()
    who = await other.subscribe("notes:whoami")
    await other.sign_in(user_token("bob"))
    await other.shows(who, f"{STAFF}|bob")
    assert time.monotonic() - began_s < 2
    assert daemon.metric(checks) - before < 40, "30 a minute"


# ------------------------------------------------------------------------------------------------- HTTP


def asked(daemon: RunningDaemon, path: str, function: str, token: str, **arguments: Any) -> Any:
    answer = daemon.post(path, {"path": function, "args": arguments}, Authorization=token)
    return answer.json.get("value", answer.json.get("code", answer.json.get("errorCode")))


def test_functions_over_http_are_called_as_the_user_of_the_token(daemon: RunningDaemon) -> None:
    token = f"Bearer {user_token('ada', name='Ada', roles=['admin'])}"
    assert asked(daemon, "/api/query", "notes:whoami", token) == f"{STAFF}|ada"
    assert asked(
        daemon, "/api/function", "notes:claimed", token.replace("Bearer", "bearer"), name="roles"
    ) == ["admin"]
    assert asked(daemon, "/api/mutation", "notes:write", token, topic="t", text="x") == f"{STAFF}|ada: x"
    run = daemon.post("/api/run/notes/whoami", {}, Authorization=token)
    assert run.json["value"] == f"{STAFF}|ada"
    got = daemon.get("/api/query?path=notes:whoami", Authorization=token)
    assert got.json["value"] == f"{STAFF}|ada"
    nobody = daemon.post("/api/query", {"path": "notes:mine"})
    assert nobody.json["errorCode"] == "unauthenticated"


@pytest.mark.parametrize("token", ["Bearer ", "Bearer none", "Bearer a.b.c"])
def test_a_request_with_a_bad_token_is_refused_and_not_run_as_nobodys(
    daemon: RunningDaemon, token: str
) -> None:
    answer = daemon.post("/api/query", {"path": "notes:whoami"}, Authorization=token)
    assert (answer.status, answer.json) == (
        401,
        {"code": "unauthenticated", "message": "the token was refused"},
    )


def test_a_token_opens_no_internal_function_and_no_administration(daemon: RunningDaemon) -> None:
    token = f"Bearer {user_token('ada')}"
    assert daemon.get("/api/admin/manifest", Authorization=token).status == 401
