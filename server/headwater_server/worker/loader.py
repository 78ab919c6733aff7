"""From a bundle's bytes to its imported package, under rules that keep it apart from everything else.

Only the bundle's package becomes visible: its folder is not put on `sys.path`. Nothing of
it may hide a module that is there already, and nothing is written into its folder.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import io
import os
import re
import shutil
import stat
import sys
import traceback
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

from headwater.packing import (
    FILES_MAX,
    REQUIREMENTS,
    UNPACKED_BYTES_MAX,
    WHEELS,
    check_package_name,
    invalid_bundle,
)
from headwater_protocol.errors import HeadwaterError

from headwater_server.worker.requirements import Requirements

if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType

PATH_LENGTH_MAX = 400
NAME_BYTES_MAX = 255  # of a file or folder; file systems take no more
DEPTH_MAX = 20
_WHEEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*\.whl")
_BROKEN = (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, EOFError, zlib.error)


def import_paths(folder: Path) -> list[str]:
    """Return where in an installed folder modules are looked for."""
    return sorted(
        str(path)
        for name in ("site-packages", "dist-packages")
        for path in folder.glob(f"**/lib*/python*/{name}")
    )


class BundleFinder:
    """Finds the bundle's package in its folder, and nothing else there."""

    def __init__(self, package: str, folder: Path) -> None:
        self._package = package
        self._folder = str(folder)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of the package or of a module in it."""
        if name == self._package:
            return importlib.machinery.PathFinder.find_spec(name, [self._folder])
        return None  # modules inside are found through the package's own `__path__`


class Contents(NamedTuple):
    """What is in a bundle.

    Attributes:
        package: Name of its package.
        files: The package's.
        requirements: What it asks for; None: nothing.
        wheels: What it brings along, by file name.
    """

    package: str
    files: list[zipfile.ZipInfo]
    requirements: Requirements | None
    wheels: dict[str, bytes]


def inspect(bundle: bytes) -> tuple[Requirements | None, dict[str, bytes]]:
    """Return what a bundle asks for and the wheels that it brings along; nothing is written.

    Raises:
        RequestError: `invalid_bundle`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            found = _contents(archive)
    except _BROKEN as error:
        raise invalid_bundle(f"the bundle is not a zip that can be read: {error}") from None
    return found.requirements, found.wheels


def unpack(bundle: bytes, folder: Path) -> tuple[str, Requirements | None]:
    """Unpack a bundle and return the name of its package, and what it asks for.

    The folder appears whole or not at all, so that several workers may do this at once.

    Args:
        bundle: The zip.
        folder: Where its contents shall be; an existing one is taken as it is.

    Raises:
        RequestError: `invalid_bundle`.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            found = _contents(archive)
            if not folder.is_dir():
                _extract(archive, found.files, folder)
    except _BROKEN as error:
        raise invalid_bundle(f"the bundle is not a zip that can be read: {error}") from None
    return found.package, found.requirements


def load_package(package: str, folder: Path) -> ModuleType:
    """Import the bundle's package and every module in it.

    Raises:
        RequestError: `invalid_bundle`, with the traceback of what failed.
    """
    if package in sys.modules or importlib.util.find_spec(package) is not None:
        raise invalid_bundle(
            f"the bundle's folder {package!r} has the name of a module that is installed here; rename it"
        )
    names = _modules(package, folder)
    sys.dont_write_bytecode = True
    sys.meta_path.insert(0, BundleFinder(package, folder))
    importlib.invalidate_caches()
    try:
        module = importlib.import_module(package)
        for name in names:
            importlib.import_module(name)
    except HeadwaterError as error:
        raise invalid_bundle(f"{error.message}\n{import_trace(error, folder)}") from error
    except MemoryError:
        raise
    except BaseException as error:  # a module may raise anything while it is imported, SystemExit too
        raise invalid_bundle(
            f"the bundle does not import: {_describe(error)}\n{import_trace(error, folder)}"
        ) from error
    return module


def import_trace(error: BaseException, folder: Path) -> str:
    """Return a traceback that begins in the bundle's own code, with paths as the developer knows them."""
    lines = traceback.TracebackException.from_exception(error)
    frames = lines.stack
    inside = [i for i, frame in enumerate(frames) if frame.filename.startswith(f"{folder}{os.sep}")]
    if inside:
        lines.stack = traceback.StackSummary.from_list(frames[inside[0] :])
    lines.__cause__ = None
    return "".join(lines.format(chain=False)).replace(f"{folder}{os.sep}", "").rstrip()


def _describe(error: BaseException) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _contents(archive: zipfile.ZipFile) -> Contents:
    """Check what is in the zip before anything is written."""
    entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    if len(entries) > FILES_MAX or sum(entry.file_size for entry in entries) > UNPACKED_BYTES_MAX:
        raise invalid_bundle(f"the bundle holds more than {FILES_MAX} files or {UNPACKED_BYTES_MAX} bytes")
    names: set[str] = set()
    packages: set[str] = set()
    files = []
    wheels: dict[str, bytes] = {}
    asked = b""
    for entry in entries:
        parts = _parts(entry)
        if entry.filename in names:
            raise invalid_bundle(f"the bundle holds {entry.filename!r} twice")
        names.add(entry.filename)
        if entry.filename == REQUIREMENTS:
            asked = archive.read(entry)
        elif parts[0] == WHEELS and len(parts) == 2 and _WHEEL.fullmatch(parts[1]):
            wheels[parts[1]] = archive.read(entry)
        elif len(parts) > 1:
            packages.add(parts[0])
            files.append(entry)
        else:
            raise invalid_bundle(
                f"the bundle holds {entry.filename!r} beside its package; only {REQUIREMENTS} may stand there"
            )
    if len(packages) != 1:
        found = ", ".join(sorted(packages)) or "none"
        raise invalid_bundle(f"the bundle must hold exactly one package folder; it holds {found}")
    package = packages.pop()
    check_package_name(package)
    return Contents(package, files, Requirements.parse(asked, wheels), wheels)


def _parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    name = entry.filename
    parts = PurePosixPath(name).parts
    mode = entry.external_attr >> 16
    if (
        not parts
        or len(name) > PATH_LENGTH_MAX
        or len(parts) > DEPTH_MAX
        or name.startswith("/")
        or "\\" in name
        or "\0" in entry.orig_filename
        or any(part in ("..", ".") for part in name.split("/"))
        or (stat.S_IFMT(mode) not in (0, stat.S_IFREG))
        or entry.flag_bits & 1
    ):
        raise invalid_bundle(
            f"the bundle holds {name[:PATH_LENGTH_MAX]!r}, which is not a plain file inside its package"
        )
    if any(len(part.encode(errors="surrogatepass")) > NAME_BYTES_MAX for part in parts):
        raise invalid_bundle(
            f"the bundle holds {name!r}: a name has at most {NAME_BYTES_MAX} bytes; shorten it"
        )
    return parts


def _extract(archive: zipfile.ZipFile, files: list[zipfile.ZipInfo], folder: Path) -> None:
    part = folder.with_name(f"{folder.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for entry in files:
            target = part / entry.filename
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with target.open("xb") as file:
                    file.write(archive.read(entry))  # no more than the size that was checked
            except (FileExistsError, NotADirectoryError):
                raise invalid_bundle(
                    f"the bundle holds {entry.filename!r} as a file and as a folder"
                ) from None
        try:
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another worker was first
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _modules(package: str, folder: Path) -> list[str]:
    """Return the names of all modules in the package, in an order that is the same everywhere."""
    names = []
    for path in sorted((folder / package).rglob("*.py")):
        parts = list(path.relative_to(folder).with_suffix("").parts)
        if not (path.parent / "__init__.py").is_file():
            raise invalid_bundle(f"the bundle's folder {'/'.join(parts[:-1])} has modules but no __init__.py")
        if parts[-1] == "__init__":
            parts.pop()
        if all(part.isidentifier() for part in parts):
            names.append(".".join(parts))
    return names
