"""Tokens that a deployment signs for accounts of its bundle: whose they are, who can verify them, and new keys."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import headwater
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from headwater_protocol.manifest import ProviderManifest
from headwater_server.identity.fetcher import Fetcher, FetchOptions
from headwater_server.identity.verifier import Clocks, Verifier
from headwater_server.observe.metrics import Metrics
from support.accounts import PASSWORD, asked, claims_of, header_of, post, tokens, value
from support.daemon import RunningDaemon, daemon_environment, free_port, run_server, running
from support.tokens import OPTIONS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PUBLIC_URL = "https://data.example.com"
NAMED = ("--public-url", PUBLIC_URL)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    with running(tmp_path / "one", *NAMED, deploy="accounts_plain") as found:
        yield found


def signed_up(daemon: RunningDaemon, name: str = "ada") -> dict[str, Any]:
    return tokens(post(daemon, "sign-up", email=name, password=PASSWORD))


def admin(daemon: RunningDaemon, path: str, **fields: Any) -> Any:
    return daemon.post(f"/api/admin/{path}", fields, Authorization=f"Headwater {daemon.key}").json


def key_ids(daemon: RunningDaemon) -> list[str]:
    return [key["kid"] for key in daemon.get("/.well-known/jwks.json").json["keys"]]


def whoami(daemon: RunningDaemon, token: str) -> Any:
    return asked(daemon, "query", "auth:whoami", token)


def test_a_token_says_whose_it_is_and_is_short(daemon: RunningDaemon) -> None:
    told = signed_up(daemon)
    token = told["access_token"]
    assert (header_of(token)["alg"], header_of(token)["typ"]) == ("ES256", "at+jwt")
    claims = claims_of(token)
    assert (claims["iss"], claims["aud"], claims["sub"]) == (PUBLIC_URL, PUBLIC_URL, told["account"])
    assert claims["exp"] - claims["iat"] == told["expires_in"] == 600
    assert value(daemon, "query", "auth:whoami", token) == "ada"
    other = claims_of(signed_up(daemon, "bob")["access_token"])
    assert not {claims[name] for name in ("sub", "sid", "jti")} & {
        other[name] for name in ("sub", "sid", "jti")
    }


async def test_others_verify_it_by_what_is_published(tmp_path: Path) -> None:
    port = free_port()
    issuer = f"http://localhost:{port}"
    daemon = RunningDaemon(tmp_path, ("--public-url", issuer), port=port)
    try:
        daemon.start()
        assert daemon.get("/.well-known/jwks.json").status == 404  # it has no accounts
        assert daemon.get("/.well-known/openid-configuration").status == 404
        daemon.must_deploy("accounts_plain")
        assert key_ids(daemon) == []  # nothing was signed
        told = signed_up(daemon)
        published = daemon.get("/.well-known/jwks.json")
        assert published.headers["access-control-allow-origin"] == "*"
        assert "d" not in published.json["keys"][0]
        # A stranger's library.
        keys = await asyncio.to_thread(
            jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json").get_signing_key_from_jwt, told["access_token"]
        )
        claims = jwt.decode(told["access_token"], keys.key, ["ES256"], audience=issuer, issuer=issuer)
        assert claims["sub"] == told["account"]
        # Another Headwater, by discovery.
        fetches = FetchOptions(limit_s=20, bytes_max=100_000, private_allowed=True)
        verifier = Verifier(OPTIONS, Clocks(time.time, time.monotonic), Fetcher(fetches).get, Metrics())
        verifier.use([ProviderManifest("oidc", issuer, issuer, "", ("ES256",))])
        verified = await verifier.verify(told["access_token"])
        assert verified.token_identifier == f"{issuer}|{told['account']}"
        verifier.close()
    finally:
        daemon.end()


def test_tokens_of_another_deployment_of_the_same_name_are_refused(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    mine = signed_up(daemon)["access_token"]
    with running(tmp_path / "two", *NAMED, deploy="accounts_plain") as other:
        theirs = signed_up(other)["access_token"]
        assert value(other, "query", "auth:whoami", theirs) == "ada"
        assert whoami(daemon, theirs)["code"] == "unauthenticated"
        assert whoami(other, mine)["code"] == "unauthenticated"
        forged = mine.rpartition(".")[0] + "." + theirs.rpartition(".")[2]
        assert whoami(daemon, forged)["code"] == "unauthenticated"


def strangers_token(issuer: str, subject: str, session: str) -> str:
    now_s = int(time.time())
    claims = {"iss": issuer, "aud": issuer, "sub": subject, "sid": session, "exp": now_s + 60, "iat": now_s}
    return jwt.encode(claims, ec.derive_private_key(1, ec.SECP256R1()), "ES256", {"kid": "stranger"})


def test_no_other_provider_goes_by_its_name_or_speaks_for_its_accounts(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    claims = claims_of(signed_up(daemon)["access_token"])
    forged = strangers_token(PUBLIC_URL, claims["sub"], claims["sid"])
    assert whoami(daemon, forged)["code"] == "unauthenticated"
    assert "provider_not_trusted" in daemon.log_text()
    with running(tmp_path / "elsewhere", deploy="accounts_plain") as other:  # under another name
        claims = claims_of(signed_up(other)["access_token"])
        taken = strangers_token(PUBLIC_URL, claims["sub"], claims["sid"])
        assert value(other, "query", "auth:whoami", taken) is None, "a user of that provider, and no account"


def test_what_a_token_says_of_itself_is_the_servers_to_say(daemon: RunningDaemon) -> None:
    def forge(lifetime_s: int = 60, **claims: str) -> Any:
        return asked(daemon, "action", "auth:forge", claims={"sub": "x", **claims}, lifetime_s=lifetime_s)

    assert "iss are the server's to say" in forge(iss="https://other.example.com")["message"]
    assert "exp are the server's to say" in forge(exp="9")["message"]
    assert "from 1 to 3600 s" in forge(lifetime_s=3601)["message"]
    assert "from 1 to 3600 s" in forge(lifetime_s=0)["message"]
    assert "token_limit_bytes" in forge(note="x" * 17_000)["message"]
    # Without a session that goes on it is nobody's.
    without = forge()["value"]
    assert whoami(daemon, without)["code"] == "unauthenticated"
    assert value(daemon, "query", "auth:whoami", forge(sid="x")["value"]) is None


def test_a_new_key_signs_and_old_tokens_go_on(daemon: RunningDaemon) -> None:
    told = signed_up(daemon)
    (first,) = key_ids(daemon)
    second = admin(daemon, "signing-key/rotate")["key_id"]
    assert key_ids(daemon) == [second, first]
    assert value(daemon, "query", "auth:whoami", told["access_token"]) == "ada"
    again = tokens(post(daemon, "refresh", refresh_token=told["refresh_token"]))
    assert header_of(again["access_token"])["kid"] == second
    assert value(daemon, "query", "auth:whoami", again["access_token"]) == "ada"
    assert daemon.terminate() == 0
    daemon.start()
    assert key_ids(daemon) == [second, first]
    for token in (told["access_token"], again["access_token"]):
        assert value(daemon, "query", "auth:whoami", token) == "ada"
    for _ in range(6):
        admin(daemon, "signing-key/rotate")
    assert "there are 8 keys" in admin(daemon, "signing-key/rotate")["message"]


def test_the_command_rotates(daemon: RunningDaemon) -> None:
    told = signed_up(daemon)

    def rotate(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", "auth", "rotate-key", "--json", *words],
            env=daemon_environment() | {"HEADWATER_URL": f"http://127.0.0.1:{daemon.port}", "HEADWATER_KEY": daemon.key},
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        name: str = json.loads(done.stdout)["key_id"]
        return name

    (first,) = key_ids(daemon)
    assert key_ids(daemon) == [first]
    second = rotate()
    assert key_ids(daemon) == [second, first]
    assert value(daemon, "query", "auth:whoami", told["access_token"]) == "ada"
    third = rotate("--revoke")
    assert key_ids(daemon) == [third]
    assert whoami(daemon, told["access_token"])["code"] == "unauthenticated"


async def test_keys_that_are_taken_back_count_no_more(daemon: RunningDaemon) -> None:
    told = await asyncio.to_thread(signed_up, daemon)
    current = [told]

    async def fetch_token(force_refresh: bool) -> str:
        if force_refresh:
            shown = current[-1]["refresh_token"]
            current.append(tokens(await asyncio.to_thread(post, daemon, "refresh", refresh_token=shown)))
        token: str = current[-1]["access_token"]
        return token

    async with headwater.connect(daemon.url, auth=fetch_token) as client, asyncio.timeout(20):
        shown = client.subscribe("auth:whoami")
        assert await anext(shown) == "ada"
        new = (await asyncio.to_thread(admin, daemon, "signing-key/rotate", revoke=True))["key_id"]
        refused = await asyncio.to_thread(whoami, daemon, told["access_token"])
        assert refused["code"] == "unauthenticated"
        assert await asyncio.to_thread(key_ids, daemon) == [new]
        while len(current) == 1:  # the connection is asked for another token
            await asyncio.sleep(0.05)
        assert await client.query("auth:whoami") == "ada"
        assert header_of(current[-1]["access_token"])["kid"] == new


def test_only_administrators_change_the_key(daemon: RunningDaemon) -> None:
    signed_up(daemon)
    before = key_ids(daemon)
    assert daemon.post("/api/admin/signing-key/rotate", {}).status == 401
    key = admin(daemon, "keys", name="ci", role="deploy")["key"]
    refused = daemon.post("/api/admin/signing-key/rotate", {}, Authorization=f"Headwater {key}")
    assert refused.status == 403
    assert key_ids(daemon) == before


def test_the_private_key_is_sealed_and_its_file_may_come_back(daemon: RunningDaemon) -> None:
    told = signed_up(daemon)
    file = daemon.folder / "data.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert daemon.terminate() == 0
    kept = file.rename(daemon.folder / "elsewhere")
    daemon.start()
    assert value(daemon, "query", "auth:whoami", told["access_token"]) == "ada"  # public keys need no file
    refused = post(daemon, "refresh", refresh_token=told["refresh_token"])
    assert refused.status == 500
    assert daemon.terminate() == 0
    kept.rename(file)
    daemon.start()
    # The answer was lost; the same refresh token gets it again.
    again = tokens(post(daemon, "refresh", refresh_token=told["refresh_token"]))
    assert value(daemon, "query", "auth:whoami", again["access_token"]) == "ada"


def test_a_name_that_is_none_is_refused_at_the_start(tmp_path: Path) -> None:
    for bad in ("data.example.com", "ftp://data.example.com", "https://a|b", "https://a.example.com?x=1"):
        done = run_server("serve", "--data", str(tmp_path / "data"), "--public-url", bad, folder=tmp_path)
        assert done.returncode == 1
        assert "public_url" in done.stderr


def test_nothing_secret_is_logged(daemon: RunningDaemon) -> None:
    told = signed_up(daemon)
    tokens(post(daemon, "password", email="ada", password=PASSWORD))
    post(daemon, "password", email="ada", password=PASSWORD + "wrong")
    again = tokens(post(daemon, "refresh", refresh_token=told["refresh_token"]))
    answer = daemon.get("/api/admin/logs?limit=1000", Authorization=f"Headwater {daemon.key}")
    logged = daemon.log_text() + answer.text
    for secret in (PASSWORD, told["refresh_token"], again["refresh_token"], told["access_token"]):
        assert secret not in logged
    assert "headwater_accounts:refresh" in logged  # it is the right log
