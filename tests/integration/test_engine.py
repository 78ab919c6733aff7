"""The engine on a real directory: restart, replay, deploys under load, the order of publishing."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import lmdb
import pytest
from headwater_protocol.errors import (
    HeadwaterError,
    OutcomeUnknown,
    RequestError,
    StorageError,
    TransientError,
)
from headwater_storage import deployment
from headwater_storage.catalog import REQUESTS, TABLES
from headwater_storage.check import check, digest, reaches_back
from headwater_storage.checkpoint import Checkpointer, CheckpointOptions, PendingCheckpoint
from headwater_storage.committer import CommitterOptions, PublishedBatch
from headwater_storage.deployment import KeptDeploys
from headwater_storage.engine import Engine, EngineOptions
from headwater_storage.environment import Environment, real_environment
from headwater_storage.file_log import FileLogOptions
from headwater_storage.keys import document_key
from headwater_storage.log import AppendOutcome, Conflict, Unknown
from headwater_storage.proposal import Proposal
from headwater_storage.recovery import StorageOptions
from support.memory_store import decode, encode, insert
from support.storage_world import Gate
from support.tables import IndexOf, TableOf

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from headwater_storage.transaction import Transaction


MESSAGES = TableOf("messages", [IndexOf("by_channel", ["channel"])])
OPTIONS = EngineOptions(
    storage=StorageOptions(log=FileLogOptions(segment_bytes=1 << 20, first_segment_bytes=1 << 16))
)


@pytest.fixture
def environment() -> Iterator[Environment]:
    environment = real_environment()
    yield environment
    environment.executor.close()


def bodies(transaction: Transaction, index: str | None = "by_channel", *equal: Any) -> list[Any]:
    found = transaction.read_range("messages", index, equal, None, None, descending=False)
    return [decode(stored.document)["body"] for stored in found]


def assert_sound(engine: Engine, scratch: Path) -> None:
    assert reaches_back(engine.log)
    assert check(engine.store, engine.log, scratch) == []


class Recorder:
    """Keeps what a listener hears."""

    def __init__(self) -> None:
        self.batches: list[PublishedBatch] = []
        self.rejections: list[tuple[Any, HeadwaterError]] = []
        self.heard = asyncio.Event()

    def published(self, batch: PublishedBatch) -> None:
        self.batches.append(batch)
        self.heard.set()

    def rejected(self, owner: Any, error: HeadwaterError) -> None:
        self.rejections.append((owner, error))
        self.heard.set()


async def test_a_restart_keeps_everything(tmp_path: Path, environment: Environment) -> None:
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    async with engine.running():
        await engine.deploy([MESSAGES], "one", b"archive")
        for i in range(20):
            await engine.transact(
                lambda transaction, i=i: insert(transaction, "messages", channel=i % 3, body=i)
            )
        before, ts, incarnation = digest(engine.store), engine.published_ts, engine.incarnation
        assert_sound(engine, tmp_path / "scratch")
    again = Engine.open(tmp_path / "data", OPTIONS, environment)
    async with again.running():
        assert again.published_ts > ts
        assert again.incarnation != incarnation
        assert (again.active_bundle(), again.bundle("one")) == ("one", b"archive")
        with again.begin(writable=False) as transaction:
            assert bodies(transaction, "by_channel", 1) == [1, 4, 7, 10, 13, 16, 19]
        _, next_ts = await again.transact(lambda transaction: insert(transaction, "messages", body="x"))
        assert next_ts > ts
    assert before


async def test_a_stop_without_checkpoint_is_replayed(tmp_path: Path, environment: Environment) -> None:
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    task = asyncio.create_task(engine.run())
    await engine.deploy([MESSAGES], "one", b"archive")
    ids = [
        (await engine.transact(lambda t, i=i: insert(t, "messages", channel="a" * i, body=i)))[0]
        for i in range(9)
    ]
    await engine.transact(lambda t: t.delete(ids[3]))
    await engine.transact(lambda t: t.put(ids[4], encode(ids[4], 1.0, channel="z" * 600, body="moved")))
    with engine.snapshot() as snapshot:
        live = [*snapshot.documents(b"\0", b"\xff"), *snapshot.entries(b"\0", b"\xff")]
    engine.stop()
    await task
    engine.close(clean=False)
    again = Engine.open(tmp_path / "data", OPTIONS, environment)
    with again.snapshot() as snapshot:
        assert [*snapshot.documents(b"\0", b"\xff"), *snapshot.entries(b"\0", b"\xff")] == live
    assert_sound(again, tmp_path / "scratch")
    again.close()


async def test_conflicts_are_rejected_and_rerun(tmp_path: Path, environment: Environment) -> None:
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    async with engine.running():
        await engine.deploy([MESSAGES], "one", b"archive")
        counter, _ = await engine.transact(lambda t: insert(t, "messages", channel="c", body=0))

        def increment(transaction: Transaction) -> int:
            stored = transaction.get(counter)
            assert stored is not None
            body = decode(stored.document)["body"] + 1
            transaction.put(counter, encode(counter, 1.0, channel="c", body=body))
            return body

        with engine.begin() as one, engine.begin() as two:
            increment(one)
            increment(two)
            outcomes = await asyncio.gather(
                engine.commit(one.proposal()), engine.commit(two.proposal()), return_exceptions=True
            )
        assert [getattr(outcome, "code", "committed") for outcome in outcomes] == ["committed", "conflict"]
        results = await asyncio.gather(*(engine.transact(increment) for _ in range(25)))
        assert sorted(result for result, _ in results) == list(range(2, 27))
        assert len({ts for _, ts in results}) == 25
        assert_sound(engine, tmp_path / "scratch")


async def test_a_stale_snapshot_conflicts_also_across_batches(
    tmp_path: Path, environment: Environment
) -> None:
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    async with engine.running():
        await engine.deploy([MESSAGES], "one", b"archive")
        with engine.begin() as old:
            engine.hold(old.begin_ts)
            assert bodies(old, "by_channel", "a") == []
            insert(old, "messages", channel="b", body="late")
            late = old.proposal()
        await engine.transact(lambda t: insert(t, "messages", channel="c", body="elsewhere"))
        await engine.commit(late)
        await engine.transact(lambda t: insert(t, "messages", channel="a", body="phantom"))
        with pytest.raises(TransientError) as failure:
            await engine.commit(late)
        assert failure.value.code == "conflict"
        engine.release(late.begin_ts)
        await engine.transact(lambda t: insert(t, "messages", channel="c", body="trims the window"))
        assert engine.window.floor > late.begin_ts


async def test_unique_indexes_hold_under_concurrency(tmp_path: Path, environment: Environment) -> None:
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    async with engine.running():
        await engine.deploy([TableOf("messages", [IndexOf("by_key", ["key"], unique=True)])], "one", b"")
        outcomes = await asyncio.gather(
            *(engine.transact(lambda t, i=i: insert(t, "messages", key=i % 5, body=i)) for i in range(30)),
            return_exceptions=True,
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, RequestError)]
        assert len(refused) == 25
        assert {error.code for error in refused} == {"unique_violation"}
        assert_sound(engine, tmp_path / "scratch")


async def test_the_log_since_a_checkpoint_is_bounded_while_one_is_saved(
    tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_bytes = 1 << 16
    storage = replace(OPTIONS.storage, checkpoint=CheckpointOptions(log_bytes=log_bytes, interval_s=1e9))
    engine = Engine.open(
        tmp_path / "data",
        replace(
            OPTIONS, storage=storage, checkpoint_poll_s=0.01, committer=CommitterOptions(batch_count_max=2)
        ),
        environment,
    )
    gate = Gate()
    save = Checkpointer.save

    def held(checkpointer: Checkpointer, pending: PendingCheckpoint) -> None:
        gate.wait()
        save(checkpointer, pending)

    async with engine.running():
        await engine.deploy([MESSAGES], "one", b"archive")
        monkeypatch.setattr(Checkpointer, "save", held)
        writing = [
            asyncio.create_task(
                engine.transact(lambda t: insert(t, "messages", channel="a", body="x" * 5_000))
            )
            for _ in range(100)
        ]
        await asyncio.to_thread(gate.reached.wait)
        while not engine._recovered.checkpointer.is_behind():
            await asyncio.sleep(0.01)
        appended = engine.log.appended_bytes
        await asyncio.sleep(0.1)
        assert engine.log.appended_bytes <= appended + (1 << 20)  # a batch that was on its way
        assert not all(task.done() for task in writing)
        gate.release.set()
        await asyncio.gather(*writing)
        assert_sound(engine, tmp_path / "scratch")


async def test_listeners_hear_in_order(tmp_path: Path, environment: Environment) -> None:
    engine = Engine.open(tmp_path / "data", OPTIONS, environment)
    async with engine.running():
        await engine.deploy([MESSAGES], "one", b"archive")
        engine.listener = recorder = Recorder()
        start = engine.published_ts
        for i in range(10):
            with engine.begin() as transaction:
                transaction.put_row(REQUESTS, b"row%d" % i, b"done")
                engine.submit(transaction.proposal(), i)
        with engine.begin() as transaction:
            transaction.get_row(REQUESTS, b"row3")
            engine.submit(transaction.proposal(), "reader")
        while sum(len(batch.commits) for batch in recorder.batches) < 11:
            recorder.heard.clear()
            await recorder.heard.wait()
        reader, *batches = recorder.batches
        assert [(commit.owner, commit.ts) for commit in reader.commits] == [("reader", start)]
        commits = [commit for batch in batches for commit in batch.commits]
        assert [(commit.owner, commit.ts) for commit in commits] == [(i, start + 1 + i) for i in range(10)]
        for batch in batches:
            assert batch.ts == batch.commits[-1].ts
            assert batch.conflict_keys == set().union(*(c.proposal.conflict_keys() for c in batch.commits))


class TestDeploy:
    async def test_an_index_is_built_while_writers_write(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        rng = random.Random(1)
        model: dict[str, Any] = {}

        def write(transaction: Transaction, seed: int) -> tuple[str, Any]:
            choice = random.Random(seed)
            score = choice.randint(0, 50)
            if model and choice.random() < 0.5:
                document_id = choice.choice(sorted(model))
                if transaction.get(document_id) is not None:
                    if choice.random() < 0.3:
                        transaction.delete(document_id)
                        return document_id, None
                    transaction.put(
                        document_id, encode(document_id, 1.0, channel="a", score=score, body=score)
                    )
                    return document_id, score
            return insert(transaction, "messages", channel="a", score=score, body=score), score

        async def writer(count: int) -> None:
            for _ in range(count):
                seed = rng.randrange(10**9)
                (document_id, score), _ = await engine.transact(partial(write, seed=seed))
                model[document_id] = score

        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            await writer(700)
            deploying = asyncio.create_task(
                engine.deploy(
                    [TableOf("messages", [*MESSAGES.indexes, IndexOf("by_score", ["score"])])],
                    "two",
                    b"archive 2",
                )
            )
            async with asyncio.TaskGroup() as group:
                for _ in range(4):
                    group.create_task(writer(60))
            switch_ts = await deploying
            assert switch_ts < engine.published_ts
            with engine.begin() as transaction:
                scores = bodies(transaction, "by_score")
            assert scores == sorted(score for score in model.values() if score is not None)
            assert_sound(engine, tmp_path / "scratch")

    async def test_a_unique_index_over_duplicates_is_refused_and_changes_nothing(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            for i in range(3):
                await engine.transact(lambda t, i=i: insert(t, "messages", channel="a", body=i, key=i // 2))
            wanted = TableOf("messages", [IndexOf("by_key", ["key"], unique=True)])
            with pytest.raises(RequestError, match="by_key") as failure:
                await engine.deploy([wanted, TableOf("other")], "two", b"archive 2")
            assert failure.value.code == "unique_violation"
            assert engine.active_bundle() == "one"
            with engine.begin() as transaction:
                assert set(transaction.catalog.by_name) == {"messages"}
                assert set(transaction.catalog.by_name["messages"].ready) == {"by_channel"}
                first = next(transaction.read_range("messages", None, [], None, None, descending=False))
            document_id = decode(first.document)["_id"]
            await engine.transact(lambda t: t.delete(document_id))
            await engine.deploy([wanted], "two", b"archive 2")
            with engine.begin() as transaction:
                assert bodies(transaction, "by_key") == [1, 2]
            assert_sound(engine, tmp_path / "scratch")

    async def test_removed_indexes_lose_their_entries_and_removed_tables_keep_their_documents(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        options = replace(OPTIONS, kept_deploys=KeptDeploys(bundles=2))
        engine = Engine.open(tmp_path / "data", options, environment)
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            for i in range(5):
                await engine.transact(lambda t, i=i: insert(t, "messages", channel="a", body=i))
            await engine.deploy([], "two", b"archive 2")
            await until(lambda: count_entries(engine) == 0)
            with engine.begin() as transaction, pytest.raises(RequestError):
                bodies(transaction)
            await engine.deploy([MESSAGES], "three", b"archive 3")
            with engine.begin() as transaction:
                assert bodies(transaction) == [0, 1, 2, 3, 4]
            assert engine.bundle("one") is None
            assert engine.bundle("two") == b"archive 2"
            assert_sound(engine, tmp_path / "scratch")

    async def test_a_deploy_makes_running_calls_conflict(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            with engine.begin() as transaction:
                engine.hold(transaction.begin_ts)
                insert(transaction, "messages", channel="a", body="old code")
                proposal = transaction.proposal()
            await engine.deploy([TableOf("messages", [IndexOf("by_body", ["body"])])], "two", b"archive 2")
            with pytest.raises(TransientError):
                await engine.commit(proposal)

    async def test_a_deploy_that_was_cut_off_is_taken_up(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        wanted = [TableOf("messages", [*MESSAGES.indexes, IndexOf("by_body", ["body"])])]
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")

            def many(transaction: Transaction) -> None:
                for i in range(2000):
                    insert(transaction, "messages", channel="a", body=i)

            await engine.transact(many)
            deploying = asyncio.create_task(engine.deploy(wanted, "two", b"archive 2"))
            await until(lambda: count_entries(engine) > 2000)
            deploying.cancel()
            await asyncio.wait([deploying])
            built = count_entries(engine)
            assert engine.active_bundle() == "one"
        again = Engine.open(tmp_path / "data", OPTIONS, environment)
        async with again.running():
            assert count_entries(again) >= built
            assert_sound(again, tmp_path / "scratch")
            await again.deploy(wanted, "two", b"archive 2")
            with again.begin() as transaction:
                assert bodies(transaction, "by_body") == list(range(2000))

    async def test_a_writer_from_before_a_part_was_built_conflicts(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        """Its unique probe did not see the entries of that part."""
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        unique = TableOf("messages", [*MESSAGES.indexes, IndexOf("by_body", ["body"], unique=True)])
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            await engine.transact(lambda t: insert(t, "messages", channel="a", body="same"))
            await engine.transact(lambda t: deployment._begin_building(t, [unique]))
            with engine.begin() as transaction:
                engine.hold(transaction.begin_ts)
                insert(transaction, "messages", channel="b", body="same")
                [building] = [i for i in transaction.catalog.indexes.values() if i.state == "building"]
            await engine.transact(lambda t: deployment._advance(t, building))
            with pytest.raises(TransientError) as failure:
                await engine.commit(transaction.proposal())
            assert failure.value.code == "conflict"
            with pytest.raises(RequestError), engine.begin() as transaction:
                insert(transaction, "messages", channel="b", body="same")

    async def test_the_same_bundle_again_is_no_commit(self, tmp_path: Path, environment: Environment) -> None:
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        async with engine.running():
            ts = await engine.deploy([MESSAGES], "one", b"archive")
            assert await engine.deploy([MESSAGES], "one", b"archive") == ts
            assert engine.published_ts == ts


async def until(condition: Any) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0)


def count_entries(engine: Engine) -> int:
    with engine.snapshot() as snapshot:
        return sum(1 for _ in snapshot.entries(b"\x00", b"\xff"))


async def test_a_call_from_before_an_index_conflicts_with_its_making(
    tmp_path: Path, environment: Environment
) -> None:
    """It made no entry for the index, which would lack the document for good."""
    assert await findings_after_a_call_over_a_deploy(tmp_path, environment, without=b"") is None


async def test_a_call_that_does_not_read_its_tables_row_leaves_an_index_without_an_entry(
    tmp_path: Path, environment: Environment
) -> None:
    row = document_key(TABLES, b"messages")
    findings = await findings_after_a_call_over_a_deploy(tmp_path, environment, without=row)
    assert findings is not None
    assert any("no entry in index" in finding for finding in findings)


async def findings_after_a_call_over_a_deploy(
    folder: Path, environment: Environment, *, without: bytes
) -> list[str] | None:
    """Run a call, deploy an index, then commit the call; return what is wrong afterwards, None if it conflicts.

    Args:
        folder: For the data directory.
        environment: Of the engine.
        without: A point to take out of the call's read set.
    """
    engine = Engine.open(folder / "data", OPTIONS, environment)
    async with engine.running():
        await engine.deploy([MESSAGES], "one", b"archive")
        await engine.transact(lambda t: insert(t, "messages", channel="a", body="there"))
        with engine.begin() as transaction:
            insert(transaction, "messages", channel="a", body="new")
            whole = transaction.proposal()
        engine.hold(whole.begin_ts)
        points = [point for point in whole.points if point != without]
        indexes = [*MESSAGES.indexes, IndexOf("by_body", ["body"])]
        await engine.deploy([TableOf("messages", indexes)], "two", b"archive")
        try:
            await engine.commit(Proposal(whole.begin_ts, points, whole.ranges, whole.writes))
        except TransientError as refusal:
            return None if refusal.code == "conflict" else [refusal.code]
        finally:
            engine.release(whole.begin_ts)
        return check(engine.store)


class TestFaults:
    async def test_a_full_disk_refuses_writes_and_recovers(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        files = environment.files
        free = [10**12]

        class FullDisk:
            """Says how much space is left; everything else is the real file system."""

            def __getattr__(self, name: str) -> Any:
                return getattr(files, name)

            def free_bytes(self, path: Path) -> int:
                return free[0]

        engine = Engine.open(tmp_path / "data", OPTIONS, replace(environment, files=FullDisk()))
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            free[0] = 1000
            with pytest.raises(TransientError) as failure:
                await engine.transact(lambda t: insert(t, "messages", channel="a", body="lost"))
            assert failure.value.code == "disk_full"
            with engine.begin() as transaction:
                assert bodies(transaction) == []
            free[0] = 10**12
            await engine.transact(lambda t: insert(t, "messages", channel="a", body="kept"))
            with engine.begin() as transaction:
                assert bodies(transaction) == ["kept"]
            assert_sound(engine, tmp_path / "scratch")

    async def test_a_store_without_room_is_tried_again(
        self, tmp_path: Path, environment: Environment, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        options = replace(OPTIONS, committer=CommitterOptions(retry_s=0.001))
        engine = Engine.open(tmp_path / "data", options, environment)
        async with engine.running():
            await engine.deploy([MESSAGES], "one", b"archive")
            apply, failures = engine.store.apply, [lmdb.MapFullError(), lmdb.DiskError()]

            def full(*arguments: Any) -> None:
                if failures:
                    raise failures.pop()
                apply(*arguments)

            monkeypatch.setattr(engine.store, "apply", full)
            await engine.transact(lambda t: insert(t, "messages", channel="a", body="kept"))
            assert failures == []
            assert_sound(engine, tmp_path / "scratch")

    @pytest.mark.parametrize(
        ("outcome", "code"),
        [(Unknown("the disk is gone"), "disk_failed"), (Conflict("it is gone"), "log_taken")],
    )
    async def test_an_append_without_success_ends_the_run(
        self,
        tmp_path: Path,
        environment: Environment,
        monkeypatch: pytest.MonkeyPatch,
        outcome: AppendOutcome,
        code: str,
    ) -> None:
        engine = Engine.open(tmp_path / "data", OPTIONS, environment)
        running = asyncio.create_task(engine.run())
        await engine.deploy([MESSAGES], "one", b"archive")
        monkeypatch.setattr(engine.log, "append", lambda _: outcome)
        with pytest.raises(OutcomeUnknown):
            await engine.transact(lambda t: insert(t, "messages", channel="a", body="unsure"))
        with pytest.raises(StorageError, match="gone") as failed:
            await running
        assert failed.value.code == code
        engine.close(clean=False)

    async def test_what_was_submitted_before_a_stop_is_decided(
        self, tmp_path: Path, environment: Environment
    ) -> None:
        options = replace(OPTIONS, committer=CommitterOptions(batch_count_max=3))
        engine = Engine.open(tmp_path / "data", options, environment)
        running = asyncio.create_task(engine.run())
        await engine.deploy([MESSAGES], "one", b"archive")
        engine.listener = recorder = Recorder()
        for i in range(20):
            with engine.begin() as transaction:
                insert(transaction, "messages", channel=i, body=i)
                engine.submit(transaction.proposal(), i)
        engine.stop()
        with engine.begin() as transaction:
            insert(transaction, "messages", channel="late", body="late")
            engine.submit(transaction.proposal(), "late")
        await running
        assert [owner for owner, _ in recorder.rejections] == ["late"]
        assert [commit.owner for batch in recorder.batches for commit in batch.commits] == list(range(20))
        assert max(len(batch.commits) for batch in recorder.batches) == 3
        engine.close()
