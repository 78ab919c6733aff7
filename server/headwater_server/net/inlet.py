"""How much of what clients send is taken in at a time, so that what they sent before gets on meanwhile.

Without it a flood would be read as fast as it comes, a whole buffer of each client in a turn of the event loop,
and refusing would take the time that answering needs.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_server.net.connection import Connection


logger = logging.getLogger("headwater.inlet")

_PAUSE_S = 0.01
_LATE_S = 0.001
_IDLE_SHARE = 0.6


@dataclass(frozen=True, slots=True)
class InletLimits:
    """How much is taken.

    Attributes:
        turn_max: Messages of all clients in one turn of the event loop.
        full_share: Part of the time for taking messages, and refusing most of them, while the daemon
            can take no more. More if it has nothing else to do: what is left of a flood is gone soon.
    """

    turn_max: int = 64
    full_share: float = 0.1


class Inlet:
    """Lets messages in; those that may not yet wait, and of each client the first is next.

    Args:
        limits: How much.
        full: Tells whether what is let in will be refused.
        mono_s: Monotonic clock.
        soon: Calls something in the next turn of the event loop.
        later: Calls something after so many seconds.
    """

    def __init__(
        self,
        limits: InletLimits,
        full: Callable[[], bool],
        mono_s: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
        later: Callable[[float, Callable[[], None]], object],
    ) -> None:
        self._limits = limits
        self._full = full
        self._mono_s = mono_s
        self._soon = soon
        self._later = later
        self._taken = 0
        self._turn_due = False
        self._due_s = 0.0
        self._waiting: deque[Inflow] = deque()

    def free(self) -> bool:
        """Tell whether a message may be taken now, and count it if so."""
        if self._waiting or self._taken >= self._limits.turn_max or self._full():
            return False
        self._taken += 1
        self._need_turn()
        return True

    def wait(self, inflow: Inflow) -> None:
        """Have a client's messages taken when it is their turn."""
        self._waiting.append(inflow)
        self._need_turn()

    def _need_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            if self._waiting and self._full():
                self._due_s = self._mono_s() + _PAUSE_S
                self._later(_PAUSE_S, self._turn)
            else:
                self._soon(self._turn)

    def _turn(self) -> None:
        self._turn_due = False
        self._taken = 0
        now_s = self._mono_s()
        share = self._limits.full_share if now_s > self._due_s + _LATE_S else _IDLE_SHARE
        over_s = now_s + share * _PAUSE_S
        while self._waiting and self._taken < self._limits.turn_max:
            if self._full() and self._mono_s() >= over_s:
                break
            inflow = self._waiting.popleft()
            self._taken += inflow.take_one()
            if inflow.has_more and not inflow.is_stopped:
                self._waiting.append(inflow)
        if self._waiting or self._taken:
            self._need_turn()


class Inflow:
    """What one client has sent and is not taken yet; while there is something, no more is read of it.

    Args:
        inlet: Where it waits.
        connection: Whose.
        pause: Stops reading of the client.
        read_on: Reads of it again.
    """

    def __init__(
        self, inlet: Inlet, connection: Connection, pause: Callable[[], None], read_on: Callable[[], None]
    ) -> None:
        self._inlet = inlet
        self._connection = connection
        self._pause = pause
        self._read_on = read_on
        self._messages: deque[bytes] = deque()
        self._is_closed = False
        self._is_stopped = (
            False  # its client has too much in flight: it is in no queue until something is answered
        )
        connection.has_room = self._go_on

    @property
    def is_stopped(self) -> bool:
        """Whether none of it may be taken until something of its client is answered."""
        return self._is_stopped

    @property
    def has_more(self) -> bool:
        """Whether anything waits."""
        return bool(self._messages)

    def feed(self, messages: Iterable[bytes]) -> None:
        """Take messages, or let them wait for their turn."""
        waits = self.has_more
        for message in messages:
            if self._is_closed:
                return
            if not waits and not self.has_more and not self._connection.is_full and self._inlet.free():
                self._take(message)
            else:
                self._messages.append(message)
        if self.has_more and not waits:
            self._pause()
            self._inlet.wait(self)

    def _go_on(self) -> None:
        """Let what waits have its turn again."""
        if self._is_stopped:
            self._is_stopped = False
            if self.has_more:
                self._inlet.wait(self)

    def take_one(self) -> bool:
        """Take the next message; False if there was none, or none may be taken."""
        if not self._messages:
            return False
        if self._connection.is_full:
            self._is_stopped = True
            return False
        self._take(self._messages.popleft())
        if not self._messages:
            self._read_on()
        return True

    def _take(self, message: bytes) -> None:
        try:
            self._connection.receive(message)
        except Exception:  # the others are next, whatever is wrong with this one
            logger.exception("connection_failed")
            self.close()
            self._connection.cut()

    def close(self) -> None:
        """Forget what waits, and take nothing more: the client is gone."""
        self._is_closed = True
        self._connection.has_room = None
        self._messages.clear()
