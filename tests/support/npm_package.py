"""The npm package as its users get it: packed by npm and unpacked into a folder with the types of React beside it."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from typing import TYPE_CHECKING

from tools.checkout import ROOT
from tools.web import PACKAGE

if TYPE_CHECKING:
    from pathlib import Path

    from tools.node import Node

_LEFT_OUT = shutil.ignore_patterns("node_modules", "dist", "LICENSE", "*.tgz")
TYPES = ("react", "react-dom")


def unpacked(node: Node, folder: Path) -> Path:
    """Pack a copy of the package, and unpack it below `folder`/node_modules; return where it is then.

    A copy, as packing builds in place, where another test may read.
    """
    copy = folder / "checkout" / PACKAGE.relative_to(ROOT)
    shutil.copytree(PACKAGE, copy, ignore=_LEFT_OUT)
    shutil.copy(ROOT / "LICENSE", folder / "checkout")
    (copy / "node_modules").symlink_to(PACKAGE / "node_modules")
    words = [str(node.program), str(node.npm), "pack", "--silent", "--pack-destination", str(folder)]
    run = subprocess.run(
        words, cwd=copy, env=node.environment(), capture_output=True, text=True, timeout=110, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    modules = folder / "node_modules"
    (modules / "@types").mkdir(parents=True)
    with tarfile.open(next(folder.glob("*.tgz"))) as archive:
        archive.extractall(modules)  # packed here: nothing of it leads out of the folder
    package = (modules / "package").rename(modules / "headwater")
    for name in TYPES:
        (modules / "@types" / name).symlink_to(PACKAGE / "node_modules" / "@types" / name)
    (modules / "csstype").symlink_to(PACKAGE / "node_modules" / "csstype")
    return package
