"""The tracker against a naive scan: every registered read is found, and nothing that did not read the key."""

from __future__ import annotations

import pytest
from headwater_server.reactive import tracker as module
from headwater_server.reactive.tracker import Tracker, covering_length
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

# Few bytes and short tails, so that prefixes meet, ends fall on ends, and 0xff carries.
tails = st.binary(max_size=5).map(lambda raw: bytes([0, 1, 127, 254, 255][byte % 5] for byte in raw))
spaces = st.sampled_from([b"\0\0\0\1", b"\0\0\0\2", b"\x80\0\0\1", b"\xff\xff\xff\xff"])
keys = st.one_of(st.builds(bytes.__add__, spaces, tails), tails)


def successor(prefix: bytes) -> bytes:
    """Return the end of everything that begins with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else b"\xff" * 12


prefix_ranges = keys.map(lambda prefix: (prefix, successor(prefix)))
tail_ranges = st.builds(lambda prefix, more: (prefix + more, successor(prefix)), keys, tails)
any_ranges = st.builds(lambda a, b: (min(a, b), max(a, b)), keys, keys)
ranges = st.one_of(prefix_ranges, tail_ranges, any_ranges)
reads = st.tuples(st.lists(keys, max_size=3), st.lists(ranges, max_size=3))


class TrackerAgainstScan(RuleBasedStateMachine):
    @initialize(
        small=st.sampled_from([1, 3, 64]), block=st.sampled_from([4, 128]), lengths=st.sampled_from([1, 16])
    )
    def limits(self, small, block, lengths):
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(module, "SMALL_BUCKET_LIMIT", small)
        self.patch.setattr(module, "BLOCK_LIMIT", block)
        self.patch.setattr(module, "PREFIX_LENGTHS_LIMIT", lengths)
        self.tracker: Tracker[int] = Tracker()
        self.known: dict[int, tuple[list[bytes], list[tuple[bytes, bytes]]]] = {}
        self.next = 0

    @rule(added=st.lists(reads, min_size=1, max_size=12))
    def add(self, added):
        for points, spans in added:
            self.known[self.next] = (points, spans)
            self.tracker.add(self.next, points, spans)
            self.next += 1

    @precondition(lambda self: self.known)
    @rule(data=st.data())
    def remove(self, data):
        entry = data.draw(st.sampled_from(sorted(self.known)))
        del self.known[entry]
        self.tracker.remove(entry)

    @rule(written=st.lists(keys, max_size=6))
    def find(self, written):
        expected = {entry for entry in self.known if any(self.has_read(entry, key) for key in written)}
        found = self.tracker.matching(written)
        assert found.keys() == expected
        assert all(key in written and self.has_read(entry, key) for entry, key in found.items())

    def has_read(self, entry, key):
        points, spans = self.known[entry]
        return key in points or any(lo <= key < hi for lo, hi in spans)

    @invariant()
    def whole(self):
        if hasattr(self, "tracker"):
            self.tracker.check()
            assert len(self.tracker) == len(self.known)

    def teardown(self):
        if hasattr(self, "tracker"):
            for entry in self.known:
                self.tracker.remove(entry)
            assert not self.tracker._buckets
            assert not self.tracker._lengths
            assert not self.tracker._points
            self.patch.undo()


TestTrackerAgainstScan = TrackerAgainstScan.TestCase
TestTrackerAgainstScan.settings = settings(max_examples=60, stateful_step_count=25)


@given(ranges, keys)
def test_a_covering_prefix_covers(span, key):
    lo, hi = span
    if lo <= key < hi:
        assert key.startswith(lo[: covering_length(lo, hi)])
