"""Convex's own command line, of the package on npm, in front of a real daemon."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from support.convex_clients.driven import FOLDER, node_program
from support.daemon import RunningDaemon, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.xdist_group("convex")
TIMEOUT_S = 60.0


class CommandLine:
    """`npx convex` in a folder of its own, with a key to a daemon."""

    def __init__(self, daemon: RunningDaemon, folder: Path) -> None:
        self._daemon = daemon
        self._folder = folder
        self._node = node_program()
        (folder / "package.json").write_text('{"name": "x", "dependencies": {"convex": "1.48.0"}}')
        (folder / "node_modules").symlink_to(FOLDER / "node_modules")
        (folder / "convex").mkdir()

    def key(self, role: str) -> str:
        """Return a new key for a role."""
        asked = {"name": f"cli-{role}", "role": role}
        made = self._daemon.post("/api/admin/keys", asked, Authorization=f"Headwater {self._daemon.key}")
        key: str = made.json["key"]
        return key

    def _command(self, words: tuple[str, ...], key: str) -> tuple[list[str], dict[str, str]]:
        script = FOLDER / "node_modules" / "convex" / "bin" / "main.js"
        more = {
            "CONVEX_SELF_HOSTED_URL": f"http://127.0.0.1:{self._daemon.port}",
            "CONVEX_SELF_HOSTED_ADMIN_KEY": key or self._daemon.key,
            "CI": "1",
        }
        return [self._node, str(script), *words], os.environ | more

    def run(self, *words: str, key: str = "", text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command to its end; `text` is its standard input."""
        command, environment = self._command(words, key)
        return subprocess.run(
            command, cwd=self._folder, env=environment, input=text,
            capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
        )  # fmt: skip

    def must(self, *words: str, key: str = "", text: str = "") -> str:
        """Run a command that must succeed; return what it printed."""
        done = self.run(*words, key=key, text=text)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def refused(self, *words: str, key: str = "", text: str = "") -> str:
        """Run a command that must fail; return what it said."""
        done = self.run(*words, key=key, text=text)
        assert done.returncode != 0, done.stdout
        return done.stderr

    @contextlib.contextmanager
    def follow(self, *words: str, key: str = "") -> Iterator[Iterator[str]]:
        """Run a command that goes on, for the length of the block; yields its lines."""
        command, environment = self._command(words, key)
        process = subprocess.Popen(
            command, cwd=self._folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield iter(process.stdout)
        finally:
            process.kill()
            process.communicate()


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("convex-cli"), deploy="dialect") as daemon:
        yield daemon


@pytest.fixture
def convex(daemon: RunningDaemon, tmp_path: Path) -> CommandLine:
    return CommandLine(daemon, tmp_path)


def test_it_runs_functions(convex: CommandLine) -> None:
    assert convex.must("run", "messages:add", '{"name": "cli", "by": 3}').strip() == "3"
    assert convex.must("run", "messages:secret").strip() == '"secret"'
    assert "no function" in convex.refused("run", "messages:nowhere")


def test_it_lists_tables_and_documents(convex: CommandLine) -> None:
    assert convex.must("data").split() == ["counters", "kept", "messages"]
    convex.must("run", "messages:send_many", '{"channel": "cli", "count": 5}')
    convex.must("run", "messages:keep", '{"name": "n", "value": [1.5, {"a": null}, "é"]}')
    newest = convex.must("data", "messages", "--limit", "2")
    assert ("0004" in newest, "0003" in newest, "0002" in newest) == (True, True, False)
    oldest = convex.must("data", "messages", "--limit", "1", "--order", "asc", "--format", "jsonLines")
    assert json.loads(oldest)["body"] == "0000"
    assert json.loads(convex.must("data", "kept", "--format", "jsonArray"))[0]["value"] == [
        1.5,
        {"a": None},
        "é",
    ]
    assert "there is no table" in convex.refused("data", "nowhere")


def test_it_describes_functions(convex: CommandLine, daemon: RunningDaemon) -> None:
    told = json.loads(convex.must("function-spec"))
    assert told["url"] == f"http://127.0.0.1:{daemon.port}"
    functions = {one["identifier"]: one for one in told["functions"]}
    assert functions["messages.js:types"] == {
        "identifier": "messages.js:types",
        "functionType": "Query",
        "visibility": {"kind": "public"},
        "args": {
            "type": "object",
            "value": {
                "whole": {"fieldType": {"type": "number"}, "optional": False},
                "number": {"fieldType": {"type": "number"}, "optional": False},
                "data": {"fieldType": {"type": "bytes"}, "optional": True},
                "many": {
                    "fieldType": {
                        "type": "union",
                        "value": [{"type": "array", "value": {"type": "number"}}, {"type": "null"}],
                    },
                    "optional": True,
                },
            },
        },
        "returns": {"type": "array", "value": {"type": "any"}},
    }
    assert functions["messages.js:purge"]["visibility"] == {"kind": "internal"}
    rows = functions["messages.js:list"]["returns"]["value"]["value"]
    assert rows["_id"] == {"fieldType": {"type": "id", "tableName": "messages"}, "optional": False}


def test_it_sets_lists_and_removes_variables(convex: CommandLine) -> None:
    convex.must("env", "set", "CLI_ONE", "first one")
    assert convex.must("env", "get", "CLI_ONE") == "first one\n"
    convex.must("env", "set", text="CLI_ONE=first one\nCLI_TWO=second\n")
    assert convex.must("env", "list") == "CLI_ONE=first one\nCLI_TWO=second\n"
    assert "cannot name" in convex.refused("env", "set", text="CLI_THREE=3\nlower=4\n")
    for name in ("CLI_ONE", "CLI_TWO"):
        convex.must("env", "remove", name)
    assert (
        "No environment variables" in convex.run("env", "list").stderr
    )  # nor the third, beside the wrong one


def test_it_shows_no_secrets(convex: CommandLine, daemon: RunningDaemon) -> None:
    secret = {"name": "CLI_SECRET", "value": "nobody-sees-this", "secret": True}
    owner = {"Authorization": f"Headwater {daemon.key}"}
    assert daemon.post("/api/admin/environment", secret, **owner).status == 200
    try:
        assert convex.must("env", "list") == "CLI_SECRET=(secret)\n"
        assert "shown to nobody" in convex.refused("env", "get", "CLI_SECRET")
    finally:
        daemon.post("/api/admin/environment/remove", {"name": "CLI_SECRET"}, **owner)


def test_it_shows_what_calls_printed_and_follows(tmp_path: Path) -> None:
    with running(tmp_path / "daemon", deploy="logs") as daemon:
        folder = tmp_path / "folder"
        folder.mkdir()
        convex = CommandLine(daemon, folder)
        daemon.call("mutation", "says:add", name="before")
        with convex.follow("logs", "--history", "10") as lines:
            assert next(lines).rstrip().endswith("[CONVEX M(says:add)] [INFO] adding before")
            assert next(lines).rstrip().endswith("[CONVEX M(says:add)] [ERROR] grave")
            daemon.call("query", "says:look", name="boat")
            assert next(lines).rstrip().endswith("[CONVEX Q(says:look)] [INFO] looking for boat")
            assert next(lines).rstrip().endswith("[CONVEX Q(says:look)] [WARN] that is slow")
            daemon.post("/api/mutation", {"path": "says:break_mutation", "args": {"secret": "x"}})
            assert "[CONVEX M(says:break_mutation)] internal_error: ValueError: the pump is dry" in next(
                lines
            )
        with convex.follow("logs", "--history", "10", "--success", "--jsonl") as lines:
            entries = [json.loads(next(lines)) for _ in range(3)]
            assert [entry["identifier"] for entry in entries] == [
                "says:add",
                "says:look",
                "says:break_mutation",
            ]


def test_it_tells_what_a_key_does_not_open(convex: CommandLine) -> None:
    read, deploy = convex.key("read"), convex.key("deploy")
    convex.must("data", key=read)
    assert "You do not have permission" in convex.refused("env", "list", key=read)
    assert "You do not have permission" in convex.refused("data", key=deploy)
    assert "for admin or read" in convex.refused("logs", key=deploy)
    assert "none of this deployment" in convex.refused("logs", key="no-key-of-this-deployment")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        (["deploy", "--typecheck", "disable"], "headwater deploy"),
        (["dev", "--once", "--typecheck", "disable"], "headwater dev"),
        (["export", "--path", "out.zip"], "headwater data"),
        (["import", "--table", "kept", "rows.jsonl"], "headwater run"),
        (["run", "--inline-query", "return 1"], "headwater run"),
    ],
)
def test_other_commands_are_refused_with_what_to_use_instead(
    convex: CommandLine, tmp_path: Path, words: list[str], advice: str
) -> None:
    (tmp_path / "rows.jsonl").write_text('{"name": "x", "value": 1}\n')
    assert advice in convex.refused(*words)
