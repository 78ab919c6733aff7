"""Installs what a bundle requires, in a process of its own: pip, which reaches out and takes long, is kept from the daemon.

Run as `python -m headwater_server.worker.install BUNDLE FOLDER KEEP BYTES PARENT`. The packages of a bundle come into a
folder of their own below FOLDER, which appears whole or not at all. Only wheels are installed: nothing of a package runs
before functions import it. What the server itself has is there already, and nothing else of the same name can be asked for.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

from headwater.parent_process import die_with_parent
from headwater_protocol.errors import HeadwaterError

from headwater_server.worker.loader import inspect

EXIT_REFUSED = 3
"""Exit code of an installation that was refused; the last line says why."""

_OURS = "headwater"
_PART = ".part-"


def install(bundle: Path, folder: Path, keep: int, bytes_max: int) -> str:
    """Install what a bundle requires, unless it is there.

    Args:
        bundle: Its archive.
        folder: Where the packages of all bundles are.
        keep: So many are kept there, those that were used last.
        bytes_max: Largest size of what is installed.

    Returns:
        Why it cannot be installed; empty if it is there now.
    """
    requirements, wheels = inspect(bundle.read_bytes())
    if requirements is None:
        return ""
    target = folder / requirements.name
    if target.is_dir():
        os.utime(target)
        return ""
    if importlib.util.find_spec("pip") is None:
        return "pip, which installs requirements, is not there: install it beside the server"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=_PART, dir=folder))
    try:
        if _pip(part, requirements.lines, wheels) != 0:
            return "they cannot be installed; pip says why above"
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        if size > bytes_max:
            return (
                f"they take {size} bytes, more than the setting requirements_limit_bytes ({bytes_max}) allows"
            )
        _sync(part)
        with contextlib.suppress(OSError):  # another deploy of the same was first
            part.rename(target)
        _sync_folder(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    _forget_old(folder, keep)
    return ""


def _pip(part: Path, lines: tuple[str, ...], wheels: dict[str, bytes]) -> int:
    """Have pip install into a folder; return its exit code."""
    with tempfile.TemporaryDirectory(prefix="headwater-requirements-") as scratch:
        asked, constraints, brought = (
            Path(scratch) / "asked.txt",
            Path(scratch) / "ours.txt",
            Path(scratch) / "wheels",
        )
        asked.write_text("".join(f"{line}\n" for line in lines))
        constraints.write_text(_own_packages())
        words = ["install", "--prefix", str(part), "--only-binary", ":all:", "--no-input", "--no-compile",
                 "--disable-pip-version-check", "--no-warn-script-location", "--progress-bar", "off",
                 "--requirement", str(asked), "--constraint", str(constraints)]  # fmt: skip
        if wheels:
            brought.mkdir()
            for name, data in wheels.items():
                (brought / name).write_bytes(data)
            words += ["--no-index", "--find-links", str(brought)]
        sys.argv = ["pip", *words]
        try:
            runpy.run_module("pip", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            return end.code if isinstance(end.code, int) else int(end.code is not None)
        return 0


def _own_packages() -> str:
    """Return what is installed beside the server, as constraints: of a package there is one version in a process."""
    found = {
        distribution.metadata["Name"]: distribution.version
        for distribution in importlib.metadata.distributions()
    }
    return "".join(
        f"{name}=={version}\n" for name, version in sorted(found.items()) if name and name != _OURS
    )


def _sync(folder: Path) -> None:
    """Make all that is in a folder durable: a later start takes it as it is."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            _sync_folder(path)
    for path in (*[path for path in folder.rglob("*") if path.is_dir()], folder):
        _sync_folder(path)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _forget_old(folder: Path, keep: int) -> None:
    """Remove the packages that were not used for longest, and what an installation that was cut off has left."""
    whole = [path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(_PART)]
    for path in sorted(whole, key=lambda path: path.stat().st_mtime, reverse=True)[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def main(words: list[str]) -> int:
    """Install and return the exit code."""
    bundle, folder, keep, bytes_max, parent = words
    die_with_parent(int(parent))
    try:
        refusal = install(Path(bundle), Path(folder), int(keep), int(bytes_max))
    except HeadwaterError as error:
        refusal = error.message
    except OSError as error:
        refusal = f"{error.filename or folder}: {error.strerror}"
    if refusal:
        sys.stdout.write(f"\n{refusal}\n")
        return EXIT_REFUSED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
