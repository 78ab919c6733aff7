"""The order of a checkpoint, in the system calls that the process really makes.

A child process with a database is traced by `strace`; `violations` reads the trace and knows
nothing of our code. It must find nothing in the trace as it is, and must find every one of
the changes that would make a power cut lose data.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKPOINTS = 4
TESTS = Path(__file__).parents[1]

CHILD = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(TESTS)!r})
from support.storage_world import SMALL, Commits, apply_record, commit
from headwater_storage.environment import real_environment
from headwater_storage.recovery import recover

async def main(path):
    environment = real_environment()
    database = recover(path, SMALL, environment, apply_record)
    commits = Commits(1)
    for number in range({CHECKPOINTS}):
        for step in range(12):
            commit(database, commits.batch(number * 40 + step * 3, 3))
        running = asyncio.ensure_future(database.checkpointer.run())
        while not running.done():
            await asyncio.sleep(0.001)
            commit(database, commits.batch(number * 40 + 39, 1))
        await running
    database.close(clean=False)
    environment.executor.close()

asyncio.run(main(Path(sys.argv[1])))
"""


@dataclass(frozen=True)
class Call:
    """One system call that succeeded: its name and the files in it, in the order of completion."""

    name: str
    files: tuple[str, ...]


WRITES = ("write", "pwrite64", "pwritev", "writev")
SYNCS = ("fsync", "fdatasync")


def parse(trace: str) -> list[Call]:
    """Read strace's lines; a call that another thread interrupts counts where it is resumed, when it is done."""
    calls = []
    unfinished: dict[str, str] = {}
    for line in trace.splitlines():
        pid, _, text = line.partition(" ")
        text = text.strip()
        if text.endswith("<unfinished ...>"):
            unfinished[pid] = text.removesuffix("<unfinished ...>")
            continue
        if (resumed := re.match(r"<\.\.\. \w+ resumed>(.*)", text)) is not None:
            text = unfinished.pop(pid) + resumed[1]
        match = re.match(r"(\w+)\((.*)\)\s+= (-?\d+)", text)
        if match and int(match[3]) >= 0:
            calls.append(
                Call(match[1], tuple(re.findall(r"<(/[^>]*)>|\"(/[^\"]*)\"", match[2]) and _paths(match[2])))
            )
    return calls


def _paths(arguments: str) -> list[str]:
    return [angled or quoted for angled, quoted in re.findall(r"<(/[^>]*)>|\"(/[^\"]*)\"", arguments)]


def violations(calls: list[Call], data: Path) -> list[str]:
    """Return what is wrong with the order of calls on a data directory."""
    store, side, temporary = (str(data / name) for name in ("store/data.mdb", "checkpoint", "checkpoint.tmp"))
    log = str(data / "log")
    found: list[str] = []
    store_synced = False  # since the side file was last replaced
    side_written = side_synced = False
    folder_synced = True
    for call in calls:
        first = call.files[0] if call.files else ""
        if call.name in SYNCS and first == store:
            store_synced = True
        elif call.name in WRITES and first == temporary:
            if not store_synced:
                found.append("the side file is written before LMDB's file is synced")
            side_written, side_synced = True, False
        elif call.name in SYNCS and first == temporary:
            side_synced = side_written
        elif call.name.startswith("rename") and call.files[-1] == side:
            if not side_synced:
                found.append("the side file is renamed before it is synced")
            store_synced = side_written = side_synced = folder_synced = False
        elif call.name in SYNCS and first == str(data):
            folder_synced = True
        elif (
            call.name.startswith("unlink")
            and call.files[-1].startswith(log + "/segment")
            and not folder_synced
        ):
            found.append("log goes before the side file's name is durable")
    return found


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Call], Path]:
    strace = shutil.which("strace")
    assert strace is not None, "strace is missing: `apt-get install strace`, as `.ci/run` does"
    folder = tmp_path_factory.mktemp("traced")
    data, trace = folder / "data", folder / "trace"
    syscalls = ",".join((*WRITES, *SYNCS, "rename", "renameat", "renameat2", "unlink", "unlinkat", "msync"))
    command = [strace, "-f", "-qq", "-y", "-s", "200", "-e", f"trace={syscalls}", "-e", "signal=none", "-o"]
    subprocess.run([*command, str(trace), sys.executable, "-c", CHILD, str(data)], check=True, timeout=60)
    return parse(trace.read_text()), data


def renames(calls: list[Call], data: Path) -> list[int]:
    return [
        i
        for i, call in enumerate(calls)
        if call.name.startswith("rename") and call.files[-1] == str(data / "checkpoint")
    ]


def test_every_checkpoint_syncs_lmdbs_file_before_the_side_file_is_written(
    traced: tuple[list[Call], Path],
) -> None:
    calls, data = traced
    # One when the directory is made, one when it is opened, and the checkpoints.
    assert len(renames(calls, data)) == 2 + CHECKPOINTS
    assert any(call.name.startswith("unlink") and "/log/segment" in call.files[-1] for call in calls)
    assert violations(calls, data) == []


def test_the_reading_of_the_trace_sees_what_must_not_be(traced: tuple[list[Call], Path]) -> None:
    calls, data = traced
    store, temporary = str(data / "store" / "data.mdb"), str(data / "checkpoint.tmp")
    last = renames(calls, data)[-1]
    before = renames(calls, data)[-2]
    without_store_sync = [
        call
        for i, call in enumerate(calls)
        if not (before < i < last and call.name in SYNCS and call.files[:1] == (store,))
    ]
    assert violations(without_store_sync, data)
    without_side_sync = [
        call
        for i, call in enumerate(calls)
        if not (before < i < last and call.name in SYNCS and call.files[:1] == (temporary,))
    ]
    assert violations(without_side_sync, data)
    without_folder_sync = [
        call
        for i, call in enumerate(calls)
        if not (i > before and call.name in SYNCS and call.files[:1] == (str(data),))
    ]
    unlinked = Call("unlink", (str(data / "log" / "segment-1.log"),))
    assert violations([*without_folder_sync, unlinked], data)
    assert not violations([*calls, unlinked], data)


def test_the_log_is_synced_after_each_record_and_the_metas_when_they_are_put_back(
    traced: tuple[list[Call], Path],
) -> None:
    calls, data = traced
    log = str(data / "log")
    pending: dict[str, int] = {}
    for call in calls:
        file = call.files[0] if call.files else ""
        if not file.startswith(log + "/segment"):
            continue
        if call.name in WRITES:
            assert pending.get(file, 0) == 0, "a second record is written while the one before is not synced"
            pending[file] = 1
        elif call.name in SYNCS:
            pending[file] = 0
    assert not any(pending.values())
