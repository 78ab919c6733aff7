"""Rules of the house that no linter knows. Each exception stands here with its reason, and goes when it is needed no more."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import pytest
from headwater_config.declarations import declarations
from headwater_config.settings import Settings

from tools.banned_calls import banned_uses
from tools.checkout import ROOT, files, functions, imports, modules, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

FUNCTION_LIMIT_LINES = 70
FILE_LIMIT_LINES = 600
FILE_ENDINGS = (".py", ".sh", ".ts", ".tsx", "Makefile", "Dockerfile")

LONG_FUNCTIONS: dict[str, tuple[int, str]] = {}
"""`path:function`: the length it may have, and why it is one function."""

LONG_FILES: dict[str, tuple[int, str]] = {
    "tests/integration/test_workers.py": (620, "one pool under every kind of worker"),
    "tests/support/reactive_world.py": (650, "one simulated world: its parts make sense together only"),
}
"""`path`: the length it may have, and why it is one file."""

COMPOSITION_ROOTS = {
    "server/headwater_server/app.py": "names the concrete classes of the daemon",
    "server/headwater_server/options.py": "gives parts of the daemon what they need of the settings",
    "server/headwater_server/__main__.py": "the daemon's command line",
    "server/headwater_server/health_check.py": "a command beside it",
    "server/headwater_server/worker/main.py": "puts a worker process together, after the fork",
    "server/headwater_server/worker/determinism.py": "takes the place of the standard library's clocks and chance",
    "storage/headwater_storage/environment.py": "the real clock and source of randomness, behind their Protocols",
}
COMPOSITION_ROOT_FOLDERS = {"sdk/headwater/cli/": "the users' command line"}

OWN_CLOCKS: dict[tuple[str, str], str] = {
    (
        "sdk/headwater/client/aio.py",
        "random.SystemRandom",
    ): "`connect` puts a client together in the user's process",
    ("sdk/headwater/client/aio.py", "time.time"): "likewise",
}
"""`(path, name)`: why this module takes this clock, chance or environment itself."""

USED_OTHERWISE = {
    "headwater.cli.main": "the script `headwater`",
    "headwater_config.reference": "writes its page",
    "headwater_server.health_check": "the image's health check",
    "headwater_storage.memory_log": "the log of tests and simulations, held to the same contract as the one on disk",
}
"""Modules that no other module imports, and what they are for."""


def test_functions_are_short() -> None:
    lengths = {
        f"{module.path}:{name}": length for module in modules() for name, length in functions(module.tree)
    }
    found = too_long(lengths, LONG_FUNCTIONS, FUNCTION_LIMIT_LINES)
    assert not found, told(found, "is a noun hiding in them?")


def test_files_are_short() -> None:
    lengths = {
        path: len((text_of(path) or "").splitlines()) for path in files() if path.endswith(FILE_ENDINGS)
    }
    found = too_long(lengths, LONG_FILES, FILE_LIMIT_LINES)
    assert not found, told(found, "is a noun hiding in them?")


def too_long(lengths: dict[str, int], accepted: dict[str, tuple[int, str]], limit: int) -> list[str]:
    limits = {name: accepted.get(name, (limit, ""))[0] for name in lengths}
    return [
        f"{name}: {length} lines (limit {limits[name]})"
        for name, length in lengths.items()
        if length > limits[name]
    ]


def told(found: list[str], advice: str = "") -> str:
    return "\n".join([advice, *found])


def test_a_length_is_counted_from_decorator_to_end() -> None:
    source = "@cache\ndef f():\n    def g():\n        pass\n    return g\nclass C:\n    def m(self):\n        pass\n"
    assert functions(ast.parse(source)) == [("f", 5), ("f.g", 2), ("C.m", 2)]


def test_accepted_lengths_are_still_needed() -> None:
    lengths = {
        f"{module.path}:{name}": length for module in modules() for name, length in functions(module.tree)
    }
    for name, (limit, _) in LONG_FUNCTIONS.items():
        assert lengths.get(name, 0) > FUNCTION_LIMIT_LINES, f"{name} is short or gone: take it off the list"
        assert limit - lengths[name] < 10, f"{name} has {lengths[name]} lines: lower its limit of {limit}"
    for path, (limit, _) in LONG_FILES.items():
        length = len((text_of(path) or "").splitlines())
        assert length > FILE_LIMIT_LINES, f"{path} is short: take it off the list"
        assert limit - length < 50, f"{path} has {length} lines: lower its limit of {limit}"


def is_composition_root(path: str) -> bool:
    return path in COMPOSITION_ROOTS or path.startswith(tuple(COMPOSITION_ROOT_FOLDERS))


def test_clocks_chance_and_environment_come_from_outside() -> None:
    found = [
        f"{module.path}:{line}: {name}"
        for module in modules()
        if not is_composition_root(module.path)
        for line, name in banned_uses(module.tree)
        if (module.path, name) not in OWN_CLOCKS
    ]
    assert not found, told(found)


LOG_CALLS = {"debug", "info", "warning", "error", "exception", "critical"}


def test_fields_of_log_lines_stand_where_they_are_printed() -> None:
    """Of `extra`, only what is in `fields` reaches the output."""
    found = [
        f"{module.path}:{keyword.value.lineno}"
        for module in modules()
        for call in ast.walk(module.tree)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute) and call.func.attr in LOG_CALLS
        for keyword in call.keywords
        if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict)
        if [key.value for key in keyword.value.keys if isinstance(key, ast.Constant)] != ["fields"]
    ]
    assert not found, told(found)


def test_accepted_clocks_are_still_needed() -> None:
    used = {(module.path, name) for module in modules() for _, name in banned_uses(module.tree)}
    assert [entry for entry in OWN_CLOCKS if entry not in used] == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.time()", ["time.time"]),
        ("from time import time as now\nnow()", ["time.time"]),
        ("import datetime as d\nd.datetime.now(d.UTC)", ["datetime.datetime.now"]),
        ("from datetime import datetime\nstamp = datetime.now", ["datetime.datetime.now"]),
        ("import random\nrandom.random()", ["random.random"]),
        ("import random\nrandom.Random()", ["random.Random"]),
        ("import random\nrandom.Random(7).random()", []),
        ("import random\ndef f(chance: random.Random) -> random.Random: ...", []),
        ("import os\nos.environ['A']", ["os.environ"]),
        ("import secrets\nsecrets.token_bytes(3)", ["secrets.token_bytes"]),
        ("def f(time): return time.time()", []),
    ],
)
def test_banned_uses_are_found_however_they_are_spelt(source: str, found: list[str]) -> None:
    assert [name for _, name in banned_uses(ast.parse(source))] == found


def running_statements(tree: ast.Module) -> Iterator[str]:
    """Yield what an `__init__` must not hold: anything but docstring, imports, names and definitions."""
    for node in tree.body:
        if isinstance(node, ast.Import | ast.ImportFrom | ast.FunctionDef):
            continue
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value and is_literal(node.value):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            continue
        yield ast.unparse(node)


def is_literal(node: ast.expr) -> bool:
    try:
        ast.literal_eval(node)
    except ValueError:
        return False
    return True


def test_packages_run_nothing_when_imported() -> None:
    found = [
        f"{module.path}: {statement}"
        for module in modules()
        if module.path.endswith("__init__.py")
        for statement in running_statements(module.tree)
    ]
    assert not found, told(found)
    assert list(running_statements(ast.parse("import os\nos.getpid()"))) == ["os.getpid()"]


def test_no_module_is_dead() -> None:
    everything = modules()
    used = {name for module in everything for name in imports(module) if name != module.name}
    used |= USED_OTHERWISE.keys()
    dead = [
        module.path
        for module in everything
        if PurePosixPath(module.path).name not in ("__init__.py", "__main__.py")
        and module.name not in used
        and not any(f'"{module.name}"' in other.text for other in everything if other is not module)
    ]
    assert not dead, told(dead, "nothing imports these: use or delete them")


# Spelt in pieces, as this file is searched too.
MACHINE_TRACES = [
    re.compile("/" + r"(?:root|work|home/\w+)/"),
    re.compile("/tmp" + r"/w/"),
    re.compile(r"files\.python" + "hosted"),
    re.compile(r"registry\.npm" + "js|pkg" + r"\.dev|arti" + "factory", re.IGNORECASE),
    re.compile(r"^\s*--(?:extra-)?index" + "-url|^--find" + "-links", re.MULTILINE),
    re.compile(r"\bissue " + r"#?\d+", re.IGNORECASE),
    re.compile(r"\b(?:DESIGN|HOUSE|soundness|trap)" + r"(?:\.md)? \d"),
]


def test_nothing_of_the_machine_it_was_made_on_is_in_the_tree() -> None:
    found = [
        f"{path}: {match.group()!r}"
        for path in files()
        for pattern in MACHINE_TRACES
        for match in pattern.finditer(text_of(path) or "")
    ]
    assert not found, told(found)


LEFTOVERS = [
    "TO" + "DO",
    "FIX" + "ME",
    "# *XX" + "X",
    "raise " + r"NotImplementedError(?!\(\w)",  # with arguments it is how a decoding hook says that it passes
    r"@pytest\.mark\." + "skip",
]


def test_nothing_is_left_for_later() -> None:
    pattern = re.compile(rf"(?<!\w)(?:{'|'.join(LEFTOVERS)})\b")
    found = [path for path in files() if path.endswith(".py") and pattern.search(text_of(path) or "")]
    assert not found, told(found)


def test_version_is_the_same_everywhere() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        version = tomllib.load(stream)["project"]["version"]
    assert f"ARG VERSION={version}\n" in (ROOT / "Dockerfile").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def pinned(lock: str) -> dict[str, str]:
    """Return name and version, and the hashes, of each requirement of a lock."""
    blocks = re.split(r"\n(?=\S)", (ROOT / lock).read_text())
    return {block.split("==")[0]: re.sub(r"\n +#.*", "", block) for block in blocks if "==" in block}


def test_the_image_installs_what_the_tests_ran_with() -> None:
    everything, server = pinned("requirements.lock"), pinned("requirements-server.lock")
    assert len(server) > 20
    assert {name: pin for name, pin in server.items() if everything.get(name) != pin} == {}
    assert all("--hash=sha256:" in pin for pin in everything.values())


def test_the_lock_has_every_dependency_of_the_project() -> None:
    with (ROOT / "pyproject.toml").open("rb") as stream:
        project = tomllib.load(stream)
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["server"]]
    names = {re.split(r"[>=\[ ]", text)[0].lower() for text in wanted}
    assert names - pinned("requirements-server.lock").keys() == set()


def test_every_setting_is_handed_to_the_part_it_is_for() -> None:
    roots = [
        module for module in modules() if module.path in COMPOSITION_ROOTS and "/server/" in f"/{module.path}"
    ]
    used = {
        node.attr for module in roots for node in ast.walk(module.tree) if isinstance(node, ast.Attribute)
    }
    unused = [name for name in declarations(Settings) if name not in used]
    assert not unused, told(unused, "settings that change nothing: use or delete them")


def test_files_of_tests_have_names_of_their_own() -> None:
    """Else pytest takes one for the other, and runs neither."""
    names = [PurePosixPath(path).name for path in files() if PurePosixPath(path).name.startswith("test_")]
    twice = sorted({name for name in names if names.count(name) > 1})
    assert not twice, told(twice, "give one of them another name")
