from __future__ import annotations

import tracemalloc

import msgpack
import pytest
from headwater_protocol.codec import (
    decode_client_message,
    decode_server_message,
    encode_change_body,
    encode_integer,
    encode_message,
    encode_transition,
)
from headwater_protocol.errors import ProtocolError
from headwater_protocol.messages import (
    AddQuery,
    Change,
    ModifyQuerySet,
    Mutation,
    Ping,
    Removed,
    Transition,
    Version,
)
from headwater_protocol.versions import negotiate


@pytest.mark.parametrize(
    ("wire", "message"),
    [
        ([6], "Ping: expected 1 fields, got 0"),
        ([6, "1"], "Ping.nonce: expected an integer from 0 to 2^53-1, got text"),
        ([6, 1.0], "Ping.nonce: expected an integer from 0 to 2^53-1, got a float"),
        ([6, -1], "Ping.nonce: expected an integer from 0 to 2^53-1, got a signed integer"),
        ([6, 2**53], "Ping.nonce: expected an integer from 0 to 2^53-1, got 9007199254740992"),
        ([6, None], "Ping.nonce: expected an integer from 0 to 2^53-1, got nil"),
        ([3, 1, b"x", b""], "Mutation.name: expected text, got bytes"),
        ([3, 1, "x", "y"], "Mutation.arguments: expected bytes (bin), got text"),
        ([3, 1, "x", {}], "Mutation.arguments: expected bytes (bin), got a map"),
        ([2, 0, 1, 5, []], "ModifyQuerySet.add: expected an array, got an integer"),
        ([2, 0, 1, [[1, "x"]], []], "AddQuery: expected 3 fields, got 2"),
        ([2, 0, 1, [[1, 2, b""]], []], "AddQuery.name: expected text, got an integer"),
        ([2, 0, 1, [], [True]], "ModifyQuerySet.remove: expected an integer from 0 to 2^53-1, got true"),
        ([5, 0, 7], "Authenticate.token: expected text, got an integer"),
        ([99], "message: expected the number of a client message, got 99"),
        ([], "message: expected its number first, got an empty array"),
        ({}, "message: expected an array, got a map"),
    ],
)
def test_refusals_name_message_field_and_what_was_expected(wire: object, message: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        decode_client_message(msgpack.packb(wire))
    assert caught.value.message == message


def test_elements_behind_the_known_fields_are_ignored() -> None:
    extra = [{"a": [1, "b", b"c", None, 1.5, -7, msgpack.ExtType(5, b"xyz")]}, "x" * 300, 2**40]
    assert decode_client_message(msgpack.packb([6, 1, *extra])) == Ping(1)
    add = [7, "a:b", b"\x80", None, None, *extra]
    wire = msgpack.packb([2, 0, 1, [add, add[:3]], [9]])
    assert decode_client_message(wire) == ModifyQuerySet(
        0, 1, (AddQuery(7, "a:b", b"\x80"), AddQuery(7, "a:b", b"\x80")), (9,)
    )


def test_positive_numbers_may_come_in_signed_formats() -> None:
    assert decode_client_message(b"\x92\x06\xd3" + (5).to_bytes(8, "big")) == Ping(5)
    assert decode_client_message(b"\x92\x06\xd0\x7f") == Ping(127)


@pytest.mark.parametrize("value", [0, 127, 128, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**53 - 1])
def test_integers_are_as_short_as_msgpack_makes_them(value: int) -> None:
    assert encode_integer(value) == msgpack.packb(value)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 70])
def test_a_joined_transition_is_the_same_as_an_encoded_one(count: int) -> None:
    start, end = Version(1, 2, 3), Version(4, 5, 2**50)
    body = encode_change_body(Removed())
    whole = Transition(start, end, tuple(Change(query, Removed()) for query in range(count)))
    joined = encode_transition(start, end, [(query, body) for query in range(count)])
    assert joined == encode_message(whole)
    assert decode_server_message(joined) == whole


@pytest.mark.parametrize(
    "frame",
    [
        b"\x92\x06" + b"\xdd\x00\x0f\xff\xff" + b"\x80" * ((1 << 20) - 7),
        b"\x93\x06\x01" + b"\xdd\x00\x0f\xff\xff" + b"\x80" * ((1 << 20) - 8),
        b"\x95\x02\x00\x01" + b"\xdd\x00\x0f\xff\xff" + b"\x90" * ((1 << 20) - 9),
        b"\x95\x02\x00\x01\x90" + b"\xdd\x00\x0f\xff\xff" + b"\x00" * ((1 << 20) - 10),
        b"\xdd\x00\x0f\xff\xff" + b"\x91" * ((1 << 20) - 5),
        b"\x92\x06" + b"\x91" * ((1 << 20) - 2),
        b"\xdd\xff\xff\xff\xff\x06\x01",
    ],
)
def test_a_hostile_megabyte_costs_nothing_to_refuse(frame: bytes) -> None:
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        decode_client_message(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_the_dearest_message_that_is_taken_is_bounded() -> None:
    add = tuple(AddQuery(query, "", b"") for query in range(16_384))
    frame = encode_message(ModifyQuerySet(0, 1, add, ()))
    tracemalloc.start()
    decode_client_message(frame)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_versions_are_negotiated_or_both_sides_named() -> None:
    assert negotiate([1, 99]) == 1
    assert negotiate([1, 2, 3], ours=(1, 2)) == 2
    for theirs in ([], [7, 8]):
        with pytest.raises(ProtocolError) as caught:
            negotiate(theirs)
        assert caught.value.code == "unsupported_version"
        assert ("7, 8" if theirs else "none") in caught.value.message
        assert "the server 1" in caught.value.message


def test_a_mutation_keeps_its_arguments_unread() -> None:
    arguments = b"\xc1 not msgpack"
    assert decode_client_message(encode_message(Mutation(1, "a:b", arguments))) == Mutation(
        1, "a:b", arguments
    )
