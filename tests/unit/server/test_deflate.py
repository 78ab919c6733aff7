from __future__ import annotations

import os
import zlib

from headwater_server.net.deflate import Deflater
from headwater_server.net.sinks import SharedFrames

TAIL = b"\x00\x00\xff\xff"
TEXT = b"the same words again and again; " * 100


def inflated(payload: bytes) -> bytes:
    return zlib.decompressobj(-15).decompress(payload + TAIL)


def test_each_message_can_be_inflated_without_those_before() -> None:
    deflater = Deflater(100)
    for number in range(20):
        message = TEXT[number:]
        payload = deflater.deflated(message)
        assert payload is not None
        assert inflated(payload) == message


def test_what_does_not_pay_stays_as_it_is() -> None:
    deflater = Deflater(100, up_to_bytes=10_000)
    assert deflater.deflated(TEXT[:99]) is None
    assert deflater.deflated(os.urandom(5_000)) is None
    assert deflater.deflated(bytes(10_001)) is None
    assert Deflater(0).deflated(TEXT) is None
    payload = deflater.deflated(TEXT)
    assert payload is not None, "after one that was given up"
    assert inflated(payload) == TEXT


def test_a_compressed_frame_is_made_once_for_all_within_the_bound() -> None:
    frames = SharedFrames(lambda action: None, Deflater(100), bytes_max=10_000)
    first = frames.deflated_frame(TEXT)
    assert first[0] == 0xC2
    assert frames.deflated_frame(TEXT) is first
    assert frames.deflated_frame(b"short") == frames.frame(b"short")
    for number in range(100):
        frames.deflated_frame(TEXT + bytes([number]))
        assert frames.held_bytes <= 10_000
    assert frames.deflated_frame(TEXT) is not first
