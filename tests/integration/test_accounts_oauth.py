"""Sign-in at accounts with a real OpenID Connect provider: who gets in, and all that must not help."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

import aiohttp
import pytest
from support.accounts import by_code, post, tokens, value
from support.daemon import RunningDaemon
from support.oidc.running import FOLDER, Provider, node_for_provider

from tools.web import PACKAGE, installed

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("oidc")
PAGE = "http://127.0.0.1/callback"


@pytest.fixture(scope="module")
def node() -> Any:
    return node_for_provider()


@pytest.fixture(scope="module")
def provider(node: Any) -> Iterator[Provider]:
    with Provider(node) as running:
        yield running


@pytest.fixture(scope="module")
def daemon(provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    folder = tmp_path_factory.mktemp("oauth")
    daemon = RunningDaemon(folder, ("--provider-private-addresses",))
    daemon.environment["TEST_ISSUER"] = provider.issuer
    try:
        daemon.start()
        daemon.must_deploy("accounts_oidc")
        yield daemon
    finally:
        daemon.end()


def started(daemon: RunningDaemon, name: str = "test") -> tuple[str, dict[str, str]]:
    """Return what the browser keeps of a flow, and what the provider is asked."""
    answer = post(daemon, "oauth/start", provider=name, redirect_uri=PAGE)
    assert answer.status == 200, answer.text
    return answer.json["flow"], dict(parse_qsl(urlsplit(answer.json["url"]).query))


async def back(provider: Provider, asked: dict[str, str], login: str) -> dict[str, str]:
    """Sign in there as a browser does, and return with what it is sent back."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as web:
        found = await provider.sent_back(web, {**asked, "prompt": "consent"}, login)
    return {name: values[0] for name, values in parse_qs(urlsplit(found).query).items()}


async def finished(daemon: RunningDaemon, provider: Provider, login: str, name: str = "test") -> Any:
    flow, asked = started(daemon, name)
    sent = await back(provider, asked, login)
    return post(daemon, "oauth/finish", flow=flow, **sent)


def whoami(daemon: RunningDaemon, told: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value(daemon, "query", "auth:whoami", told["access_token"])
    return found


def refused(answer: Any) -> bool:
    return bool(answer.status == 401 and answer.json["code"] == "unauthenticated")


async def test_somebody_signs_in_and_is_known_again(daemon: RunningDaemon, provider: Provider) -> None:
    first = tokens(await finished(daemon, provider, "ada"))
    account = whoami(daemon, first)
    assert (account["email"], account["email_verified"]) == ("ada@example.com", True)
    assert account["name"] == "Name of ada"
    second = tokens(await finished(daemon, provider, "ada"))
    assert second["account"] == first["account"]
    assert tokens(await finished(daemon, provider, "bob"))["account"] != first["account"]
    # Their mailbox leads to the same account.
    assert by_code(daemon, "ada@example.com")["account"] == first["account"]


async def test_with_the_typescript_client(daemon: RunningDaemon, provider: Provider, node: Any) -> None:
    assert installed(node, PACKAGE)
    assert node.run(node.npm, "run", "--silent", "build", folder=PACKAGE) == 0
    page = await asyncio.create_subprocess_exec(
        node.program, FOLDER / "sign_in.mjs", daemon.url, PAGE,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert page.stdin is not None
    assert page.stdout is not None
    async with asyncio.timeout(60):
        asked = dict(parse_qsl(urlsplit((await page.stdout.readline()).decode().strip()).query))
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as web:
            sent = await provider.sent_back(web, {**asked, "prompt": "consent"}, "ada")
        page.stdin.write(f"{sent}\n".encode())
        told = json.loads(await page.stdout.readline())
        assert (told["finished"], told["again"]) == (True, False)
        shown = value(daemon, "query", "auth:whoami", told["token"])
        assert shown["email"] == "ada@example.com"
        asked = dict(parse_qsl(urlsplit((await page.stdout.readline()).decode().strip()).query))
        page.stdin.write(f"{PAGE}?error=access_denied&state={asked['state']}\n".encode())
        told = json.loads(await page.stdout.readline())
        assert told["error"] == "unauthenticated: the provider has not signed you in: access_denied"
        assert await page.wait() == 0


async def test_what_the_provider_is_asked(daemon: RunningDaemon, provider: Provider) -> None:
    flow, asked = started(daemon)
    assert asked["code_challenge_method"] == "S256"
    assert (asked["response_type"], asked["redirect_uri"], asked["client_id"]) == ("code", PAGE, "web")
    other_flow, other = started(daemon)
    assert flow != other_flow
    secrets = ("state", "nonce", "code_challenge")
    assert not {asked[name] for name in secrets} & {other[name] for name in secrets}
    # What goes over the address line tells nothing of what stays in the browser.
    challenge = base64.urlsafe_b64encode(hashlib.sha256(flow.encode()).digest()).rstrip(b"=").decode()
    assert challenge not in asked.values()
    assert flow not in asked.values()


async def test_a_flow_ends_in_the_browser_that_began_it_and_once(
    daemon: RunningDaemon, provider: Provider
) -> None:
    flow, asked = started(daemon)
    sent = await back(provider, asked, "ada")
    strange, _ = started(daemon)
    assert refused(post(daemon, "oauth/finish", flow=strange, **sent)), "of another browser"
    assert refused(post(daemon, "oauth/finish", flow="x" * 43, **sent))
    assert refused(post(daemon, "oauth/finish", flow=flow, **{**sent, "state": "y" * 43}))
    assert refused(post(daemon, "oauth/finish", flow=flow, **sent)), "that was its one time"


async def test_a_code_counts_only_with_the_verifier_of_its_flow(
    daemon: RunningDaemon, provider: Provider
) -> None:
    _, asked = started(daemon)
    stolen = (await back(provider, asked, "ada"))["code"]
    flow, others = started(daemon)
    answer = post(daemon, "oauth/finish", flow=flow, state=others["state"], code=stolen)
    assert refused(answer)
    assert "does not take the code" in answer.json["message"]


async def test_a_token_of_another_flow_is_refused(daemon: RunningDaemon, provider: Provider) -> None:
    """The code fits its verifier, but was asked for with another nonce, as by somebody who changes the address."""
    flow, asked = started(daemon)
    sent = await back(provider, {**asked, "nonce": "of another"}, "ada")
    answer = post(daemon, "oauth/finish", flow=flow, **sent)
    assert refused(answer)
    assert "made in another flow" in answer.json["message"]


async def test_without_a_challenge_nothing_comes_back(daemon: RunningDaemon, provider: Provider) -> None:
    flow, asked = started(daemon)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as web:
        less = {name: text for name, text in asked.items() if not name.startswith("code_challenge")}
        sent = await provider.sent_back(web, {**less, "prompt": "consent"}, "ada")
    told = {name: values[0] for name, values in parse_qs(urlsplit(sent).query).items()}
    if "code" in told:  # the provider lets it pass, as for clients with a secret: the exchange does not
        assert refused(post(daemon, "oauth/finish", flow=flow, state=told["state"], code=told["code"]))
    else:
        assert told["error"] == "invalid_request"


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"provider": "test", "redirect_uri": PAGE + "/"}, 400),
        ({"provider": "test", "redirect_uri": "http://127.0.0.1/callback?x=1"}, 400),
        ({"provider": "test", "redirect_uri": "https://evil.example/callback"}, 400),
        ({"provider": "absent", "redirect_uri": PAGE}, 400),
    ],
)
def test_pages_and_providers_are_those_of_the_bundle(
    daemon: RunningDaemon, fields: dict[str, str], status: int
) -> None:
    assert post(daemon, "oauth/start", **fields).status == status


async def test_an_issuer_that_says_it_is_another_is_refused(
    daemon: RunningDaemon, provider: Provider
) -> None:
    flow, asked = started(daemon)
    sent = await back(provider, asked, "ada")
    assert sent["iss"] == provider.issuer
    assert refused(post(daemon, "oauth/finish", flow=flow, **{**sent, "iss": "https://evil.example"}))


async def test_a_wrong_secret_signs_nobody_in(daemon: RunningDaemon, provider: Provider) -> None:
    answer = await finished(daemon, provider, "ada", "phone")
    assert refused(answer)
    for secret in ("a wrong one", "secret-of-web"):
        assert secret not in answer.text + daemon.log_text()


async def test_accounts_are_linked_by_what_both_have_verified_alone(
    daemon: RunningDaemon, provider: Provider
) -> None:
    mine = by_code(daemon, "carl@example.com")
    assert tokens(await finished(daemon, provider, "carl"))["account"] == mine["account"]
    # A mailbox whose name is only folded to that one is somebody else's.
    lookalike = tokens(await finished(daemon, provider, "\uff43arl"))
    assert lookalike["account"] != mine["account"]
    assert whoami(daemon, lookalike)["email"] is None
    # Whom it is not believed gets an account of their own, without the address.
    other = tokens(await finished(daemon, provider, "dora", "unbelieved"))
    again = tokens(await finished(daemon, provider, "dora"))
    assert again["account"] == other["account"], "the same issuer's user, under another name of it"
    theirs = by_code(daemon, "dora@example.com")
    assert other["account"] != theirs["account"]
    assert whoami(daemon, other)["email_verified"] is False
    # An address that its account has not shown to be its own leads nobody there.
    unsure = by_code(daemon, "emil@example.com")
    value(daemon, "mutation", "auth:mistrust", unsure["access_token"])
    taken = await finished(daemon, provider, "emil")
    assert (taken.status, taken.json["code"]) == (409, "taken")


async def test_the_providers_tokens_say_nothing_of_a_caller(
    daemon: RunningDaemon, provider: Provider
) -> None:
    told = await provider.person("ada")
    for name in ("id_token", "access_token"):
        answer = daemon.post(
            "/api/query",
            {"path": "auth:whoami", "args": {}, "format": "json"},
            Authorization=f"Bearer {told[name]}",
        )
        assert answer.status == 401


async def test_a_provider_that_is_away_is_told_as_such(daemon: RunningDaemon, provider: Provider) -> None:
    flow, asked = started(daemon)
    sent = await back(provider, asked, "ada")
    for fault in ("down", "redirect", "huge"):
        provider.tell(fault=fault)
        try:
            flow, asked = started(daemon)
            answer = post(daemon, "oauth/finish", flow=flow, state=asked["state"], code=sent["code"])
            assert answer.status == 503, (fault, answer.text)
        finally:
            provider.tell(fault=None)
    tokens(await finished(daemon, provider, "ada"))
