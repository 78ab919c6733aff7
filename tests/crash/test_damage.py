"""Damage is found, never served: copies of whole directories with one damage each, opened as the daemon opens them.

Each copy is opened in a child, which asks everything a worker could ask and compares with plain dicts. It must
refuse and say where, or give right answers, or say `damaged`. Where a read gives another answer all the same (an
index entry or a key is damaged), doctor must have found it. No child may die.
"""

from __future__ import annotations

import faulthandler
import json
import os
import resource
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any
from zlib import crc32

import pytest
from headwater_protocol.errors import HeadwaterError
from headwater_storage import catalog, recovery, segments, stored, transaction
from headwater_storage.catalog import REQUESTS
from headwater_storage.doctor import examine
from headwater_storage.engine import Engine
from headwater_storage.files import RealFileSystem
from headwater_storage.keys import document_key
from headwater_storage.log_format import Tail
from headwater_storage.page_store import PageSnapshot
from headwater_storage.page_store import opened as opened_pages
from headwater_storage.pages import Pages, metas_of
from headwater_storage.repair import repair
from support.damage import DATA_FILE, PAGE, Damage, Original, damaged
from support.full_read import DAMAGED, differences, expected, read_all
from support.prepared_stores import Recipe, Truth, options_of, prepare, prepared_environment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from support.runs import LongRun

RECIPES = [
    Recipe(0, lives=3, commits=25),
    Recipe(0, lives=3, commits=25, clean=False),
    Recipe(0, lives=3, commits=25, keep_bytes=0),
    Recipe(0, lives=2, commits=40, clean=False, keep_bytes=0, checkpoint_at=0.8),
]
CHECK_BYTES = 1 << 26


@dataclass
class Outcome:
    """What opening a damaged copy came to.

    Attributes:
        refused: Code and message, if it was not opened.
        wrong: Questions that were answered otherwise than the truth.
        false: Those among them whose answer is the content of a document or row, and not what was written.
        damaged: How many said `damaged`.
        died: Signal that ended the child, or 0.
    """

    refused: tuple[str, str] | None = None
    wrong: list[str] | None = None
    false: list[str] | None = None
    damaged: int = 0
    died: int = 0


def in_child(work: Callable[[], Outcome]) -> Outcome:
    """Run in a fork: what it came to, or which signal ended it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            faulthandler.disable()
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.write(writer, json.dumps(vars(work())).encode()[:60_000])
        except BaseException as error:  # a bug of the trial or the product: never taken for a refusal
            os.write(writer, json.dumps({"refused": ["bug", repr(error)]}).encode()[:60_000])
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, "rb") as pipe:
        told = pipe.read()
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        return Outcome(died=os.WTERMSIG(status))
    return Outcome(**json.loads(told))


def opened(path: Path, truth: Truth, check_bytes: int) -> Outcome:
    """Open a directory as the daemon does and ask everything."""
    options = options_of(RECIPES[0])
    object.__setattr__(options.storage, "check_bytes", check_bytes)
    try:
        engine = Engine.open(path, options, prepared_environment(9))
    except HeadwaterError as error:
        return Outcome(refused=(error.code, error.message))
    found, told = read_all(engine.store, truth), expected(truth)
    wrong = differences(found, told)
    false = [
        name
        for name in wrong
        if name.startswith(("get ", "request ", "bundle")) and found.get(name) is not None
    ]
    engine._recovered.close(clean=False)
    return Outcome(wrong=wrong, false=false, damaged=list(found.values()).count(DAMAGED))


def repaired(path: Path, truth: Truth, scratch: Path) -> Outcome:
    """Repair a directory, and if nothing is lost open it and ask everything."""
    before = tree(path)
    environment = prepared_environment(9)
    try:
        report = repair(path, environment)
        if report.lost:
            same = {name: data for name, data in tree(path).items() if "lock" not in name} == before
            report = repair(path, environment, accept_loss=True)
        findings = examine(path, environment, scratch).findings
    except HeadwaterError as error:
        return Outcome(refused=(error.code, error.message))
    if findings and not report.lost:
        return Outcome(refused=("findings", str(findings[0])))
    if report.lost:
        outcome = opened(path, truth, CHECK_BYTES)
        return Outcome(
            refused=("lost", "") if same and outcome.refused is None else ("changed", str(outcome))
        )
    return opened(path, truth, CHECK_BYTES)


def tree(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


@dataclass
class Campaign:
    """Damages one directory again and again.

    Attributes:
        original: The directory.
        truth: What it must give.
        scratch: A folder for doctor.
        tally: What copies came to.
        check_bytes: How much of the pages is checked at a start.
        log_is_whole: The log reaches back to its first record: every damage to the store is repaired from it.
        repair_each: Every so manieth copy is repaired after it was opened; 0: none.
        violations: What must not have happened.
    """

    original: Original
    truth: Truth
    scratch: Path
    check_bytes: int = CHECK_BYTES
    log_is_whole: bool = False
    repair_each: int = 0

    def __post_init__(self) -> None:
        self.tally = Counter[str]()
        self.repairs = Counter[str]()
        self.violations: list[str] = []

    def run(self, random: Random, count: int, only: str = "") -> None:
        """Damage it so many times."""
        for _ in range(count):
            self.try_one(damaged(self.original, random, only))

    def try_one(self, damage: Damage) -> None:
        """Damage it once, open it, and put it back."""
        self.original.restore()
        self.original.apply(damage)
        self._judge(damage, in_child(lambda: opened(self.original.path, self.truth, self.check_bytes)))
        if self.repair_each and self.tally.total() % self.repair_each == 0:
            self.original.restore()
            self.original.apply(damage)
            self._judge_repair(
                damage, in_child(lambda: repaired(self.original.path, self.truth, self.scratch))
            )
        self.original.restore()

    def _judge_repair(self, damage: Damage, outcome: Outcome) -> None:
        if outcome.died or outcome.wrong or outcome.damaged:
            self._violated(damage, f"repaired to {outcome}")
        elif outcome.refused is None:
            self.repairs["without loss"] += 1
        elif outcome.refused[0] == "lost" and not (self.log_is_whole and damage.file == DATA_FILE):
            self.repairs["refused, something is lost"] += 1
        elif "restore the directory from a copy" in outcome.refused[1] and not self.log_is_whole:
            self.repairs["refused, nothing to build from"] += 1
        else:
            self._violated(damage, f"not repaired: {outcome.refused}")

    def _judge(self, damage: Damage, outcome: Outcome) -> None:
        place = "store" if damage.file == DATA_FILE else "log or side file"
        if outcome.died:
            self._violated(damage, f"the process died of signal {outcome.died}")
        elif outcome.refused is not None:
            self.tally[f"{place}: refused"] += 1
            code, message = outcome.refused
            named = str(self.original.path) in message or "document with key" in message
            said_where = "offset" in message or "document with key" in message or damage.data is None
            if (
                code not in ("damaged", "format_too_new")
                or not named
                or not (said_where or code != "damaged")
            ):
                self._violated(damage, f"refused by {code}: {message}")
        elif not outcome.wrong and not outcome.damaged:
            self.tally[f"{place}: all answers right"] += 1
        elif place != "store":
            self._violated(damage, f"{outcome.wrong} answered wrong, {outcome.damaged} damaged")
        elif outcome.false:
            self._violated(damage, f"served for {outcome.false}")
        elif not outcome.wrong:
            self.tally["store: said damaged"] += 1
        else:
            self.tally["store: found by doctor"] += 1
            self.original.restore()
            self.original.apply(damage)
            if not examine(self.original.path, prepared_environment(1), self.scratch).findings:
                self._violated(damage, f"doctor found nothing; wrong: {outcome.wrong[:3]}")

    def _violated(self, damage: Damage, text: str) -> None:
        self.violations.append(f"{damage}: {text}")


def campaign(folder: Path, recipe: Recipe, seed: int) -> Campaign:
    path = folder / "data"
    truth = prepare(path, Recipe(**{**vars_of(recipe), "seed": seed}))
    return Campaign(Original.of(path), truth, folder / "scratch", log_is_whole=recipe.keep_bytes > 0)


def vars_of(recipe: Recipe) -> dict[str, Any]:
    return {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_damage_is_found_and_never_served(tmp_path: Path, number: int) -> None:
    trial = campaign(tmp_path, RECIPES[number], 100 + number)
    trial.repair_each = 4
    trial.run(Random(number), 20)
    assert not trial.violations, trial.violations
    assert trial.tally.total() == 20
    assert trial.repairs.total() == 5


@pytest.mark.slow
def test_many_damaged_copies(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        random = Random(seed)
        trial = campaign(tmp_path / str(seed), random.choice(RECIPES), seed)
        trial.repair_each = 5
        trial.run(random, 250)
        assert not trial.violations, (seed, trial.violations)
        figures = {name.replace(": ", "_").replace(" ", "_"): count for name, count in trial.tally.items()}
        repairs = {
            "repaired_" + name.replace(", ", "_").replace(" ", "_"): n for name, n in trial.repairs.items()
        }
        long_run.record("damage", seed, copies=trial.tally.total(), **figures, **repairs)


def test_the_trial_sees_documents_without_checksums(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = campaign(tmp_path, RECIPES[0], 1)

    def unchecked(value: bytes, _: bytes) -> tuple[int, bytes]:
        return 1, value[stored.STORED_HEADER_BYTES :]

    for module in (transaction, catalog):
        monkeypatch.setattr(module, "unpack_stored", unchecked)
    trial.run(Random(1), 40, DATA_FILE)
    assert any("served" in text for text in trial.violations)


def test_the_trial_sees_a_start_that_does_not_check_pages(tmp_path: Path) -> None:
    trial = campaign(tmp_path, RECIPES[0], 2)
    trial.check_bytes = 0
    trial.run(Random(2), 30, DATA_FILE)
    assert any("died" in text or "bug" in text or "refused by" in text for text in trial.violations)


def test_the_trial_sees_a_log_that_is_cut_at_its_first_bad_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = campaign(tmp_path, RECIPES[1], 3)
    monkeypatch.setattr(segments, "judge_tail", lambda *_: Tail.TORN)
    monkeypatch.setattr(recovery, "newest_shown", lambda *_: 0)
    trial.run(Random(3), 20, max(trial.original.records))
    assert any("answered wrong" in text for text in trial.violations)


def test_the_trial_sees_a_log_that_may_end_before_what_the_store_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = campaign(tmp_path, RECIPES[1], 4)
    monkeypatch.setattr(recovery, "newest_shown", lambda *_: 0)
    trial.run(Random(4), 30, max(trial.original.records))
    assert any("answered wrong" in text for text in trial.violations)


def test_the_trial_sees_checksums_that_leave_out_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flipped bit in the key of a request row makes it the row of another request."""

    def as_format_1(shape: int, document: bytes, _: bytes) -> bytes:
        checked = shape.to_bytes(4, "big") + document
        return crc32(checked).to_bytes(4, "big") + checked

    for broken in (False, True):
        if broken:
            monkeypatch.setattr(transaction, "pack_stored", as_format_1)
        trial = campaign(tmp_path / str(broken), RECIPES[2], 5)
        for session in {request[:-8] for request in trial.truth.requests}:
            requests = sorted(request for request in trial.truth.requests if request.startswith(session))
            trial.try_one(moved_request(trial.original, next(r for r in requests if not r[-1] & 1)))
        assert any("doctor found nothing" in text for text in trial.violations) is broken, trial.violations


def moved_request(original: Original, request: bytes) -> Damage:
    """Damage the row of a request with an even number: its key becomes that of the next one."""
    data = original.files[DATA_FILE]
    key = document_key(REQUESTS, request)
    with opened_pages(RealFileSystem(), original.path / DATA_FILE) as file:
        snapshot = PageSnapshot(Pages(file, metas_of(data)[0]), original.path)
        [node] = [node for node in snapshot.pages.leaves(snapshot.document_tree) if key in node.keys]
    end = node.number * PAGE + node.values[node.keys.index(key)][0] - 1
    return Damage(DATA_FILE, "flip in a key", end, data[:end] + bytes([data[end] ^ 1]) + data[end + 1 :])
