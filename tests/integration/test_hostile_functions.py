"""Functions that do what no function should, beside a healthy load: the daemon and everybody else go on."""

from __future__ import annotations

import random
import statistics
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from support.daemon import RunningDaemon, wait_until

from benchmarks.processes import tree_pss_bytes

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from support.runs import LongRun

LIMIT_S = 0.5
WORKERS = 3
GROWTH_BYTES = 24 << 20
"""What memory may differ by: the base of some workers is that of old ones, of others that of new ones."""

SETTLING_S = 5.0
CODES = {
    "time_limit", "worker_died", "not_allowed_here", "internal_error", "invalid_result", "result_too_large",
    "too_many_documents", "too_many_bytes", "overloaded", "conflict",
}  # fmt: skip


@dataclass
class Healthy:
    """A client that counts up a counter of its own and looks at it, over and over."""

    daemon: RunningDaemon
    name: str
    latencies_ms: list[float] = field(default_factory=list)
    wrong: list[Any] = field(default_factory=list)
    counted: int = 0

    def run(self, stop: threading.Event) -> None:
        while not stop.is_set():
            for kind, function in (("mutation", "count"), ("query", "look")):
                began_s = time.monotonic()
                answer = self.daemon.post(
                    f"/api/{kind}", {"path": f"f:{function}", "args": {"name": self.name}, "format": "json"}
                )
                self.latencies_ms.append((time.monotonic() - began_s) * 1000)
                self.counted += kind == "mutation"
                if answer.json.get("value") != self.counted:
                    self.wrong.append((function, self.counted, answer.text))
                    self.counted = answer.json.get("value") or self.counted


class Trial:
    """A daemon with the hostile bundle."""

    def __init__(self, folder: Path) -> None:
        self.daemon = RunningDaemon(
            folder / "daemon",
            ("--workers", str(WORKERS), "--call-time-limit-s", str(LIMIT_S), "--call-memory-limit-bytes", str(256 << 20)),
        )  # fmt: skip
        self.answers: dict[str, list[str]] = {}
        self.longest_s = 0.0
        self.refills_s: list[float] = []
        self.plays = 0

    def start(self) -> list[str]:
        self.daemon.start()
        self.daemon.must_deploy("hostile")
        deeds: list[str] = self.daemon.call("query", "f:deeds")
        return deeds

    def does(self, deed: str) -> None:
        """Call a hostile function; its caller has to be told, and its write not to be seen."""
        began_s = time.monotonic()
        answer = self.daemon.post("/api/mutation", {"path": "f:do", "args": {"deed": deed}, "format": "json"})
        self.longest_s = max(self.longest_s, time.monotonic() - began_s)
        code = answer.json.get("errorCode") or answer.json.get("code") or answer.json.get("status")
        self.answers.setdefault(deed, []).append(code)

    def refilled(self) -> None:
        """Wait until as many workers are ready as should be."""
        began_s = time.monotonic()
        wait_until(lambda: self.daemon.metric("headwater_workers") == WORKERS)
        self.refills_s.append(time.monotonic() - began_s)

    def own_bytes(self) -> int:
        """Return the memory of all processes that is no file's."""
        assert self.daemon.process is not None
        return tree_pss_bytes(self.daemon.process.pid, ("Pss_Anon:", "Pss_Shmem:"))

    def growth_bytes(self, base: int) -> int:
        """Return by how much more memory is in use than at first, once that has come to rest."""
        growth = self.own_bytes() - base
        for _ in range(round(SETTLING_S / 0.2)):
            if growth <= GROWTH_BYTES:
                break
            time.sleep(0.2)
            growth = self.own_bytes() - base
        return growth

    def play(self, deeds: Iterable[str]) -> tuple[list[Healthy], list[float]]:
        """Do these deeds beside a healthy load, which runs alone for as long first; return it and its base latencies."""
        self.plays += 1
        healthy = [Healthy(self.daemon, f"counter {self.plays}.{number}") for number in range(2)]
        stop = threading.Event()
        threads = [threading.Thread(target=one.run, args=(stop,)) for one in healthy]
        for thread in threads:
            thread.start()
        try:
            time.sleep(1.0)
            base = [ms for one in healthy for ms in one.latencies_ms]
            for deed in deeds:
                self.does(deed)
                self.refilled()
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        return healthy, base


def percentile(values: list[float], share: float) -> float:
    return statistics.quantiles(values, n=100)[round(share * 100) - 1]


def check(trial: Trial, healthy: list[Healthy], pid: int) -> None:
    daemon = trial.daemon
    assert daemon.process is not None
    assert daemon.process.pid == pid
    assert not [one.wrong for one in healthy if one.wrong]
    strange = {deed: codes for deed, codes in trial.answers.items() if not CODES.issuperset(codes)}
    assert not strange
    assert daemon.call("query", "f:traces") == 0, "a write of a hostile call is seen"
    for one in healthy:
        assert daemon.call("query", "f:look", name=one.name) == one.counted
    assert daemon.terminate() == 0
    assert daemon.doctor() == []


def test_each_hostile_function_once_beside_a_healthy_load(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    try:
        deeds = trial.start()
        assert len(deeds) > 20
        assert trial.daemon.process is not None
        pid = trial.daemon.process.pid
        healthy, _ = trial.play(deeds)
        check(trial, healthy, pid)
    finally:
        trial.daemon.end()


@pytest.mark.slow
def test_hostile_functions_at_length(long_run: LongRun, tmp_path: Path) -> None:
    """Every function so often in random order, and what it costs the others."""
    for seed in long_run.seeds():
        chance = random.Random(seed)
        trial = Trial(tmp_path / str(seed))
        try:
            deeds = trial.start() * 10
            chance.shuffle(deeds)
            assert trial.daemon.process is not None
            pid = trial.daemon.process.pid
            trial.play([])  # what the healthy calls take is no growth
            base_bytes = trial.own_bytes()
            healthy, base = trial.play(deeds)
            growth = trial.growth_bytes(base_bytes)
            assert growth <= GROWTH_BYTES, f"{growth} bytes more are in use than before"
            latencies = [ms for one in healthy for ms in one.latencies_ms[len(base) // 2 :]]
            check(trial, healthy, pid)
        finally:
            trial.daemon.end()
        long_run.record(
            "hostile",
            seed,
            calls=len(deeds),
            healthy=len(latencies),
            max_base_p99_ms=round(percentile(base, 0.99), 1),
            max_p99_ms=round(percentile(latencies, 0.99), 1),
            max_answer_s=round(trial.longest_s, 2),
            refilled_within_1_s=sum(seconds <= 1 for seconds in trial.refills_s),
            max_refill_s=round(max(trial.refills_s), 2),
            max_growth_mb=round(growth / 1e6, 1),
        )
