"""Where an append to the log runs: on the event loop if it is of few commits and the disk is quick, else in a thread.

A thread costs more than it saves while an append takes a fraction of a millisecond and there is
little else to do: two wakings and a fight for the interpreter's lock. With much to do the loop
has better things to do than to wait. How long it takes is measured at each append, wherever it runs.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater_storage.environment import Environment
    from headwater_storage.log import AppendOutcome, EncodedRecord, Log

_WEIGHT = 0.1
"""Of the newest append in the typical one."""
_SLOW_FACTOR = 4.0
"""Times the limit: what a slow append makes the typical one at least. Some fifteen quick ones have to follow it."""
_FEW = 4
"""Commits of a batch that says that there is not much to do. With 64 mutations under way it has some 15."""
_FIRST_GUESS = 2.0
"""Times the limit: a disk is known to be quick only when it was a few times."""


class Appender:
    """Appends records, one at a time.

    Args:
        log: Claimed.
        environment: The clock, and threads.
        quick_s: An append of few commits that is expected to take less runs on the event loop; 0: none does.
    """

    def __init__(self, log: Log, environment: Environment, quick_s: float) -> None:
        self._log = log
        self._environment = environment
        self._quick_s = quick_s
        self._typical_s = quick_s * _FIRST_GUESS

    def is_quick(self, commits: int) -> bool:
        """Tell whether an append of so many commits is to run on the event loop."""
        return commits <= _FEW and self._typical_s < self._quick_s

    def append(self, record: EncodedRecord, commits: int) -> asyncio.Future[AppendOutcome]:
        """Append a record of so many commits; see `Log.append`. One that ran on the event loop is done on return."""
        if not (self.is_quick(commits) and self._log.has_place(record)):
            return asyncio.wrap_future(self._environment.executor.submit(partial(self._timed, record)))
        future: asyncio.Future[AppendOutcome] = asyncio.get_running_loop().create_future()
        try:
            future.set_result(self._timed(record))
        except Exception as error:
            future.set_exception(error)
        return future

    def _timed(self, record: EncodedRecord) -> AppendOutcome:
        mono_s = self._environment.clock.mono_s
        began_s = mono_s()
        outcome = self._log.append(record)
        took_s = mono_s() - began_s
        self._typical_s += _WEIGHT * (took_s - self._typical_s)
        if took_s > self._quick_s:  # it may be a disk that others sync to for a while
            self._typical_s = max(self._typical_s, _SLOW_FACTOR * self._quick_s)
        return outcome
