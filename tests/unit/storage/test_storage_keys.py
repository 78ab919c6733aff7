from __future__ import annotations

from datetime import datetime
from enum import IntEnum, StrEnum

import pytest
from headwater_storage.keys import (
    ENTRY_SUFFIX_BYTES,
    FIELDS_BYTES_MAX,
    KEY_BYTES_MAX,
    decode_fields,
    document_key,
    document_parts,
    encode_fields,
    entry_key,
    entry_parts,
    index_range,
    successor,
    table_range,
)

SUFFIX = b"0" * ENTRY_SUFFIX_BYTES


def test_encodings_stay_as_they_are_on_disk() -> None:
    assert encode_fields([1, -1.5, "a\0\1b", None]).hex() == (
        "06bff0000000000000064007ffffffffffff086101010102620003"
    )
    assert encode_fields([2**53 + 1]).hex() == "06c3400000000000000001"
    assert encode_fields([b"\xff", [True], {"k": False}]).hex() == "09ff000a05000b086b000400"


def test_a_key_of_the_longest_fields_is_as_long_as_lmdb_allows() -> None:
    fields = bytes(FIELDS_BYTES_MAX)
    key, rest = entry_key(1, fields, SUFFIX)
    assert (len(key), rest) == (KEY_BYTES_MAX, b"")
    assert entry_parts(key) == (1, fields, SUFFIX)


def test_longer_fields_are_cut_and_the_rest_is_the_value() -> None:
    fields = encode_fields(["x" * 1000])
    key, rest = entry_key(7, fields, SUFFIX)
    number, cut, suffix = entry_parts(key)
    assert (number, suffix) == (7, SUFFIX)
    assert len(key) == KEY_BYTES_MAX
    assert cut + rest == fields


def test_documents_and_entries_never_share_a_range() -> None:
    document = document_key((1 << 31) - 1, SUFFIX)
    entry, _ = entry_key(0, b"", b"")
    assert document < entry
    assert document_parts(document) == ((1 << 31) - 1, SUFFIX)
    assert table_range(5)[0] <= document_key(5, b"\xff" * 40) < table_range(5)[1] == document_key(6, b"")
    lo, hi = index_range(5)
    assert lo <= entry_key(5, b"\xff" * 40, SUFFIX)[0] < hi <= entry_key(6, b"", b"")[0]


def test_values_without_a_place_in_the_order_are_refused() -> None:
    with pytest.raises(ValueError, match="timezone"):
        encode_fields([datetime(2024, 1, 1)])
    with pytest.raises(ValueError, match="64 bits"):
        encode_fields([1 << 80])
    with pytest.raises(TypeError, match="object"):
        encode_fields([object()])
    with pytest.raises(UnicodeEncodeError):
        encode_fields(["\ud800"])
    with pytest.raises(ValueError, match="above"):
        successor(b"\xff\xff")


def test_subclasses_sort_as_what_they_are() -> None:
    class Colour(StrEnum):
        RED = "red"

    class Level(IntEnum):
        HIGH = 3

    assert encode_fields([Colour.RED, Level.HIGH, (1,)]) == encode_fields(["red", 3, [1]])


@pytest.mark.parametrize("raw", ["06", "0812", "0a05", "ff", "06bff0", "0b086b00", "08ff00"])
def test_bytes_that_encode_no_fields_are_refused(raw: str) -> None:
    with pytest.raises(ValueError, match="not the encoding"):
        decode_fields(bytes.fromhex(raw))
