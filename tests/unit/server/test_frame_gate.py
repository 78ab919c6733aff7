"""The gate before the reader of WebSocket frames: lets through all that is valid, however it is cut, and finds what is not."""

from __future__ import annotations

import zlib

import pytest
from headwater_protocol.errors import ProtocolError
from headwater_protocol.limits import CONNECT_FRAME_BYTES
from headwater_server.net.frame_gate import FrameGate
from hypothesis import given
from hypothesis import strategies as st
from support.raw_websocket import BINARY, CLOSE, COMPRESSED, FINAL, PING, TEXT, frame

masks = st.binary(min_size=4, max_size=4)
pieces = st.lists(st.integers(1, 200), max_size=20)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """One message in fragments, compressed or not, with control frames in between."""
    payload = draw(st.binary(max_size=300))
    first = draw(st.sampled_from([BINARY, TEXT]))
    if draw(st.booleans()):
        compressor = zlib.compressobj(wbits=-15)
        payload = compressor.compress(payload) + compressor.flush(zlib.Z_FULL_FLUSH)
        payload, first = payload.removesuffix(b"\0\0\xff\xff"), first | COMPRESSED
    cuts = sorted(draw(st.lists(st.integers(0, len(payload)), max_size=3)))
    spans = list(zip([0, *cuts], [*cuts, len(payload)], strict=True))
    frames = []
    for number, (start, end) in enumerate(spans, 1):
        byte = (FINAL if number == len(spans) else 0) | (first if number == 1 else 0)
        frames.append(frame(byte, payload[start:end], mask=draw(masks)))
        if draw(st.booleans()):
            frames.append(frame(FINAL | draw(st.sampled_from([PING, CLOSE])), b"control", mask=draw(masks)))
    return b"".join(frames)


def show(gate: FrameGate, stream: bytes, sizes: list[int]) -> None:
    for size in sizes:
        gate.look_at(stream[:size])
        stream = stream[size:]
    gate.look_at(stream)


@given(st.lists(messages(), max_size=4), pieces, st.booleans())
def test_what_is_valid_passes_in_any_pieces(sent: list[bytes], sizes: list[int], welcomed: bool) -> None:
    gate = FrameGate()
    if welcomed:
        gate.welcome(1 << 20)
    show(gate, b"".join(sent), sizes)


BAD = {
    "unmasked": (frame(FINAL | BINARY, b"x", mask=b""), "protocol_error"),
    "fragment of nothing": (frame(FINAL, b"x"), "protocol_error"),
    "message within a message": (frame(BINARY) + frame(BINARY), "protocol_error"),
    "text within a message": (frame(BINARY, b"x") + frame(FINAL | TEXT), "protocol_error"),
    "too large": (frame(BINARY, announced=CONNECT_FRAME_BYTES + 1), "frame_too_large"),
    "larger than any number": (frame(BINARY, announced=(1 << 64) - 1), "frame_too_large"),
    "no deflate": (frame(FINAL | COMPRESSED | BINARY, b"\xff\xff"), "protocol_error"),
}


@pytest.mark.parametrize("bad", BAD)
@given(before=st.lists(messages(), max_size=2), sizes=pieces)
def test_what_is_not_is_found_in_any_pieces(bad: str, before: list[bytes], sizes: list[int]) -> None:
    stream, code = BAD[bad]
    with pytest.raises(ProtocolError) as caught:
        show(FrameGate(), b"".join(before) + stream, sizes)
    assert caught.value.code == code


def test_sizes_and_fragments_are_of_one_message() -> None:
    gate = FrameGate()
    half = frame(BINARY, bytes(CONNECT_FRAME_BYTES // 2)) + frame(0) * 253
    for _ in range(3):
        gate.look_at(
            half + frame(FINAL | PING) * 300 + frame(0, bytes(CONNECT_FRAME_BYTES // 2)) + frame(FINAL)
        )
    gate.look_at(half + frame(0) * 2)
    with pytest.raises(ProtocolError):
        gate.look_at(frame(0))


def test_after_welcome_the_limit_is_the_larger_one() -> None:
    gate = FrameGate()
    gate.look_at(frame(COMPRESSED | BINARY, b"begun before"))
    gate.welcome(CONNECT_FRAME_BYTES * 2)
    gate.look_at(frame(FINAL) + frame(FINAL | BINARY, bytes(CONNECT_FRAME_BYTES * 2)))
    with pytest.raises(ProtocolError, match="131073"):
        gate.look_at(frame(FINAL | BINARY, announced=CONNECT_FRAME_BYTES * 2 + 1))


def test_inflating_needs_what_came_before() -> None:
    """Clients keep their window across messages, and so does the gate; control frames are not part of it."""
    compressor = zlib.compressobj(wbits=-15)
    gate = FrameGate()
    for _ in range(3):
        payload = compressor.compress(b"again and again" * 10) + compressor.flush(zlib.Z_SYNC_FLUSH)
        gate.look_at(frame(COMPRESSED | BINARY, payload[:2]) + frame(FINAL | PING, b"ping"))
        gate.look_at(frame(FINAL, payload[2:].removesuffix(b"\0\0\xff\xff")))
    bomb = compressor.compress(bytes(CONNECT_FRAME_BYTES + 1)) + compressor.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(ProtocolError) as caught:
        gate.look_at(frame(FINAL | COMPRESSED | BINARY, bomb))
    assert caught.value.code == "frame_too_large"


def test_a_message_may_end_its_stream() -> None:
    """The next one begins a new stream (RFC 7692 section 7.2.3.4, whose own example is the second of these)."""
    gate = FrameGate()
    for payload in (zlib.compress(b"Hello", wbits=-15), b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00"):
        gate.look_at(frame(FINAL | COMPRESSED | BINARY, payload))
    with pytest.raises(ProtocolError, match="more than one"):
        gate.look_at(frame(FINAL | COMPRESSED | BINARY, zlib.compress(b"Hello", wbits=-15) * 2))


def test_clients_that_do_not_wait_may_send_more_behind_their_first_message() -> None:
    greeting, large = frame(FINAL | TEXT, b"hello"), frame(FINAL | TEXT, bytes(CONNECT_FRAME_BYTES + 1))
    FrameGate(1 << 20).look_at(greeting + large + large)
    for gate, sent, code in (
        (FrameGate(), greeting + large, "frame_too_large"),
        (FrameGate(1 << 20), large, "frame_too_large"),
        (FrameGate(1 << 20), greeting + frame(FINAL | TEXT, announced=(1 << 20) + 1), "frame_too_large"),
        (
            FrameGate(1 << 20),
            frame(TEXT, b"he") + frame(FINAL, bytes(CONNECT_FRAME_BYTES)),
            "frame_too_large",
        ),
    ):
        with pytest.raises(ProtocolError) as refused:
            gate.look_at(sent)
        assert refused.value.code == code
