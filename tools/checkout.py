"""The files of the checkout and the modules in them, as the repository's checks see them."""

from __future__ import annotations

import ast
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

TEMPLATE = "sdk/headwater/template/"
ROOT = Path(__file__).parents[1]
PACKAGE_FOLDERS = ("config", "protocol", "storage", "server", "sdk")


@dataclass(frozen=True, slots=True)
class Module:
    """One module of a package of ours.

    Attributes:
        path: From the root of the checkout.
        name: As one imports it.
        tree: Its parsed source.
        text: Its source.
    """

    path: str
    name: str
    tree: ast.Module
    text: str


@cache
def files() -> tuple[str, ...]:
    """Return the paths of all files that are, or are about to be, under version control."""
    words = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    try:
        listed = subprocess.run(words, check=True, capture_output=True).stdout.decode().split("\0")
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive instead of a clone
        listed = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not _is_made(path)]
    return tuple(sorted(path for path in listed if path and (ROOT / path).is_file()))


def _is_made(path: Path) -> bool:
    parts = path.relative_to(ROOT).parts
    return any(
        part == "__pycache__" or (part.startswith(".") and part not in (".ci", ".dockerignore"))
        for part in parts
    )


def text_of(path: str) -> str | None:
    """Return what is in a file, or None if it is not text."""
    try:
        return (ROOT / path).read_text("utf-8")
    except UnicodeDecodeError:
        return None


@cache
def modules() -> tuple[Module, ...]:
    """Return every module of the packages; the template of new projects is data of one."""
    found = []
    for path in files():
        folder, _, rest = path.partition("/")
        if folder in PACKAGE_FOLDERS and rest.endswith(".py") and not path.startswith(TEMPLATE):
            name = rest.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
            text = (ROOT / path).read_text("utf-8")
            found.append(Module(path, name, ast.parse(text), text))
    return tuple(found)


def functions(tree: ast.Module) -> list[tuple[str, int]]:
    """Return every function with its length in lines, decorators and docstring included."""
    found: list[tuple[str, int]] = []

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}{child.name}"
                if not isinstance(child, ast.ClassDef):
                    first = min([child.lineno, *(item.lineno for item in child.decorator_list)])
                    found.append((name, (child.end_lineno or first) - first + 1))
                name += "."
            visit(child, name)

    visit(tree, "")
    return found


def imports(module: Module) -> set[str]:
    """Return the dotted names that a module imports, wherever in it; `from a import b` counts as `a` and `a.b`."""
    found: set[str] = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found
