from __future__ import annotations

import math

import msgspec
import pytest
from headwater_protocol.errors import RequestError
from headwater_protocol.values import Int64, pack_value, unpack_value
from headwater_server.net.json_values import from_json, to_json

LARGE = 2**53 + 1


@pytest.mark.parametrize(
    ("value", "plain", "lossless"),
    [
        (None, None, None),
        (True, True, True),
        (7, 7, 7),
        (LARGE, str(LARGE), {"$integer": "AQAAAAAAIAA="}),
        (1.5, 1.5, 1.5),
        (math.inf, "Infinity", {"$float": "AAAAAAAA8H8="}),
        (-math.inf, "-Infinity", {"$float": "AAAAAAAA8P8="}),
        (-0.0, -0.0, {"$float": "AAAAAAAAAIA="}),
        (b"hi", "aGk=", {"$bytes": "aGk="}),
        ([1, {"a": b""}], [1, {"a": ""}], [1, {"a": {"$bytes": ""}}]),
    ],
)
def test_values_have_two_json_forms(value: object, plain: object, lossless: object) -> None:
    content = msgspec.msgpack.encode(value)
    assert to_json(content, "json") == plain
    assert to_json(content, "convex_encoded_json") == lossless


def test_the_lossless_form_comes_back_as_it_was() -> None:
    value = {"n": LARGE, "b": b"\x00\xff", "f": [-0.0, math.inf], "t": "é", "none": None}
    content = msgspec.msgpack.encode(value)
    back = unpack_value(from_json(to_json(content, "convex_encoded_json"), "convex_encoded_json"))
    assert back == value
    assert type(back["n"]) is Int64  # what JavaScript has as a BigInt comes back as one
    assert math.copysign(1, back["f"][0]) == -1


def test_an_int64_stays_64_bits_in_both_forms() -> None:
    content = pack_value(Int64(5))
    assert to_json(content, "json") == "5"
    assert to_json(content, "convex_encoded_json") == {"$integer": "BQAAAAAAAAA="}


def test_the_encoded_form_is_the_bytes_themselves() -> None:
    content = pack_value([Int64(5), 1.0, b"x"])
    assert from_json(to_json(content, "encoded"), "encoded") == content
    for wrong in ("%", "gA", 5, None, {}):
        with pytest.raises(RequestError, match="base64") as caught:
            from_json(wrong, "encoded")
        assert caught.value.code == "invalid_arguments"


@pytest.mark.parametrize("value", [{"$integer": "x"}, {"$integer": 5}, {"$float": "AAAA"}, {"$bytes": "%"}])
def test_malformed_special_forms_are_refused(value: object) -> None:
    with pytest.raises(RequestError) as caught:
        from_json(value, "convex_encoded_json")
    assert caught.value.code == "invalid_arguments"


def test_a_dollar_key_is_plain_data_in_plain_json() -> None:
    assert msgspec.msgpack.decode(from_json({"$bytes": "x"}, "json")) == {"$bytes": "x"}


def test_integers_beyond_64_bits_are_refused() -> None:
    with pytest.raises(RequestError):
        from_json(2**63, "json")
