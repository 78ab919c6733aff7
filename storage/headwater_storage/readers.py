"""How long snapshots have been held that commits have left behind. Pure.

While a snapshot is open, no page that was freed since it was taken is used again: the store's
file grows by all that is written. So each has to end, whatever has become of who holds it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class OldReader(NamedTuple):
    """A snapshot of another process that is not the newest.

    Attributes:
        process: Id of the process that holds it.
        transaction: The store's number for the write that it shows.
    """

    process: int
    transaction: int


class ReaderAges:
    """Counts for how long each one has been there.

    Between two looks no more than `step_s` is counted: a daemon that stood still has not ended
    the rounds that it would have ended meanwhile.
    """

    def __init__(self, step_s: float) -> None:
        self._step_s = step_s
        self._looked_s: float | None = None
        self._ages_s: dict[OldReader, float] = {}

    def look(self, readers: Iterable[OldReader], now_s: float) -> dict[OldReader, float]:
        """Return for how long those that are there now have been seen without a break, in s."""
        passed_s = 0.0 if self._looked_s is None else min(now_s - self._looked_s, self._step_s)
        self._looked_s = now_s
        before = self._ages_s
        self._ages_s = {reader: before[reader] + passed_s if reader in before else 0.0 for reader in readers}
        return self._ages_s
