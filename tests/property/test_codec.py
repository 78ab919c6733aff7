"""Codec: what goes in comes out, and nothing that comes in can do more than be refused."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime
from typing import Any, get_args, get_type_hints

from headwater_protocol import messages
from headwater_protocol.codec import decode_client_message, decode_server_message, encode_message
from headwater_protocol.deltas import apply_delta
from headwater_protocol.errors import ProtocolError
from headwater_protocol.frames import FrameDecoder
from headwater_protocol.limits import INTEGER_MAX
from headwater_protocol.values import pack_value, scan_value, unpack_value
from hypothesis import given, settings
from hypothesis import strategies as st

INTEGERS = st.integers(0, INTEGER_MAX)
TEXTS = st.text(max_size=40)
BYTES = st.binary(max_size=70)


def of(cls: type) -> st.SearchStrategy[Any]:
    """Return a strategy for a message class, from its annotations."""
    hints = get_type_hints(cls)
    return st.builds(cls, **{field.name: of_hint(hints[field.name]) for field in fields(cls)})


def of_hint(hint: Any) -> st.SearchStrategy[Any]:
    leaves = {int: INTEGERS, str: TEXTS, bytes: BYTES, type(None): st.none()}
    if hint in leaves:
        return leaves[hint]
    if hint is messages.Version:
        return st.builds(messages.Version, INTEGERS, INTEGERS, INTEGERS)
    if hasattr(hint, "__dataclass_fields__"):
        return of(hint)
    if getattr(hint, "__origin__", None) is tuple:
        return st.lists(of_hint(get_args(hint)[0]), max_size=20).map(tuple)
    return st.one_of([of_hint(option) for option in get_args(hint)])


CLIENT = st.one_of([of(cls) for cls in get_args(messages.ClientMessage)])
SERVER = st.one_of([of(cls) for cls in get_args(messages.ServerMessage)])
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | TEXTS
    | BYTES
    | st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC)),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXTS, inner, max_size=5),
    max_leaves=20,
)


@given(CLIENT)
def test_client_messages_come_back(message: Any) -> None:
    assert decode_client_message(encode_message(message)) == message


@given(SERVER)
def test_server_messages_come_back(message: Any) -> None:
    assert decode_server_message(encode_message(message)) == message


@given(VALUES)
def test_values_come_back(value: Any) -> None:
    packed = pack_value(value)
    scan_value(packed)
    assert unpack_value(packed) == value
    assert pack_value(unpack_value(packed)) == packed


@st.composite
def mutated(draw: st.DrawFn, whole: st.SearchStrategy[Any]) -> bytes:
    data = bytearray(encode_message(draw(whole)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        data[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=5))
    return bytes(data)


@settings(max_examples=400)
@given(st.binary(max_size=200) | mutated(CLIENT) | mutated(SERVER))
def test_any_bytes_are_taken_or_refused_with_a_protocol_error(data: bytes) -> None:
    for take in (
        decode_client_message,
        decode_server_message,
        unpack_value,
        scan_value,
        FrameDecoder(1000).feed,
    ):
        try:
            take(data)
        except ProtocolError as error:
            assert error.message  # noqa: PT017


@settings(max_examples=200)
@given(VALUES, st.binary(max_size=60) | VALUES.map(pack_value))
def test_any_delta_is_applied_or_refused(old: Any, operations: bytes) -> None:
    try:
        apply_delta(old, operations)
    except ProtocolError as error:
        assert error.message  # noqa: PT017


@given(st.lists(st.binary(max_size=50), max_size=10), st.lists(st.integers(1, 40), min_size=1, max_size=10))
def test_frames_survive_any_split(parts: list[bytes], sizes: list[int]) -> None:
    stream = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
    decoder = FrameDecoder(50)
    got: list[bytes] = []
    at = turn = 0
    while at < len(stream):
        size = sizes[turn % len(sizes)]
        got += decoder.feed(stream[at : at + size])
        at, turn = at + size, turn + 1
    assert got == parts
