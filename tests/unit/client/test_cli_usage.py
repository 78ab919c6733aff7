from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from headwater.cli import daemon, dev
from headwater.cli.deploy import describe
from headwater.cli.deployment import Surroundings, find_key, find_url, require_key
from headwater.cli.keys import write_key
from headwater.cli.main import app
from headwater.http_client import Deployed
from headwater_protocol.errors import RequestError
from typer.testing import CliRunner

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result


def invoke(folder: Path, *words: str, **environ: str) -> Result:
    return CliRunner().invoke(app, list(words), obj=Surroundings(environ, folder, "/no/python"))


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "Usage"),
        (("run",), "NAME"),
        (("run", "messages:list", "limit"), "'limit' is not an argument"),
        (("run", "messages:list", "a=1", "a=2"), "'a' is given twice"),
        (("run", "messages:list", "--url", "tcp://host:1"), "not an HTTP address"),
        (("run", "messages:list", "--key-file", "absent"), "cannot read the key file absent"),
        (("watch", "messages:list", "--url", "nowhere"), "'nowhere' is not an address"),
        (("watch", "messages:list", "limit"), "'limit' is not an argument"),
        (("deploy", "absent"), "absent"),
        (("deploy", ".", "--key-file", "absent"), "cannot read the key file absent"),
        (("key", "rotate", "--url", "ws://", "--key-file", "key"), "not an HTTP address"),
        (("key", "burn"), "burn"),
        (("dev", "absent"), "absent"),
        (("dev", ".", "--port", "0"), "port"),
        (("dev", "."), "the folder that holds DIR"),
        (("fly",), "fly"),
    ],
)
def test_a_wrong_command_line_exits_with_2_and_names_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], named: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_text("a-key")
    result = invoke(tmp_path, *words)
    assert result.exit_code == 2
    assert named in result.output
    assert result.stdout == "" or not words
    assert "Traceback" not in result.output


def test_version_and_help(tmp_path: Path) -> None:
    result = invoke(tmp_path, "--version")
    assert (result.exit_code, result.stderr) == (0, "")
    assert re.fullmatch(r"headwater \d+\.\d+\.\d+\S*\n", result.stdout)
    help_text = invoke(tmp_path, "--help").stdout
    for command in ("dev", "serve", "deploy", "run", "watch", "codegen", "key", "doctor", "config"):
        assert re.search(rf"^  {command} ", help_text, re.MULTILINE)
    assert "3 the server cannot be" in " ".join(help_text.split())


def test_the_key_never_stands_on_a_command_line(tmp_path: Path) -> None:
    for words in (("run",), ("deploy",), ("key", "rotate")):
        assert not re.search(r"--key\b(?!-file)", invoke(tmp_path, *words, "--help").stdout)


def test_the_key_is_never_shown(tmp_path: Path) -> None:
    key = find_key(Surroundings({"HEADWATER_KEY": "s3cret"}, tmp_path, ""), None)
    assert key is not None
    assert key.text == "s3cret"
    assert "s3cret" not in repr(key)


def test_where_the_key_comes_from(tmp_path: Path) -> None:
    empty = Surroundings({}, tmp_path, "")
    assert find_key(empty, None) is None
    with pytest.raises(RequestError) as caught:
        require_key(empty, None)
    assert caught.value.code == "unauthenticated"
    own = tmp_path / ".headwater" / "data" / "admin-key"
    own.parent.mkdir(parents=True)
    own.write_text("own\n")
    assert require_key(empty, None).file == own
    given = tmp_path / "given"
    given.write_text(" given \n")
    variable = Surroundings({"HEADWATER_KEY": "variable"}, tmp_path, "")
    assert require_key(variable, None).text == "variable"
    assert require_key(variable, None).file is None
    assert require_key(variable, given).text == "given"


def test_where_the_address_comes_from(tmp_path: Path) -> None:
    variable = Surroundings({"HEADWATER_URL": "http://variable:1"}, tmp_path, "")
    assert find_url(Surroundings({}, tmp_path, ""), None) == "http://127.0.0.1:4510"
    assert find_url(variable, None) == "http://variable:1"
    assert find_url(variable, "http://flag:1") == "http://flag:1"


@pytest.mark.parametrize("content", [b"", b"two words", b"k\xff", b"line\nline", b"\x00"])
def test_a_file_that_holds_no_key_is_refused_without_showing_it(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "key"
    file.write_bytes(content)
    with pytest.raises(RequestError) as caught:
        find_key(Surroundings({}, tmp_path, ""), file)
    assert str(file) in caught.value.message
    assert "two words" not in caught.value.message


def test_a_new_key_replaces_the_old_file_whole(tmp_path: Path) -> None:
    file = tmp_path / "key"
    write_key(file, "first")
    write_key(file, "second")
    assert file.read_text() == "second\n"
    assert file.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [file]


def test_a_missing_server_is_told_with_what_to_install() -> None:
    daemon.require_server(lambda _: object())
    with pytest.raises(RequestError, match=r"lmdb is missing.*headwater\[server\]"):
        daemon.require_server(lambda name: None if name == "lmdb" else object())


def test_the_daemon_is_started_without_the_current_folder_in_its_import_path() -> None:
    command = daemon.daemon_command("/usr/bin/python3", "serve", ["--port", "1"])
    assert command == ["/usr/bin/python3", "-P", "-m", "headwater_server", "serve", "--port", "1"]


@pytest.mark.parametrize("command", ["serve", "doctor", "config"])
def test_the_daemons_commands_get_their_words_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    became: list[list[str]] = []
    monkeypatch.setattr("os.execv", lambda _, words: became.append(words))
    result = invoke(tmp_path, command, "--help", "--data", "d", "x")
    assert result.exit_code == 0
    assert became == [["/no/python", "-P", "-m", "headwater_server", command, "--help", "--data", "d", "x"]]


def test_a_deploy_in_words() -> None:
    assert (
        describe(Deployed("a" * 32, 1, 2, changed=True))
        == f"deployed bundle {'a' * 12}: 1 function, 2 tables"
    )
    assert describe(Deployed("a" * 32, 1, 2, changed=False)).startswith("deployed already")


def test_the_project_folder_keeps_itself_out_of_version_control(tmp_path: Path) -> None:
    project = dev.Project(tmp_path / "functions", tmp_path, "127.0.0.1", 4510, 4511)
    dev._prepare(project)
    assert (tmp_path / ".headwater" / ".gitignore").read_text() == "*\n"
    assert (tmp_path / ".headwater" / "data").stat().st_mode & 0o077 == 0


def test_tcp_is_one_port_above_unless_told() -> None:
    assert dev._tcp_port(4510, None) == 4511
    assert dev._tcp_port(65535, None) == 0
    assert dev._tcp_port(4510, 0) == 0


def test_shells_complete_commands_and_options(tmp_path: Path) -> None:
    def completed(words: str) -> list[str]:
        environ = {
            "_HEADWATER_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count(" ")),
        }
        return CliRunner().invoke(app, [], prog_name="headwater", env=environ).stdout.split()

    assert completed("headwater de") == ["dev", "deploy", "deploys"]
    assert completed("headwater key cr") == ["create"]
    assert "--key-file" in completed("headwater run --")
