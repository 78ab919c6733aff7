"""Keys and ranges as people read them: what is told is what a read asked for, or consumed."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from headwater.backend import Bound
from headwater_protocol.ids import make_suffix
from headwater_storage.bounds import creation_bounds, index_bounds, key_bounds
from headwater_storage.catalog import ACTIVE_BUNDLE_KEY, ENVIRONMENT, JOBS, Catalog, TableDefinition
from headwater_storage.indexes import IndexDefinition
from headwater_storage.key_text import Place, key_place, range_place, shown, table_of
from headwater_storage.keys import MISSING, document_key, encode_fields, entry_key, index_prefix, table_range

TABLE, INDEX = 40, 7
CATALOG = Catalog(
    [
        TableDefinition(
            TABLE,
            "messages",
            1,
            "",
            [IndexDefinition(INDEX, TABLE, "by_channel", ["channel", "score"], False, "ready")],
        )
    ]
)
PREFIX = index_prefix(INDEX)
AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
AT_MS = AT.timestamp() * 1000
SUFFIX = make_suffix(round(AT_MS * 1000), 0, bytes(10)).encode()
DOCUMENT = f"document 18{SUFFIX.decode()}"


def told(equal: list[Any], lower: Bound | None = None, upper: Bound | None = None) -> str:
    lo, hi, _ = key_bounds(index_bounds(PREFIX, 2, equal, lower, upper))
    place = range_place(CATALOG, lo, hi)
    assert (place.table, place.index) == ("messages", "by_channel")
    return place.text


def entry(*fields: Any) -> bytes:
    return entry_key(INDEX, encode_fields(fields), SUFFIX)[0]


@pytest.mark.parametrize(
    ("equal", "text"),
    [
        ([], "all"),
        (["general"], 'channel = "general"'),
        ([None], "channel = null"),
        ([True], "channel = true"),
        ([MISSING], "channel = missing"),
        ([5, 6], "channel = 5, score = 6"),
        ([5.5, -6], "channel = 5.5, score = -6"),
        ([2**60], f"channel = {2**60}"),
        ([AT], "channel = 2026-11-29T12:00:00Z"),
        ([b"\x00\x01"], "channel = bytes 0001"),
        ([["a", 1]], 'channel = ["a", 1]'),
        (["a\x00\x01b"], 'channel = "a\\u0000\\u0001b"'),
    ],
)
def test_equal_fields_are_told_by_their_values(equal: list[Any], text: str) -> None:
    assert told(equal) == text


@pytest.mark.parametrize("value", [9, 9.5, -9, 0, 256, -0.5, "m", "", AT, True, None, [1]])
@pytest.mark.parametrize("inclusive", [True, False])
def test_bounds_are_told_as_they_were_asked(value: Any, inclusive: bool) -> None:
    bound = Bound(value, inclusive)
    above, below = (">=", "<=") if inclusive else (">", "<")
    text = shown(value)
    assert told(["c"], lower=bound) == f'channel = "c", score {above} {text}'
    assert told(["c"], upper=bound) == f'channel = "c", score {below} {text}'
    assert told([], lower=bound).startswith("channel ")


def test_two_bounds_are_told_together() -> None:
    assert told(["c"], Bound(5, True), Bound(9, False)) == 'channel = "c", score >= 5, score < 9'


def test_what_was_consumed_ends_at_a_document() -> None:
    lo, hi, _ = key_bounds(index_bounds(PREFIX, 2, ["c"], None, None))
    ascending = range_place(CATALOG, lo, entry("c", 5) + b"\x00")
    assert ascending.text == f'channel = "c", to score = 5, {DOCUMENT}'
    descending = range_place(CATALOG, entry("c", 5), hi)
    assert descending.text == f'channel = "c", from score = 5, {DOCUMENT}'
    whole = range_place(CATALOG, *index_bounds(PREFIX, 2, [], None, None)[:1], entry("c", 5) + b"\x00")
    assert whole.text == f'to channel = "c", score = 5, {DOCUMENT}'
    equal = range_place(CATALOG, index_bounds(PREFIX, 2, ["c", 5], None, None)[0], entry("c", 5) + b"\x00")
    assert equal.text == f'channel = "c", score = 5, to {DOCUMENT}'
    behind = range_place(CATALOG, entry("c", 5) + b"\x00", hi)
    assert behind.text == f'channel = "c", from score = 5, {DOCUMENT}'.replace("from", "after")


def test_documents_are_told_in_the_order_of_their_creation() -> None:
    lo, hi = table_range(TABLE)
    assert range_place(CATALOG, lo, hi) == Place("messages", None, "all")
    assert range_place(CATALOG, lo, lo + SUFFIX + b"\x00").text == f"to {DOCUMENT}"
    bounds = creation_bounds(lo, Bound(AT_MS, True), None)
    assert range_place(CATALOG, *bounds).text == "created from 2026-11-29T12:00:00Z"
    bounds = creation_bounds(lo, None, Bound(AT_MS, False))
    assert range_place(CATALOG, *bounds).text == "created before 2026-11-29T12:00:00Z"


def test_keys_are_told_by_table_index_and_document() -> None:
    assert key_place(CATALOG, document_key(TABLE, SUFFIX)) == Place("messages", None, DOCUMENT)
    place = key_place(CATALOG, entry("c", 5))
    assert place == Place("messages", "by_channel", f'channel = "c", score = 5, {DOCUMENT}')
    assert key_place(CATALOG, ACTIVE_BUNDLE_KEY) == Place("_deployment", None, "the active bundle")
    assert key_place(CATALOG, document_key(ENVIRONMENT, b"site")) == Place("_environment", None, "site")
    assert table_of(CATALOG, document_key(JOBS, SUFFIX)) == "_scheduled_jobs"
    assert key_place(CATALOG, index_prefix(99) + b"\x03" + SUFFIX).index == "index 99"


def test_long_values_are_cut_and_no_bytes_are_too_strange() -> None:
    long = entry_key(INDEX, encode_fields(("x" * 1000, 1)), SUFFIX)[0]
    text = key_place(CATALOG, long).text
    assert text.startswith('channel = "xxxx')
    assert len(text) < 100
    lo, hi, _ = key_bounds(index_bounds(PREFIX, 2, ["x" * 1000], None, None))
    assert (
        'channel >= "xxx' in range_place(CATALOG, lo, hi).text or "xxx" in range_place(CATALOG, lo, hi).text
    )
    for rest in (b"", b"\xff", b"\x06\x01", b"\x0a\x06", b"\x08\xff\xfe\x00", b"\x07" + bytes(8)):
        key_place(CATALOG, PREFIX + rest)
        range_place(CATALOG, PREFIX + rest, PREFIX + rest + b"\x00")
        range_place(CATALOG, PREFIX, PREFIX + rest + b"\x01")
        range_place(CATALOG, table_range(TABLE)[0] + rest, PREFIX + rest)
