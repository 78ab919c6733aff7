"""Accounts of a bundle on a real daemon: passwords, codes and sessions, and what must not help to get in."""

from __future__ import annotations

import asyncio
import base64
import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater_protocol.errors import HeadwaterError
from support.accounts import PASSWORD, asked, by_code, claims_of, mail_to, post, tokens, value
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator

ENDS_WITHIN_S = 5.0
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Whose accounts have mail, and whose refresh tokens have no grace."""
    with running(tmp_path_factory.mktemp("mail"), deploy="accounts_mail") as found:
        yield found


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    """Whose accounts have names, and whose refresh tokens have a grace of a minute."""
    with running(tmp_path_factory.mktemp("plain"), deploy="accounts_plain") as found:
        yield found


@pytest.fixture
def email() -> str:
    """Return an address that no other test uses."""
    return f"user{next(_numbers)}@example.com"


def refused(answer: Any) -> bool:
    return bool(answer.status == 401 and answer.json["code"] == "unauthenticated")


def whoami(daemon: RunningDaemon, token: str) -> Any:
    return value(daemon, "query", "auth:whoami", token)


# ------------------------------------------------------------------------------------------- passwords


def test_signed_up_in_and_out(plain: RunningDaemon) -> None:
    first = tokens(post(plain, "sign-up", email=" Ada ", password=PASSWORD))
    assert whoami(plain, first["access_token"]) == "ada"
    second = tokens(post(plain, "password", email="ADA", password=PASSWORD))
    assert second["account"] == first["account"]
    assert post(plain, "sign-up", email="ada", password=PASSWORD).status == 409
    assert post(plain, "sign-out", refresh_token=second["refresh_token"]).status == 204
    assert post(plain, "sign-out", refresh_token=second["refresh_token"]).status == 204
    assert whoami(plain, second["access_token"]) is None
    assert refused(post(plain, "refresh", refresh_token=second["refresh_token"]))
    assert whoami(plain, first["access_token"]) == "ada"


def test_the_same_answer_for_a_wrong_password_and_for_nobody(daemon: RunningDaemon, email: str) -> None:
    by_code(daemon, email, password=PASSWORD)
    by_code(daemon, f"without.{email}")
    wrong = post(daemon, "password", email=email, password="another one")
    nobody = post(daemon, "password", email=f"nobody.{email}", password="another one")
    without = post(daemon, "password", email=f"without.{email}", password="another one")
    assert wrong.status == 401
    kept = ("content-type", "cache-control", "content-length")
    answers = [
        (one.status, one.content, {name: one.headers.get(name) for name in kept})
        for one in (wrong, nobody, without)
    ]
    assert answers[0] == answers[1] == answers[2]


def test_passwords_have_a_length_and_one_form(plain: RunningDaemon) -> None:
    for bad in ("", "1234567", "x" * 257, "x" * 5000):
        answer = post(plain, "sign-up", email="length", password=bad)
        assert answer.status == 400
        assert bad not in answer.text or not bad
    tokens(post(plain, "sign-up", email="form", password="caf\u00e9-caf\u00e9"))
    tokens(post(plain, "password", email="form", password="cafe\u0301-cafe\u0301"))
    assert refused(post(plain, "password", email="form", password="cafe-cafe"))
    long = "x" * 256
    tokens(post(plain, "sign-up", email="long", password=long))
    tokens(post(plain, "password", email="long", password=long))
    assert refused(post(plain, "password", email="long", password=long[:-1]))


def test_a_new_password_ends_the_other_sessions(plain: RunningDaemon) -> None:
    old = tokens(post(plain, "sign-up", email="changing", password=PASSWORD))
    new = tokens(post(plain, "password", email="changing", password=PASSWORD, new_password="another one"))
    assert whoami(plain, old["access_token"]) is None
    assert refused(post(plain, "refresh", refresh_token=old["refresh_token"]))
    assert whoami(plain, new["access_token"]) == "changing"
    assert refused(post(plain, "password", email="changing", password=PASSWORD))
    tokens(post(plain, "password", email="changing", password="another one"))


def test_guessing_is_bounded_for_each_address_known_or_not(daemon: RunningDaemon, email: str) -> None:
    by_code(daemon, email, password=PASSWORD)
    for whose in (email, f"nobody.{email}"):
        statuses = [post(daemon, "password", email=whose, password=f"guess {n}").status for n in range(12)]
        assert statuses == [401] * 10 + [429] * 2
    locked = post(daemon, "password", email=email, password=PASSWORD)
    assert locked.status == 429
    assert int(locked.headers["retry-after"]) > 60
    assert whoami(daemon, by_code(daemon, email, 2)["access_token"]) == email, "there is another way in"


def test_guesses_at_once_are_counted_one_by_one(daemon: RunningDaemon, email: str) -> None:
    by_code(daemon, email, password=PASSWORD)
    with ThreadPoolExecutor(8) as threads:
        work = [threads.submit(post, daemon, "password", email=email, password=f"{n:08}") for n in range(24)]
        statuses = sorted(one.result().status for one in work)
    assert statuses == [401] * 10 + [429] * 14


@pytest.mark.parametrize(
    ("what", "fields"),
    [
        ("password", {}),
        ("password", {"email": "a@example.com"}),
        ("password", {"email": 7, "password": PASSWORD}),
        ("password", {"email": "a@example.com", "password": PASSWORD, "more": 1}),
        ("password", {"email": "x" * 600, "password": PASSWORD}),
        ("code", {"email": "no address"}),
        ("code", {"email": "noaddress"}),
        ("code", {"email": "a@example.com\u0000"}),
    ],
)
def test_what_does_not_fit_is_refused_and_not_shown(
    daemon: RunningDaemon, what: str, fields: dict[str, Any]
) -> None:
    answer = post(daemon, what, **fields)
    assert answer.status == 400
    assert PASSWORD not in answer.text


def test_what_is_too_large_is_not_read(daemon: RunningDaemon) -> None:
    for body in (b"x" * 8193, b'{"email": "' + b"x" * 100_000 + b'"}'):
        assert daemon.post("/http/auth/password", body).status == 413
    for body in (b"", b"[" * 4000, b"\xff", b'{"email": "\\ud800", "password": "12345678"}'):
        assert daemon.post("/http/auth/password", body).status == 400


def test_with_mail_nobody_signs_up_without_it(daemon: RunningDaemon, plain: RunningDaemon) -> None:
    assert post(daemon, "sign-up", email="a@example.com", password=PASSWORD).status == 404
    for what in ("code", "redeem"):
        assert post(plain, what, email="a").status == 404


def test_functions_of_accounts_are_hidden_from_clients(daemon: RunningDaemon, email: str) -> None:
    told = [
        asked(daemon, "mutation", f"headwater_accounts:{name}", email=email, address="")
        for name in ("password_of", "absent")
    ]
    assert [str(one).replace("password_of", "absent") for one in told] == [str(told[1])] * 2
    assert "there is no function" in str(told)


# ------------------------------------------------------------------------------------------- codes


def test_a_code_makes_an_account_and_finds_it_again(daemon: RunningDaemon, email: str) -> None:
    before = value(daemon, "query", "auth:profiles")
    first = by_code(daemon, email)
    assert mail_to(daemon, email)["is_new"] is True
    assert claims_of(first["access_token"])["email_verified"] is True
    second = by_code(daemon, email, 2)
    assert mail_to(daemon, email, 2)["is_new"] is False
    assert second["account"] == first["account"]
    assert value(daemon, "query", "auth:profiles") == before + 1, "made with the account, once"


def test_a_code_counts_once_and_in_the_browser_that_asked(daemon: RunningDaemon, email: str) -> None:
    request = post(daemon, "code", email=email).json["request"]
    code = mail_to(daemon, email)["code"]
    other = post(daemon, "code", email=f"other.{email}").json["request"]
    for elsewhere in (other, "0" * 64, ""):
        assert refused(post(daemon, "redeem", request=elsewhere, code=code))
    with ThreadPoolExecutor(4) as threads:
        work = [threads.submit(post, daemon, "redeem", request=request, code=code) for _ in range(4)]
        statuses = sorted(one.result().status for one in work)
    assert statuses == [200, 401, 401, 401]
    assert refused(post(daemon, "redeem", request=request, code=code))


def test_codes_are_not_to_be_guessed(daemon: RunningDaemon, email: str) -> None:
    request = post(daemon, "code", email=email).json["request"]
    code = mail_to(daemon, email)["code"]
    wrong = [f"{(int(code) + step) % 10**8:08}" for step in range(1, 9)]
    with ThreadPoolExecutor(8) as threads:
        work = [threads.submit(post, daemon, "redeem", request=request, code=one) for one in wrong]
        assert all(refused(one.result()) for one in work)
    assert refused(post(daemon, "redeem", request=request, code=code)), "five were tried"
    statuses = [post(daemon, "code", email=email).status for _ in range(3)]
    assert statuses == [202, 202, 429]


def test_asking_tells_nothing_of_who_has_an_account(daemon: RunningDaemon, email: str) -> None:
    by_code(daemon, email)
    known, unknown = post(daemon, "code", email=email), post(daemon, "code", email=f"nobody.{email}")
    assert known.status == unknown.status == 202
    assert known.json.keys() == unknown.json.keys() == {"request", "expires_in"}


def test_codes_stand_in_no_document_in_clear(daemon: RunningDaemon, email: str) -> None:
    request = post(daemon, "code", email=email).json["request"]
    code = mail_to(daemon, email)["code"]
    stored = daemon.get("/api/admin/documents?table=auth_codes", Authorization=f"Headwater {daemon.key}").text
    assert email in stored
    assert "argon2id" in stored
    jobs = value(daemon, "query", "auth:jobs")
    assert "headwater_accounts:deliver" in jobs
    for text in (stored, jobs):
        assert code not in text
        assert request not in text


def test_no_file_has_what_opens_an_account(daemon: RunningDaemon, email: str) -> None:
    told = by_code(daemon, email, password=PASSWORD)
    told = tokens(post(daemon, "refresh", refresh_token=told["refresh_token"]))
    files = [file.read_bytes() for file in daemon.data.rglob("*") if file.is_file()]
    assert any(email.encode() in content for content in files)
    raw = base64.urlsafe_b64decode(told["refresh_token"])
    for secret in (
        PASSWORD.encode(),
        told["refresh_token"].encode(),
        raw[16:],
        told["access_token"].encode(),
    ):
        assert not any(secret in content for content in files)


# ------------------------------------------------------------------------------------------- sessions


def test_a_refresh_token_that_is_used_again_ends_its_session(daemon: RunningDaemon, email: str) -> None:
    first = by_code(daemon, email)
    other = by_code(daemon, email, 2)
    second = tokens(post(daemon, "refresh", refresh_token=first["refresh_token"]))
    third = tokens(post(daemon, "refresh", refresh_token=second["refresh_token"]))
    assert len({one["refresh_token"] for one in (first, second, third)}) == 3
    assert refused(post(daemon, "refresh", refresh_token=first["refresh_token"]))
    assert refused(post(daemon, "refresh", refresh_token=third["refresh_token"])), "the last one as well"
    for one in (first, second, third):
        assert whoami(daemon, one["access_token"]) is None
    assert whoami(daemon, other["access_token"]) == email, "another session of the same account"


def test_an_answer_that_was_lost_can_be_asked_for_again(plain: RunningDaemon) -> None:
    first = tokens(post(plain, "sign-up", email="lost", password=PASSWORD))
    lost = tokens(post(plain, "refresh", refresh_token=first["refresh_token"]))
    again = tokens(post(plain, "refresh", refresh_token=first["refresh_token"]))
    assert again["refresh_token"] == lost["refresh_token"]
    following = tokens(post(plain, "refresh", refresh_token=again["refresh_token"]))
    # The next one was used, so the first is not asked for again by who has lost an answer.
    assert refused(post(plain, "refresh", refresh_token=first["refresh_token"]))
    assert refused(post(plain, "refresh", refresh_token=following["refresh_token"]))


def test_refreshes_at_once_get_one_answer_and_go_on(plain: RunningDaemon) -> None:
    told = tokens(post(plain, "sign-up", email="twice", password=PASSWORD))
    with ThreadPoolExecutor(6) as threads:
        for _ in range(3):
            shown = told["refresh_token"]
            work = [threads.submit(post, plain, "refresh", refresh_token=shown) for _ in range(6)]
            found = [tokens(one.result()) for one in work]
            assert len({one["refresh_token"] for one in found}) == 1
            assert all(whoami(plain, one["access_token"]) == "twice" for one in found)
            told = found[0]


def test_without_grace_one_of_two_at_once_ends_the_session(daemon: RunningDaemon, email: str) -> None:
    told = by_code(daemon, email)
    with ThreadPoolExecutor(2) as threads:
        work = [
            threads.submit(post, daemon, "refresh", refresh_token=told["refresh_token"]) for _ in range(2)
        ]
        found = [one.result() for one in work]
    assert sorted(one.status for one in found) == [200, 401]
    (won,) = [one.json for one in found if one.status == 200]
    assert refused(post(daemon, "refresh", refresh_token=won["refresh_token"]))


def test_what_is_no_refresh_token_ends_nothing(daemon: RunningDaemon, email: str) -> None:
    told = by_code(daemon, email)
    for bad in ("", "x", "!" * 64, "A" * 64, told["refresh_token"][:-1], told["access_token"][:512]):
        assert refused(post(daemon, "refresh", refresh_token=bad))
    assert whoami(daemon, told["access_token"]) == email
    tokens(post(daemon, "refresh", refresh_token=told["refresh_token"]))


def test_a_token_is_not_used_up_where_nothing_can_be_signed(daemon: RunningDaemon, email: str) -> None:
    """As where a backup was restored without the key file: clients try again until it is there."""
    told = by_code(daemon, email)
    file = daemon.folder / "data.key"
    assert daemon.terminate() == 0
    kept = file.rename(daemon.folder / "elsewhere")
    daemon.start()
    statuses = [post(daemon, "refresh", refresh_token=told["refresh_token"]).status for _ in range(3)]
    assert statuses == [500] * 3
    assert daemon.terminate() == 0
    kept.rename(file)
    daemon.start()
    tokens(post(daemon, "refresh", refresh_token=told["refresh_token"]))


def test_signed_out_everywhere(daemon: RunningDaemon, email: str) -> None:
    one, two = by_code(daemon, email), by_code(daemon, email, 2)
    assert post(daemon, "sign-out", refresh_token=one["refresh_token"], everywhere=True).status == 204
    assert [whoami(daemon, told["access_token"]) for told in (one, two)] == [None, None]
    assert refused(post(daemon, "refresh", refresh_token=two["refresh_token"]))


@pytest.mark.parametrize("how", ["delete_me", "leave_everywhere", "leave", "remove_document"])
async def test_who_is_signed_in_is_nobody_once_the_session_has_ended(
    daemon: RunningDaemon, email: str, how: str
) -> None:
    told = await asyncio.to_thread(by_code, daemon, email)
    other = await asyncio.to_thread(by_code, daemon, f"other.{email}")
    async with (
        headwater.connect(daemon.url, auth=lambda _: told["access_token"]) as client,
        headwater.connect(daemon.url, auth=lambda _: other["access_token"]) as bystander,
        asyncio.timeout(20),
    ):
        # The one looks at the account, the other at the identity alone.
        account, identity = client.subscribe("auth:whoami"), client.subscribe("auth:subject")
        beside = bystander.subscribe("auth:whoami")
        assert (await anext(account), await anext(identity)) == (email, told["account"])
        assert await anext(beside) == f"other.{email}"
        arguments = {"account": told["account"]} if how == "remove_document" else {}
        begun_s = time.monotonic()
        await client.mutation(f"auth:{how}", **arguments)
        assert (await anext(account), await anext(identity)) == (None, None)
        assert time.monotonic() - begun_s < ENDS_WITHIN_S
        with pytest.raises(HeadwaterError) as caught:
            await client.mutation("auth:delete_me")
        assert caught.value.code == "unauthenticated"
        assert await bystander.query("auth:whoami") == f"other.{email}"
    assert refused(await asyncio.to_thread(post, daemon, "refresh", refresh_token=told["refresh_token"]))


def test_sessions_outlive_the_daemon(plain: RunningDaemon) -> None:
    told = tokens(post(plain, "sign-up", email="lasting", password=PASSWORD))
    plain.kill()
    plain.start()
    assert whoami(plain, told["access_token"]) == "lasting"
    tokens(post(plain, "refresh", refresh_token=told["refresh_token"]))
