"""Pack a folder of functions into a bundle: the same files give the same bytes, hence the same hash.

A bundle is a zip that holds one package, its folder's name included, and nothing else but
a `requirements.txt` and a folder `wheels` beside it. What may be in it is said here once, for the command line
that packs and for the worker that unpacks.
"""

from __future__ import annotations

import io
import keyword
import os
import sys
import zipfile
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterator

BUNDLE_BYTES_MAX = 12 * 1024 * 1024
"""Largest zip. It is stored as one document, whose transaction has a bound of its own."""

FILES_MAX = 2_000
UNPACKED_BYTES_MAX = 64 * 1024 * 1024
REQUIREMENTS = "requirements.txt"
WHEELS = "wheels"

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can hold
_FILE_MODE = 0o100644 << 16


def bundle_hash(bundle: bytes) -> str:
    """Return the name of a bundle: 32 hex characters over its bytes."""
    return blake2b(bundle, digest_size=16, person=b"headwater-bundle").hexdigest()


def invalid_bundle(message: str) -> RequestError:
    """Return the error of a bundle that cannot be used."""
    return RequestError(message, code="invalid_bundle")


def check_package_name(name: str) -> None:
    """Refuse a folder name that cannot be imported, or would hide a module that others import.

    Raises:
        RequestError: `invalid_bundle`.
    """
    if not name.isidentifier() or keyword.iskeyword(name):
        raise invalid_bundle(
            f"the bundle's folder {name!r} is not a Python name; use letters, digits and underscores"
        )
    if name in sys.stdlib_module_names:
        raise invalid_bundle(
            f"the bundle's folder {name!r} has the name of a module of Python's library; rename it"
        )
    if name in ("headwater", WHEELS) or name.startswith("headwater_"):
        raise invalid_bundle(
            f"the bundle's folder {name!r} has a name that Headwater keeps for itself; rename it"
        )


def pack(folder: Path) -> bytes:
    """Return the bundle of a folder.

    Hidden files, `__pycache__` and compiled files stay out; a `requirements.txt` in the
    folder, and the wheels in `wheels/`, go beside the package. A folder of modules without `__init__.py` gets an empty one.

    Raises:
        RequestError: `invalid_bundle` when the folder cannot be a bundle.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise invalid_bundle(f"{folder} is not a folder")
    check_package_name(folder.name)
    files = _read(folder)
    if not any(name.endswith(".py") for name in files):
        raise invalid_bundle(f"{folder} holds no Python file")
    for name in [name for name in files if name.endswith(".py")]:
        for parent in list(PurePosixPath(name).parents)[:-1]:
            files.setdefault(f"{parent}/__init__.py", b"")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, date_time=_EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.create_system = 3
            entry.external_attr = _FILE_MODE
            archive.writestr(entry, files[name])
    bundle = buffer.getvalue()
    if len(bundle) > BUNDLE_BYTES_MAX:
        raise invalid_bundle(f"the bundle has {len(bundle)} bytes; the limit is {BUNDLE_BYTES_MAX}")
    return bundle


def _read(folder: Path) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    size = 0
    for path in _paths(folder):
        if path.is_symlink() or not path.is_file():
            raise invalid_bundle(f"{path} is not a plain file; a bundle holds plain files only")
        size += path.stat().st_size
        if len(files) >= FILES_MAX or size > UNPACKED_BYTES_MAX:
            raise invalid_bundle(f"{folder} holds more than {FILES_MAX} files or {UNPACKED_BYTES_MAX} bytes")
        inside = path.relative_to(folder).as_posix()
        files[inside if _stands_beside(inside) else f"{folder.name}/{inside}"] = path.read_bytes()
    return files


def _stands_beside(inside: str) -> bool:
    """Tell whether a file of the folder goes beside the package."""
    parts = PurePosixPath(inside).parts
    return inside == REQUIREMENTS or (len(parts) == 2 and parts[0] == WHEELS and inside.endswith(".whl"))


def _paths(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        for name in folders:
            if (Path(parent) / name).is_symlink() and not _skipped(name):
                raise invalid_bundle(f"{Path(parent) / name} is a link; a bundle holds plain files only")
        folders[:] = sorted(name for name in folders if not _skipped(name))
        yield from (Path(parent) / name for name in sorted(names) if not _skipped(name))


def _skipped(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__" or name.endswith((".pyc", ".pyo", "~"))
