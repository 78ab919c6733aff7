"""The Python client's sign-in at accounts, with a real daemon: tokens kept, renewed, given up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import headwater
import pytest
from headwater_protocol.errors import ApplicationError, HeadwaterError, RequestError, TransientError
from support.accounts import PASSWORD, mail_to, post, value
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("plain"), deploy="accounts_plain") as found:
        yield found


async def signed_up(daemon: RunningDaemon, name: str, kept: list[str | None]) -> headwater.AccountClient:
    account = headwater.AccountClient(daemon.url, keep=kept.append)
    await account.sign_up(name, PASSWORD)
    return account


async def test_in_and_out(daemon: RunningDaemon) -> None:
    kept: list[str | None] = []
    account = await signed_up(daemon, "ada", kept)
    async with headwater.connect(daemon.url, auth=account.fetch_token) as client, asyncio.timeout(30):
        shown = client.subscribe("auth:whoami")
        assert await anext(shown) == "ada"
        assert account.is_signed_in
        await account.sign_out()
        assert await anext(shown) is None
    assert (account.is_signed_in, await account.fetch_token(), kept[-1]) == (False, None, None)
    await account.sign_in("Ada", PASSWORD, new_password="another one")
    with pytest.raises(RequestError) as refused:
        await headwater.AccountClient(daemon.url).sign_in("ada", PASSWORD)
    assert refused.value.code == "unauthenticated"
    with pytest.raises(ApplicationError) as taken:
        await headwater.AccountClient(daemon.url).sign_up("ada", PASSWORD)
    assert taken.value.data["code"] == "taken"


async def test_a_token_is_kept_until_it_is_near_its_end(daemon: RunningDaemon) -> None:
    kept: list[str | None] = []
    account = await signed_up(daemon, "keeping", kept)
    first = await account.fetch_token()
    assert await account.fetch_token(False) == first
    forced = await asyncio.gather(*(account.fetch_token(True) for _ in range(5)))
    assert len({*forced, first}) == 2, "they share one answer"
    assert len(kept) == 2
    again = headwater.AccountClient(daemon.url, refresh_token=kept[-1], keep=kept.append)
    token = await again.fetch_token()
    assert await asyncio.to_thread(value, daemon, "query", "auth:whoami", token) == "keeping"


async def test_who_gives_up_waiting_loses_no_answer(daemon: RunningDaemon) -> None:
    kept: list[str | None] = []
    account = await signed_up(daemon, "impatient", kept)
    waiting = asyncio.create_task(account.fetch_token(True))
    await asyncio.sleep(0)  # it has begun to wait
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(20):
        while len(kept) < 2:  # nobody asks any more, and the answer is kept
            await asyncio.sleep(0.01)
    again = await account.fetch_token()
    assert await asyncio.to_thread(value, daemon, "query", "auth:whoami", again) == "impatient"


async def test_a_server_that_is_away_is_waited_for(daemon: RunningDaemon) -> None:
    kept: list[str | None] = []
    account = await signed_up(daemon, "waiting", kept)
    await asyncio.to_thread(daemon.kill)
    fetched = asyncio.create_task(account.fetch_token(True))
    done, _ = await asyncio.wait([fetched], timeout=1.0)
    assert not done
    await asyncio.to_thread(daemon.start)
    token = await asyncio.wait_for(fetched, 30)
    assert await asyncio.to_thread(value, daemon, "query", "auth:whoami", token) == "waiting"


async def test_a_session_that_has_ended_is_given_up(daemon: RunningDaemon) -> None:
    kept: list[str | None] = []
    account = await signed_up(daemon, "ending", kept)
    shown = kept[-1]
    await asyncio.to_thread(post, daemon, "sign-out", refresh_token=shown)
    assert await account.fetch_token(True) is None
    assert (account.is_signed_in, kept[-1]) == (False, None)


async def test_signed_out_here_whether_the_server_is_there_or_not(daemon: RunningDaemon) -> None:
    kept: list[str | None] = []
    account = await signed_up(daemon, "leaving", kept)
    await asyncio.to_thread(daemon.kill)
    try:
        with pytest.raises(HeadwaterError):
            await account.sign_out()
        assert (account.is_signed_in, kept[-1]) == (False, None)
    finally:
        await asyncio.to_thread(daemon.start)


async def test_with_a_code(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("mail")
    with running(folder, deploy="accounts_mail") as daemon:
        account = headwater.AccountClient(f"http://127.0.0.1:{daemon.port}/")
        request = await account.request_code("ada@example.com")
        code = (await asyncio.to_thread(mail_to, daemon, "ada@example.com"))["code"]
        with pytest.raises(HeadwaterError):
            await account.redeem(request, "00000000" if code != "00000000" else "1")
        await account.redeem(request, f"{code[:4]} {code[4:]}", password=PASSWORD)
        await account.sign_out(everywhere=True)
        await account.sign_in("ada@example.com", PASSWORD)
        for _ in range(2):
            await account.request_code("ada@example.com")
        with pytest.raises(TransientError) as refused:
            await account.request_code("ada@example.com")
        assert refused.value.code == "rate_limited"
        assert refused.value.data["retry_after_s"] > 60


def test_a_blocking_client_takes_it_too(daemon: RunningDaemon) -> None:
    account = asyncio.run(signed_up(daemon, "blocking", []))
    with headwater.connect_blocking(daemon.url, auth=account.fetch_token) as client:
        assert client.query("auth:whoami") == "blocking"


@pytest.mark.parametrize("url", ["", "nowhere", "ftp://127.0.0.1"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(RequestError, match="an address begins with"):
        headwater.AccountClient(url)
