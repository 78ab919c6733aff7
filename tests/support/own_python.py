"""A Python with packages that the project does not depend on, in an environment of its own, for tests that need them."""

from __future__ import annotations

import fcntl
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def python_with(requirements: Path) -> str:
    """Return the program of a Python that has what a file requires, all by hashes; it stands in `build/` beside the file."""
    folder = requirements.parent / "build" / "venv"
    program, made = folder / "bin" / "python", folder / "made"
    # Tests of several processes ask at the same time.
    with requirements.open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if made.exists() and made.stat().st_mtime >= requirements.stat().st_mtime:
            return str(program)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        options = ("--disable-pip-version-check", "--no-deps", "--require-hashes", "--only-binary", ":all:")
        subprocess.run([program, "-m", "pip", "install", "-q", *options, "-r", requirements], check=True)
        made.touch()
    return str(program)
