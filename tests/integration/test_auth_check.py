"""`headwater auth check` against a real daemon: developers are told why, and a token stands nowhere."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from support import tokens
from support.daemon import RunningDaemon
from support.oidc.running import RESOURCE, Provider, node_for_provider

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("oidc")


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[RunningDaemon]:
    running = RunningDaemon(tmp_path / "daemon", ("--provider-private-addresses", "--log-level", "debug"))
    running.start()
    try:
        yield running
    finally:
        running.end()


def deploy(daemon: RunningDaemon, folder: Path, source: str) -> None:
    functions = folder / "functions"
    functions.mkdir(exist_ok=True)
    (functions / "__init__.py").touch()
    (functions / "auth.py").write_text(f"from headwater import jwt_provider, oidc_provider\n{source}")
    daemon.must_deploy(functions)


def check(daemon: RunningDaemon, *words: str, token: str = "", code: int = 0) -> tuple[str, str]:
    """Run `headwater auth check`, the token on standard input; return what it printed as data and what it said."""
    options = ["--url", daemon.url.replace("ws://", "http://"), "--key-file", str(daemon.data / "admin-key")]
    done = subprocess.run(
        [sys.executable, "-m", "headwater.cli", "auth", "check", *words, *options],
        input=token, cwd=daemon.folder, env={}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def token(**more: Any) -> str:
    now_s = int(time.time())
    return tokens.token(**{"iat": now_s, "exp": now_s + 600, **more})


def test_developers_are_told_why_and_the_token_stands_nowhere(daemon: RunningDaemon, tmp_path: Path) -> None:
    keys = tokens.key_set(tokens.public_jwk("ES256"))
    deploy(daemon, tmp_path, f"jwt_provider(issuer={tokens.ISSUER!r}, audience='app', jwks={keys!r})")
    good, bad = token(name="Ada"), token(aud="other", jti="seen-by-nobody")
    printed, said = check(daemon, token=good + "\n")
    header, claims = map(json.loads, printed.splitlines())
    assert (header["alg"], claims["name"]) == ("ES256", "Ada")
    assert "accepted: https://id.example|ada, until" in said
    printed, said = check(daemon, "-", token=bad, code=1)
    assert "refused: aud: expected 'app', got 'other'" in said
    assert bad.rpartition(".")[2] not in printed + said

    file = tmp_path / "token"
    file.write_text(bad)
    told = json.loads(check(daemon, str(file), "--json", code=1)[0])
    assert (told["accepted"], told["reason"]) == (False, "aud: expected 'app', got 'other'")
    assert told["claims"]["jti"] == "seen-by-nobody"
    assert json.loads(check(daemon, "--json", token=good)[0])["token_identifier"] == "https://id.example|ada"
    assert "cannot be read" in check(daemon, token="nonsense", code=1)[1]

    _, said = check(daemon, bad, code=2)
    assert "not as a word" in said.replace("\n", " ").replace("│", "") or "command lines" in said
    assert bad[:20] not in said
    check(daemon, token="  ", code=2)
    assert "seen-by-nobody" not in daemon.log_text()
    assert good[:20] not in daemon.log_text()
    assert daemon.request("POST", "/api/admin/check-token", good.encode(), {}).status == 401


def test_keys_of_a_real_provider_count_from_the_deploy_to_the_roll_back(
    daemon: RunningDaemon, tmp_path: Path
) -> None:
    with Provider(node_for_provider()) as provider:
        machine = asyncio.run(provider.machine())
        deploy(daemon, tmp_path, "")
        assert "this deployment declares no provider" in check(daemon, token=machine, code=1)[1]
        deploy(daemon, tmp_path, f"oidc_provider(issuer={provider.issuer!r}, audience={RESOURCE!r})")
        assert f"accepted: {provider.issuer}|job" in check(daemon, token=machine)[1]
        daemon.kill()
        daemon.start()
        assert f"accepted: {provider.issuer}|job" in check(daemon, token=machine)[1]
        assert '"provider_keys_fetched"' in daemon.log_text()
        assert daemon.post("/api/admin/rollback", {}, Authorization=f"Headwater {daemon.key}").status == 200
        assert "this deployment declares no provider" in check(daemon, token=machine, code=1)[1]
