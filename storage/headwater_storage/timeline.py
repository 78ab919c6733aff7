"""The database's own time: the wall clock, as far as it goes forward.

Leaf; the clock comes from outside. There is one timeline, in the daemon: workers have no
wall clock, each call is told its time. Clocks are set back, jump and stand still; with two
clocks or two processes, what follows could be dated before what it follows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater_storage.environment import Clock

WALL_US_MAX = 2**53 - 2**51
"""A clock beyond this (the year 2184) is not believed: ts begin at the wall clock and must stay below 2^53."""


class Timeline:
    """Readings of time of which each is later than all before.

    Args:
        clock: Wall clock.
        last_us: The newest time that the database knows of, that of the newest record of the log.
    """

    def __init__(self, clock: Clock, last_us: int) -> None:
        self._clock = clock
        self._last_us = last_us

    def next_us(self) -> int:
        """Return the time in µs since 1970, at least 1 µs later than any before.

        While the wall clock is behind, the readings go on from the last one µs by µs.
        """
        wall_us = self._clock.wall_us()
        self._last_us = max(self._last_us + 1, wall_us if wall_us <= WALL_US_MAX else 0)
        return self._last_us

    @property
    def behind_us(self) -> int:
        """How far the wall clock is behind the newest reading; 0 if it is not."""
        return max(0, self._last_us - self._clock.wall_us())
