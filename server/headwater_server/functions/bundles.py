"""Where bundles lie for the workers: files that are made from the database again at every start."""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from headwater.packing import BUNDLE_BYTES_MAX, bundle_hash, invalid_bundle
from headwater_storage.disk_errors import disk_error

if TYPE_CHECKING:
    from pathlib import Path


class BundleFiles:
    """The folder `<data>/bundles`.

    Nothing in it is synced and nothing that an earlier daemon left there is trusted: what
    was written before a power cut may be torn.

    Args:
        folder: Made when the first bundle is written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def clear(self) -> None:
        """Remove everything. No worker may be using it."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def write(self, bundle: bytes) -> str:
        """Put a bundle where workers can read it and return its hash.

        Raises:
            RequestError: `invalid_bundle` when it is too large.
            TransientError: `disk_full`.
            StorageError: `disk_failed`.
        """
        if len(bundle) > BUNDLE_BYTES_MAX:
            raise invalid_bundle(f"the bundle has {len(bundle)} bytes; the limit is {BUNDLE_BYTES_MAX}")
        name = bundle_hash(bundle)
        file = self.file(name)
        part = file.with_suffix(".part")
        try:
            if not file.exists():
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                part.write_bytes(bundle)
                part.rename(file)
        except OSError as error:
            with contextlib.suppress(OSError):  # a full disk shall not be fuller for it
                part.unlink(missing_ok=True)
            raise disk_error(error, self._folder, "a bundle") from error
        return name

    def file(self, name: str) -> Path:
        """Return where the bundle of this hash lies."""
        return self._folder / f"{name}.zip"

    def unpacked(self, name: str) -> Path:
        """Return where a worker unpacks it."""
        return self._folder / name

    def remove(self, name: str) -> None:
        """Remove a bundle that no worker uses any more."""
        self.file(name).unlink(missing_ok=True)
        shutil.rmtree(self.unpacked(name), ignore_errors=True)
