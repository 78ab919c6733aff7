"""What Linux offers to close what a process was not meant to inherit, and to say which is to end first."""

from __future__ import annotations

import os
from pathlib import Path

_OOM_SCORE = "600"


def close_all_except(kept: set[int]) -> None:
    """Close every descriptor from 3 on that is not in `kept`."""
    low = 3
    for descriptor in sorted(kept):
        os.closerange(low, descriptor)
        low = max(low, descriptor + 1)
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def offer_to_oom_killer() -> None:
    """Make this process a likelier victim than the daemon when memory runs out; without the right to, nothing."""
    try:
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    except OSError:
        return
