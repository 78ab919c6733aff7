from __future__ import annotations

import io
import os
import zipfile
from typing import TYPE_CHECKING

import pytest
from headwater.packing import BUNDLE_BYTES_MAX, REQUIREMENTS, bundle_hash, check_package_name, pack
from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from pathlib import Path


def make_folder(parent: Path, files: dict[str, str], name: str = "functions") -> Path:
    folder = parent / name
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder


def names(bundle: bytes) -> list[str]:
    return zipfile.ZipFile(io.BytesIO(bundle)).namelist()


def test_same_files_give_the_same_bytes_whatever_their_times(tmp_path: Path) -> None:
    files = {"__init__.py": "", "a.py": "x = 1", "sub/__init__.py": "", "sub/b.py": ""}
    first = make_folder(tmp_path / "one", files)
    second = make_folder(tmp_path / "two", dict(reversed(files.items())))
    os.utime(second / "a.py", (1, 1))
    (second / "a.py").chmod(0o755)
    assert pack(first) == pack(second)
    (second / "a.py").write_text("x = 2")
    assert bundle_hash(pack(first)) != bundle_hash(pack(second))


def test_holds_the_folder_by_name_and_leaves_out_what_is_not_source(tmp_path: Path) -> None:
    folder = make_folder(
        tmp_path,
        {
            "a.py": "",
            "data.json": "{}",
            "sub/deep/b.py": "",
            "pictures/c.txt": "",
            ".hidden": "",
            ".git/config": "",
            "__pycache__/a.pyc": "",
            "old.pyc": "",
            REQUIREMENTS: "httpx",
        },
    )
    assert names(pack(folder)) == [
        "functions/__init__.py",
        "functions/a.py",
        "functions/data.json",
        "functions/pictures/c.txt",
        "functions/sub/__init__.py",
        "functions/sub/deep/__init__.py",
        "functions/sub/deep/b.py",
        REQUIREMENTS,
    ]


@pytest.mark.parametrize("name", ["json", "headwater", "headwater_x", "my-app", "1st", "class", "a b", ""])
def test_refuses_names_that_hide_or_cannot_be_imported(name: str) -> None:
    with pytest.raises(RequestError) as caught:
        check_package_name(name)
    assert caught.value.code == "invalid_bundle"


def test_refuses_links_and_folders_without_code(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"a.py": ""})
    (folder / "secret").symlink_to("/etc/hostname")
    with pytest.raises(RequestError, match="secret"):
        pack(folder)
    (folder / "secret").unlink()
    (folder / "linked").symlink_to("/etc")
    with pytest.raises(RequestError, match="linked"):
        pack(folder)
    with pytest.raises(RequestError, match="no Python file"):
        pack(make_folder(tmp_path, {"readme.txt": ""}, "empty"))
    with pytest.raises(RequestError, match="not a folder"):
        pack(tmp_path / "missing")


def test_refuses_what_would_be_too_large_to_store(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, {"a.py": ""})
    (folder / "noise.bin").write_bytes(os.urandom(BUNDLE_BYTES_MAX + 1))
    with pytest.raises(RequestError, match="limit"):
        pack(folder)
