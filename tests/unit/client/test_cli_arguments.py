from __future__ import annotations

import pytest
from headwater.cli.arguments import parse_arguments, parse_value
from headwater_protocol.errors import RequestError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("hi", "hi"),
        ("", ""),
        ("5", 5),
        ("-1.5", -1.5),
        ("true", True),
        ("null", None),
        ('"5"', "5"),
        ("[1, 2]", [1, 2]),
        ('{"a": null}', {"a": None}),
        ("True", "True"),
        ("NaN", "NaN"),
        ("007", "007"),
        ("[1,", "[1,"),
        ("a=b", "a=b"),
        (str(2**63 - 1), 2**63 - 1),
        (str(2**63), str(2**63)),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_value_is_json_if_it_is_json(text: str, value: object) -> None:
    parsed = parse_value(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_an_id_of_digits_stays_text() -> None:
    digits = "1" * 33
    with_exponent = "10" + "5" * 15 + "e" + "1" * 15
    assert parse_value(digits) == digits
    assert parse_value(with_exponent) == with_exponent


def test_words_become_arguments_and_values_may_hold_equals_signs() -> None:
    assert parse_arguments(["channel=abc", "limit=5", "body=a=b"]) == {
        "channel": "abc",
        "limit": 5,
        "body": "a=b",
    }


@pytest.mark.parametrize("words", [["limit"], ["=5"], ["a=1", "a=2"]])
def test_words_that_are_no_arguments_are_refused(words: list[str]) -> None:
    with pytest.raises(RequestError) as caught:
        parse_arguments(words)
    assert caught.value.code == "invalid_arguments"
