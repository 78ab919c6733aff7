"""One shared page that tells the daemon what a worker is doing, also when it can no longer say so.

The worker writes the number and the start of the call it begins, and 0 when it has ended
it; the number of the newest call that it has begun stays. The daemon reads this to see a call that runs too long, and after a death to know which
of the calls that it had sent was running.
"""

from __future__ import annotations

import mmap
import os

PAGE_BYTES = mmap.PAGESIZE
_STARTED = 0
_CALL = 1
_BEGUN = 2


class ProgressPage:
    """The page, mapped. Either side makes one over the same descriptor, which may be closed after that."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, PAGE_BYTES)
        self._words = memoryview(self._map).cast("Q")

    def begin(self, call: int, mono_ns: int) -> None:
        """Say that a call begins (worker).

        The start goes first: a reader that sees the new call never sees an older start with it.
        """
        words = self._words
        words[_STARTED] = mono_ns
        words[_BEGUN] = call
        words[_CALL] = call

    def end(self) -> None:
        """Say that nothing runs (worker)."""
        self._words[_CALL] = 0

    def running(self) -> tuple[int, int]:
        """Return the call that runs, 0 if none, and when it began on the monotonic clock in ns (daemon)."""
        call = self._words[_CALL]
        return call, self._words[_STARTED]

    def begun(self) -> int:
        """Return the newest call that was begun, 0 before the first; numbers rise (daemon)."""
        return self._words[_BEGUN]

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._map.close()


def make_progress_descriptor() -> int:
    """Return a descriptor of a new page in memory; it is closed on exec and belongs to the caller."""
    descriptor = os.memfd_create("headwater-progress")
    os.ftruncate(descriptor, PAGE_BYTES)
    return descriptor
