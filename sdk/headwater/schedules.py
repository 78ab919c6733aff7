"""When crons run: intervals, and times of day in a time zone.

Pure but for the time zone database, which is imported, as cronsim is, where a bundle has crons. A time that a day does not have, as clocks are put forward, counts as the first
one that it has behind it; one that a day has twice, as clocks are put back, counts as the earlier of the two. What
runs each hour, or more often than that, goes by real time instead: it is left out and doubled with the hour.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Literal

from headwater.refusals import invalid_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

Day = Literal["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]

_DAYS: tuple[Day, ...] = ("sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday")
_EVERY = re.compile(r"every ([1-9][0-9]{0,9})s").fullmatch
_TIME = re.compile(r"([01]?[0-9]|2[0-3]):([0-5][0-9])").fullmatch
_SECOND_US = 1_000_000
_INTERVAL_MAX_S = 366 * 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_COUNTED_MAX = 1_000
_BACK_US = 25 * 3600 * _SECOND_US
"""So far back the latest time is looked for when there were very many: they were no more than a day apart."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a cron runs. Make it with `every`, `hourly`, `daily`, `weekly`, `monthly` or `crontab`.

    Attributes:
        text: `every 600s`, or a cron expression of five fields.
        time_zone: Name of the time zone in which a cron expression is meant.
    """

    text: str
    time_zone: str = "UTC"

    def next_us(self, after_us: int) -> int:
        """Return the first time of it behind another, µs since 1970; of an interval, one interval later.

        Raises:
            RequestError: `invalid_bundle`: there is none.
        """
        for found in self._from(after_us):
            return found
        raise invalid_bundle(f"{self.text!r} never comes")

    def passed(self, due_us: int, now_us: int) -> Passed:
        """Tell which times have passed since one was due.

        Args:
            due_us: A time of it, that has passed.
            now_us: The present.
        """
        interval_us = self._interval_us
        if interval_us:
            count = (now_us - due_us) // interval_us
            latest_us = due_us + count * interval_us
            return Passed(latest_us, count, latest_us + interval_us)
        latest_us, missed = due_us, 0
        following = self._from(due_us)
        for next_us in following:
            if next_us > now_us:
                return Passed(latest_us, missed, next_us)
            latest_us, missed = next_us, missed + 1
            if missed == _COUNTED_MAX and now_us - _BACK_US > next_us:
                following = self._from(now_us - _BACK_US)
                break
        for next_us in following:
            if next_us > now_us:
                return Passed(latest_us, missed, next_us)
            latest_us = next_us
        raise invalid_bundle(f"{self.text!r} never comes again")

    @property
    def _interval_us(self) -> int:
        found = _EVERY(self.text)
        return int(found[1]) * _SECOND_US if found else 0

    def _from(self, after_us: int) -> Iterator[int]:
        """Yield the times behind another one, each later than the one before."""
        interval_us = self._interval_us
        if interval_us:
            while True:
                after_us += interval_us
                yield after_us
        from cronsim import CronSim

        zone = _zone(self.time_zone)
        begin = (_EPOCH + timedelta(microseconds=after_us)).astimezone(zone)
        for found in CronSim(self.text, begin):
            # The same time comes twice where several fall into an hour that a day does not have, and one that has
            # passed comes where the present is in an hour that the day has twice.
            found_us = (found - _EPOCH) // timedelta(microseconds=1)
            if found_us > after_us:
                after_us = found_us
                yield found_us


@dataclass(frozen=True, slots=True)
class Passed:
    """Times of a schedule that have passed.

    Attributes:
        latest_us: The latest of them.
        missed: How many before that, from the one that was due; no more are counted than 1,000.
        next_us: The first one to come.
    """

    latest_us: int
    missed: int
    next_us: int


def every(*, seconds: int = 0, minutes: int = 0, hours: int = 0, days: int = 0) -> Schedule:
    """Run again and again, so much time apart; the first time so long after the deploy that begins with it."""
    total_s = seconds + 60 * minutes + 3600 * hours + 86_400 * days
    if type(total_s) is not int or not 1 <= total_s <= _INTERVAL_MAX_S:
        raise invalid_bundle(f"every(...): expected whole numbers that make 1 s to 366 days, got {total_s} s")
    return Schedule(f"every {total_s}s")


def hourly(*, minute: int = 0, time_zone: str = "UTC") -> Schedule:
    """Run each hour, at a minute."""
    return _checked("hourly", f"{_within('hourly', 'minute', minute, 0, 59)} * * * *", time_zone)


def daily(at: str = "00:00", *, time_zone: str = "UTC") -> Schedule:
    """Run each day at a time, such as "03:30"."""
    return _checked("daily", f"{_time('daily', at)} * * *", time_zone)


def weekly(day: Day, at: str = "00:00", *, time_zone: str = "UTC") -> Schedule:
    """Run each week, on a day at a time."""
    if day not in _DAYS:
        raise invalid_bundle(f"weekly(...): expected a day, such as 'monday', got {day!r}")
    return _checked("weekly", f"{_time('weekly', at)} * * {_DAYS.index(day)}", time_zone)


def monthly(day: int | Literal["last"], at: str = "00:00", *, time_zone: str = "UTC") -> Schedule:
    """Run each month, on a day at a time; months that have no such day are left out, "last" is in each."""
    shown = "L" if day == "last" else _within("monthly", "day", day, 1, 31)
    return _checked("monthly", f"{_time('monthly', at)} {shown} * *", time_zone)


def crontab(expression: str, *, time_zone: str = "UTC") -> Schedule:
    """Run at the times of a cron expression: minute, hour, day of the month, month, day of the week."""
    return _checked("crontab", expression, time_zone)


def _within(where: str, what: str, value: int, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise invalid_bundle(f"{where}(...): {what}: expected {low} to {high}, got {value!r}")
    return value


def _time(where: str, at: str) -> str:
    found = _TIME(at) if isinstance(at, str) else None
    if found is None:
        raise invalid_bundle(f'{where}(...): expected a time of day, such as "03:30", got {at!r}')
    return f"{int(found[2])} {int(found[1])}"


def _checked(where: str, expression: str, time_zone: str) -> Schedule:
    """Return a schedule of a cron expression.

    Raises:
        RequestError: `invalid_bundle`: it is none, or never comes.
    """
    from cronsim import CronSim, CronSimError

    try:
        _zone(time_zone)
    except (KeyError, ValueError, TypeError, OSError):
        raise invalid_bundle(
            f'{where}(...): there is no time zone {time_zone!r}; expected a name such as "Europe/Berlin"'
        ) from None
    text = " ".join(expression.split()) if isinstance(expression, str) else ""
    if len(text.split(" ")) != 5:
        raise invalid_bundle(
            f"{where}(...): expected five fields (minute, hour, day, month, day of the week), got {expression!r}"
        )
    try:
        CronSim(text, _EPOCH)
    except CronSimError as error:
        raise invalid_bundle(f"{where}(...): {expression!r} is no cron expression: {error}") from None
    schedule = Schedule(text, time_zone)
    schedule.next_us(0)
    return schedule


@cache
def _zone(name: str) -> tzinfo:
    """Return a time zone; KeyError and others if there is none."""
    from zoneinfo import ZoneInfo

    return UTC if name == "UTC" else ZoneInfo(name)
