"""The gate: the proposals of others wait here while calls run again that lost too often.

Whether a proposal may commit is decided without it; it is there so that whoever keeps losing
gets on. It is closed for a bounded time, and after it opened because that had passed it stays
open for as long: nobody waits longer, and those outside get on as well.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_storage.proposal import Proposal

    from headwater_server.functions.mutations import MutationCall


_NOBODY = object()


class Gate:
    """Between finished calls and the committer.

    Args:
        submit: Hands a proposal to the committer.
        later: Does something after a pause in seconds.
        closed_s: How long it is closed at most, and then stays open at least.
        mono_s: Monotonic time.
        waited: Told of each proposal that waited, for how many seconds.
    """

    def __init__(
        self,
        submit: Callable[[Proposal, MutationCall], None],
        later: Callable[[float, Callable[[], None]], object],
        closed_s: float,
        mono_s: Callable[[], float],
        waited: Callable[[float], None],
    ) -> None:
        self._submit = submit
        self._later = later
        self._closed_s = closed_s
        self._mono_s = mono_s
        self._waited = waited
        self._closed_for: set[object] = set()
        self._waiting: deque[tuple[Proposal, MutationCall, float]] = deque()
        self._closing = 0  # number of the last closing: a timer of one before means nothing
        self._resting = False

    @property
    def closed(self) -> bool:
        """Whether proposals wait."""
        return bool(self._closed_for)

    def enter(self, proposal: Proposal, call: MutationCall) -> None:
        """Submit a proposal, now or when the gate opens."""
        if self._closed_for and call not in self._closed_for:
            self._waiting.append((proposal, call, self._mono_s()))
        else:
            self._submit(proposal, call)

    def close(self, calls: Iterable[object]) -> None:
        """Let others wait until these are decided, if the gate has been open for long enough."""
        if self._closed_for or self._resting:
            return
        self._closed_for = set(calls)
        self._closing += 1
        closing = self._closing
        self._later(self._closed_s, lambda: self._time_is_up(closing))

    def hold_back(self) -> None:
        """Let all proposals wait for as long as they may."""
        self.close([_NOBODY])

    def decided(self, call: MutationCall) -> None:
        """A call is decided; with the last of those it is closed for, the gate opens."""
        if call in self._closed_for:
            self._closed_for.discard(call)
            if not self._closed_for:
                self._let_go()

    def _time_is_up(self, closing: int) -> None:
        if closing != self._closing or not self._closed_for:
            return
        self._closed_for.clear()
        self._resting = True
        self._later(self._closed_s, self._rested)
        self._let_go()

    def _rested(self) -> None:
        self._resting = False

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, deque()
        now_s = self._mono_s()
        for proposal, call, since_s in waiting:
            self._waited(now_s - since_s)
            self._submit(proposal, call)
