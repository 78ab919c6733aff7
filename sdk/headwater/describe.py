"""What a folder of functions declares: `python -m headwater.describe FOLDER` prints its manifest.

A process of its own, as it imports users' code: what that prints goes to stderr. The folder is packed and
unpacked as a deploy does, so that what is described is what would be deployed.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import sys
import tempfile
import zipfile
from pathlib import Path

from headwater_protocol.errors import HeadwaterError

from headwater.bundle import Bundle
from headwater.packing import pack


def described(folder: Path) -> bytes:
    """Return the manifest of the bundle in a folder, as JSON.

    Raises:
        RequestError: `invalid_bundle`.
    """
    bundle = pack(folder)
    with tempfile.TemporaryDirectory(prefix="headwater-") as unpacked:
        with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
            archive.extractall(unpacked)
        sys.path.insert(0, unpacked)
        return Bundle.load(importlib.import_module(folder.resolve().name)).manifest().to_json()


def main(folder: str) -> int:
    """Print the manifest, or the error as JSON on the last line of stderr; return the exit code."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            manifest = described(Path(folder))
    except HeadwaterError as error:
        sys.stderr.write("\n" + json.dumps({"code": error.code, "message": error.message}) + "\n")
        return 1
    sys.stdout.buffer.write(manifest)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
