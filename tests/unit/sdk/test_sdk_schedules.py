"""Times of crons, days included on which clocks are put forward or back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from headwater.schedules import Passed, Schedule, crontab, daily, every, hourly, monthly, weekly
from headwater_protocol.errors import RequestError
from hypothesis import given, settings
from hypothesis import strategies as st

BERLIN = "Europe/Berlin"
DAY_US = 86_400_000_000


def us(*parts: int, zone: str = "UTC", fold: int = 0) -> int:
    moment = datetime(*parts, tzinfo=ZoneInfo(zone), fold=fold)  # type: ignore[arg-type, misc]
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def times(schedule: Schedule, after_us: int, count: int, zone: str = "UTC") -> list[str]:
    """Return the next times as a clock on the wall there shows them, with their distance to UTC."""
    found = []
    for _ in range(count):
        after_us = schedule.next_us(after_us)
        moment = datetime.fromtimestamp(after_us / 1e6, ZoneInfo(zone))
        found.append(f"{moment:%d %H:%M %z}")
    return found


def test_each_kind_of_schedule_comes_when_it_says() -> None:
    begin = us(2026, 1, 30, 12, 0)  # a Friday
    assert times(hourly(minute=5), begin, 2) == ["30 12:05 +0000", "30 13:05 +0000"]
    assert times(daily("03:30"), begin, 2) == ["31 03:30 +0000", "01 03:30 +0000"]
    assert times(weekly("monday", "8:00"), begin, 2) == ["02 08:00 +0000", "09 08:00 +0000"]
    assert times(weekly("sunday"), begin, 1) == ["01 00:00 +0000"]
    assert times(monthly(31, "01:00"), begin, 2) == ["31 01:00 +0000", "31 01:00 +0000"]  # none in February
    assert times(monthly("last", "01:00"), begin, 2) == ["31 01:00 +0000", "28 01:00 +0000"]
    assert times(crontab("0 9-10 * * mon-fri"), begin, 2) == ["02 09:00 +0000", "02 10:00 +0000"]
    assert every(minutes=10, seconds=5).next_us(begin) == begin + 605_000_000


def test_a_time_is_that_of_its_zone() -> None:
    begin = us(2026, 6, 1, 12, 0)
    assert times(daily("03:30", time_zone=BERLIN), begin, 1) == ["02 01:30 +0000"]
    assert times(hourly(minute=0, time_zone="Asia/Kolkata"), begin, 1) == ["01 12:30 +0000"]


def test_a_time_that_a_day_does_not_have_is_the_first_one_behind_it() -> None:
    """In Berlin 02:00 is followed by 03:00 on 29 March 2026."""
    begin = us(2026, 3, 28, 12, 0)
    assert times(daily("02:30", time_zone=BERLIN), begin, 2, BERLIN) == ["29 03:00 +0200", "30 02:30 +0200"]
    twice = crontab("0,30 2 * * *", time_zone=BERLIN)
    assert times(twice, begin, 2, BERLIN) == ["29 03:00 +0200", "30 02:00 +0200"], "once, not twice"
    assert times(hourly(minute=30, time_zone=BERLIN), us(2026, 3, 29, 0, 0), 2, BERLIN) == [
        "29 01:30 +0100",
        "29 03:30 +0200",
    ]


def test_a_time_that_a_day_has_twice_comes_once() -> None:
    """In Berlin 03:00 is followed by 02:00 on 25 October 2026."""
    begin = us(2026, 10, 24, 12, 0)
    nightly = daily("02:30", time_zone=BERLIN)
    assert times(nightly, begin, 2, BERLIN) == ["25 02:30 +0200", "26 02:30 +0100"]
    second = us(2026, 10, 25, 2, 10, zone=BERLIN, fold=1)
    assert times(nightly, second, 1, BERLIN) == ["26 02:30 +0100"], "it has come already, an hour ago"
    assert times(hourly(minute=30, time_zone=BERLIN), us(2026, 10, 25, 0, 0), 3, BERLIN) == [
        "25 02:30 +0200",
        "25 02:30 +0100",
        "25 03:30 +0100",
    ]


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(
        ["0 * * * *", "*/15 * * * *", "30 2 * * *", "0,30 2 * * *", "15 1-3 * * *", "30 2 * * 0"]
    ),
    st.sampled_from([BERLIN, "America/New_York", "Australia/Lord_Howe", "America/Santiago", "UTC"]),
    st.integers(us(2024, 1, 1), us(2027, 1, 1)),
)
def test_each_time_is_later_than_the_one_before(text: str, zone: str, begin: int) -> None:
    schedule = Schedule(text, zone)
    at = begin
    for _ in range(30):
        following = schedule.next_us(at)
        assert following > at
        assert schedule.next_us(following - 1) == following, "the same, wherever one begins to look"
        at = following
    assert at - begin < 30 * 8 * DAY_US


def test_times_that_have_passed_are_counted() -> None:
    begin = us(2026, 1, 1)
    assert every(seconds=10).passed(begin, begin + 35_000_000) == Passed(
        begin + 30_000_000, 3, begin + 40_000_000
    )
    assert daily().passed(begin, begin) == Passed(begin, 0, begin + DAY_US)
    assert daily().passed(begin, begin + 3 * DAY_US + 5) == Passed(begin + 3 * DAY_US, 3, begin + 4 * DAY_US)
    long = crontab("* * * * *").passed(begin, begin + 400 * DAY_US)
    assert long == Passed(begin + 400 * DAY_US, 1_000, begin + 400 * DAY_US + 60_000_000)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: daily("25:00"), "expected a time of day, such as \"03:30\", got '25:00'"),
        (lambda: daily("03:30", time_zone="Europe/Nowhere"), "there is no time zone 'Europe/Nowhere'"),
        (lambda: daily("03:30", time_zone="../etc/passwd"), "there is no time zone"),
        (lambda: hourly(minute=60), "minute: expected 0 to 59, got 60"),
        (lambda: monthly(0), "day: expected 1 to 31, got 0"),
        (lambda: weekly("someday"), "expected a day, such as 'monday', got 'someday'"),  # type: ignore[arg-type]
        (lambda: every(), "expected whole numbers that make 1 s to 366 days, got 0 s"),
        (lambda: every(minutes=0.5), "got 30.0 s"),  # type: ignore[arg-type]
        (lambda: crontab("* * * *"), "expected five fields"),
        (lambda: crontab("* * * * * *"), "expected five fields"),
        (lambda: crontab("61 * * * *"), "is no cron expression: Bad minute"),
        (lambda: crontab("0 0 31 2 *"), "is no cron expression: Bad day-of-month"),
    ],
)
def test_what_is_no_schedule_is_refused(make: object, said: str) -> None:
    with pytest.raises(RequestError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.code == "invalid_bundle"
    assert said in caught.value.message
