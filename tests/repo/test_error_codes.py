"""The reference of errors is complete: it tells of each code that is raised, and of no other."""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

from headwater_protocol.errors import ERROR_CODES

from tools import error_reference
from tools.checkout import files, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PRODUCT = ("config/", "protocol/", "sdk/", "server/", "storage/")
CARRIERS = {"ErrorBody", "Failure"}
"""What carries an error between processes; its code comes first."""

TREES = [
    (path, ast.parse(text_of(path) or ""))
    for path in files()
    if path.endswith(".py") and path.startswith(PRODUCT)
]


def codes_in(tree: ast.AST) -> Iterator[str]:
    """Yield the codes that a module raises errors with, or gives to classes of errors."""
    for node in ast.walk(tree):
        found: list[ast.expr] = []
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=args, keywords=keywords):
                found += [keyword.value for keyword in keywords if keyword.arg == "code"]
                found += args[:1] if name in CARRIERS else []
            case ast.Assign(targets=[ast.Name(id="code")], value=value):
                found.append(value)
            case _:
                continue
        yield from (
            each.value for each in found if isinstance(each, ast.Constant) and isinstance(each.value, str)
        )


def test_the_table_of_errors_has_each_code_that_is_raised_and_no_other() -> None:
    raised = {code for _, tree in TREES for code in codes_in(tree)}
    assert raised - ERROR_CODES.keys() == set(), "not in the table of protocol/headwater_protocol/errors.py"
    assert ERROR_CODES.keys() - raised == set(), "in the table, and nothing raises it"


def test_the_page_of_errors_has_a_row_for_each_code() -> None:
    rows = [line.split("`")[1] for line in error_reference.page().splitlines() if line.startswith("| `")]
    assert rows == list(ERROR_CODES)
