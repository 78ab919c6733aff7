from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from pathlib import Path
from typing import Any

import pytest
from headwater_config.declarations import declarations
from headwater_config.descriptions import descriptions
from headwater_config.settings import Settings


def test_every_setting_says_what_it_is_and_why_one_would_change_it() -> None:
    for name, item in descriptions().items():
        assert item.text, name
        assert item.why.endswith("."), name
        assert item.default, name


@pytest.mark.parametrize(("ending", "unit"), [("_s", "s"), ("_bytes", "bytes"), ("_documents", "documents")])
def test_a_unit_in_the_name_is_the_unit_of_the_value(ending: str, unit: str) -> None:
    named = [item for name, item in descriptions().items() if name.endswith(ending)]
    assert named
    assert {item.unit for item in named} == {unit}


def test_every_number_with_a_unit_is_bounded() -> None:
    for name, item in descriptions().items():
        if item.kind in ("number", "whole number"):
            assert " to " in item.bounds, name


def test_defaults_are_within_their_own_bounds() -> None:
    for name, item in declarations(Settings).items():
        if item.default is not None:
            assert item.checked(item.default) == item.default, name


def test_settings_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().port = 1


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "1_000", 1000),
        ("port", 8080.0, 8080),
        ("heartbeat_s", 3, 3.0),
        ("production", "No", False),
        ("admin_key_file", "/k", Path("/k")),
        ("durability", "lmdb", "lmdb"),
    ],
)
def test_values_are_converted(name: str, value: object, expected: Any) -> None:
    found = declarations(Settings)[name].checked(value)
    assert found == expected
    assert type(found) is type(expected) or isinstance(found, Path)


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("port", -1, "from 0 to 65535"),
        ("port", 1.5, "integer"),
        ("port", True, "integer"),
        ("port", [1], "integer"),
        ("heartbeat_s", "nan", "from"),
        ("heartbeat_s", "soon", "number"),
        ("workers", float("inf"), "integer"),
        ("production", 1, "true or false"),
        ("production", "perhaps", "true or false"),
        ("host", 1, "text"),
        ("data", 1, "path"),
        ("durability", "none", "'log' or 'lmdb'"),
        ("durability", ["log"], "'log' or 'lmdb'"),
    ],
)
def test_values_that_do_not_fit_are_refused(name: str, value: object, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        declarations(Settings)[name].checked(value)


def test_every_setting_is_described() -> None:
    assert list(descriptions()) == [field.name for field in fields(Settings)]


def test_nothing_is_read_from_the_environment_on_the_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_PORT", "1")
    assert Settings().port == 4510


def test_the_default_frame_holds_a_largest_mutation_and_its_envelope() -> None:
    settings = Settings()
    assert settings.frame_limit_bytes > settings.call_write_limit_bytes
    assert settings.document_limit_bytes <= settings.call_write_limit_bytes


def test_a_description_is_made_from_the_declaration() -> None:
    item = descriptions()["checkpoint_interval_s"]
    assert (item.kind, item.default, item.bounds, item.unit) == ("number", "5", "0.1 to 3600", "s")
    assert (item.flag, item.variable) == ("--checkpoint-interval-s", "HEADWATER_CHECKPOINT_INTERVAL_S")
    assert descriptions()["log_format"].kind == "`json` or `human` or `auto`"
    assert descriptions()["admin_key_file"].default == "none"
