from __future__ import annotations

import pytest
from headwater_storage.retention import SegmentExtent, removable

SEGMENTS = [SegmentExtent(base, 100) for base in (1, 11, 21, 31)]


@pytest.mark.parametrize(
    ("up_to", "keep", "gone"),
    [
        (0, 0, []),
        (9, 0, []),
        (10, 0, []),
        (11, 0, [1]),
        (20, 0, [1]),
        (21, 0, [1, 11]),
        (99, 0, [1, 11, 21]),
        (99, 99, [1, 11, 21]),
        (99, 100, [1, 11]),
        (99, 250, [1]),
        (99, 300, []),
        (21, 100, [1]),
    ],
)
def test_the_newest_that_fit_are_kept_and_the_last_always(up_to: int, keep: int, gone: list[int]) -> None:
    assert removable(SEGMENTS, up_to, keep) == gone


def test_no_segments() -> None:
    assert removable([], 5, 0) == []
