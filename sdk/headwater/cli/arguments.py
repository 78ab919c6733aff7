"""Turn `key=value` words of a command line into a function's arguments. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from headwater_protocol.errors import RequestError

if TYPE_CHECKING:
    from collections.abc import Iterable

INTEGER_MIN = -(2**63)
INTEGER_MAX = 2**63 - 1
# Ids are 32 characters or more and may by chance consist of digits; no number is that long.
NUMBER_LENGTH_MAX = 24


def parse_arguments(words: Iterable[str]) -> dict[str, Any]:
    """Return the arguments that `key=value` words stand for.

    A value that is JSON is taken as JSON (`limit=5`, `tags=["a"]`, `to=null`), anything else
    as text (`body=hi`). Quote to force text: `name='"5"'`.

    Raises:
        RequestError: A word has no `=`, an empty or repeated key; the message names it.
    """
    arguments: dict[str, Any] = {}
    for word in words:
        key, separator, text = word.partition("=")
        if not separator or not key:
            raise RequestError(f"{word!r} is not an argument; write key=value", code="invalid_arguments")
        if key in arguments:
            raise RequestError(f"the argument {key!r} is given twice", code="invalid_arguments")
        arguments[key] = parse_value(text)
    return arguments


def parse_value(text: str) -> Any:
    """Return the value of one word: JSON if it is JSON, otherwise the text itself."""
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text
    if isinstance(value, int | float) and not isinstance(value, bool):
        fits = isinstance(value, float) or INTEGER_MIN <= value <= INTEGER_MAX
        return value if fits and len(text) <= NUMBER_LENGTH_MAX else text
    return value


def _refuse(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
