"""The database's time against a wall clock that jumps."""

from __future__ import annotations

import itertools
import random

import pytest
from headwater_protocol.ids import TIME_US_MAX, created_us_of, make_suffix
from headwater_storage.timeline import WALL_US_MAX, Timeline
from support.storage_world import FakeClock

HOUR_S, YEAR_S = 3600.0, 31_557_600.0
JUMPS_S = (0.0, 1e-6, 0.01, 1.0, HOUR_S, -HOUR_S, 10 * YEAR_S, -10 * YEAR_S, 1e15, -1e15)


def readings(jumps_s: list[float]) -> list[int]:
    clock = FakeClock()
    timeline = Timeline(clock, 0)
    found = []
    for jump_s in jumps_s:
        clock.now_s += jump_s
        found += [timeline.next_us() for _ in range(3)]
    return found


def test_each_reading_is_later_than_all_before() -> None:
    chance = random.Random(1)
    for _ in range(300):
        found = readings(chance.choices(JUMPS_S, k=20))
        assert all(before < after for before, after in itertools.pairwise(found))
        assert found[0] > 0
        assert found[-1] < 2**53


def test_a_clock_that_goes_forward_is_followed() -> None:
    clock = FakeClock()
    timeline = Timeline(clock, 0)
    for jump_s in (0.5, HOUR_S, 10 * YEAR_S):
        clock.now_s += jump_s
        assert timeline.next_us() == clock.wall_us()


def test_a_clock_that_went_back_is_followed_again_once_it_has_caught_up() -> None:
    clock = FakeClock()
    timeline = Timeline(clock, 0)
    newest_us = timeline.next_us()
    clock.now_s -= HOUR_S
    assert timeline.next_us() == newest_us + 1
    assert timeline.behind_us == 3_600_000_001
    clock.now_s += HOUR_S + 1
    assert timeline.behind_us == 0
    assert timeline.next_us() == clock.wall_us() == newest_us + 1_000_000


def test_time_goes_on_from_what_the_log_has() -> None:
    clock = FakeClock()
    last_us = clock.wall_us() + 5_000_000
    assert Timeline(clock, last_us).next_us() == last_us + 1
    clock.now_s += 10
    assert Timeline(clock, last_us).next_us() == clock.wall_us()


@pytest.mark.parametrize(("wall_us", "expected"), [(WALL_US_MAX, WALL_US_MAX), (WALL_US_MAX + 1, 8), (-1, 8)])
def test_a_clock_in_another_age_is_not_believed(wall_us: int, expected: int) -> None:
    class Standing(FakeClock):
        def wall_us(self) -> int:
            return wall_us

    assert Timeline(Standing(), 7).next_us() == expected


def test_ids_hold_every_time_there_can_be() -> None:
    assert WALL_US_MAX < 2**53 < TIME_US_MAX
    noise = b"\xff" * 10
    times_us = [0, 1, 31, 32, 2**40, WALL_US_MAX, 2**53 - 1, TIME_US_MAX]
    suffixes = [make_suffix(us, sequence, noise) for us in times_us for sequence in (0, 32**4 - 1)]
    assert suffixes == sorted(suffixes)
    assert [created_us_of(suffix) for suffix in suffixes[::2]] == times_us
    for wrong_us in (-1, TIME_US_MAX + 1):
        with pytest.raises(ValueError, match="out of range"):
            make_suffix(wrong_us, 0, noise)


def test_times_remain_apart_as_the_floats_that_users_see() -> None:
    chance = random.Random(2)
    for us in [WALL_US_MAX, *(chance.randrange(WALL_US_MAX) for _ in range(2000))]:
        assert (us - 1) / 1000 < us / 1000
