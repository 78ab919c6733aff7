"""A rate with bursts, kept as one number: until when what was taken is earned.

Pure. Nothing is counted down or refilled: taking moves that time on by what it costs at the rate, and it may be ahead of
now by a burst at most. It is the token bucket in the form of the generic cell rate algorithm.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rate:
    """How much of something there may be.

    Attributes:
        per_s: In a second, on average; above 0.
        burst_s: The rate of so many seconds may be taken at once.
    """

    per_s: float
    burst_s: float


class TokenBucket:
    """What is left of a rate for one taker; a new one is full.

    Args:
        rate: How much there may be.
    """

    __slots__ = ("_earned_s", "_rate")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._earned_s = float("-inf")  # monotonic; the past for a bucket that is full

    def wait_s(self, now_s: float, cost: float = 1.0) -> float:
        """Return how long to wait until so much is there, 0 if it is."""
        earned_s, rate = self._earned_s, self._rate
        ahead_s = (earned_s - now_s if earned_s > now_s else 0.0) + cost / rate.per_s
        return ahead_s - rate.burst_s if ahead_s > rate.burst_s else 0.0

    def take(self, now_s: float, cost: float = 1.0) -> None:
        """Take so much, whether it is there or not: what is missing, later takers wait for."""
        earned_s = self._earned_s
        self._earned_s = (earned_s if earned_s > now_s else now_s) + cost / self._rate.per_s

    def owes_s(self, now_s: float) -> float:
        """Return how long it takes until what was taken and was not there is earned, 0 if nothing is owed."""
        owed_s = self._earned_s - now_s - self._rate.burst_s
        return owed_s if owed_s > 0 else 0.0
