"""Mistakes that no type checker sees are refused when a bundle is loaded, or at the first call, with the author's line.

That no checker sees them is tested in `test_typing.py`: none of their lines is marked there.
"""

from __future__ import annotations

import importlib
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from headwater.call_failures import failure_of
from headwater.testing import Deployment
from headwater_protocol.errors import HeadwaterError
from headwater_server.worker.loader import import_trace

if TYPE_CHECKING:
    from types import ModuleType

HERE = Path(__file__).parent / "unseen"
DECLARED = (HERE / "declared.py").read_text()
CALLED = (HERE / "called.py").read_text()
CASES = re.findall(r"^# case: (.*)$", DECLARED, re.MULTILINE)
FUNCTIONS = re.findall(r"^def (?!seed)(\w+)\(", CALLED, re.MULTILINE)
REFUSED = re.compile(r"# refused (later )?about (.*)$")


def only(case: str) -> str:
    """The module with nothing but one case, its lines where they were."""
    kept, current = [], None
    for line in DECLARED.splitlines():
        begins = re.match(r"# case: (.*)", line)
        current = begins[1] if begins else current
        kept.append(line if current in (None, case) else "")
    return "\n".join(kept) + "\n"


def refusal(text: str) -> tuple[int, str]:
    """Line and words of the one mark in a text."""
    ((line, words),) = [
        (number, match[2])
        for number, line in enumerate(text.splitlines(), 1)
        if (match := REFUSED.search(line)) is not None
    ]
    return line, words


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty package that may be imported as `unseen_bundle`."""
    folder = tmp_path / "unseen_bundle"
    folder.mkdir()
    (folder / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in [name for name in sys.modules if name.startswith("unseen_bundle")]:
        monkeypatch.delitem(sys.modules, name)
    return folder


def loaded() -> ModuleType:
    importlib.invalidate_caches()
    return importlib.import_module("unseen_bundle")


@pytest.mark.parametrize("case", CASES)
def test_a_wrong_declaration_is_refused_with_its_line(case: str, package: Path) -> None:
    text = only(case)
    (package / "declared.py").write_text(text)
    line, words = refusal(text)
    with pytest.raises(HeadwaterError) as caught:
        Deployment(loaded())
    assert caught.value.code == "invalid_bundle"
    assert words in caught.value.message
    place = re.search(r'File "unseen_bundle/declared.py", line (\d+)', caught.value.message)
    assert place is not None
    assert int(place[1]) == line


def test_a_worker_tells_the_line_too(package: Path) -> None:
    """What is refused while it is imported comes with a traceback that begins in the bundle."""
    text = only(CASES[0])
    (package / "declared.py").write_text(text)
    loaded()
    with pytest.raises(HeadwaterError) as caught:
        importlib.import_module("unseen_bundle.declared")
    trace = import_trace(caught.value, package.parent)
    assert f'File "unseen_bundle/declared.py", line {refusal(text)[0]}' in trace


@pytest.mark.parametrize("function", FUNCTIONS)
def test_a_wrong_call_is_refused_with_its_line(function: str, package: Path) -> None:
    (package / "called.py").write_text(CALLED)
    deployment = Deployment(loaded())
    module = importlib.import_module("unseen_bundle.called")
    deployment.run_mutation(module.seed)
    wrong = getattr(module, function)
    with pytest.raises((HeadwaterError, TypeError)) as caught:
        getattr(deployment, f"run_{wrong.kind}")(wrong)
    first = wrong.declared.__code__.co_firstlineno
    rest = CALLED.splitlines()[first:]
    body = rest[: next((place for place, line in enumerate(rest) if line.startswith("@")), len(rest))]
    line, words = refusal("\n".join(body))
    assert words in str(caught.value)
    if "refused later" in "\n".join(body):
        assert f"called:{function}" in str(caught.value)
        return
    frames = traceback.extract_tb(caught.value.__traceback__)
    (mine,) = [frame for frame in frames if frame.filename == str(package / "called.py")]
    assert mine.lineno == first + line
    assert f"line {mine.lineno}, in {function}" in failure_of(caught.value).trace


def test_there_are_many() -> None:
    assert len(CASES) > 15
    assert len(FUNCTIONS) > 10
