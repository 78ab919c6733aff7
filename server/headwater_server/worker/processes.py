"""What Linux offers to tie a process to its parent and to close what it was not meant to inherit."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_OOM_SCORE = "600"


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, and end now if it has ended already.

    Args:
        parent: Process id of the parent, as it was before this process began.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        os._exit(1)


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
