"""An administrator acts as a user: what a token of that user would show is shown, who did it is logged, and nobody else may."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import running
from support.users import GUESTS, STAFF, user_token

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.daemon import RunningDaemon


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("act-as"), deploy="identity") as daemon:
        yield daemon


def asked(daemon: RunningDaemon, function: str, act_as: Any, key: str = "", **arguments: Any) -> Any:
    body = {"path": function, "args": arguments, "actAs": act_as}
    return daemon.post("/api/function", body, Authorization=f"Headwater {key or daemon.key}")


def acted(daemon: RunningDaemon) -> list[str]:
    return [line for line in daemon.log_text().splitlines() if "acting_as" in line]


def test_the_user_sees_and_does_what_they_would(daemon: RunningDaemon) -> None:
    token = f"Bearer {user_token('ada', roles=['admin'])}"
    written = {"path": "notes:write", "args": {"topic": "t", "text": "x"}}
    assert daemon.post("/api/mutation", written, Authorization=token).json["status"] == "success"
    before = len(acted(daemon))
    by_token = daemon.post("/api/query", {"path": "notes:mine"}, Authorization=token).json["value"]
    ada = {"iss": STAFF, "sub": "ada", "roles": ["admin"]}
    assert asked(daemon, "notes:mine", ada).json["value"] == by_token != []
    assert asked(daemon, "notes:claimed", ada, name="roles").json["value"] == ["admin"]
    assert asked(daemon, "notes:mine", {"iss": GUESTS, "sub": "ada"}).json["value"] == []
    assert asked(daemon, "notes:write", ada, topic="t", text="y").json["value"] == f"{STAFF}|ada: y"
    logged = acted(daemon)[before:]
    assert len(logged) == 4
    assert all("admin-key" in line and "|ada" in line and "admin" in line for line in logged)
    assert "ada" not in (asked(daemon, "notes:whoami", None).json["value"] or "")


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"sub": "ada"}, "iss: expected an issuer of this deployment"),
        ({"sub": "ada", "iss": "https://elsewhere.example"}, "iss: expected an issuer of this deployment"),
        ({"sub": "ada", "iss": [STAFF]}, "iss: expected an issuer"),
        ({"iss": STAFF}, "sub: expected text of 1 to 255 characters"),
        ({"iss": STAFF, "sub": ""}, "sub: expected text of 1 to 255 characters"),
        ({"iss": STAFF, "sub": "ada", "big": 1 << 70}, "payload"),
        ("ada", "must be an object with the claims of a user"),
        (["ada"], "must be an object with the claims of a user"),
    ],
)
def test_who_no_token_could_be_from_is_nobody(daemon: RunningDaemon, claims: Any, told: str) -> None:
    answer = asked(daemon, "notes:whoami", claims)
    assert (answer.status, answer.json["code"]) == (400, "invalid_request")
    assert told in answer.json["message"]


def test_only_administrators_may(daemon: RunningDaemon) -> None:
    ada = {"iss": STAFF, "sub": "ada"}
    for role in ("read", "deploy"):
        made = daemon.post(
            "/api/admin/keys", {"name": role, "role": role}, Authorization=f"Headwater {daemon.key}"
        )
        answer = asked(daemon, "notes:whoami", ada, made.json["key"])
        assert (answer.status, answer.json["code"]) == (403, "forbidden")
        assert "needs one for admin" in answer.json["message"]
    body = {"path": "notes:whoami", "actAs": ada}
    for path in ("query", "mutation", "action", "function"):
        assert daemon.post(f"/api/{path}", body).status == 401
        with_token = daemon.post(f"/api/{path}", body, Authorization=f"Bearer {user_token('bob')}")
        assert (with_token.status, "takes a key" in with_token.text) == (400, True)
    assert daemon.post("/api/run/notes/whoami", {"actAs": ada}).status == 401


def test_the_command_line_runs_functions_as_somebody(daemon: RunningDaemon) -> None:
    def run(user: str) -> subprocess.CompletedProcess[str]:
        url = daemon.url.replace("ws", "http", 1)
        return subprocess.run(
            [sys.executable, "-m", "headwater.cli", "run", "notes:whoami", "--as", user, "--url", url],
            env={"HEADWATER_KEY": daemon.key}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip

    done = run(json.dumps({"iss": GUESTS, "sub": "bob"}))
    assert (done.stdout, done.returncode) == (f'"{GUESTS}|bob"\n', 0)
    two_issuers = run("bob")
    assert (two_issuers.returncode, "expected an issuer of this deployment" in two_issuers.stderr) == (
        1,
        True,
    )
    assert run("{bob").returncode == 2
