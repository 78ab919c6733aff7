from __future__ import annotations

from headwater_storage import recent_commits
from headwater_storage.proposal import CommitTs, Proposal, Write
from headwater_storage.recent_commits import RecentCommits, writer_in


def writing(*keys: bytes, quiet: bool = False) -> Proposal:
    return Proposal(
        CommitTs(1), [], [], [Write(key, b"", [b"old" + key], [b"new" + key]) for key in keys], quiet=quiet
    )


def test_the_writer_is_found_by_document_and_by_entries() -> None:
    recent = RecentCommits()
    recent.add(CommitTs(2), [("a", writing(b"1")), ("b", writing(b"2", b"3"))], 10)
    assert [recent.writer(CommitTs(2), key) for key in (b"1", b"old2", b"new3", b"4")] == [
        "a",
        "b",
        "b",
        None,
    ]
    assert recent.writer(CommitTs(3), b"1") is None
    assert recent.writer(None, b"1") is None
    assert writer_in([("q", writing(b"1", quiet=True))], b"1") is None


def test_the_oldest_go_beyond_the_bounds_and_a_refused_batch_at_once() -> None:
    recent = RecentCommits()
    for ts in range(1, 100):
        recent.add(CommitTs(ts), [(ts, writing(b"1"))], recent_commits._BYTES_MAX // 10)
    known = [ts for ts in range(1, 100) if recent.writer(CommitTs(ts), b"1")]
    assert known == list(range(90, 100))
    recent.undo(CommitTs(99))
    assert recent.writer(CommitTs(99), b"1") is None
    for ts in range(100, 300):
        recent.add(CommitTs(ts), [(ts, writing(b"1"))], 0)
    assert (
        len([ts for ts in range(1, 300) if recent.writer(CommitTs(ts), b"1")]) == recent_commits._BATCHES_MAX
    )
