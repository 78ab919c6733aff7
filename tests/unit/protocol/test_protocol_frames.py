from __future__ import annotations

import pytest
from headwater_protocol.errors import ProtocolError
from headwater_protocol.frames import FrameDecoder, frame

MESSAGES = [b"", b"a", b"x" * 300, b"last"]
STREAM = b"".join(map(frame, MESSAGES))


@pytest.mark.parametrize("piece", [1, 2, 3, 5, 64, 1000])
def test_pieces_of_any_size_give_the_same_messages(piece: int) -> None:
    decoder = FrameDecoder(300)
    got = [m for at in range(0, len(STREAM), piece) for m in decoder.feed(STREAM[at : at + piece])]
    assert got == MESSAGES
    assert decoder.buffered_bytes == 0


def test_an_unfinished_message_stays_buffered() -> None:
    decoder = FrameDecoder(300)
    assert decoder.feed(frame(b"abc") + frame(b"defg")[:6]) == [b"abc"]
    assert decoder.buffered_bytes == 6
    assert decoder.feed(b"fg") == [b"defg"]


@pytest.mark.parametrize("split", [1, 4, 8])
def test_a_length_above_the_limit_is_refused_before_its_bytes_come(split: int) -> None:
    decoder = FrameDecoder(300)
    data = frame(b"") + (301).to_bytes(4, "big")
    for at in range(0, len(data) - split, split):
        decoder.feed(data[at : at + split])
    with pytest.raises(ProtocolError) as caught:
        decoder.feed(data[-split:])
    assert caught.value.code == "frame_too_large"
    assert "301" in caught.value.message


def test_the_limit_can_be_raised() -> None:
    decoder = FrameDecoder(2)
    assert decoder.feed(frame(b"ab")) == [b"ab"]
    decoder.limit_bytes = 3
    assert decoder.feed(frame(b"abc")) == [b"abc"]
