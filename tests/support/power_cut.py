"""Cuts the power of a database at many moments, opens what the disk may then hold, and checks it.

    LD_PRELOAD=recorder.so python -m support.power_cut --workload small --seed 1 --states 100 --folder F

The workload runs in a fork with the recorder on. From the trace come the states of the disk; each is
laid down in the same directory (LMDB's file keeps its inode, which the side file holds) and recovered
in another fork. Some of these are recorded too, write on, and are cut again. Prints figures as JSON.
"""

from __future__ import annotations

import argparse
import copy
import faulthandler
import gc
import json
import os
import pickle
import resource
import shutil
import signal
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from headwater_storage import recovery
from headwater_storage.check import check
from headwater_storage.engine import record_applier

from support import power_mutants
from support.power_disk import Disk, Event, File, Folder, Kind, Tree, durable_disk, read_trace
from support.power_work import (
    ACKNOWLEDGED,
    RECOVERED,
    RECOVERING,
    WORKLOADS,
    Recording,
    continued,
    documents_of,
    steady_environment,
    storage_of,
    sum_of,
    work,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from headwater_storage.log import Record
    from headwater_storage.store import Store

CHILD_LIMIT_S = 60
KILL_SHARE, CUT_SHARE, AGAIN = (0.04, 0.02, 0.0), (0.08, 0.02, 0.0), 6
"""Of how many states, and of recoveries, the recovery is recorded and cut again, and how often."""


class LostError(Exception):
    """A disk state after which the database is not what it must be."""


@dataclass(frozen=True)
class Known:
    """What is known of a database before it is opened.

    Attributes:
        sums: What its documents are after each record that may be there.
        acknowledged: Number of the last record that must be there.
    """

    sums: dict[int, int]
    acknowledged: int


@dataclass
class Outcome:
    """What a recovery found.

    Attributes:
        problems: Sentences; none if all is well.
        head: Number of the last record that was there.
        sums: What the documents are after each record from then on, if it wrote on.
    """

    problems: list[str]
    head: int = 0
    sums: dict[int, int] = field(default_factory=dict)


def in_child(function: Callable[[], Any]) -> Any:
    """Run in a fork and return the result; a child that dies gives what it died of, as a `str`."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        code = 1
        try:
            signal.alarm(CHILD_LIMIT_S)
            gc.disable()
            # A torn file that is opened without the protocol aborts or breaks the process.
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            try:
                result = function()
            except Exception as error:
                result = f"{type(error).__name__}: {error}"
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(result, pipe)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return pickle.loads(answer) if status == 0 else f"the process ended with {status}"


class Trial:
    """One workload of one seed, and the states of its disk.

    Attributes:
        states: How many were tried.
        second_crashes: How many of them came of a recovery.
        kinds: At what the power was cut, with how many states.
        store_calls: What the workload did with LMDB's file.
    """

    def __init__(self, name: str, seed: int, folder: Path, lives: int | None = None) -> None:
        self._name = name
        self._seed = seed
        self._lives = lives
        self._random = Random(f"{name} {seed}")
        self._storage = storage_of(name, seed)
        self._disk_folder = folder / "disk"
        self._data = self._disk_folder / "data"
        self._folder = folder
        self._kept: dict[int, Path] = {}
        self._scratch = folder / "scratch"
        self._trace = folder / "trace"
        self._recording = Recording()
        self._disk_folder.mkdir(parents=True)
        self.states = self.second_crashes = 0
        self.kinds: Counter[str] = Counter()
        self.store_calls: Counter[str] = Counter()

    def run(self, states: int) -> None:
        """Try about so many states.

        Raises:
            LostError: One was not recovered.
        """
        root = Folder()
        disk = Disk(root, {self._disk_folder.stat().st_ino: root})

        def recorded() -> dict[int, int]:
            self._recording.start(self._disk_folder, self._trace)
            model = work(self._name, self._seed, self._data, self._recording, self._lives)
            self._recording.stop()
            return model.sums

        sums = in_child(recorded)
        if isinstance(sums, str):
            raise LostError(f"the workload failed: {sums}")
        self._warm()
        events = read_trace(self._trace.read_bytes())
        self._check_complete(copy.deepcopy(disk), events)
        self.store_calls.update(event.kind.name for event in events if event.path == "data.mdb")
        gc.freeze()
        self._explore(disk, events, Known(sums, 0), states, 0)

    def _check_complete(self, disk: Disk, events: list[Event]) -> None:
        """Compare the end of a trace with the real files: a change that was not recorded shows here."""
        for event in events:
            disk.follow(event, str(self._disk_folder))
        told, there = _contents(disk.whole()), {}
        for path in self._disk_folder.rglob("*"):
            if path.is_file():
                there[str(path.relative_to(self._disk_folder))] = path.read_bytes()
        for known in (told, there):
            for path in [path for path in known if path.endswith("lock.mdb")]:
                del known[path]  # a map that processes share; recovery removes it
        if told != there:
            wrong = {path for path in told.keys() | there.keys() if told.get(path) != there.get(path)}
            raise RuntimeError(f"the trace does not tell all: {sorted(wrong)}")

    def _explore(self, disk: Disk, events: list[Event], known: Known, count: int, depth: int) -> None:
        """Cut at some moments of a trace; some of the recoveries are cut in their turn."""
        self._keep_store_file()
        kinds = kinds_of(events, creation=depth == 0)
        done = 0
        for place, tries in sorted(Counter(_places(kinds, self._random, count)).items()):
            for event in events[done:place]:
                disk.follow(event, str(self._disk_folder))
                if event.kind is Kind.MARK and event.inode in (ACKNOWLEDGED, RECOVERED):
                    known = replace(known, acknowledged=max(known.acknowledged, event.number))
            done = place
            for _ in range(tries):
                self._cut(disk, known, f"second {kinds[place]}" if depth else kinds[place], depth)

    def _cut(self, disk: Disk, known: Known, kind: str, depth: int) -> None:
        chance = self._random.random()
        killed, recorded = chance < KILL_SHARE[depth], chance < KILL_SHARE[depth] + CUT_SHARE[depth]
        tree = disk.whole() if killed else disk.torn(self._random)
        self._lay_down(tree)
        after = copy.deepcopy(disk) if killed else durable_disk(tree)
        after.by_inode.clear()  # what only the dead process had open is gone
        _find_inodes(after.root, self._disk_folder, after.by_inode)
        seed = self._random.randrange(1 << 30)
        outcome = in_child(lambda: self._recovered(known, seed, recorded=recorded))
        shutil.rmtree(self._scratch, ignore_errors=True)
        if isinstance(outcome, str):
            outcome = Outcome([outcome])
        if outcome.problems:
            self._lay_down(tree)
            found = "; ".join(outcome.problems)
            how = "killed" if killed else "cut"
            raise LostError(f"{how} at {kind}, {known.acknowledged} acknowledged: {found}")
        if not killed:
            self.states += 1
            self.kinds[kind] += 1
            self.second_crashes += depth > 0
        if recorded:
            sums = {number: total for number, total in known.sums.items() if number <= outcome.head}
            events = read_trace(self._trace.read_bytes())
            self._check_complete(copy.deepcopy(after), events)
            self._explore(after, events, Known(sums | outcome.sums, known.acknowledged), AGAIN, depth + 1)

    def _warm(self) -> None:
        """Do once in this process what each child would prepare for itself."""
        path = self._folder / "warm"
        database = recovery.recover(path, self._storage, steady_environment(0), record_applier())
        check(database.store, database.log, path / "scratch")
        database.close()
        shutil.rmtree(path)

    def _recovered(self, known: Known, seed: int, *, recorded: bool) -> Outcome:
        """Recover what lies there, check it, and write on if that is recorded. Runs in a fork."""
        first: list[str] = []
        applies = record_applier()

        def apply(store: Store, record: Record) -> None:
            if not first:
                first.append("")
                first[0] = _difference(known.sums, record.number - 1, sum_of(documents_of(store).items()))
            applies(store, record)

        if recorded:
            self._recording.start(self._disk_folder, self._trace)
        environment = steady_environment(seed)
        environment.clock.now_us += 1 << 40  # type: ignore[attr-defined]
        self._recording.mark(RECOVERING, 0)
        database = recovery.recover(self._data, self._storage, environment, apply)
        self._recording.mark(RECOVERED, database.log.head.number)
        head = database.log.head.number - 1
        documents = documents_of(database.store)
        problems = [f"before replay: {first[0]}"] if first and first[0] else []
        if not known.acknowledged <= head <= max(known.sums):
            problems.append(f"the log ends with record {head}")
        if wrong := _difference(known.sums, head, sum_of(documents.items())):
            problems.append(wrong)
        problems += check(database.store, database.log, self._scratch)
        if not recorded:
            return Outcome(problems, head)
        model = continued(self._name, seed, database, documents, self._recording)
        self._recording.stop()
        return Outcome(problems, head, model.sums)

    # ------------------------------------------------------------------------------------ real files

    def _lay_down(self, tree: Tree) -> None:
        """Make the real directory a state of the disk."""
        for path in self._disk_folder.iterdir():
            shutil.rmtree(path)
        self._write(tree, str(self._disk_folder))

    def _write(self, tree: Tree, folder: str) -> None:
        for name, entry in tree.items():
            path = f"{folder}/{name}"
            if isinstance(entry, dict):
                os.mkdir(path)
                self._write(entry, path)
                continue
            file, data = entry
            if (kept := self._kept.get(file.inode)) is not None:
                os.link(kept, path)
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.write(descriptor, data)
            os.truncate(descriptor, len(data))
            os.close(descriptor)

    def _keep_store_file(self) -> None:
        """Hold on to the inode of LMDB's file; a state with that file gets it back."""
        path = self._data / "store" / "data.mdb"
        if path.exists() and (inode := path.stat().st_ino) not in self._kept:
            self._kept[inode] = self._folder / f"kept-{inode}"
            os.link(path, self._kept[inode])


def _find_inodes(folder: Folder, real: Path, by_inode: dict[int, File | Folder]) -> None:
    """Say which real files stand for those of a disk that was just laid down."""
    by_inode[real.stat().st_ino] = folder
    for name, entry in folder.names().items():
        if isinstance(entry, Folder):
            _find_inodes(entry, real / name, by_inode)
        else:
            entry.inode = (real / name).stat().st_ino
            by_inode[entry.inode] = entry


def _difference(sums: dict[int, int], number: int, found: int) -> str:
    expected = sums[max(known for known in sums if known <= number)]
    return "" if found == expected else f"the documents are not those of record {number}"


def _contents(tree: Tree, above: str = "") -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for name, entry in tree.items():
        if isinstance(entry, dict):
            found |= _contents(entry, f"{above}{name}/")
        else:
            found[above + name] = entry[1]
    return found


def kinds_of(events: list[Event], *, creation: bool) -> list[str]:
    """Return at what a power cut before each event, and after the last, would come."""
    kinds = []
    phase = "creation" if creation else "recovery"
    saving = renamed = False
    for place, event in enumerate(events):
        match event.kind:
            case Kind.MARK if event.inode == RECOVERING:
                phase, saving, creation = "creation" if creation else "recovery", False, False
            case Kind.MARK if event.inode == RECOVERED:
                phase = "commits"
            case Kind.SYNC_BEGIN if event.path == "data.mdb" and phase == "commits":
                saving, renamed = True, False
            case Kind.RENAME if event.path.endswith("/checkpoint.tmp"):
                renamed = True
        kinds.append(_kind_among_commits(events, place, saving=saving) if phase == "commits" else phase)
        if event.kind is Kind.SYNC_END and event.path == "data" and renamed:
            saving = False
    return [*kinds, phase]


def _kind_among_commits(events: list[Event], place: int, *, saving: bool) -> str:
    around = events[max(0, place - 1) : place + 2]
    if any(event.kind is Kind.UNLINK and "/segment-" in event.path for event in around):
        return "trim"
    if saving:
        return "checkpoint"
    if any(event.kind in (Kind.RENAME, Kind.CREATE) and "/log/" in event.path for event in around):
        return "rotation"
    return "commits"


def _places(kinds: list[str], random: Random, count: int) -> list[int]:
    """Return where to cut: half of them anywhere, half with each kind as often as the others."""
    by_kind: dict[str, list[int]] = {}
    for place, kind in enumerate(kinds):
        by_kind.setdefault(kind, []).append(place)
    return [
        random.randrange(len(kinds))
        if random.random() < 0.5
        else random.choice(by_kind[random.choice(sorted(by_kind))])
        for _ in range(count)
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workload", choices=sorted(WORKLOADS), required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--states", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--lives", type=int)
    parser.add_argument("--mutant", choices=sorted(power_mutants.MUTANTS))
    arguments = parser.parse_args()
    if arguments.mutant is not None:
        power_mutants.MUTANTS[arguments.mutant]()
    trial = Trial(arguments.workload, arguments.seed, arguments.folder, arguments.lives)
    lost = None
    try:
        trial.run(arguments.states)
    except LostError as error:
        lost = str(error)
    figures = {name: getattr(trial, name) for name in ("states", "second_crashes", "kinds", "store_calls")}
    print(json.dumps({"lost": lost, **figures}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
