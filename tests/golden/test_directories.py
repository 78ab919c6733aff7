"""Data directories that each format's version wrote, kept in the repository: they open, or are refused untouched.

`format-N-clean` was stopped in order, `format-N-unclean` killed; `truth.json` is what must be in it. A new format
gets its directories with `PYTHONPATH=tests python tests/golden/test_directories.py format-N`, run with that version.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from headwater_protocol.errors import StorageError
from headwater_storage.check import check, reaches_back
from headwater_storage.checkpoint import read_side_file, write_side_file
from headwater_storage.directory import DataDirectory
from headwater_storage.engine import Engine
from headwater_storage.files import RealFileSystem
from headwater_storage.format import FORMAT_VERSION, read_format
from msgspec.structs import replace
from support.full_read import expected, read_all
from support.memory_files import Crashed
from support.memory_store import insert
from support.prepared_stores import Recipe, Truth, options_of, prepare, prepared_environment
from support.real_files import RecordingFiles

DIRECTORIES = Path(__file__).parent / "directories"
RECIPES = {"clean": Recipe(1, lives=2, commits=7), "unclean": Recipe(2, lives=2, commits=7, clean=False)}
KNOWN = sorted(path.name for path in DIRECTORIES.glob("format-[0-9]*-*"))
FUTURE = "format-99"


def copied(name: str, folder: Path) -> Path:
    """Copy a golden directory; one that was killed must believe that it is the original."""
    path = folder / name
    shutil.copytree(DIRECTORIES / name / "data", path)
    files, directory = RealFileSystem(), DataDirectory(path)
    if name.endswith("unclean"):
        side = read_side_file(files, directory.checkpoint_file)
        inode = (directory.store_folder / "data.mdb").stat().st_ino
        write_side_file(files, directory.checkpoint_file, replace(side, inode=inode))
    return path


def truth_of(name: str) -> Truth:
    return Truth.from_json((DIRECTORIES / name / "truth.json").read_text())


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def version_of(path: Path) -> int:
    found = read_format(RealFileSystem(), path / "format")
    assert found is not None
    return found.format


def open_and_compare(path: Path, truth: Truth, scratch: Path) -> None:
    engine = Engine.open(path, options_of(RECIPES["clean"]), prepared_environment(3))
    try:
        assert read_all(engine.store, truth) == expected(truth)
        assert reaches_back(engine.log)
        assert check(engine.store, engine.log, scratch) == []
    finally:
        engine.close()
    assert version_of(path) == FORMAT_VERSION


def test_every_format_is_kept() -> None:
    assert [
        f"format-{n}-{kind}" for n in range(1, FORMAT_VERSION + 1) for kind in ("clean", "unclean")
    ] == KNOWN


@pytest.mark.parametrize("name", KNOWN)
async def test_a_directory_of_each_format_opens_with_everything_in_it(name: str, tmp_path: Path) -> None:
    path, truth = copied(name, tmp_path), truth_of(name)
    assert version_of(path) == int(name.split("-")[1])
    open_and_compare(path, truth, tmp_path / "scratch")
    engine = Engine.open(path, options_of(RECIPES["clean"]), prepared_environment(4))
    async with engine.running():
        # Documents of both formats stand side by side in one table from now on.
        made, _ = await engine.transact(lambda t: insert(t, "files", size=1, content=""))
        changed = next(document_id for document_id, row in truth.documents.items() if "size" in row)
        await engine.transact(lambda t: t.delete(changed))
        with engine.begin(writable=False) as transaction:
            assert transaction.get(made) is not None
            assert transaction.get(changed) is None
        assert check(engine.store, engine.log, tmp_path / "scratch 2") == []


@pytest.mark.parametrize("name", [name for name in KNOWN if not name.startswith(f"format-{FORMAT_VERSION}-")])
def test_a_start_that_is_cut_short_while_it_migrates_is_repeated(name: str, tmp_path: Path) -> None:
    for crash_at in range(0, 200, 3):
        path = copied(name, tmp_path / str(crash_at))
        files = RecordingFiles()
        files.crash_at = crash_at
        environment = prepared_environment(3)
        object.__setattr__(environment, "files", files)
        crashed = False
        try:
            Engine.open(path, options_of(RECIPES["clean"]), environment).close(clean=False)
        except Crashed:
            crashed = True
        again = Engine.open(path, options_of(RECIPES["clean"]), prepared_environment(4))
        assert read_all(again.store, truth_of(name)) == expected(truth_of(name))
        again.close()
        assert version_of(path) == FORMAT_VERSION
        if not crashed:
            break
    assert not crashed
    assert crash_at > 8


@pytest.mark.parametrize("name", KNOWN)
def test_a_start_that_fails_leaves_the_old_format(name: str, tmp_path: Path) -> None:
    path = copied(name, tmp_path)
    last = max((path / "log").glob("segment-*"))
    last.write_bytes(last.read_bytes()[:512].replace(b"HWsegmnt", b"HWsegmnu") + last.read_bytes()[512:])
    with pytest.raises(StorageError) as caught:
        Engine.open(path, options_of(RECIPES["clean"]), prepared_environment(3))
    assert caught.value.code == "damaged"
    assert version_of(path) == int(name.split("-")[1])


def test_a_copy_of_a_killed_directory_is_refused(tmp_path: Path) -> None:
    for name in KNOWN:
        if name.endswith("unclean"):
            shutil.copytree(DIRECTORIES / name / "data", tmp_path / name)
            with pytest.raises(StorageError) as caught:
                Engine.open(tmp_path / name, options_of(RECIPES["clean"]), prepared_environment(3))
            assert caught.value.code == "directory_copied"


def test_a_format_of_the_future_is_refused_untouched(tmp_path: Path) -> None:
    path = copied(FUTURE, tmp_path)
    before = tree(path)
    with pytest.raises(StorageError) as caught:
        Engine.open(path, options_of(RECIPES["clean"]), prepared_environment(3))
    assert caught.value.code == "format_too_new"
    assert tree(path) == before == tree(DIRECTORIES / FUTURE / "data")


def test_every_flipped_bit_of_the_format_file_is_found(tmp_path: Path) -> None:
    """A flip in the log's id once escaped as an error of decoding text."""
    path = tmp_path / "format"
    whole = (DIRECTORIES / f"format-{FORMAT_VERSION}-clean" / "data" / "format").read_bytes().rstrip()
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            with pytest.raises(StorageError, match="format"):
                read_format(RealFileSystem(), path)


def write_golden(name: str) -> None:
    """Make the directories of a format with the version that is running."""
    for kind, recipe in RECIPES.items():
        folder = DIRECTORIES / f"{name}-{kind}"
        shutil.rmtree(folder, ignore_errors=True)
        truth = prepare(folder / "data", recipe)
        for extra in ("lock", "workers.lock", "store/lock.mdb"):
            (folder / "data" / extra).unlink()
        (folder / "truth.json").write_text(truth.to_json())


if __name__ == "__main__":
    write_golden(sys.argv[1])
