"""How much of a rate limit is left, in whole numbers, so that nothing is lost or gained by rounding.

Pure. A level counts tokens in parts so small that a microsecond refills a whole number of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

LEVEL_MAX = 2**62  # below what a document can hold, with room to add


class Level(NamedTuple):
    """What is left of a limit.

    Attributes:
        parts: Of tokens; below 0 where some were taken ahead of time.
        at_us: When that was, µs since 1970.
    """

    parts: int
    at_us: int


@dataclass(frozen=True, slots=True)
class TokenBucketRule:
    """Refilled all the time.

    Attributes:
        rate: Tokens in a period.
        period_us: The period.
        capacity: Tokens at most.
        shards: Into so many equal ones the limit is divided; this is the rule of each.
    """

    rate: int
    period_us: int
    capacity: int
    shards: int = 1

    @property
    def token(self) -> int:
        """Parts of one token."""
        return self.period_us * self.shards

    @property
    def full(self) -> int:
        """Parts of a full shard."""
        return self.capacity * self.period_us

    @property
    def full_after_us(self) -> int:
        """After so long any level is full again, one from which all was taken ahead of time too."""
        return -(-2 * self.full // self.rate)

    def now(self, level: Level | None, now_us: int) -> Level:
        """Return what is left now; None was never used, and is full."""
        if level is None:
            return Level(self.full, now_us)
        passed_us = max(now_us - level.at_us, 0)
        return Level(min(self.full, level.parts + passed_us * self.rate), level.at_us + passed_us)

    def wait_us(self, level: Level, parts: int) -> int:
        """Return how long until so many parts are there."""
        return -((level.parts - parts) // self.rate) if level.parts < parts else 0


@dataclass(frozen=True, slots=True)
class FixedWindowRule:
    """Refilled at the beginning of each period, counted from 1970; attributes as those of `TokenBucketRule`."""

    rate: int
    period_us: int
    capacity: int
    shards: int = 1

    @property
    def token(self) -> int:
        """Parts of one token."""
        return self.shards

    @property
    def full(self) -> int:
        """Parts of a full shard."""
        return self.capacity

    @property
    def full_after_us(self) -> int:
        """After so long any level is full again, one from which all was taken ahead of time too."""
        return (-(-2 * self.full // self.rate) + 1) * self.period_us

    def now(self, level: Level | None, now_us: int) -> Level:
        """Return what is left now; None was never used, and is full."""
        if level is None:
            return Level(self.full, now_us)
        windows = max(now_us // self.period_us - level.at_us // self.period_us, 0)
        return Level(min(self.full, level.parts + windows * self.rate), max(now_us, level.at_us))

    def wait_us(self, level: Level, parts: int) -> int:
        """Return how long until so many parts are there."""
        if level.parts >= parts:
            return 0
        windows = -((level.parts - parts) // self.rate)
        return (level.at_us // self.period_us + windows) * self.period_us - level.at_us


Rule = TokenBucketRule | FixedWindowRule
