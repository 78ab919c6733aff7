"""Which jobs of one kind run next: a few of those that are due first, however many wait.

Pure: no clock, no IO. The database is looked at when what is known has been used up, or may have been overtaken
by what was scheduled since.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from headwater_storage.job_rows import DueJob


class DueJobs:
    """The next jobs of one kind, and those that run.

    Invariant: while no look is due, every pending job that is not running is in `_next`, or due no earlier than
    the last one there; and there is one there, or no other pending job at all.

    Attributes:
        running: Ids of the jobs that have a place.
    """

    def __init__(self, running_max: int, known_max: int) -> None:
        """Begin without having looked.

        Args:
            running_max: Places: so many jobs run at a time.
            known_max: So many are looked up at a time.
        """
        self.running: set[str] = set()
        self.known_max = known_max
        self._running_max = running_max
        self._next: deque[DueJob] = deque()
        self._all_known = False
        self._overtaken = False

    @property
    def look_due(self) -> bool:
        """Whether there is a place, and what is known does not tell which job comes next."""
        return self._has_place and (self._overtaken or not (self._next or self._all_known))

    @property
    def next_due_us(self) -> int | None:
        """When a place has something to do; None: not before a place is free or something is scheduled."""
        return self._next[0].due_us if self._next and self._has_place else None

    @property
    def _has_place(self) -> bool:
        return len(self.running) < self._running_max

    def scheduled(self, due_us: int) -> None:
        """A job was scheduled, or waits again, maybe of another kind."""
        if self._all_known or (self._next and due_us < self._next[-1].due_us):
            self._overtaken = True

    def looked(self, found: Sequence[DueJob]) -> None:
        """Take what the database says: the pending jobs that are due first and do not run, `known_max` if there are so many."""
        self._next = deque(found)
        self._all_known = len(found) < self.known_max
        self._overtaken = False

    def take(self, now_us: int) -> DueJob | None:
        """Give the next job a place; None if there is no place or nothing is due."""
        due_us = self.next_due_us
        if due_us is None or due_us > now_us:
            return None
        job = self._next.popleft()
        self.running.add(job.id)
        return job

    def ended(self, job_id: str) -> None:
        """Free a job's place."""
        self.running.discard(job_id)


def wait_s(queues: Iterable[DueJobs], now_us: int, look_s: float) -> float:
    """Return how long nothing has to be done, unless somebody schedules something: `look_s` at most.

    A wall clock may be set meanwhile, which is noticed by then.
    """
    due = [due_us for queue in queues if (due_us := queue.next_due_us) is not None]
    return min([look_s, *(max(0.0, (due_us - now_us) / 1e6) for due_us in due)])
