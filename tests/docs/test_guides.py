"""The guides for authors: their code type-checks and their tests pass, as they are written."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

import pytest
from headwater_config.settings import Settings
from headwater_protocol.errors import ERROR_CODES
from support.guides import GUIDES, blocks, write_files

from tools.checkout import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TESTED = [
    "determinism",
    "errors",
    "functions",
    "http-routes",
    "limits",
    "multi-tenancy",
    "rate-limits",
    "reading-and-writing",
    "schema",
    "scheduling",
    "sign-in",
    "testing",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each guide, with its files."""
    folder = tmp_path_factory.mktemp("guides")
    for guide in TESTED:
        write_files(guide, folder / guide)
    return folder


@pytest.mark.parametrize("guide", TESTED)
def test_the_tests_of_a_guide_pass(guide: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly"]
    run = subprocess.run(
        command, cwd=folder / guide, capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    passed = re.search(r"(\d+) passed", run.stdout)
    wanted = sum(block.text.count("def test_") for block in blocks(guide) if block.file)
    assert passed is not None
    assert int(passed[1]) == wanted > 0


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one run of mypy leaves to the next."""
    return tmp_path_factory.mktemp("mypy")


@pytest.mark.parametrize("guide", TESTED)
def test_the_code_of_a_guide_type_checks(guide: str, folder: Path, cache: Path) -> None:
    command = [sys.executable, "-m", "mypy", "--strict", "--python-version", "3.13", "--config-file", ""]
    command += ["--cache-dir", str(cache), "."]
    run = subprocess.run(
        command, cwd=folder / guide, capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stdout


def test_every_python_block_of_a_tested_guide_is_a_file() -> None:
    for guide in TESTED:
        assert [block.text for block in blocks(guide) if block.language == "python" and not block.file] == []


def test_errors_that_guides_name_are_in_the_table_and_the_table_has_all() -> None:
    page = (ROOT / "docs" / "reference" / "errors.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(ERROR_CODES)
    for guide in TESTED:
        text = (GUIDES / f"{guide}.md").read_text()
        compared = set(re.findall(r'\.code == "(\w+)"', text))
        assert compared <= set(ERROR_CODES), guide


def test_every_setting_is_in_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert [item.name for item in fields(Settings) if f"`{item.name}`" not in page] == []
