from __future__ import annotations

import argparse

import pytest
from headwater_config.declarations import declarations
from headwater_config.flags import add_flags, given_flags
from headwater_config.load import load
from headwater_config.settings import Settings


def parsed(*words: str) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    add_flags(parser)
    return given_flags(parser.parse_args(words))


def test_only_given_flags_are_passed_on() -> None:
    assert parsed("--config", "x") == {}
    assert parsed("--tcp-port", "0", "--data", "/d", "--config", "x") == {"tcp_port": "0", "data": "/d"}


def test_switches_have_both_forms() -> None:
    assert load(parsed("--production")).settings.production is True
    assert load(parsed("--no-production")).origins["production"] == "flag --production"


def test_every_setting_has_a_flag_and_the_help_names_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed("--help")
    text = capsys.readouterr().out
    assert [name for name in declarations(Settings) if f"--{name.replace('_', '-')}" not in text] == []
