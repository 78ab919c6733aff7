"""Keys for people and machines on a real daemon: what each role opens, once shown, last used, revoked; and internal functions, which look like none."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import headwater
import pytest
from headwater.packing import pack
from headwater_protocol.errors import HeadwaterError
from support.daemon import RunningDaemon, run_server, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SOURCE = """
from headwater import ActionCtx, MutationCtx, QueryCtx, action, mutation, query

@query
def open_(ctx: QueryCtx) -> int: return 1

@query.internal
def hidden_q(ctx: QueryCtx) -> int: return 2

@mutation.internal
def hidden_m(ctx: MutationCtx) -> int: return 3

@action.internal
async def hidden_a(ctx: ActionCtx) -> int: return 4
"""


@pytest.fixture(scope="module")
def functions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle") / "functions"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "m.py").write_text(SOURCE)
    return folder


@pytest.fixture
def daemon(tmp_path: Path, functions: Path) -> Iterator[RunningDaemon]:
    with running(tmp_path / "daemon", deploy=functions) as daemon:
        yield daemon


def with_key(key: str) -> dict[str, str]:
    return {"Authorization": f"Headwater {key}"}


def create(daemon: RunningDaemon, name: str, role: str) -> str:
    answer = daemon.post("/api/admin/keys", {"name": name, "role": role}, **with_key(daemon.key))
    assert answer.status == 200, answer.text
    key: str = answer.json["key"]
    return key


def listed(daemon: RunningDaemon) -> dict[str, Any]:
    answer = daemon.get("/api/admin/keys", **with_key(daemon.key))
    return {key["name"]: key for key in answer.json["keys"]}


def opened(daemon: RunningDaemon, key: str, bundle: bytes) -> set[str]:
    """Return what a key opens; whatever it does not open answers 403, or as if the function were not there."""
    headers = with_key(key)
    asked = {
        "manifest": daemon.get("/api/admin/manifest", **headers),
        "deploys": daemon.get("/api/admin/deploys", **headers),
        "progress": daemon.get("/api/admin/progress", **headers),
        "tables": daemon.get("/api/admin/tables", **headers),
        "documents": daemon.get("/api/admin/documents", **headers),
        "check-token": daemon.post("/api/admin/check-token", b"x", **headers),
        "dry run": daemon.post("/api/admin/deploy?dry_run=true", bundle, **headers),
        "deploy": daemon.post("/api/admin/deploy", bundle, **headers),
        "rollback": daemon.post("/api/admin/rollback", {}, **headers),
        "keys": daemon.get("/api/admin/keys", **headers),
        "create": daemon.post("/api/admin/keys", {}, **headers),
        "revoke": daemon.post("/api/admin/keys/revoke", {}, **headers),
    }
    found = {name for name, answer in asked.items() if answer.status != 403}
    assert all(answer.status != 401 for answer in asked.values())
    for name in ("hidden_q", "hidden_m", "hidden_a"):
        for path in ("/api/function", f"/api/run/m/{name}"):
            answer = daemon.post(path, {"path": f"m:{name}"} if path == "/api/function" else {}, **headers)
            if answer.json.get("status") == "success":
                found.add(name)
            else:
                assert "unknown_function" in (answer.json.get("code"), answer.json.get("errorCode"))
    return found


SEEN = {"manifest", "deploys", "progress", "check-token"}
BROWSED = {"tables", "documents"}
DEPLOYS = {"dry run", "deploy", "rollback"}
OPENS = {
    "read": SEEN | BROWSED | {"hidden_q"},
    "deploy": SEEN | DEPLOYS,
    "admin": SEEN | BROWSED | DEPLOYS | {"keys", "create", "revoke", "hidden_q", "hidden_m", "hidden_a"},
}


def test_each_role_opens_what_it_is_for_and_nothing_else(daemon: RunningDaemon, functions: Path) -> None:
    bundle = pack(functions)
    for role, expected in OPENS.items():
        assert opened(daemon, create(daemon, f"of {role}", role), bundle) == expected, role
    assert opened(daemon, daemon.key, bundle) == OPENS["admin"]
    for wrong in ("hw-wrong", create(daemon, "x", "read") + "x"):
        assert daemon.get("/api/admin/manifest", **with_key(wrong)).status == 401
        assert daemon.post("/api/query", {"path": "m:open"}, **with_key(wrong)).status == 401


def test_keys_are_shown_once_kept_as_hashes_and_end_when_they_are_revoked(daemon: RunningDaemon) -> None:
    key = create(daemon, "build server", "deploy")
    first = listed(daemon)["build server"]
    assert (first["role"], first["used_ms"]) == ("deploy", None)
    ts = daemon.get("/health").json["ts"]
    assert daemon.get("/api/admin/deploys", **with_key(key)).status == 200
    used_ms = listed(daemon)["build server"]["used_ms"]
    assert used_ms > first["created_ms"]
    wait_until(lambda: daemon.get("/health").json["ts"] > ts)
    daemon.kill()
    daemon.start()
    assert abs(listed(daemon)["build server"]["used_ms"] - used_ms) < 60_000
    assert daemon.get("/api/admin/deploys", **with_key(key)).status == 200
    told = daemon.get("/api/admin/keys", **with_key(daemon.key)).text + daemon.log_text()
    assert key not in told
    assert not [
        path for path in daemon.data.rglob("*") if path.is_file() and key.encode() in path.read_bytes()
    ]

    again = daemon.post("/api/admin/keys", {"name": "build server", "role": "read"}, **with_key(daemon.key))
    assert (again.status, "already" in again.text) == (400, True)
    revoke = {"name": "build server"}
    assert daemon.post("/api/admin/keys/revoke", revoke, **with_key(daemon.key)).status == 200
    assert daemon.get("/api/admin/deploys", **with_key(key)).status == 401
    assert listed(daemon) == {}
    daemon.kill()
    daemon.start()
    assert daemon.get("/api/admin/deploys", **with_key(key)).status == 401
    assert daemon.post("/api/admin/keys/revoke", revoke, **with_key(daemon.key)).status == 400
    assert listed(daemon) == {}


@pytest.mark.parametrize(
    "body", [b"", b"{", {}, {"name": "a"}, {"name": "", "role": "read"}, {"name": "a\n", "role": "read"},
             {"name": "ä" * 51, "role": "read"}, {"name": "a", "role": "root"}, {"name": 5, "role": "read"},
             {"name": "\ud800", "role": "read"}],
)  # fmt: skip
def test_what_is_no_key_to_be_is_refused(daemon: RunningDaemon, body: Any) -> None:
    assert daemon.post("/api/admin/keys", body, **with_key(daemon.key)).status == 400
    assert listed(daemon) == {}


def test_there_may_be_so_many(tmp_path: Path) -> None:
    with running(tmp_path, "--access-keys-limit", "2") as daemon:
        create(daemon, "a", "read")
        create(daemon, "b", "read")
        answer = daemon.post("/api/admin/keys", {"name": "c", "role": "read"}, **with_key(daemon.key))
        assert (answer.status, "access_keys_limit" in answer.text) == (400, True)


def test_the_command_line_makes_lists_and_revokes_them(daemon: RunningDaemon) -> None:
    def run(*words: str, key: str = "", code: int = 0) -> tuple[str, str]:
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli", "key", *words, "--url", daemon.url.replace("ws", "http", 1)],
            env={"HEADWATER_KEY": key or daemon.key}, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == code, done.stderr
        return done.stdout, done.stderr

    printed, said = run("create", "ci", "--role", "deploy")
    key = printed.strip()
    assert key.startswith("hw-")
    assert key not in said
    (one,) = json.loads(run("list", "--json")[0])
    assert (one["name"], one["role"], one["last used"]) == ("ci", "deploy", None)
    assert "forbidden" in run("list", key=key, code=1)[1]
    assert "there is no role 'owner'" in run("create", "b", "--role", "owner", code=1)[1]
    run("revoke", "ci")
    assert "unauthenticated" in run("list", key=key, code=1)[1]


# ------------------------------------------------------------------------------------- internal functions


async def test_internal_functions_look_like_unknown_ones(daemon: RunningDaemon) -> None:
    """Same answer but for the name, over HTTP and in a session, whatever they are asked for as."""
    for hidden in ("hidden_q", "hidden_m", "hidden_a"):
        answers = []
        for name in (hidden, "q9x7w2kz"):
            told = []
            for kind in ("query", "mutation", "action", "function"):
                answer = daemon.post(f"/api/{kind}", {"path": f"m:{name}"})
                told.append((answer.status, answer.text))
            answer = daemon.post(f"/api/run/m/{name}", {})
            told.append((answer.status, answer.text))
            async with headwater.connect(daemon.url) as client:
                for call in (client.query, client.mutation, client.action):
                    with pytest.raises(HeadwaterError) as caught:
                        await call(f"m:{name}")
                    told.append((caught.value.code, caught.value.message))
            answers.append([(code, text.replace(name, "NAME")) for code, text in told])
        assert answers[0] == answers[1]
        assert all(code in (200, 404, "unknown_function") for code, _ in answers[0])


# ------------------------------------------------------------------------------------- beyond loopback


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("k3yOfTwentySixCharacters99", "shorter than 32"),
        ("abababababababababababababababababababab", "fewer than 12 different"),
        ("change-me-0123456789-abcdefghijklmnopqrst", "out of an example"),
    ],
)
def test_a_weak_key_is_for_loopback_alone(tmp_path: Path, key: str, reason: str) -> None:
    file = tmp_path / "key"
    file.write_text(key)
    done = run_server(
        "serve", "--data", str(tmp_path / "data"), "--host", "0.0.0.0", "--port", "0", "--tcp-port", "0",
        "--admin-key-file", str(file), folder=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert reason in done.stderr
    assert key not in done.stderr
    with running(tmp_path / "run", "--admin-key-file", str(file)) as daemon:
        assert daemon.get("/api/admin/manifest", **with_key(key)).status == 200


def test_a_random_key_may_be_used_everywhere(tmp_path: Path) -> None:
    with running(tmp_path, "--host", "0.0.0.0", "--tcp-without-tls") as daemon:
        assert daemon.get("/api/admin/manifest", **with_key(daemon.key)).status == 200
