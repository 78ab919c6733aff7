"""The committer over a log and a store in memory."""

from __future__ import annotations

import asyncio
from typing import Any

import lmdb
import pytest
from headwater_protocol.errors import HeadwaterError, StorageError, TransientError
from headwater_storage.chain import Chain
from headwater_storage.committer import Committer, CommitterOptions, PublishedBatch
from headwater_storage.keys import document_key
from headwater_storage.log import AppendOutcome, EncodedRecord, Head
from headwater_storage.memory_log import AppendFault, MemoryLog
from headwater_storage.proposal import CommitTs, Proposal, Write
from headwater_storage.timeline import Timeline
from headwater_storage.window import CommitWindow
from support.memory_store import MemoryStore
from support.storage_world import FakeClock, inline_environment


def proposal(begin_ts: int, *names: str, reads: tuple[str, ...] = (), size: int = 1) -> Proposal:
    """Reads and writes rows by name."""
    return Proposal(
        CommitTs(begin_ts),
        [row(name) for name in (*names, *reads)],
        [],
        [Write(row(name), b"v" * size, [], []) for name in names],
    )


def row(name: str) -> bytes:
    return document_key(5, name.encode())


class World:
    """A committer that runs when it is told to; `events` is what its listener hears."""

    def __init__(self, **options: Any) -> None:
        self.events: list[Any] = []
        self.store = MemoryStore()
        self.log = MemoryLog(b"l" * 16)
        self.clock = FakeClock()
        self.timeline = Timeline(self.clock, 0)
        record = self.log.claim(b"i" * 16, CommitTs(1), 0)
        self.store.state = self.store.state._replace(record_number=record.number, record_digest=record.digest)
        self.window = CommitWindow(CommitTs(0))
        self.committer = Committer(
            self.store,  # type: ignore[arg-type]
            self.log,
            self.window,
            inline_environment(),
            CommitterOptions(**options),
            self,
            self.timeline,
        )

    def published(self, batch: PublishedBatch) -> None:
        assert self.store.state.ts == batch.ts
        self.events.append((batch.ts, [commit.owner for commit in batch.commits]))

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        self.events.append((owner, error.code))

    async def drain(self) -> list[Any]:
        """Run until everything submitted is decided; return what was heard since the last time."""
        task = asyncio.create_task(self.committer.run())
        for _ in range(50):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error
        heard, self.events = self.events, []
        return heard


async def test_a_batch_is_published_at_its_end() -> None:
    world = World()
    for name in "abc":
        world.committer.submit(proposal(0, name), name)
    assert await world.drain() == [(3, ["a", "b", "c"])]
    assert world.log.head == Head(2, world.log.head.digest, CommitTs(3))
    assert world.store.state.head == world.log.head


async def test_a_loser_hears_of_it_when_the_winner_can_be_seen() -> None:
    world = World()
    world.committer.submit(proposal(0, "a"), "winner")
    world.committer.submit(proposal(0, "b", reads=("a",)), "loser")
    assert world.events == []
    assert await world.drain() == [(1, ["winner"]), ("loser", "conflict")]
    world.committer.submit(proposal(0, "b", reads=("a",)), "late")
    assert world.events == [("late", "conflict")]


async def test_batches_are_bounded_and_nothing_overtakes() -> None:
    world = World(batch_bytes_max=100, batch_count_max=3, transaction_bytes_max=200)
    for name, size in (("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 150), ("f", 1), ("g", 60), ("h", 60)):
        world.committer.submit(proposal(0, name, size=size), name)
    world.committer.submit(proposal(0, "i", size=300), "i")
    heard = await world.drain()
    assert [owners for ts, owners in heard if isinstance(ts, int)] == [
        ["a", "b", "c"], ["d"], ["e"], ["f", "g"], ["h"],
    ]  # fmt: skip
    assert ("i", "too_many_bytes") in heard


async def test_proposals_that_write_nothing_are_published_at_once() -> None:
    world = World()
    world.committer.submit(proposal(0, reads=("a",)), "reader")
    assert world.events == [(0, ["reader"])]
    assert world.log.head.number == 1


async def test_too_many_waiting_are_refused() -> None:
    world = World(batch_count_max=1, waiting_max=2)
    for name in "abcd":
        world.committer.submit(proposal(0, name), name)
    assert await world.drain() == [("d", "overloaded"), (1, ["a"]), (2, ["b"]), (3, ["c"])]


async def test_a_record_is_dated_after_every_call_in_it_whatever_the_clock_does() -> None:
    world = World()
    for jump_s in (0, 3600, -3600, 0, -3e8):
        world.clock.now_s += jump_s
        called_us = world.timeline.next_us()
        world.committer.submit(proposal(world.store.state.ts, "a"), "a")
        await world.drain()
        (record,) = world.log.read(world.log.head.number)
        assert called_us < record.wall_us == world.store.state.wall_us < world.timeline.next_us()


async def test_those_who_wait_keep_the_window() -> None:
    world = World(batch_count_max=1)
    assert world.committer.waiting_since() is None
    for name in "abc":
        world.committer.submit(proposal(0, name), name)
    assert world.committer.waiting_since() == 0
    await world.drain()
    assert world.committer.waiting_since() is None


async def test_a_log_without_space_refuses_a_batch_and_takes_the_next() -> None:
    world = World()
    world.log.fault = AppendFault.DISK_FULL
    world.committer.submit(proposal(0, "a"), "a")
    world.committer.submit(proposal(0, "b", reads=("a",)), "loser")
    assert await world.drain() == [("a", "disk_full"), ("loser", "conflict")]
    world.committer.submit(proposal(0, "a"), "again")
    assert await world.drain() == [(1, ["again"])]


async def test_a_disk_without_reserve_refuses_before_the_append() -> None:
    world = World(free_bytes_min=1 << 62)
    world.committer.submit(proposal(0, "a"), "a")
    assert await world.drain() == [("a", "disk_full")]
    assert world.log.head.number == 1
    assert not world.window.touched_after(CommitTs(0), [row("a")], [])


class TestStoreWithoutRoom:
    """A batch is durable and the store has no room for it."""

    @staticmethod
    def world(*failures: Exception) -> World:
        world = World(retry_s=0.0, batch_count_max=1)
        apply, left = world.store.apply, list(failures)

        def failing(changes: Any, state: Any) -> None:
            if left:
                raise left.pop(0)
            apply(changes, state)

        world.store.apply = failing  # type: ignore[method-assign]
        return world

    async def test_what_is_durable_waits_and_everything_else_is_refused(self) -> None:
        world = self.world(*[lmdb.DiskError()] * 5)
        for name in "abc":
            world.committer.submit(proposal(0, name), name)
        task = asyncio.create_task(world.committer.run())
        while not world.events:
            await asyncio.sleep(0)
        world.committer.submit(proposal(0, "d"), "d")
        # Of c nothing was in the log yet; b was being appended when the store had no room for a.
        assert world.events == [("c", "disk_full"), ("d", "disk_full")]
        world.committer.submit(proposal(0, reads=("a",)), "reader")
        assert world.events.pop() == (0, ["reader"])
        while len(world.events) < 4:
            await asyncio.sleep(0)
        assert world.events[2:] == [(1, ["a"]), (2, ["b"])]
        world.committer.submit(proposal(2, "d"), "d again")
        world.committer.close()
        await task
        assert world.events[4:] == [(3, ["d again"])]

    @pytest.mark.parametrize("error", [lmdb.PanicError(), lmdb.CorruptedError(), lmdb.Error("of the disk")])
    async def test_any_other_failure_ends_the_run_and_answers_nobody(self, error: Exception) -> None:
        world = self.world(error)
        world.committer.submit(proposal(0, "a"), "a")
        with pytest.raises(StorageError):
            await world.drain()
        assert world.events == []

    async def test_a_stop_does_not_wait_for_room(self) -> None:
        world = self.world(*[lmdb.DiskError()] * 1_000_000)
        world.committer.submit(proposal(0, "a"), "a")
        task = asyncio.create_task(world.committer.run())
        for _ in range(50):
            await asyncio.sleep(0)
        world.committer.close()
        with pytest.raises(TransientError) as full:
            await task
        assert full.value.code == "disk_full"
        assert world.events == []


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (AppendFault.UNKNOWN_LOST, "disk_failed"),
        (AppendFault.UNKNOWN_WRITTEN, "disk_failed"),
        (AppendFault.CONFLICT, "log_taken"),
    ],
)
async def test_an_append_without_success_ends_the_run_and_is_answered_to_nobody(
    fault: AppendFault, code: str
) -> None:
    world = World()
    world.log.fault = fault
    world.committer.submit(proposal(0, "a"), "a")
    with pytest.raises(StorageError) as failed:
        await world.drain()
    assert failed.value.code == code
    assert world.events == []
    assert world.store.state.ts == 0


@pytest.mark.parametrize("fault", [AppendFault.RETRIED, AppendFault.DELIVERED_TWICE])
async def test_an_append_that_is_repeated_commits_once(fault: AppendFault) -> None:
    world = World()
    world.log.fault = fault
    world.committer.submit(proposal(0, "a"), "a")
    assert await world.drain() == [(1, ["a"])]
    world.committer.submit(proposal(1, "a"), "again")
    assert await world.drain() == [(2, ["again"])]
    assert world.log.head.number == 3


async def test_members_of_a_chain_may_have_read_what_those_before_them_write() -> None:
    world = World()
    chain = Chain()
    for owner in "abc":
        world.committer.submit(proposal(0, "hot"), owner, chain)
    assert await world.drain() == [(3, ["a", "b", "c"])]
    assert (chain.settled, chain.settled_ts) == (3, 3)
    world.committer.submit(proposal(0, "hot"), "d", chain)
    assert await world.drain() == [(4, ["d"])]


async def test_a_member_that_missed_what_somebody_else_wrote_falls_and_those_that_read_from_it() -> None:
    world = World()
    world.committer.submit(proposal(0, "a"), "outsider")
    chain = Chain()
    world.committer.submit(proposal(0, "x"), "before", chain)
    world.committer.submit(proposal(0, "y", reads=("a",)), "missed it", chain)
    world.committer.submit(proposal(0, "z", reads=("y",)), "read from it", chain)
    world.committer.submit(proposal(0, "u", reads=("z",)), "read from that", chain)
    world.committer.submit(proposal(0, "v", reads=("x",)), "did not", chain)
    rejected = [(owner, "conflict") for owner in ("missed it", "read from it", "read from that")]
    assert await world.drain() == [(3, ["outsider", "before", "did not"]), *rejected]
    assert chain.failed
    assert chain.settled == 0, "what the worker counts is no longer what is committed"


async def test_others_count_in_every_batch_since_the_chain_began_and_from_where_it_moved_on() -> None:
    world = World()
    chain = Chain()
    world.committer.submit(proposal(0, "hot"), "a", chain)
    await world.drain()
    world.committer.submit(proposal(1, "cold"), "outsider")
    await world.drain()
    world.window.trim(CommitTs(2))  # nobody else needs to look back so far
    world.committer.submit(proposal(0, "hot"), "b", chain)
    assert await world.drain() == [(3, ["b"])]
    world.committer.submit(proposal(2, "hot", reads=("cold",)), "moved on", chain)
    assert await world.drain() == [(4, ["moved on"])]
    world.committer.submit(proposal(0, "hot", reads=("cold",)), "had not", chain)
    assert await world.drain() == [("had not", "conflict")]


async def test_an_outsider_between_two_members_of_one_batch_counts() -> None:
    world = World()
    chain = Chain()
    world.committer.submit(proposal(0, "x"), "a", chain)
    world.committer.submit(proposal(0, "hot"), "outsider")
    world.committer.submit(proposal(0, "x", reads=("hot",)), "b", chain)
    assert await world.drain() == [(2, ["a", "outsider"]), ("b", "conflict")]


async def test_two_chains_are_strangers_to_each_other() -> None:
    world = World()
    first, second = Chain(), Chain()
    world.committer.submit(proposal(0, "a"), "first", first)
    world.committer.submit(proposal(0, "b"), "second", second)
    world.committer.submit(proposal(0, "c", reads=("b",)), "first again", first)
    world.committer.submit(proposal(0, "d", reads=("b",)), "second again", second)
    assert await world.drain() == [(3, ["first", "second", "second again"]), ("first again", "conflict")]


async def test_a_member_without_writes_commits_after_those_it_read_or_falls_with_them() -> None:
    world = World()
    chain = Chain()
    world.committer.submit(proposal(0, "hot"), "writer", chain)
    world.committer.submit(proposal(0, reads=("hot",)), "reader", chain)
    assert world.events == []
    assert await world.drain() == [(2, ["writer", "reader"])]
    world.committer.submit(proposal(0, "other"), "outsider")
    world.committer.submit(proposal(0, "hot", reads=("other",)), "writer", chain)
    world.committer.submit(proposal(0, reads=("hot",)), "reader", chain)
    assert await world.drain() == [(3, ["outsider"]), ("writer", "conflict"), ("reader", "conflict")]


async def test_a_member_refused_for_its_size_takes_those_with_it_that_read_it() -> None:
    world = World(transaction_bytes_max=100)
    chain = Chain()
    world.committer.submit(proposal(0, "hot", size=200), "large", chain)
    world.committer.submit(proposal(0, "hot"), "next", chain)
    assert await world.drain() == [("large", "too_many_bytes"), ("next", "conflict")]


async def test_when_the_log_refuses_a_batch_no_later_member_of_its_chains_stands() -> None:
    world = World(batch_count_max=2)
    world.log.fault = AppendFault.DISK_FULL
    chain = Chain()
    for owner in "abcdefg":  # two in the batch that is refused, two in the one behind it, three wait
        world.committer.submit(proposal(0, "hot"), owner, chain)
    world.committer.submit(proposal(0, "cold"), "outsider")
    heard = await world.drain()
    assert {entry for entry in heard if entry[0] in ("a", "b")} == {("a", "disk_full"), ("b", "disk_full")}
    assert {entry for entry in heard if entry[1] == "conflict"} == {(owner, "conflict") for owner in "cdefg"}
    assert [entry for entry in heard if isinstance(entry[0], int)] == [(1, ["outsider"])]
    assert chain.broken


async def test_when_the_disk_is_full_nothing_of_the_chain_commits() -> None:
    world = World(batch_count_max=2, free_bytes_min=1 << 62)
    chain = Chain()
    for owner in "abc":
        world.committer.submit(proposal(0, "hot"), owner, chain)
    assert set(await world.drain()) == {("a", "disk_full"), ("b", "disk_full"), ("c", "conflict")}


async def test_a_chain_that_is_ended_costs_nothing_any_more() -> None:
    world = World()
    chain = Chain()
    world.committer.submit(proposal(0, "hot"), "a", chain)
    await world.drain()
    world.committer.end_chain(chain)
    world.committer.end_chain(chain)
    world.committer.submit(proposal(1, "hot"), "b")
    await world.drain()
    assert chain.stands(proposal(0, "hot")), "it is told of nothing"


class TestWaitingForACheckpoint:
    def behind(self, **options: Any) -> tuple[World, list[bool]]:
        world = World(wait_poll_s=0.0, batch_count_max=1, **options)
        state = [True]
        world.committer._is_behind = lambda: state[0]
        return world, state

    async def test_nothing_more_is_logged_until_it_is_finished(self) -> None:
        world, behind = self.behind()
        for name in "ab":
            world.committer.submit(proposal(0, name), name)
        assert await world.drain() == []
        assert world.log.head.number == 1
        world.committer.submit(proposal(0, reads=("a",)), "reader")
        assert world.events.pop() == (0, ["reader"])
        behind[0] = False
        assert await world.drain() == [(1, ["a"]), (2, ["b"])]

    async def test_what_was_logged_is_published_all_the_same(self) -> None:
        world, behind = self.behind()
        world.log.before_append = lambda: behind.__setitem__(0, True)
        behind[0] = False
        for name in "abc":
            world.committer.submit(proposal(0, name), name)
        assert await world.drain() == [(1, ["a"])]
        assert world.log.head.number == 2

    async def test_a_full_disk_and_a_stop_do_not_wait(self) -> None:
        world, _ = self.behind(free_bytes_min=1 << 62)
        world.committer.submit(proposal(0, "a"), "a")
        assert await world.drain() == [("a", "disk_full")]
        world, _ = self.behind()
        world.committer.submit(proposal(0, "a"), "a")
        world.committer.close()
        assert await world.drain() == [(1, ["a"])]


async def test_after_closing_nothing_is_taken() -> None:
    world = World()
    world.committer.submit(proposal(0, "a"), "a")
    world.committer.close()
    world.committer.submit(proposal(0, "b"), "b")
    assert await world.drain() == [("b", "unavailable"), (1, ["a"])]


async def test_what_is_durable_is_not_kept_back_by_an_append_that_holds_up_the_loop() -> None:
    world = World(quick_append_s=0.001, batch_count_max=1)
    for number in range(40):  # the disk has to be known to be quick
        world.committer.submit(proposal(number, f"k{number}"), number)
        await world.drain()
    append = world.log.append

    def noted(record: EncodedRecord) -> AppendOutcome:
        world.events.append("append")
        return append(record)

    world.log.append = noted  # type: ignore[method-assign]
    for name in "abc":
        world.committer.submit(proposal(40, name), name)
    heard = await world.drain()
    assert heard == ["append", (41, ["a"]), "append", (42, ["b"]), "append", (43, ["c"])]


async def test_the_time_of_an_append_on_the_loop_is_told() -> None:
    world = World(quick_append_s=0.001)
    for number in range(40):
        world.committer.submit(proposal(number, f"k{number}"), number)
        await world.drain()
    clock = world.committer._environment.clock
    append, times = world.log.append, []

    def slow(record: EncodedRecord) -> AppendOutcome:
        clock.sleep(0.5)
        return append(record)

    world.log.append = slow  # type: ignore[method-assign]
    world.published = lambda batch: times.append(batch.times)  # type: ignore[method-assign]
    world.committer.submit(proposal(40, "a"), "a")
    await world.drain()
    assert times[0].durable_s - times[0].sealed_s == pytest.approx(0.5)


async def test_others_have_their_turn_between_batches_that_are_appended_on_the_loop() -> None:
    world = World(quick_append_s=0.001, batch_count_max=1)
    for number in range(40):
        world.committer.submit(proposal(number, f"k{number}"), number)
        await world.drain()
    for name in "abc":
        world.committer.submit(proposal(40, name), name)
    task = asyncio.create_task(world.committer.run())
    turns = 0
    while len(world.events) < 3:
        await asyncio.sleep(0)
        turns += 1
    task.cancel()
    assert turns >= 3
