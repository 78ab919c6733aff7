"""Where an append to the log runs: on the event loop while the disk is quick, in a thread while it is not.

A thread costs the loop more than it saves while an append takes a fraction of a millisecond:
two wakings, a fight for the interpreter's lock, and on a small machine the processor on which a
worker would run. What the disk takes is measured at each append, wherever it runs.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from headwater_storage.environment import Environment
    from headwater_storage.log import AppendOutcome, EncodedRecord, Log

_WEIGHT = 0.1
"""Of the newest append in the typical one: after a long one some tens run in threads before the disk counts as quick again."""
_FIRST_GUESS = 2.0
"""Times the limit: a disk is known to be quick only when it was a few times."""


class Appender:
    """Appends records, one at a time.

    Args:
        log: Claimed.
        environment: The clock, and threads.
        quick_s: An append that is expected to take less runs on the event loop; 0: none does.
    """

    def __init__(self, log: Log, environment: Environment, quick_s: float) -> None:
        self._log = log
        self._environment = environment
        self._quick_s = quick_s
        self._typical_s = quick_s * _FIRST_GUESS

    @property
    def is_quick(self) -> bool:
        """Tell whether the next append is expected to run on the event loop."""
        return self._typical_s < self._quick_s

    def append(self, record: EncodedRecord) -> asyncio.Future[AppendOutcome]:
        """Append a record; see `Log.append`. One that ran on the event loop is done on return."""
        if not (self.is_quick and self._log.has_place(record)):
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
        self._typical_s += _WEIGHT * (mono_s() - began_s - self._typical_s)
        return outcome
