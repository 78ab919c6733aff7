"""Small libraries in C that stand between a process and the system calls of its libc, for `LD_PRELOAD`."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent
_FLAGS = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror")


def built(name: str) -> Path:
    """Return the library of `NAME.c` in this folder, compiled if it has not been yet."""
    source = SOURCES / f"{name}.c"
    digest = hashlib.blake2b(source.read_bytes(), digest_size=8).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"headwater-native-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    library = folder / f"{name}-{digest}.so"
    if not library.exists():
        unfinished = library.with_suffix(f".{os.getpid()}.tmp")
        compiler = os.environ.get("CC", "cc")
        subprocess.run([compiler, *_FLAGS, "-o", unfinished, source, "-ldl"], check=True)
        unfinished.replace(library)
    return library
