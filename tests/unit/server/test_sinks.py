from __future__ import annotations

import pytest
from headwater_server.net.sinks import SharedFrames, websocket_frame


@pytest.mark.parametrize(
    ("size", "head"),
    [
        (0, b"\x82\x00"),
        (125, b"\x82\x7d"),
        (126, b"\x82\x7e\x00\x7e"),
        (65535, b"\x82\x7e\xff\xff"),
        (65536, b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"),
    ],
)
def test_frames_have_the_shortest_length_form(size: int, head: bytes) -> None:
    assert websocket_frame(b"x" * size) == head + b"x" * size


def test_a_frame_is_built_once_for_all_and_forgotten_in_bounds() -> None:
    frames = SharedFrames(entries_max=2)
    first = frames.frame(b"a")
    assert frames.frame(b"a") is first
    frames.frame(b"b")
    frames.frame(b"c")
    assert frames.frame(b"a") is not first
    assert frames.frame(b"a") == first
