"""Which calls meet others on the same documents so often that they had better go to the lane at once.

Pure. Every first run is evidence: outside of the lane, whether it lost; inside, whether it
read what somebody had written since its snapshot, so that it would have lost outside. When
the contention ends the evidence does, and calls stay outside again.
"""

from __future__ import annotations

NAMES_MAX = 4096
"""Functions that are remembered: names come from clients and need not be functions."""

_WEIGHT = 1 / 32
_SESSION_WEIGHT = 1 / 8
_THRESHOLD = 0.35
"""Share from which on the lane is better: below it two workers do more, for all their reruns.

It is well below the shares of hot documents, so that those do not fall below it by chance: who
runs outside then costs a chain.
"""


class Contention:
    """Shares of calls that met others, by function."""

    def __init__(self) -> None:
        self._shares: dict[str, float] = {}

    def expects(self, name: str) -> bool:
        """Tell whether most calls of a function meet others."""
        return self._shares.get(name, 0.0) > _THRESHOLD

    def note(self, name: str, *, met: bool) -> None:
        """Take note of a call that met others, or met nobody."""
        share = self._shares.get(name, 0.0)
        if not met and share < _WEIGHT / NAMES_MAX:
            self._shares.pop(name, None)
            return
        if not share and len(self._shares) >= NAMES_MAX:
            self._shares.clear()
        self._shares[name] = share + (met - share) * _WEIGHT


class SessionContention:
    """The same of one session: a client on documents of its own does not wait for those of a hot one.

    Only calls of functions that are contended count, and a session without evidence is taken
    to be like the others.
    """

    __slots__ = ("_share",)

    def __init__(self) -> None:
        self._share = 1.0

    def expected(self) -> bool:
        """Tell whether most of its calls meet others."""
        return self._share > _THRESHOLD

    def note(self, *, met: bool) -> None:
        """Take note of a call."""
        self._share += (met - self._share) * _SESSION_WEIGHT
