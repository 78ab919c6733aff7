"""The real daemon under a wall clock that jumps by hours and years, and stands still, also over restarts.

Time as functions see it and commit ts never go back; what does not depend on the date goes on: heartbeats,
time limits, checkpoints.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from headwater.client.aio import Client, connect
from support.daemon import RunningDaemon, wait_until
from support.wall_clock import Wall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.runs import LongRun

HOUR_S, YEAR_S = 3_600, 31_557_600
JUMPS_S = (HOUR_S, -HOUR_S, 10 * YEAR_S, -10 * YEAR_S)
OPTIONS = (
    *("--workers", "2", "--heartbeat-s", "1", "--call-time-limit-s", "2"),
    *("--checkpoint-interval-s", "0.2"),
)


@dataclass
class ClockTrial:
    """What was seen in all lives, in the order of the calls.

    Attributes:
        daemon: Runs under the wall clock.
        wall: Its clock.
        wrong: What went back.
        calls: How many were made.
        jumps: How often the clock was set.
    """

    daemon: RunningDaemon
    wall: Wall
    wrong: list[str] = field(default_factory=list)
    calls: int = 0
    jumps: int = 0
    _time_ms: float = 0.0
    _ts: int = 0
    _numbers: list[int] = field(default_factory=lambda: [0, 0])

    async def live(self, clocks: list[Callable[[], None]]) -> None:
        """Make calls under one clock after the other, over connections that must hold."""
        async with connect(self.daemon.url) as one, connect(self.daemon.tcp_url) as other:
            for set_clock in clocks:
                await self.calls_of_all(one, other)
                set_clock()
                self.jumps += 1
                await self.calls_of_all(one, other)
            assert one.state.connections == 1
            assert other.state.connections == 1

    async def calls_of_all(self, *clients: Client) -> None:
        for _ in range(4):
            for session, client in enumerate(clients):
                number = self._numbers[session] = self._numbers[session] + 2
                self.saw(await client.query("clock:look", session=session, number=number), client)
                self.saw([await client.mutation("clock:mark", session=session, number=number)], client)
            found = await asyncio.to_thread(
                self.daemon.call, "query", "clock:look", session=0, number=self.calls
            )
            self.saw(found)
        # The last call of a life is one that the log keeps: time of queries alone is not remembered.
        await clients[0].mutation("clock:mark", session=9, number=self.calls)

    def saw(self, times_ms: list[float], client: Client | None = None) -> None:
        """Take note of a call's time, and of what it saw as the time of something before."""
        self.calls += 1
        now_ms = times_ms[0]
        if now_ms <= self._time_ms:
            self.wrong.append(f"call {self.calls}: time went from {self._time_ms} to {now_ms}")
        if len(times_ms) > 1 and times_ms[1] >= now_ms:
            self.wrong.append(f"call {self.calls} at {now_ms} found what was made at {times_ms[1]}")
        self._time_ms = now_ms
        if client is not None:
            ts = client._session.last_ts
            if not self._ts <= ts < 2**53:
                self.wrong.append(f"call {self.calls}: the commit ts went from {self._ts} to {ts}")
            self._ts = ts

    def check_marks(self) -> None:
        """Ids and creation times of each session keep the order of its inserts."""
        for session in range(2):
            marks = self.daemon.call("query", "clock:marks", session=session)
            assert len(marks) == self._numbers[session]
            if marks != sorted(marks):
                self.wrong.append(f"session {session}: ids are out of order")
            if [made for _, made in marks] != sorted(made for _, made in marks):
                self.wrong.append(f"session {session}: creation times are out of order")


@contextlib.contextmanager
def clock_trial(folder: Path, *, broken: bool = False) -> Iterator[ClockTrial]:
    wall = Wall(folder / "clock")
    daemon = RunningDaemon(folder, OPTIONS, environment=wall.environment)
    if broken:
        daemon.break_rule("timeline")
    try:
        daemon.start()
        daemon.must_deploy("clock")
        yield ClockTrial(daemon, wall)
    finally:
        daemon.end()


def next_life(trial: ClockTrial, *, kill: bool) -> None:
    if kill:
        trial.daemon.kill()
    else:
        assert trial.daemon.terminate() == 0
    trial.daemon.start()


def random_clocks(trial: ClockTrial, chance: random.Random, count: int) -> list[Callable[[], None]]:
    wall = trial.wall
    jumps = [lambda seconds=seconds: wall.jump(seconds) for seconds in JUMPS_S]
    return [chance.choice([*jumps, wall.stand, wall.let_go, wall.set_right]) for _ in range(count)]


@pytest.mark.timeout(240)
def test_time_goes_on_whatever_the_clock_does(tmp_path: Path) -> None:
    with clock_trial(tmp_path) as trial:
        daemon, wall = trial.daemon, trial.wall
        asyncio.run(trial.live([lambda: wall.jump(HOUR_S), lambda: wall.jump(-HOUR_S), wall.stand]))
        # Under a clock that stands, all that is measured goes on.
        side_file = daemon.data / "checkpoint"
        before = side_file.read_bytes()
        daemon.call("mutation", "clock:mark", session=9, number=0)
        wait_until(lambda: side_file.read_bytes() != before)
        answer = daemon.post("/api/mutation", {"path": "clock:endless", "args": {}})
        assert answer.json["errorCode"] == "time_limit"

        wall.jump(10 * YEAR_S)  # a wrong date when it starts …
        next_life(trial, kill=True)
        asyncio.run(trial.live([wall.stand, wall.let_go]))
        in_nine_years_ms = (time.time() + 9 * YEAR_S) * 1000
        assert daemon.call("query", "clock:look", session=0, number=-1)[0] > in_nine_years_ms
        # The wall clock of workers is set as well: one that asked it would be found out.
        assert daemon.call("query", "clock:machine", number=1) > in_nine_years_ms
        wall.set_right()  # … and set right before the next
        next_life(trial, kill=True)
        asyncio.run(trial.live([lambda: wall.jump(-10 * YEAR_S)]))
        trial.check_marks()
        assert "clock behind" in daemon.log_text()
        assert daemon.terminate() == 0
        assert daemon.doctor() == []
    assert trial.wrong == []


@pytest.mark.slow
def test_the_clock_trial_finds_a_daemon_that_believes_its_clock(tmp_path: Path) -> None:
    with clock_trial(tmp_path, broken=True) as trial:
        asyncio.run(trial.live([lambda: trial.wall.jump(-HOUR_S)]))
        trial.check_marks()
    for what in ("time went from", "found what was made at", "ids are out of order", "creation times"):
        assert any(what in line for line in trial.wrong), what


@pytest.mark.slow
def test_clock_at_length(tmp_path: Path, long_run: LongRun) -> None:
    for seed in long_run.seeds():
        chance = random.Random(seed)
        with clock_trial(tmp_path / str(seed)) as trial:
            lives = 6
            for _ in range(lives):
                asyncio.run(trial.live(random_clocks(trial, chance, 8)))
                for set_clock in random_clocks(trial, chance, 1):
                    set_clock()
                next_life(trial, kill=chance.random() < 0.7)
            trial.check_marks()
            assert trial.daemon.terminate() == 0
            assert trial.daemon.doctor() == []
        assert trial.wrong == []
        long_run.record("clock", seed, jumps=trial.jumps, lives=lives, calls=trial.calls)
