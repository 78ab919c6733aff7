"""From the bounds of a range read to the keys it lies between.

Pure. Long field tuples are cut in keys. Bounds are made for *whole* keys, as if nothing were
cut; the range in the store then uses the cut bytes, inclusively, and `exact` says what whole
keys have to be compared with.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from headwater_protocol.errors import RequestError
from headwater_protocol.ids import SUFFIX_LENGTH, TIME_US_MAX, time_prefix

from headwater_storage.keys import FIELDS_BYTES_MAX, encode_fields, successor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from headwater_storage.proposal import Range

CUT = 4 + FIELDS_BYTES_MAX
"""Longest part of an entry key before its suffix."""


class Bound(Protocol):
    """One end of a range on the field after the equality prefix."""

    @property
    def value(self) -> Any:
        """What the field is compared with."""

    @property
    def inclusive(self) -> bool:
        """Whether that value itself belongs to the range."""


class KeyBounds(NamedTuple):
    """A half-open range of keys.

    Attributes:
        lo: Lower end in the store.
        hi: Upper end in the store.
        exact: Ends that whole (uncut) entries have to lie between when `lo` or `hi` was
            cut, else None.
    """

    lo: bytes
    hi: bytes
    exact: tuple[bytes, bytes] | None = None


def whole_key(key: bytes, overflow: bytes) -> bytes:
    """Return an entry key as it would be had its field tuple not been cut."""
    return key[:-SUFFIX_LENGTH] + overflow + key[-SUFFIX_LENGTH:]


def index_bounds(
    prefix: bytes, field_count: int, equal: Sequence[Any], lower: Bound | None, upper: Bound | None
) -> Range:
    """Return which whole entry keys of an index a range read asks for.

    Args:
        prefix: What the index's entry keys begin with.
        field_count: How many fields it has.
        equal: Values of its first fields.
        lower: Lower bound on the next field, on the creation time if there is none.
        upper: Upper bound likewise.
    """
    if len(equal) > field_count:
        raise RequestError(f"{len(equal)} values were given for an index of {field_count} fields")
    base = prefix + encode_fields(equal)
    if len(equal) == field_count:
        return creation_bounds(base, lower, upper)
    lo, hi = base, successor(base)
    if lower is not None:
        edge = base + encode_fields((lower.value,))
        lo = edge if lower.inclusive else successor(edge)
    if upper is not None:
        edge = base + encode_fields((upper.value,))
        hi = successor(edge) if upper.inclusive else edge
    return lo, hi


def creation_bounds(base: bytes, lower: Bound | None, upper: Bound | None) -> Range:
    """Return the part of all whole keys `base` + suffix whose creation time is within bounds in ms."""
    lo, hi = base, successor(base)
    if lower is not None:
        lo = base + _time_edge(first_us(lower.value, above=not lower.inclusive))
    if upper is not None:
        hi = base + _time_edge(first_us(upper.value, above=upper.inclusive))
    return lo, hi


def narrowed(
    whole: Range, prefix: bytes, after: bytes | None, until: bytes | None, *, descending: bool
) -> Range:
    """Return the part of a range behind one position and up to another, in reading order.

    Args:
        whole: Whole keys; nothing outside them is returned, whatever the positions are.
        prefix: What all keys of the index or table begin with.
        after: The rest of a whole key; what stands there is left out.
        until: The same; what stands there still belongs to the range.
        descending: Whether it is read from its end.
    """
    lo, hi = whole
    first, last = (until, after) if descending else (after, until)
    if first is not None:
        lo = max(lo, prefix + first + (b"" if descending else b"\x00"))
    if last is not None:
        hi = min(hi, prefix + last + (b"" if descending else b"\x00"))
    return lo, hi


def key_bounds(whole: Range) -> KeyBounds:
    """Return where in the store the keys lie whose whole form is within a range."""
    lo, hi = whole
    if len(lo) <= CUT and len(hi) <= CUT:
        return KeyBounds(lo, hi)
    return KeyBounds(lo[:CUT], hi if len(hi) <= CUT else successor(hi[:CUT]), whole)


def first_us(value: Any, *, above: bool) -> int:
    """Return the first µs whose creation time in ms is at least `value`, or greater if `above`.

    Exact: a creation time in ms is the float nearest to µs / 1000, and it is that float which
    is compared. Values that are no numbers sort before or behind all of them.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0 if encode_fields((value,)) < encode_fields((0,)) else TIME_US_MAX + 1
    if math.isnan(value) or value > TIME_US_MAX:
        return TIME_US_MAX + 1
    if value < 0:
        return 0
    us = min(round(value * 1000), TIME_US_MAX + 1)
    while us > 0 and (us - 1) / 1000 >= value:
        us -= 1
    while us <= TIME_US_MAX and us / 1000 < value:
        us += 1
    if above:
        while us <= TIME_US_MAX and us / 1000 == value:
            us += 1
    return us


def _time_edge(us: int) -> bytes:
    """Return the smallest suffix of that creation time; past the last one, what is above all suffixes."""
    return b"w" if us > TIME_US_MAX else time_prefix(us).encode()
