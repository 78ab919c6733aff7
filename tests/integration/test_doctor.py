"""`headwater doctor` as people run it: what it says, what it leaves alone, and where it may look."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest
from headwater_server.__main__ import main
from support.daemon import daemon_environment, run_server, running
from support.prepared_stores import Recipe, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_DROP_FROM_BOUNDING_SET = 24
_OVERRIDES = (1, 2, 3)
"""CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH and CAP_FOWNER: with these root does what permissions forbid."""

_libc = ctypes.CDLL(None)


def obey_permissions() -> None:
    """Make the process that is executed next obey permissions, also as root."""
    for capability in _OVERRIDES:
        _libc.prctl(_DROP_FROM_BOUNDING_SET, capability, 0, 0, 0)


def doctor(path: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `headwater doctor` in a folder that is as closed to it as permissions say."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "headwater_server", "doctor", "--data", str(path), *words],
        cwd=path.parent,
        env=daemon_environment() | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=obey_permissions,
    )


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    prepare(tmp_path / "data", Recipe(7, lives=2, commits=10))
    return tmp_path / "data"


@pytest.fixture
def closed(directory: Path) -> Iterator[Path]:
    """A directory in which nothing can be written."""
    paths = [directory, *directory.rglob("*")]
    for path in paths:
        path.chmod(0o500 if path.is_dir() else 0o400)
    yield directory
    for path in paths:
        path.chmod(0o700 if path.is_dir() else 0o600)


def tree(path: Path) -> dict[str, tuple[int, bytes]]:
    return {str(p): (p.stat().st_mtime_ns, p.read_bytes()) for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_directory_that_is_read_only_is_looked_at(closed: Path) -> None:
    before = tree(closed)
    probe = subprocess.run(
        ["touch", str(closed / "probe")], preexec_fn=obey_permissions, check=False, capture_output=True
    )
    assert probe.returncode, "this test cannot take the right to write away"
    done = doctor(closed)
    assert (done.returncode, done.stdout, done.stderr) == (0, "no findings\n", "")
    store = closed / "store" / "data.mdb"
    data = bytearray(store.read_bytes())
    for offset in range(2 * 4096, len(data), 4096):
        data[offset : offset + 16] = bytes(16)
    assert tree(closed) == before
    store.chmod(0o600)
    store.write_bytes(data)
    store.chmod(0o400)
    done = doctor(closed)
    assert done.returncode == 1
    assert f"{store}, offset " in done.stdout
    assert "not checked: documents and index entries" in done.stderr


def test_what_is_not_checked_is_said(directory: Path) -> None:
    (directory / "lock").unlink()
    done = doctor(directory)
    assert (done.returncode, done.stdout) == (0, "no findings\n")
    assert "not checked: whether a daemon uses the directory" in done.stderr
    assert not (directory / "lock").exists()


def test_the_log_is_replayed_only_where_there_is_a_folder_for_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_place(**_: object) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", no_place)
    assert main(["doctor", "--data", str(directory)]) == 0
    said = capsys.readouterr()
    assert said.out == "no findings\n"
    assert "not checked: whether replaying the log gives the same" in said.err
    assert main(["doctor", "--data", str(directory), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["findings"], len(told["unchecked"])) == ([], 1)


@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("words", [[], ["--repair"]])
def test_a_path_without_a_database_is_told_as_that_and_left_alone(
    tmp_path: Path, there: bool, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "elsewhere"
    if there:
        path.mkdir()
        (path / "notes.txt").write_text("something else")
    before = tree(tmp_path)
    assert main(["doctor", "--data", str(path), *words]) == 1
    said = "".join(capsys.readouterr())
    for word in ("directory_unusable", str(path), "holds no database", "the setting `data`"):
        assert word.casefold() in said.casefold()
    assert len(said.splitlines()) == 1
    assert (tree(tmp_path), path.exists()) == (before, there)


@pytest.mark.parametrize("size", [0, 2 * 4096, 5 * 4096])
def test_no_finding_is_told_twice(directory: Path, size: int, capsys: pytest.CaptureFixture[str]) -> None:
    """The root of the tree of trees is met on two ways."""
    os.truncate(directory / "store" / "data.mdb", size)
    assert main(["doctor", "--data", str(directory)]) == 1
    findings = capsys.readouterr().out.splitlines()
    assert len(findings) == len(set(findings)) > 0


def test_a_copy_of_a_running_directory_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with running(tmp_path, deploy="probe") as daemon:
        for number in range(30):
            daemon.call("mutation", "probe:keep", text=f"note {number}")
        notes = daemon.call("query", "probe:notes")
        copy = tmp_path / "copy"
        shutil.copytree(daemon.data, copy)
        assert daemon.terminate() == 0
        refused = run_server("serve", "--data", str(copy), "--port", "0", folder=tmp_path)
        assert refused.returncode == 1
        assert "directory_copied" in refused.stderr
        assert "`headwater doctor --repair`" in refused.stderr
        repaired = run_server("doctor", "--repair", "--data", str(copy), folder=tmp_path)
        assert (repaired.returncode, repaired.stdout) == (0, "no findings\n"), repaired
        shutil.rmtree(daemon.data)
        copy.rename(daemon.data)
        daemon.start()
        assert daemon.call("query", "probe:notes") == notes
