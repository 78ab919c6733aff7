"""Workers that are over a bound are ended; the memory that is looked at is this process's own."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest
from headwater_server.functions.worker_bounds import WorkerBounds

WATCH_S = 0.5


class Place:
    def __init__(self, memory_limit_bytes: int = 1 << 50) -> None:
        self.killed: list[tuple[str, str, int]] = []
        roster: Any = SimpleNamespace(
            kill=lambda worker, why, call=0: self.killed.append((why.code, why.message, call))
        )
        self.bounds = WorkerBounds(roster, 20.0, memory_limit_bytes, WATCH_S)
        self.worker: Any = SimpleNamespace(pid=os.getpid(), started_mono_s=100.0)


@pytest.mark.parametrize(("at_s", "codes"), [(120.0, []), (120.1, ["invalid_bundle"])])
def test_a_worker_has_so_long_to_start(at_s: float, codes: list[str]) -> None:
    place = Place()
    place.bounds.look_at_start(place.worker, at_s)
    assert [code for code, _, _ in place.killed] == codes


def test_a_worker_that_is_too_large_is_ended_and_its_call_blamed() -> None:
    place = Place(memory_limit_bytes=1 << 20)
    place.bounds.begin(100.0)
    place.bounds.look_at_memory(place.worker, 7)
    ((code, message, call),) = place.killed
    assert (code, call) == ("worker_died", 7)
    assert str(1 << 20) in message


def test_a_worker_within_its_memory_goes_on() -> None:
    place = Place()
    place.bounds.begin(100.0)
    place.bounds.look_at_memory(place.worker)
    assert place.killed == []


def test_memory_is_read_for_all_workers_of_a_look_and_not_in_each_look() -> None:
    place = Place(memory_limit_bytes=1 << 20)
    counts = []
    for now_s in (100.0, 100.0 + WATCH_S / 2, 100.0 + WATCH_S):
        place.bounds.begin(now_s)
        place.bounds.look_at_memory(place.worker)
        place.bounds.look_at_memory(place.worker)
        counts.append(len(place.killed))
    assert counts == [2, 2, 4]
