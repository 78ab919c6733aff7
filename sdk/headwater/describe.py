"""What a folder of functions declares: `python -m headwater.describe FOLDER PARENT` prints its manifest.

PARENT is the process id of who waits for it: it ends with that, whatever the functions do while they are imported. A process of its own, as it imports users' code: what that prints goes to stderr. The folder is packed and
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
from headwater.parent_process import die_with_parent


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


def main(folder: str, parent: str) -> int:
    """Print the manifest, or the error as JSON on the last line of stderr; return the exit code."""
    if sys.platform == "linux":
        die_with_parent(int(parent))
    try:
        with contextlib.redirect_stdout(sys.stderr):
            manifest = described(Path(folder))
    except HeadwaterError as error:
        sys.stderr.write("\n" + json.dumps({"code": error.code, "message": error.message}) + "\n")
        return 1
    sys.stdout.buffer.write(manifest)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
