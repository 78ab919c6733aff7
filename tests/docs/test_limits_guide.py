"""The guide to limits names settings, defaults and codes that there are, and every bound of a call and of a document."""

from __future__ import annotations

import re

from headwater_config.descriptions import descriptions
from headwater_protocol.errors import ERROR_CODES
from support.guides import GUIDES

ROW = re.compile(r"^\| [^|]+ \| `(\w+)` \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)
SETTINGS = descriptions()
ROWS = ROW.findall((GUIDES / "limits.md").read_text())


def test_each_limit_is_a_setting_with_this_default_and_ends_with_a_known_code() -> None:
    assert ROWS
    for name, default, ends in ROWS:
        setting = SETTINGS[name]
        assert default == f"{setting.default} {setting.unit}".rstrip(), name
        assert all(code in ERROR_CODES for code in re.findall(r"`(\w+)`", ends)), name


def test_all_bounds_of_calls_and_documents_are_told() -> None:
    told = {name for name, _, _ in ROWS}
    of_calls = {name for name in SETTINGS if name.startswith(("call_", "document_limit_"))}
    of_the_log = {name for name in of_calls if name.startswith("call_log_") and "_log_limit_" not in name}
    assert of_calls - of_the_log <= told
