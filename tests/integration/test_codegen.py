"""`headwater codegen --python`: from a folder or a daemon, and its stubs in front of a real daemon."""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from headwater.cli import codegen as codegen_command
from headwater.cli.deployment import Surroundings
from headwater.client.aio import connect
from headwater.client.blocking import connect_blocking
from headwater_protocol.errors import RequestError
from support.daemon import BUNDLES, kill_process, running, start_time, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater.client.local_results import LocalResults
    from support.daemon import RunningDaemon

WAIT_S = 60


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningDaemon]:
    with running(tmp_path_factory.mktemp("codegen"), deploy="paged") as daemon:
        yield daemon


def codegen(folder: Path, *words: str, key: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headwater.cli", "codegen", *words],
        cwd=folder,
        env={"HEADWATER_KEY": key, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=False,
    )


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A copy of the bundle's folder."""
    folder = tmp_path / "functions"
    shutil.copytree(BUNDLES / "paged" / "functions", folder)
    return folder


def loaded(file: Path) -> Any:
    spec = importlib.util.spec_from_file_location("paged_api", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_folder_and_the_daemon_it_was_deployed_to_give_the_same(
    daemon: RunningDaemon, bundle: Path, tmp_path: Path
) -> None:
    from_folder = codegen(tmp_path, str(bundle), "--python")
    assert from_folder.returncode == 0, from_folder.stderr
    from_daemon = codegen(tmp_path, "--python", "--url", f"http://127.0.0.1:{daemon.port}", key=daemon.key)
    assert from_daemon.returncode == 0, from_daemon.stderr
    assert from_daemon.stdout == from_folder.stdout
    assert "class rows:" in from_daemon.stdout
    in_ts = [
        codegen(tmp_path, str(bundle), "--ts"),
        codegen(tmp_path, "--ts", "--url", f"http://127.0.0.1:{daemon.port}", key=daemon.key),
    ]
    assert in_ts[0].stdout == in_ts[1].stdout
    assert "export const api = makeApi<Api>(" in in_ts[0].stdout
    refused = codegen(tmp_path, "--python", "--url", f"http://127.0.0.1:{daemon.port}", key="wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "unauthenticated" in refused.stderr


def test_check_tells_stubs_that_are_out_of_date(bundle: Path, tmp_path: Path) -> None:
    words = (str(bundle), "--python", "--out", "api.py")
    missing = codegen(tmp_path, *words, "--check")
    assert missing.returncode == 1
    assert not (tmp_path / "api.py").exists()
    assert codegen(tmp_path, *words).returncode == 0
    written = (tmp_path / "api.py").read_bytes()
    assert codegen(tmp_path, *words, "--check").returncode == 0
    assert codegen(tmp_path, *words).stderr.endswith("api.py is up to date\n")
    module = bundle / "rows.py"
    module.write_text(module.read_text().replace("board: str, ranks", "board: str | None, ranks"))
    stale = codegen(tmp_path, *words, "--check")
    assert stale.returncode == 1
    assert "out of date" in stale.stderr
    assert (tmp_path / "api.py").read_bytes() == written
    assert codegen(tmp_path, *words).returncode == 0
    assert codegen(tmp_path, *words, "--check").returncode == 0


def test_a_folder_that_cannot_be_read_says_why(bundle: Path, tmp_path: Path) -> None:
    noisy = bundle / "noisy.py"
    noisy.write_text("print('talk of the module')\n")
    fine = codegen(tmp_path, str(bundle), "--python")
    assert fine.returncode == 0
    assert "talk of the module" not in fine.stdout
    noisy.write_text("import no_such_module\n")
    broken = codegen(tmp_path, str(bundle), "--python")
    assert broken.returncode == 1
    assert "error [invalid_bundle]" in broken.stderr
    assert "no_such_module" in broken.stderr
    noisy.write_text("raise SystemExit(3)\n")
    assert "invalid_bundle" in codegen(tmp_path, str(bundle), "--python").stderr
    noisy.unlink()
    (tmp_path / "class").mkdir()
    assert "not a Python name" in codegen(tmp_path, "class", "--python").stderr
    for words in (["functions"], ["functions", "--python", "--check"], ["functions", "--python", "--ts"]):
        assert codegen(tmp_path, *words).returncode == 2
    nowhere = codegen(tmp_path, "functions", "--python", "--out", "absent/api.py")
    assert (nowhere.returncode, "No such file" in nowhere.stderr) == (1, True)


def endless(bundle: Path, pid_file: Path) -> None:
    """Add a module whose import never ends, in one call of the regular expressions that lets no other thread run."""
    (bundle / "endless.py").write_text(
        "import os, re\n"
        f"with open({str(pid_file) + '.new'!r}, 'w') as file:\n"
        "    file.write(str(os.getpid()))\n"
        f"os.replace(file.name, {str(pid_file)!r})\n"
        "re.match('(a+)+$', 'a' * 60 + 'b')\n"
    )


def test_the_import_of_functions_ends_with_the_command_that_waits_for_it(
    bundle: Path, tmp_path: Path
) -> None:
    pid_file = tmp_path / "pid"
    endless(bundle, pid_file)
    words = [sys.executable, "-m", "headwater.cli", "spec", str(bundle)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as command:
        try:
            wait_until(pid_file.exists, WAIT_S)
        finally:
            command.kill()
    importing = int(pid_file.read_text())
    try:
        wait_until(lambda: start_time(importing) is None)
    finally:
        kill_process(importing)


async def test_functions_whose_import_does_not_end_are_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid_file = tmp_path / "pid"
    endless(bundle, pid_file)
    monkeypatch.setattr(codegen_command, "_DESCRIBE_TIMEOUT_S", 5.0)
    with pytest.raises(RequestError, match="was not imported within 5 s; does one of its modules") as caught:
        await codegen_command._manifest_of_folder(Surroundings({}, tmp_path, sys.executable), bundle)
    assert caught.value.code == "invalid_bundle"
    assert not pid_file.exists() or start_time(int(pid_file.read_text())) is None


async def test_stubs_call_what_they_name(daemon: RunningDaemon, bundle: Path, tmp_path: Path) -> None:
    made = await asyncio.to_thread(codegen, tmp_path, str(bundle), "--python", "--out", "api.py")
    assert made.returncode == 0, made.stderr
    api = loaded(tmp_path / "api.py")
    async with connect(daemon.url) as client, asyncio.timeout(WAIT_S):
        updates = client.subscribe(api.rows.whole, board="stubs")
        assert await anext(updates) == []

        def show(results: LocalResults) -> None:
            results.set(api.rows.whole, [{"key": "shown"}], board="stubs")
            assert results.all(api.rows.whole) == [({"board": "stubs"}, [{"key": "shown"}])]

        call = asyncio.create_task(
            client.mutation(api.rows.change, show, board="stubs", ranks={"a": 1, "b": 2, "c": 3})
        )
        assert await anext(updates) == [{"key": "shown"}]
        await call
        assert [row["key"] for row in await anext(updates)] == ["a", "b", "c"]
        async with client.paginate(api.rows.downwards, 2, board="stubs") as pages:
            assert [row["key"] for row in (await anext(pages)).items] == ["c", "b"]
        assert len(await client.query(api.rows.whole, board="stubs")) == 3
        with pytest.raises(TypeError, match="by their names"):
            await client.query(api.rows.whole, "stubs")
    with_blocking = await asyncio.to_thread(blocking_keys, daemon.tcp_url, api)
    assert with_blocking == ["a", "b"]


def blocking_keys(url: str, api: Any) -> list[str]:
    with connect_blocking(url) as client:
        client.mutation(api.rows.change, board="stubs", ranks={"d": 4})
        assert len(client.query(api.rows.whole, board="stubs")) == 4
        with client.paginate(api.rows.ranked, 2, board="stubs") as pages:
            return [row["key"] for row in pages.next(WAIT_S).items]
