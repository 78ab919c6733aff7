"""Which log segments may go.

Pure. What a checkpoint does not cover must stay; beyond that, some log is kept so that the
store can be checked against it and damaged pages repaired from it.
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
    """

    base_number: int
    size: int


def removable(segments: Sequence[SegmentExtent], up_to_number: int, keep_bytes: int) -> list[int]:
    """Return base numbers of the segments to remove, oldest first.

    Args:
        segments: All of them, in order.
        up_to_number: Records before this one are not needed to recover; a start compares this one
            with the store.
        keep_bytes: Of segments that are not needed, keep the newest as far as they fit.
    """
    not_needed = [
        segment
        for segment, following in itertools.pairwise(segments)
        if following.base_number <= up_to_number
    ]
    kept = 0
    for count, segment in enumerate(reversed(not_needed)):
        kept += segment.size
        if kept > keep_bytes:
            return [gone.base_number for gone in not_needed[: len(not_needed) - count]]
    return []
