"""Document ids: short URL-safe text that tells its table and sorts by creation.

Pure. The alphabet is base32hex in lower case (RFC 4648 section 7), whose ASCII order is
its numeric order, so that ids of one table sort as text by creation time and then by the
order of the inserts of one call.

Layout: table number (1 to 3 characters, no leading zero), then the 31-character *suffix*:
11 characters creation time in µs since 1970, 4 characters position of the insert in its
call, 16 characters (80 bits) random.
"""

from __future__ import annotations

from typing import NewType

DocumentId = NewType("DocumentId", str)

ALPHABET = "0123456789abcdefghijklmnopqrstuv"
SUFFIX_LENGTH = 31
ID_LENGTH_MIN = SUFFIX_LENGTH + 1
ID_LENGTH_MAX = SUFFIX_LENGTH + 3
TABLE_NUMBER_MAX = 32**3 - 1
SEQUENCE_MAX = 32**4 - 1
TIME_US_MAX = 32**11 - 1
RANDOM_BYTES = 10
_ALLOWED = frozenset(ALPHABET)


def to_base32(number: int, length: int) -> str:
    """Return `number` as exactly `length` characters, most significant first."""
    digits = []
    for _ in range(length):
        digits.append(ALPHABET[number & 31])
        number >>= 5
    return "".join(reversed(digits))


def table_prefix(table_number: int) -> str:
    """Return the characters that ids of this table begin with."""
    length = 1 if table_number < 32 else 2 if table_number < 1024 else 3
    return to_base32(table_number, length)


def make_suffix(created_us: int, sequence: int, random: bytes) -> str:
    """Return the suffix of a new id.

    Args:
        created_us: Creation time, µs since 1970.
        sequence: Position of the insert in its call, 0 to `SEQUENCE_MAX`.
        random: Exactly `RANDOM_BYTES` bytes.
    """
    if not 0 <= created_us <= TIME_US_MAX or not 0 <= sequence <= SEQUENCE_MAX or len(random) != RANDOM_BYTES:
        raise ValueError("creation time, sequence or random bytes out of range for an id")
    number = ((created_us << 20) | sequence) << 80 | int.from_bytes(random, "big")
    return to_base32(number, SUFFIX_LENGTH)


def is_id(text: str) -> bool:
    """Tell whether `text` has the form of an id (of any table)."""
    return ID_LENGTH_MIN <= len(text) <= ID_LENGTH_MAX and _ALLOWED.issuperset(text) and text[0] != "0"


def table_number_of(document_id: str) -> int:
    """Return the table number that a well-formed id begins with."""
    return int(document_id[:-SUFFIX_LENGTH], 32)


def suffix_of(document_id: str) -> str:
    """Return the last 31 characters, which alone stand in keys."""
    return document_id[-SUFFIX_LENGTH:]


def created_us_of(suffix: str) -> int:
    """Return the creation time, in µs since 1970, that a suffix carries."""
    return int(suffix[:11], 32)


def time_prefix(created_us: int) -> str:
    """Return the 11 characters with which suffixes of that creation time begin."""
    return to_base32(created_us, 11)
