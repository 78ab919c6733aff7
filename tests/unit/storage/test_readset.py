import random

from headwater_storage.readset import ReadSet, merged, widened


def test_a_scan_counts_as_far_as_it_was_consumed() -> None:
    reads = ReadSet(100)
    scan = reads.scan(b"b", b"y", descending=False)
    assert reads.ranges() == []
    scan.last = b"k"
    assert reads.ranges() == [(b"b", b"k\x00")]
    scan.dry = True
    assert reads.ranges() == [(b"b", b"y")]


def test_a_descending_scan_counts_from_its_end() -> None:
    reads = ReadSet(100)
    reads.scan(b"b", b"y", descending=True).last = b"k"
    assert reads.ranges() == [(b"k", b"y")]


def test_a_dry_scan_without_entries_is_still_read() -> None:
    reads = ReadSet(100)
    reads.scan(b"b", b"y", descending=True).dry = True
    assert reads.ranges() == [(b"b", b"y")]


def test_overlaps_and_neighbours_are_merged() -> None:
    assert merged([(b"d", b"f"), (b"a", b"b"), (b"b", b"c"), (b"e", b"h"), (b"x", b"x")]) == [
        (b"a", b"c"),
        (b"d", b"h"),
    ]


def test_widening_joins_the_nearest() -> None:
    ranges = [(b"1a", b"1b"), (b"2aaa", b"2aab"), (b"2aac", b"2aad"), (b"3a", b"3b")]
    assert widened(ranges, 3) == [(b"1a", b"1b"), (b"2aaa", b"2aad"), (b"3a", b"3b")]
    assert widened(ranges, 1) == [(b"1a", b"3b")]
    assert widened(ranges, 4) is ranges


def test_many_ranges_stay_bounded_and_cover_what_was_read() -> None:
    rng = random.Random(5)
    reads, keys = ReadSet(20), []
    for _ in range(500):
        lo = rng.randbytes(3)
        keys.append(lo)
        scan = reads.scan(lo, lo + b"\x01", descending=False)
        scan.dry = True
    ranges = reads.ranges()
    assert len(ranges) <= 20
    assert all(any(lo <= key < hi for lo, hi in ranges) for key in keys)
    assert all(ranges[i][1] < ranges[i + 1][0] for i in range(len(ranges) - 1))
