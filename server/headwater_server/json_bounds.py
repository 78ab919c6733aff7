"""A bound for JSON that strangers send: how many values it has, looked at before any of them is made.

Pure. A value takes some tens of bytes in memory and a microsecond to make, whatever little it is as text: 16 MB of empty lists
would take a gigabyte, and stop everything else for seconds.
"""

from __future__ import annotations

JSON_VALUES_MAX = 1 << 18


def has_too_many_values(text: bytes) -> bool:
    """Tell whether JSON has more than `JSON_VALUES_MAX` values, about: more commas and openings of lists and objects."""
    if _values_in(text) <= JSON_VALUES_MAX:
        return False
    # Some may stand in strings: those are left out. All of it at the speed of memory; nothing is taken apart that is not.
    plain = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * JSON_VALUES_MAX:  # a key and a value, two quotes each
        return True
    return _values_in(b"".join(plain.split(b'"')[::2])) > JSON_VALUES_MAX


def _values_in(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")
