"""Which log segments may go.

Pure. What a checkpoint does not cover must stay; beyond that, some log is kept so that the
store can be checked against it and damaged pages repaired from it. Size and age both limit it.

Ages are taken on the log's own time, which begins at each opening with the time of its claim and
goes on with the monotonic clock: a wall clock that jumps while the daemon runs makes nothing older
or younger, and one that went back makes an opening begin where the log was. A wall clock that is
wrong and ahead at an opening makes everything before look old; this never touches what recovery
needs.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence


class SegmentExtent(NamedTuple):
    """One segment for the decision.

    Attributes:
        base_number: Number of its first record.
        size: Its bytes on disk.
        began_us: Log time when it was begun: the one before it ended then.
    """

    base_number: int
    size: int
    began_us: int = 0


def removable(
    segments: Sequence[SegmentExtent], up_to_number: int, keep_bytes: int, now_us: int = 0, keep_us: int = 0
) -> list[int]:
    """Return base numbers of the segments to remove, oldest first.

    Args:
        segments: All of them, in order.
        up_to_number: Records before this one are not needed to recover; a start compares this one
            with the store.
        keep_bytes: Of segments that are not needed, keep the newest as far as they fit.
        now_us: Log time.
        keep_us: Of segments that are not needed, keep those that ended no longer ago; 0 for no limit.
    """
    not_needed = [
        (segment, following.began_us)
        for segment, following in itertools.pairwise(segments)
        if following.base_number <= up_to_number
    ]
    kept_bytes, kept = 0, 0
    for segment, ended_us in reversed(not_needed):
        kept_bytes += segment.size
        if kept_bytes > keep_bytes or (keep_us and now_us - ended_us > keep_us):
            break
        kept += 1
    return [segment.base_number for segment, _ in not_needed[: len(not_needed) - kept]]
