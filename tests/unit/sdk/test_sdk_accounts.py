"""Accounts as a bundle declares them, and what is refused; their secrets; and their routes in the testing kit."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from headwater.accounts import Account, OidcSignIn, Session
from headwater.accounts.http import counted_address
from headwater.accounts.oauth import FlowSecret
from headwater.accounts.passwords import CURRENT, Hasher, checked_password
from headwater.accounts.refresh_tokens import RANDOM_BYTES, RefreshToken
from headwater.accounts.tables import TABLES, Login
from headwater.bundle import Bundle
from headwater.testing import Deployment
from headwater_protocol.errors import RequestError
from headwater_protocol.manifest import Manifest
from headwater_protocol.manifest_changes import changes_between
from support.bundles import imported, write_package

if TYPE_CHECKING:
    from pathlib import Path

START = "from headwater import ActionCtx, action\nfrom headwater.accounts import Accounts, OidcSignIn, OneTimeCode\n"
ELSEWHERE = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc"
"""What argon2's own tests expect of `password`, with other parameters than ours."""

PROVIDER = {
    "name": "google",
    "issuer": "https://accounts.example.com",
    "client_id": "app",
    "redirect_uris": ["https://app.example.com/in"],
}


def loaded(folder: Path, **modules: str) -> Manifest:
    write_package(folder, {name: START + text for name, text in modules.items()})
    with imported(folder, "bundle") as package:
        manifest = Bundle.load(package).manifest()
    assert Manifest.from_json(manifest.to_json()) == manifest
    return manifest


def test_accounts_bring_their_parts_whoever_imports_them(tmp_path: Path) -> None:
    providers = 'providers=[OidcSignIn(name="a", issuer="https://a.example", client_id="x", redirect_uris=["https://b.example"])]'
    manifest = loaded(
        tmp_path,
        auth=f"accounts = Accounts({providers})",
        other="from .auth import accounts\nagain = accounts",
    )
    assert {table.name for table in manifest.tables} == {
        *("auth_accounts", "auth_codes", "auth_flows", "auth_logins", "auth_refreshes", "auth_sessions"),
        "rate_limits",
    }
    assert all(function.internal for function in manifest.functions)
    assert sorted(route.path for route in manifest.routes) == [
        *("/auth/oauth/finish", "/auth/oauth/start", "/auth/password"),
        *("/auth/refresh", "/auth/sign-out", "/auth/sign-up"),
    ]
    assert [provider.kind for provider in manifest.providers] == ["deployment", "login"]
    assert [cron.name for cron in manifest.crons] == ["headwater_accounts:sweep"]
    named = [change.name for change in changes_between(Manifest(), manifest) if change.what == "provider"]
    assert named == ["accounts of this deployment", "sign-in with https://a.example as x"]


def test_nobody_signs_up_where_that_is_closed(tmp_path: Path) -> None:
    manifest = loaded(tmp_path, auth="accounts = Accounts(sign_up=False, path='/in')")
    assert sorted(route.path for route in manifest.routes) == ["/in/password", "/in/refresh", "/in/sign-out"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("one, two = Accounts(), Accounts()", "two Accounts"),
        ("accounts = Accounts(send=print)", "send is an @action.internal"),
        ("accounts = Accounts(access_s=5)", "access_s is a whole number from 60 to"),
        ("accounts = Accounts(refresh_grace_s=600)", "refresh_grace_s is a whole number from 0 to 120"),
        ("accounts = Accounts(idle_s=1.5)", "idle_s is a whole number"),
        ("accounts = Accounts(path='auth')", "auth"),
        (
            "from headwater.accounts import SignInLimits\na = Accounts(limits=SignInLimits(passwords=0))",
            "rate is a",
        ),
        (
            "from headwater.accounts import SignInLimits\na = Accounts(limits=SignInLimits(code_attempts=0))",
            "code_att",
        ),
        (
            "@action.internal\nasync def send(ctx: ActionCtx, m: OneTimeCode) -> None: ...\nkept = [send]\ndel send\na = Accounts(send=kept[0])",
            "send is an action of the same bundle",
        ),
    ],
)
def test_what_cannot_be_is_refused_at_load(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(RequestError, match=said) as refused:
        loaded(tmp_path, auth=text)
    assert refused.value.code == "invalid_bundle"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "email"}, "a name is small letters"),
        ({"name": "Google"}, "a name is small letters"),
        ({"issuer": "http://accounts.example.com"}, "is not https"),
        ({"client_id": ""}, "it needs a client_id"),
        ({"scopes": ["email"]}, "`openid` among the scopes"),
        ({"redirect_uris": []}, "redirect_uris is a list"),
        ({"redirect_uris": "https://app.example.com"}, "redirect_uris is a list"),
        ({"redirect_uris": ["http://app.example.com"]}, "is none"),
        ({"redirect_uris": ["https://app.example.com/#in"]}, "is none"),
        ({"redirect_uris": ["/in"]}, "is none"),
        ({"algorithms": ["HS256"]}, "HS256"),
        ({"secret_in": "query"}, "secret_in"),
    ],
)
def test_a_provider_that_cannot_be_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        OidcSignIn(**{**PROVIDER, **changes})


def test_pages_of_an_application_on_this_machine_may_be_sent_back_to() -> None:
    OidcSignIn(**{**PROVIDER, "redirect_uris": ["http://localhost:5173/in", "com.example.app:/in"]})  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------- secrets


def test_refresh_tokens_follow_from_one_another_and_cannot_be_told_from_what_is_stored() -> None:
    first = RefreshToken.made(bytes(range(RANDOM_BYTES)))
    assert RefreshToken.read(first.text) == first
    one, again, other = first.next(b"salt"), first.next(b"salt"), first.next(b"another")
    assert one == again != other
    assert one.family_hash == first.family_hash
    assert one.secret_hash != first.secret_hash
    assert first.text not in repr(first)
    assert first.secret.hex() not in repr(first)


@pytest.mark.parametrize(
    "text", ["", "A" * 63, "A" * 65, "é" * 64, "=" * 64, "A" * 63 + "\n", "A" * 62 + "=="]
)
def test_what_is_no_refresh_token_is_refused(text: str) -> None:
    with pytest.raises(RequestError) as refused:
        RefreshToken.read(text)
    assert refused.value.code == "unauthenticated"


def test_all_that_protects_a_flow_follows_from_its_secret() -> None:
    one, other = FlowSecret.made(b"1" * 32), FlowSecret.made(b"2" * 32)
    parts = [one.state, one.nonce, one.verifier, one.challenge, one.text, one.hash]
    assert len({*parts, other.state, other.nonce, other.verifier, other.challenge}) == len(parts) + 4
    assert FlowSecret.read(one.text) == one
    assert 43 <= len(one.verifier) <= 128  # RFC 7636
    assert one.text not in repr(one)


async def test_passwords_are_hashed_as_recommended_and_compared() -> None:
    hasher = Hasher()
    one, other = await hasher.hashed("secret", b"0" * 16), await hasher.hashed("secret", b"1" * 16)
    assert one.startswith(CURRENT)
    assert CURRENT == "$argon2id$v=19$m=19456,t=2,p=1$"
    assert one != other
    assert await hasher.fits("secret", one)
    assert not await hasher.fits("Secret", one)
    assert not await hasher.fits("secret", None)
    assert await hasher.fits("password", ELSEWHERE)
    assert not ELSEWHERE.startswith(CURRENT)


async def test_hashing_lets_the_loop_go_on() -> None:
    """What waits beside it is not held up: the thread gives the interpreter's lock away."""
    hasher = Hasher()
    for _ in range(50):  # the machine may give this thread no time, but not each time
        hashing = asyncio.create_task(hasher.hashed("secret", b"0" * 16))
        turns = 0
        while not hashing.done():
            await asyncio.sleep(0)
            turns += 1
        if turns > 20:  # with the lock held there are a few
            return
    raise AssertionError("nothing else ran while secrets were hashed")


@pytest.mark.parametrize(("password", "fits"), [("1234567", False), ("12345678", True), ("x" * 256, True)])
def test_a_password_has_a_length(password: str, fits: bool) -> None:
    if fits:
        assert checked_password(password) == password
    else:
        with pytest.raises(RequestError, match="at least 8"):
            checked_password(password)


# ------------------------------------------------------------------------------------------- in the kit

PLAIN = """
from headwater import QueryCtx, query
accounts = Accounts({options})

@query
def whoami(ctx: QueryCtx) -> str | None:
    account = accounts.get(ctx)
    return None if account is None else account.email
"""


async def signed_up(deployment: Deployment, name: str = "ada") -> Any:
    body = {"email": name, "password": "correct horse battery"}
    return await deployment.fetch("POST", "/auth/sign-up", body=body)


async def test_a_session_ends_when_it_is_not_used_and_at_its_end(tmp_path: Path) -> None:
    write_package(
        tmp_path, {"auth": START + PLAIN.format(options="session_s=3600, idle_s=1200, access_s=600")}
    )
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        told = (await signed_up(deployment)).json()
        for _ in range(3):
            deployment.advance(timedelta(minutes=19))
            answer = await deployment.fetch(
                "POST", "/auth/refresh", body={"refresh_token": told["refresh_token"]}
            )
            assert answer.status == 200
            told = answer.json()
        assert told["expires_in"] == 180, "no token outlives its session"
        late = (await signed_up(deployment, name="bob")).json()
        deployment.advance(timedelta(minutes=4))
        for token in (told["refresh_token"], "A" * 64):
            answer = await deployment.fetch("POST", "/auth/refresh", body={"refresh_token": token})
            assert answer.status == 401
        deployment.advance(timedelta(minutes=17))
        answer = await deployment.fetch(
            "POST", "/auth/refresh", body={"refresh_token": late["refresh_token"]}
        )
        assert answer.status == 401
        await signed_up(deployment, name="carl")
        await deployment.pass_time(timedelta(hours=2))
        with deployment.transaction() as ctx:
            assert ctx.db.scan(Session).collect() == [], "the hourly job has removed what has ended"


async def test_a_password_hashed_otherwise_is_hashed_anew_when_it_is_right(tmp_path: Path) -> None:
    write_package(tmp_path, {"auth": START + PLAIN.format(options="")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        await signed_up(deployment)
        with deployment.transaction() as ctx:
            (login,) = ctx.db.scan(Login).collect()
            ctx.db.patch(login.id, password=ELSEWHERE)
        stored = []
        for password, status in (("passwor2", 401), ("password", 200), ("password", 200)):
            body = {"email": "ada", "password": password}
            assert (await deployment.fetch("POST", "/auth/password", body=body)).status == status
            with deployment.transaction() as ctx:
                stored.append(ctx.db.scan(Login).collect()[0].password or "")
        assert stored[0] == ELSEWHERE
        assert stored[1].startswith(CURRENT)
        assert stored[2] == stored[1]


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:1::1", "2001:db8:1:1::/64"),
        ("2001:db8:1:1:ffff::3", "2001:db8:1:1::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("", "unknown"),
        ("what?", "unknown"),
    ],
)
def test_attempts_are_counted_for_who_has_an_address(address: str, counted: str) -> None:
    assert counted_address(address) == counted


async def test_one_address_has_so_many_attempts_whomever_it_tries(tmp_path: Path) -> None:
    start = START + "from headwater.accounts import SignInLimits\n"
    limited = PLAIN.format(options="limits=SignInLimits(addresses=2)")
    write_package(tmp_path, {"auth": start + limited})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        answers = [await signed_up(deployment, f"user{number}") for number in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["Retry-After"] == "1800"


async def test_who_acts_as_an_account_needs_no_session(tmp_path: Path) -> None:
    write_package(tmp_path, {"auth": START + PLAIN.format(options="")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        told = (await signed_up(deployment)).json()
        whoami = package.auth.whoami
        assert deployment.as_account(told["account"]).run_query(whoami) == "ada"
        assert deployment.with_token(told["access_token"]).run_query(whoami) == "ada"
        assert deployment.as_user(told["account"], sid="x").run_query(whoami) is None, "of another provider"
        with pytest.raises(RequestError, match="was refused"):
            Deployment(package, seed=1).with_token(told["access_token"])


@pytest.mark.parametrize(("passed_s", "goes_on"), [(29, True), (31, False)])
async def test_the_grace_of_a_refresh_token_ends(tmp_path: Path, passed_s: int, goes_on: bool) -> None:
    write_package(tmp_path, {"auth": START + PLAIN.format(options="")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        told = (await signed_up(deployment)).json()
        body = {"refresh_token": told["refresh_token"]}
        first = await deployment.fetch("POST", "/auth/refresh", body=body)
        deployment.advance(timedelta(seconds=passed_s))
        again = await deployment.fetch("POST", "/auth/refresh", body=body)
        assert again.status == (200 if goes_on else 401)
        if goes_on:
            assert again.json()["refresh_token"] == first.json()["refresh_token"]
        whoami = deployment.with_token(first.json()["access_token"]).run_query(package.auth.whoami)
        assert whoami == ("ada" if goes_on else None)


MAILED = """
from headwater import ApplicationError, Id, MutationCtx, Table, mutation
from headwater.accounts import Account

SENT: list[OneTimeCode] = []

class Profile(Table):
    account: Id[Account]

def created(ctx: MutationCtx, account: Account) -> None:
    ctx.db.insert(Profile(account=account.id))
    if account.email == "unwanted@example.com":
        raise ApplicationError("not you")

@action.internal
async def send(ctx: ActionCtx, message: OneTimeCode) -> None:
    SENT.append(message)

accounts = Accounts(send=send, created=created, {options})

@mutation
def delete(ctx: MutationCtx) -> None:
    accounts.delete(ctx, accounts.require(ctx).id)
"""


async def redeemed(deployment: Deployment, package: Any, email: str) -> Any:
    asked = await deployment.fetch("POST", "/auth/code", body={"email": email})
    assert asked.status == 202
    await deployment.run_due()
    sent = package.auth.SENT
    body = {"request": asked.json()["request"], "code": sent[-1].code if sent else "00000000"}
    return await deployment.fetch("POST", "/auth/redeem", body=body)


async def test_nothing_is_left_of_an_account_that_is_deleted(tmp_path: Path) -> None:
    write_package(tmp_path, {"auth": START + MAILED.format(options="")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        told = (await redeemed(deployment, package, "ada@example.com")).json()
        await redeemed(deployment, package, "ada@example.com")
        await deployment.fetch("POST", "/auth/code", body={"email": "ada@example.com"})
        await redeemed(deployment, package, "bob@example.com")
        deployment.with_token(told["access_token"]).run_mutation(package.auth.delete)
        with deployment.transaction() as ctx:
            left = [len(ctx.db.scan(table).collect()) for table in TABLES]
        assert left == [1, 1, 1, 1, 0, 0], "those of the other"


async def test_who_is_not_wanted_gets_no_account(tmp_path: Path) -> None:
    write_package(tmp_path, {"auth": START + MAILED.format(options="")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        answer = await redeemed(deployment, package, "unwanted@example.com")
        assert (answer.status, answer.json()["code"]) == (400, "application_error")
        with deployment.transaction() as ctx:
            assert ctx.db.scan(Account).collect() == ctx.db.scan(package.auth.Profile).collect() == []


async def test_where_nobody_signs_up_nothing_is_sent_and_nothing_told(tmp_path: Path) -> None:
    write_package(tmp_path, {"auth": START + MAILED.format(options="sign_up=False")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        assert (await redeemed(deployment, package, "ada@example.com")).status == 401
        assert package.auth.SENT == []
        with deployment.transaction() as ctx:
            account = ctx.db.insert(Account(email="ada@example.com", email_verified=True))
            ctx.db.insert(Login(kind="email", value="ada@example.com", account=account))
        assert (await redeemed(deployment, package, "ada@example.com")).json()["account"] == account
        assert [message.is_new for message in package.auth.SENT] == [False]


async def test_who_shows_that_an_address_is_theirs_ends_what_others_have_there(tmp_path: Path) -> None:
    """As where accounts had no mail at first: somebody may have taken the address as a name."""
    write_package(tmp_path, {"auth": START + MAILED.format(options="")})
    with imported(tmp_path, "bundle") as package:
        deployment = Deployment(package)
        squatter = (await redeemed(deployment, package, "ada@example.com")).json()
        with deployment.transaction() as ctx:
            (login,) = ctx.db.scan(Login).collect()
            ctx.db.patch(login.id, password=ELSEWHERE)
            ctx.db.patch(login.account, email_verified=False)
        owner = (await redeemed(deployment, package, "ada@example.com")).json()
        assert owner["account"] == squatter["account"]
        with deployment.transaction() as ctx:
            assert [login.password for login in ctx.db.scan(Login).collect()] == [None]
            assert [account.email_verified for account in ctx.db.scan(Account).collect()] == [True]
        body = {"refresh_token": squatter["refresh_token"]}
        assert (await deployment.fetch("POST", "/auth/refresh", body=body)).status == 401
        body = {"email": "ada@example.com", "password": "password"}
        assert (await deployment.fetch("POST", "/auth/password", body=body)).status == 401
