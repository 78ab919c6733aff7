"""One shared page that tells the daemon what a worker is doing, also when it can no longer say so.

The worker writes the number and the start of the call it begins, and 0 when it has ended
it; the number of the newest call that it has begun stays. The daemon reads this to see a call that runs too long, and after a death to know which
of the calls that it had sent was running.

A worker of actions, where many run at once, counts how often its loop has turned, and a thread of it
writes down which action keeps the loop from turning, and where in its code.
"""

from __future__ import annotations

import mmap
import os

PAGE_BYTES = mmap.PAGESIZE
_STARTED = 0
_CALL = 1
_BEGUN = 2
_BEATS = 3
_BLAMED = 4
_TEXT_BYTES = 5
_TEXT_START = 64
_TEXT_BYTES_MAX = PAGE_BYTES - _TEXT_START


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

    def beat(self) -> None:
        """Say that the loop turns, and that nobody is to blame for anything (worker of actions)."""
        words = self._words
        words[_BEATS] += 1
        words[_BLAMED] = 0
        words[_TEXT_BYTES] = 0

    def beats(self) -> int:
        """Return how often the loop was said to turn (daemon)."""
        return self._words[_BEATS]

    def blame(self, call: int, text: str) -> None:
        """Say which call keeps the loop from turning, 0 if it is not known, and where it stands (worker of actions)."""
        encoded = text.encode(errors="replace")[-_TEXT_BYTES_MAX:]
        self._map[_TEXT_START : _TEXT_START + len(encoded)] = encoded
        self._words[_TEXT_BYTES] = len(encoded)
        self._words[_BLAMED] = call

    def blamed(self) -> tuple[int, str]:
        """Return what `blame` said since the last beat, 0 and "" if nothing (daemon)."""
        size = min(self._words[_TEXT_BYTES], _TEXT_BYTES_MAX)
        text = self._map[_TEXT_START : _TEXT_START + size]
        return self._words[_BLAMED], text.decode(errors="replace")

    def close(self) -> None:
        """Unmap the page."""
        self._words.release()
        self._map.close()


def make_progress_descriptor() -> int:
    """Return a descriptor of a new page in memory; it is closed on exec and belongs to the caller."""
    descriptor = os.memfd_create("headwater-progress")
    os.ftruncate(descriptor, PAGE_BYTES)
    return descriptor
