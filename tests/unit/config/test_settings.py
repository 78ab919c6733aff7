from __future__ import annotations

import pytest
from headwater_config.descriptions import descriptions
from headwater_config.settings import Settings
from pydantic import ValidationError


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
    Settings.model_validate(Settings().model_dump())


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1


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
