"""Find what must come from outside: clocks, randomness and the environment, wherever a module takes them itself.

Only a composition root may: everything below it is handed a clock, a source of random bytes and its options, so that
tests and simulation decide about time and chance.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

BANNED = {
    "time.time",
    "time.time_ns",
    "time.monotonic",
    "time.monotonic_ns",
    "time.sleep",
    "datetime.datetime.now",
    "datetime.datetime.utcnow",
    "datetime.datetime.today",
    "datetime.date.today",
    "os.environ",
    "os.getenv",
    "os.urandom",
    "uuid.uuid1",
    "uuid.uuid4",
}
BANNED_MODULES = {"random", "secrets"}
SEEDED = "random.Random"  # right with a seed, as wrong as the rest without one


def banned_uses(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of every use, also through `from x import y` and `import x as y`."""
    names = _bound_names(tree)
    seeded = {
        id(node.func)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and (node.args or node.keywords)
    }
    annotations = _annotations(tree)
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute | ast.Name) or id(node) in annotations:
            continue
        name = _dotted(node, names)
        if name is None or (name == SEEDED and id(node) in seeded):
            continue
        if name in BANNED or ("." in name and name.split(".")[0] in BANNED_MODULES):
            yield node.lineno, name


def _bound_names(tree: ast.Module) -> dict[str, str]:
    """Return what the names bound by imports stand for."""
    bound: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            bound |= {alias.asname or alias.name: alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            bound |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    return bound


def _dotted(node: ast.expr, names: dict[str, str]) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name) or node.id not in names:
        return None
    return ".".join([names[node.id], *reversed(parts)])


def _annotations(tree: ast.Module) -> set[int]:
    """Return the nodes within annotations, which name types and run nothing."""
    roots: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.arg | ast.AnnAssign):
            roots.append(node.annotation)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            roots.append(node.returns)
    return {id(inner) for root in roots if root is not None for inner in ast.walk(root)}
