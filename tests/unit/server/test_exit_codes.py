from __future__ import annotations

import re

import pytest
from headwater_protocol.errors import StorageError
from headwater_server.lifecycle import EXIT_CODES, ExitCode, exit_code_of, exit_code_of_start

from tools.checkout import ROOT


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError(code="disk_failed"), ExitCode.STORAGE_FAILED),
        (StorageError(code="log_taken"), ExitCode.TAKEN),
        (StorageError(code="directory_in_use"), ExitCode.TAKEN),
        (RuntimeError("the engine has ended"), ExitCode.STORAGE_FAILED),
    ],
)
def test_a_log_that_somebody_else_has_is_told_from_a_failed_disk(error: Exception, code: ExitCode) -> None:
    assert exit_code_of(error) is code
    assert len(set(ExitCode)) == len(ExitCode.__members__)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("directory_in_use", ExitCode.TAKEN),
        ("log_taken", ExitCode.TAKEN),
        ("disk_failed", ExitCode.STORAGE_FAILED),
        ("disk_full", ExitCode.CANNOT_START),
        ("directory_unusable", ExitCode.CANNOT_START),
        ("damaged", ExitCode.CANNOT_START),
    ],
)
def test_a_start_ends_as_what_was_in_its_way(error: str, code: ExitCode) -> None:
    assert exit_code_of_start(StorageError(code=error)) is code


def test_the_exit_codes_that_are_documented_are_those_there_are() -> None:
    page = (ROOT / "docs" / "reference" / "exit-codes.md").read_text("utf-8")
    serve = page.partition("## `headwater serve`")[2].partition("\n## ")[0]
    assert {int(number) for number in re.findall(r"^\| (\d+) \|", serve, re.MULTILINE)} == set(ExitCode)
    assert {int(number) for number in re.findall(r"(?:^|; )(\d+) ", EXIT_CODES)} == set(ExitCode)
