import random

from headwater_storage.proposal import CommitTs, Proposal, Write
from headwater_storage.window import CommitWindow, PendingKeys, conflict


class NaiveWindow:
    """All commits in a list; every question is a scan of it."""

    def __init__(self) -> None:
        self.commits: list[tuple[int, set[bytes]]] = []

    def first_touch(self, after: int, points: list[bytes], ranges: list[tuple[bytes, bytes]]) -> int | None:
        for ts, keys in self.commits:
            if ts > after and (
                keys & set(points) or any(lo <= key < hi for key in keys for lo, hi in ranges)
            ):
                return ts
        return None


def key(rng: random.Random) -> bytes:
    return bytes(rng.choices(b"abc", k=rng.randint(1, 3)))


def test_equals_a_naive_scan() -> None:
    rng = random.Random(7)
    for _ in range(60):
        window, naive, ts = CommitWindow(CommitTs(100)), NaiveWindow(), 100
        for _ in range(40):
            ts += rng.randint(1, 3)
            keys = {key(rng) for _ in range(rng.randint(0, 4))}
            window.add(CommitTs(ts), keys)
            naive.commits.append((ts, keys))
            if rng.random() < 0.2:
                window.trim(CommitTs(rng.randint(window.floor, ts)))
            for _ in range(5):
                after = rng.randint(window.floor, ts)
                points = [key(rng) for _ in range(rng.randint(0, 2))]
                ranges = [tuple(sorted((key(rng), key(rng)))) for _ in range(rng.randint(0, 2))]
                expected = naive.first_touch(after, points, ranges)
                assert window.first_touch(CommitTs(after), points, ranges) == expected
                assert window.touched_after(CommitTs(after), points, ranges) == (expected is not None)


def test_a_reader_from_before_the_window_counts_as_touched() -> None:
    window = CommitWindow(CommitTs(10))
    window.add(CommitTs(11), {b"a"})
    window.add(CommitTs(12), {b"b"})
    window.trim(CommitTs(11))
    assert window.floor == 11
    assert window.touched_after(CommitTs(10), [b"zzz"], [])
    assert window.first_touch(CommitTs(10), [b"zzz"], []) == 11
    assert not window.touched_after(CommitTs(11), [b"a"], [(b"a", b"b")])
    assert window.touched_after(CommitTs(11), [b"b"], [])


def test_the_cap_of_bytes_raises_the_floor() -> None:
    window = CommitWindow(CommitTs(0), bytes_max=1000)
    for ts in range(1, 100):
        window.add(CommitTs(ts), {b"key-%d" % ts, b"all"})
    assert window.size_bytes <= 1000
    assert 90 < window.floor < 99
    assert window.touched_after(CommitTs(window.floor), [b"all"], [])
    assert window.touched_after(CommitTs(window.floor - 1), [], [])
    assert not window.touched_after(CommitTs(99), [b"all"], [])


def test_one_batch_beyond_the_cap_leaves_an_empty_window() -> None:
    window = CommitWindow(CommitTs(0), bytes_max=100)
    window.add(CommitTs(5), {b"k%d" % i for i in range(10)})
    assert window.floor == 5
    assert window.size_bytes == 0
    assert not window.touched_after(CommitTs(5), [b"k1"], [])


def test_pending_keys_meet_points_and_ranges() -> None:
    rng = random.Random(3)
    for _ in range(100):
        pending, keys = PendingKeys(), set[bytes]()
        for _ in range(30):
            added = {key(rng) for _ in range(rng.randint(0, 3))}
            pending.add(added)
            keys |= added
            points = [key(rng) for _ in range(rng.randint(0, 2))]
            ranges = [tuple(sorted((key(rng), key(rng)))) for _ in range(rng.randint(0, 2))]
            expected = bool(keys & set(points)) or any(lo <= k < hi for k in keys for lo, hi in ranges)
            assert pending.touched(points, ranges) == expected


def test_conflict_looks_at_commits_and_at_what_is_pending() -> None:
    window, pending = CommitWindow(CommitTs(0)), PendingKeys()
    reader = Proposal(CommitTs(1), [b"a"], [(b"m", b"n")], [])
    assert not conflict(window, pending, reader)
    pending.add(Write(b"x", b"", [b"m5"], [b"m7"]).conflict_keys())
    assert conflict(window, pending, reader)
    window.add(CommitTs(2), {b"a"})
    assert conflict(window, PendingKeys(), reader)
    assert not conflict(window, PendingKeys(), Proposal(CommitTs(2), [b"a"], [], []))


def test_what_did_not_happen_is_taken_back() -> None:
    window = CommitWindow(CommitTs(0))
    window.add(CommitTs(1), {b"a", b"b"})
    window.add(CommitTs(2), {b"b", b"c"})
    window.undo(CommitTs(2))
    size = window.size_bytes
    assert not window.touched_after(CommitTs(1), [b"a", b"b", b"c"], [(b"a", b"z")])
    assert window.touched_after(CommitTs(0), [b"b"], [])
    assert not window.touched_after(CommitTs(0), [b"c"], [])
    window.undo(CommitTs(2))
    assert window.size_bytes == size
