"""How long a client waits before it connects again.

Pure: randomness is handed in.
"""

from __future__ import annotations

_DOUBLINGS_MAX = 62  # beyond, a float would overflow; any limit is reached long before


def backoff_s(attempt: int, random: float, *, first_s: float = 0.1, limit_s: float = 16.0) -> float:
    """Return the pause before the next attempt: doubling, and spread over its second half.

    Args:
        attempt: Failed attempts since a connection last was settled, from 0.
        random: Uniform in [0, 1): spreads clients that lost their server together.
        first_s: Longest first pause.
        limit_s: Longest pause of all.
    """
    return min(limit_s, first_s * 2.0 ** min(attempt, _DOUBLINGS_MAX)) * (0.5 + random / 2)
