"""When a connection must say something, and when its peer is to be given up.

Pure: times are handed in and monotonic.
"""

from __future__ import annotations

from enum import Enum

from headwater_protocol.limits import SILENCE_FACTOR


class Beat(Enum):
    """What a tick asks for."""

    NOTHING = "nothing"
    PING = "ping"
    LOST = "lost"


class Heartbeat:
    """Watches one connection. Its owner sets the two flags at each message and ticks now and then.

    Ticks are the resolution: with at least four an interval, some message is sent in every
    interval. So messages themselves need no clock.

    Attributes:
        heard: Set by the owner at each message from the peer, cleared by `tick`.
        spoke: Set by the owner at each message to the peer, cleared by `tick`.
        interval_s: Each side sends something at least this often.
    """

    def __init__(self, interval_s: float) -> None:
        self.interval_s = interval_s
        self.heard = True
        self.spoke = True
        self._heard_mono = 0.0
        self._spoke_mono = 0.0

    def tick(self, now_mono: float) -> Beat:
        """Return what is due at `now_mono`."""
        if self.heard:
            self.heard = False
            self._heard_mono = now_mono
        if self.spoke:
            self.spoke = False
            self._spoke_mono = now_mono
        if now_mono - self._heard_mono >= SILENCE_FACTOR * self.interval_s:
            return Beat.LOST
        if now_mono - self._spoke_mono >= self.interval_s / 2:
            return Beat.PING
        return Beat.NOTHING
