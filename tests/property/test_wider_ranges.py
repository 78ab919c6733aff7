"""A read set with more ranges than its limit: merged into wider ones, which miss nothing and are no error."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from headwater_storage import readset
from headwater_storage.limits import CallLimits
from headwater_storage.readset import ReadSet
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from support.memory_store import MemoryStore, encode, insert, table

if TYPE_CHECKING:
    from headwater_storage.proposal import Range

keys = st.binary(max_size=3) | st.lists(st.sampled_from(b"\x00\x01\x7f\xfe\xff")).map(bytes)


@st.composite
def readings(draw: Any) -> tuple[bytes, bytes, bool, bytes | None]:
    """One range, in which direction it is read, and how far: to a key, or to its end (None)."""
    lo, hi = sorted((draw(keys), draw(keys)))
    to = min(max(draw(keys), lo), hi)
    return lo, hi, draw(st.booleans()), to if lo < hi and to < hi and draw(st.booleans()) else None


def part(lo: bytes, hi: bytes, descending: bool, to: bytes | None) -> Range:
    """What of a reading counts as read."""
    if to is None:
        return (lo, hi)
    return (to, hi) if descending else (lo, to + b"\x00")


@settings(max_examples=150)
@given(st.lists(readings(), max_size=60), st.integers(1, 12), st.lists(keys, max_size=20))
def test_wider_ranges_cover_all_that_was_read(
    read: list[tuple[bytes, bytes, bool, bytes | None]], ranges_max: int, others: list[bytes]
) -> None:
    reads = ReadSet(ranges_max)
    for number, (lo, hi, descending, to) in enumerate(read):
        if number % 4 == 3:
            reads.add_range(*part(lo, hi, descending, to))
            continue
        scan = reads.scan(lo, hi, descending=descending)
        scan.last, scan.dry = to, to is None
    ranges = reads.ranges()
    assert len(ranges) <= ranges_max
    assert all(lo < hi for lo, hi in ranges)
    assert all(before[1] < after[0] for before, after in pairwise(ranges))
    wanted = [part(*reading) for reading in read]
    for lo, hi in wanted:
        assert lo >= hi or any(low <= lo and hi <= high for low, high in ranges)
    # Ends of the whole stay where they were: nothing is widened outwards.
    if ranges:
        assert ranges[0][0] == min(lo for lo, hi in wanted if lo < hi)
        assert ranges[-1][1] == max(hi for lo, hi in wanted if lo < hi)
    for key in others:
        if any(lo <= key < hi for lo, hi in wanted):
            assert any(lo <= key < hi for lo, hi in ranges)


GROUPS = 24


def a_conflict_is_found(data: st.DataObject) -> None:
    """A call reads parts of many groups under a small limit; whatever another changes in one of them touches it."""
    draw = data.draw
    store = MemoryStore()
    store.add_table(table(32, "t", ("by_group", ["group", "n"], False)))
    writer = store.transaction()
    ids = {
        group: [insert(writer, "t", group=group, n=n) for n in range(group % 4)] for group in range(GROUPS)
    }
    store.commit(writer.proposal())
    limits = CallLimits(ranges_max=draw(st.integers(1, 8)))
    reader, writer = store.transaction(limits=limits), store.transaction(now_us=1_700_000_000_000_001)
    seen: dict[int, int | None] = {}
    for group in draw(st.lists(st.integers(0, GROUPS - 1), min_size=1, max_size=GROUPS, unique=True)):
        reading = reader.read_range("t", "by_group", [group], None, None, descending=draw(st.booleans()))
        seen[group] = draw(st.none() | st.integers(1, 4))  # how many are taken
        taken = [document for _, document in zip(range(seen[group] or 99), reading, strict=False)]
        assert len(taken) == min(seen[group] or 99, group % 4)
    assert len(reader.ranges) <= limits.ranges_max
    group = draw(st.sampled_from(sorted(seen)))
    if ids[group] and draw(st.booleans()):
        changed = ids[group][-1 if draw(st.booleans()) else 0]
        if seen[group] is not None and seen[group] < len(ids[group]):
            return  # it may lie behind what was taken
        writer.put(changed, encode(changed, 1.0, group=group, n=0))
    elif seen[group] is None or seen[group] > len(ids[group]):
        insert(writer, "t", group=group, n=draw(st.integers(-1, 5)))
    else:
        return
    written = writer.proposal().conflict_keys()
    assert any(lo <= key < hi for key in written for lo, hi in reader.ranges)


@settings(max_examples=80)
@given(st.data())
def test_no_conflict_is_lost_in_wider_ranges(data: st.DataObject) -> None:
    a_conflict_is_found(data)


def test_the_property_fails_when_what_is_too_much_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readset, "widened", lambda ranges, ranges_max: ranges[:ranges_max])
    search = settings(max_examples=2_000, database=None, phases=[Phase.generate])
    with pytest.raises(AssertionError):
        given(st.data())(search(a_conflict_is_found))()


def test_many_readings_that_were_left_off_cost_no_more_than_others() -> None:
    """Each new one beyond the limit looked through all before it: a call with many `first` ran into its time limit."""
    folded = 0

    class Counting(ReadSet):
        def _fold(self) -> None:
            nonlocal folded
            folded += len(self._scans)
            super()._fold()

    reads = Counting(16)
    count = 4_000
    for number in range(count):
        lo = number.to_bytes(4, "big")
        reads.scan(lo, lo + b"\xff", descending=False).last = lo
    assert folded < 4 * count
    assert len(reads.ranges()) == 16
