from __future__ import annotations

from pathlib import Path

import pytest
from headwater_config.load import SettingsError, find_file, load


def settings_file(folder: Path, text: str) -> Path:
    file = folder / "headwater.toml"
    file.write_text(text)
    return file


def test_without_anything_all_is_default() -> None:
    loaded = load()
    assert loaded.settings.port == 4510
    assert set(loaded.origins.values()) == {"default"}


def test_each_source_overrides_the_one_before_and_is_remembered(tmp_path: Path) -> None:
    file = settings_file(tmp_path, "port = 1\nworkers = 1\nhost = '::1'\n")
    environ = {"HEADWATER_PORT": "2", "HEADWATER_WORKERS": "2", "PATH": "/bin"}
    loaded = load({"port": "3"}, environ, file)
    assert (loaded.settings.port, loaded.settings.workers, loaded.settings.host) == (3, 2, "::1")
    assert loaded.origins["port"] == "flag --port"
    assert loaded.origins["workers"] == "environment HEADWATER_WORKERS"
    assert loaded.origins["host"] == f"file {file}"
    assert loaded.origins["data"] == "default"


def test_texts_are_converted() -> None:
    loaded = load({"data": "/srv/hw", "call_time_limit_s": "2.5"}, {"HEADWATER_PRODUCTION": "true"})
    assert loaded.settings.data == Path("/srv/hw")
    assert loaded.settings.call_time_limit_s == 2.5
    assert loaded.settings.production is True


@pytest.mark.parametrize(
    ("flags", "environ", "text", "parts"),
    [
        ({"prot": "1"}, {}, "", ["flag --prot", '"prot"', 'mean "port"']),
        ({}, {"HEADWATER_WORKER": "1"}, "", ["environment HEADWATER_WORKER", 'mean "workers"']),
        ({}, {}, "tcpport = 1", ["headwater.toml", 'mean "tcp_port"']),
        ({}, {}, "zzzz = 1", ["headwater.toml", '"zzzz"', "headwater config"]),
        ({"port": "70000"}, {}, "", ["flag --port", "port = '70000'", "65535"]),
        ({}, {"HEADWATER_PORT": "http"}, "", ["environment HEADWATER_PORT", "port = 'http'", "integer"]),
        ({}, {}, "durability = 'none'", ["headwater.toml", "durability = 'none'", "'log' or 'lmdb'"]),
        ({}, {}, "[server]\nport = 1", ["headwater.toml", '"server"']),
        ({}, {}, "port = ", ["headwater.toml", "not a TOML file"]),
    ],
)
def test_a_mistake_names_its_origin_and_what_was_expected(
    tmp_path: Path, flags: dict[str, str], environ: dict[str, str], text: str, parts: list[str]
) -> None:
    with pytest.raises(SettingsError) as caught:
        load(flags, environ, settings_file(tmp_path, text))
    message = str(caught.value)
    assert "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_all_mistakes_are_told_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        load({"port": "x", "wrokers": "1"}, {"HEADWATER_HEARTBEAT_S": "0"})
    assert len(str(caught.value).splitlines()) == 3


def test_a_value_of_a_lower_source_that_is_overridden_may_be_wrong(tmp_path: Path) -> None:
    loaded = load({"port": "9"}, {}, settings_file(tmp_path, "port = 99999"))
    assert loaded.settings.port == 9


def test_variables_of_the_command_line_are_no_mistakes() -> None:
    load({}, {"HEADWATER_KEY": "secret", "HEADWATER_URL": "http://localhost:1"})


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load(file=tmp_path / "gone.toml")


def test_the_file_is_the_named_one_then_the_variable_s_then_the_folder_s(tmp_path: Path) -> None:
    assert find_file(tmp_path, {}) is None
    usual = settings_file(tmp_path, "")
    assert find_file(tmp_path, {}) == usual
    assert find_file(tmp_path, {"HEADWATER_CONFIG": "/a.toml"}) == Path("/a.toml")
    assert find_file(tmp_path, {"HEADWATER_CONFIG": "/a.toml"}, Path("/b.toml")) == Path("/b.toml")
