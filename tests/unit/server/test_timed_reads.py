"""Results at one ts: what the window of recent commits says of them is believed, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from headwater_protocol.errors import RequestError, TransientError
from headwater_server.functions.timed_reads import HELD_S, Ran, TimedReads
from headwater_storage.proposal import CommitTs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Place:
    """A window of commits that each write one key, and a clock."""

    def __init__(self) -> None:
        self.written: list[bytes] = []  # the commit with ts 1 wrote the first
        self.now_s = 0.0
        self.reads = TimedReads(self, lambda: CommitTs(len(self.written)), lambda: self.now_s)

    def first_touch(self, after_ts: CommitTs, points: Any, ranges: Any) -> CommitTs | None:
        for ts in range(after_ts + 1, len(self.written) + 1):
            if self.written[ts - 1] in points:
                return CommitTs(ts)
        return None

    def done(self, key: bytes) -> Ran:
        """A query that reads one key now."""
        ts = len(self.written)
        return Ran(ts, [key], [], b"\xc0", None)

    def query(self, key: bytes, *meanwhile: bytes) -> Callable[[], Awaitable[Ran]]:
        """A query that reads a key, behind whose first run others write."""
        writes = list(meanwhile)

        async def run() -> Ran:
            done = self.done(key)
            self.written += writes
            writes.clear()
            return done

        return run


def test_a_result_holds_at_an_earlier_ts_if_nobody_wrote_what_it_read() -> None:
    place = Place()
    ts = place.reads.hand_out()
    place.written += [b"other"]
    place.reads.require(place.done(b"own"), ts)
    place.written += [b"own"]
    with pytest.raises(TransientError) as lost:
        place.reads.require(place.done(b"own"), ts)
    assert lost.value.code == "conflict"
    place.reads.require(place.done(b"own"), place.reads.hand_out())
    with pytest.raises(RequestError, match="ahead of the database"):
        place.reads.require(place.done(b"own"), 3)


def test_what_was_handed_out_is_held_for_a_while() -> None:
    place = Place()
    assert place.reads.oldest_ts() is None
    for second in range(100):
        place.now_s = float(second)
        place.reads.hand_out()
        place.written.append(b"x")
        assert len(place.reads._handed_out) <= HELD_S + 3
        oldest = place.reads.oldest_ts()
        assert oldest is not None
        assert oldest <= max(0, second - HELD_S)
    place.now_s += HELD_S + 2
    assert place.reads.oldest_ts() is None


async def test_queries_that_others_write_to_are_run_again_until_all_hold_at_one_ts() -> None:
    place = Place()
    done = await place.reads.together(
        [place.query(b"a", b"a"), place.query(b"b", b"a", b"c"), place.query(b"c", b"x")]
    )
    ts = max(each.ts for each in done)
    for each, key in zip(done, (b"a", b"b", b"c"), strict=True):
        assert key not in place.written[each.ts : ts]


async def test_who_is_written_to_all_the_time_is_told() -> None:
    place = Place()

    async def restless() -> Ran:
        done = place.done(b"a")
        place.written.append(b"a")
        return done

    async def later() -> Ran:
        return place.done(b"a")

    with pytest.raises(TransientError, match="all the time"):
        await place.reads.together([restless, restless, restless, restless, later])
