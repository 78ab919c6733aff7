from __future__ import annotations

import msgspec
import pytest
from headwater_protocol.errors import RequestError
from headwater_storage import jobs
from headwater_storage.apply import derive_changes
from headwater_storage.catalog import Catalog
from headwater_storage.check import check_snapshot
from headwater_storage.job_rows import JobFailure, JobKind
from headwater_storage.limits import CallLimits
from headwater_storage.proposal import CommitTs
from headwater_storage.window import CommitWindow, PendingKeys, conflict
from support.memory_store import MemoryStore, insert, logged, table

NOW_US = 1_700_000_000_000_000
ARGUMENTS = msgspec.msgpack.encode({"name": "x"})


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def scheduled(store: MemoryStore, due_us: int = NOW_US, kind: JobKind = "mutation") -> str:
    transaction = store.transaction()
    job = transaction.schedule("work:do", kind, ARGUMENTS, due_us)
    store.commit(transaction.proposal())
    return job


def state(store: MemoryStore, job: str) -> str:
    found = jobs.peek(store.snapshot(), job)
    assert found is not None
    return found.state


def test_a_job_is_a_document_that_its_transaction_makes(store: MemoryStore) -> None:
    store.add_table(table(32, "effects"))
    transaction = store.transaction()
    insert(transaction, "effects", name="x")
    job = transaction.schedule("work:do", "mutation", ARGUMENTS, NOW_US + 5)
    assert transaction.first_due_us == NOW_US + 5
    store.commit(transaction.proposal())
    found = jobs.peek(store.snapshot(), job)
    assert found is not None
    assert (found.function, bytes(found.arguments), found.due_ms) == (
        "work:do",
        ARGUMENTS,
        (NOW_US + 5) / 1000,
    )


def test_what_is_rolled_back_or_discarded_schedules_nothing(store: MemoryStore) -> None:
    transaction = store.transaction()
    before = transaction.savepoint()
    transaction.schedule("work:do", "mutation", ARGUMENTS, NOW_US)
    transaction.roll_back(before)
    assert transaction.proposal().writes == []
    transaction.schedule("work:do", "mutation", ARGUMENTS, NOW_US)
    transaction.discard_writes()
    assert transaction.proposal().writes == []


def test_replay_derives_the_entries_of_jobs(store: MemoryStore) -> None:
    job = scheduled(store)
    steps = [
        lambda t: jobs.start(t, job),
        lambda t: jobs.fail(t, job, "running", JobFailure("time_limit", "late")),
        lambda t: t.delete(job),
    ]
    for step in steps:
        transaction = store.transaction()
        step(transaction)
        proposal = transaction.proposal()
        before = store.snapshot()
        derived = derive_changes([logged(proposal)], CommitTs(9), before, Catalog.load(before))
        assert store.commit(proposal).entries == derived.entries
        assert check_snapshot(store.snapshot()) == []
    assert not store.entry_values


def test_pending_jobs_come_in_the_order_in_which_they_are_due(store: MemoryStore) -> None:
    later, soon, first = (scheduled(store, NOW_US + delay) for delay in (3_000_000, 2_000, -7))
    action = scheduled(store, NOW_US, "action")
    snapshot = store.snapshot()
    assert [job.id for job in jobs.pending(snapshot, "mutation", (), 9)] == [first, soon, later]
    assert [job.due_us for job in jobs.pending(snapshot, "mutation", (), 2)] == [NOW_US - 7, NOW_US + 2_000]
    assert [job.id for job in jobs.pending(snapshot, "mutation", {first}, 1)] == [soon]
    assert [job.id for job in jobs.pending(snapshot, "action", (), 9)] == [action]
    assert jobs.running(snapshot, 9) == []


def test_a_job_goes_from_state_to_state_and_never_back_but_where_it_has_not_begun(store: MemoryStore) -> None:
    job = scheduled(store, kind="action")
    transaction = store.transaction()
    assert jobs.start(transaction, job) is not None
    store.commit(transaction.proposal())
    assert jobs.running(store.snapshot(), 9) == [job]
    transaction = store.transaction()
    assert jobs.start(transaction, job) is None
    assert jobs.fail(transaction, job, "pending", JobFailure("x", "")) is False
    assert transaction.proposal().writes == []
    jobs.put_back(transaction, job)
    store.commit(transaction.proposal())
    assert state(store, job) == "pending"
    transaction = store.transaction()
    assert transaction.cancel_job(job) is True
    assert transaction.cancel_job(job) is False
    jobs.put_back(transaction, job)
    store.commit(transaction.proposal())
    assert state(store, job) == "cancelled"
    assert jobs.pending(store.snapshot(), "action", (), 9) == []


def test_a_running_job_can_be_cancelled_and_what_its_action_schedules_then_is(store: MemoryStore) -> None:
    job = scheduled(store, kind="action")
    transaction = store.transaction()
    jobs.start(transaction, job)
    before = jobs.schedule_from(transaction, job, "a:b", "mutation", b"\x80", 5)
    store.commit(transaction.proposal())
    transaction = store.transaction()
    assert transaction.cancel_job(job) is True
    assert transaction.cancel_job(job) is False
    behind = jobs.schedule_from(transaction, job, "a:b", "mutation", b"\x80", 5)
    assert jobs.fail(transaction, job, "running", JobFailure("x", "")) is False
    store.commit(transaction.proposal())
    assert [state(store, one) for one in (job, before, behind)] == ["cancelled", "pending", "cancelled"]


def test_of_two_that_take_up_a_job_one_conflicts(store: MemoryStore) -> None:
    job = scheduled(store, kind="action")
    one, other = store.transaction(), store.transaction()
    assert jobs.start(one, job) is not None
    assert other.cancel_job(job) is True
    window = CommitWindow(store.state.ts)
    store.commit(one.proposal())
    window.add(store.state.ts, one.proposal().conflict_keys())
    assert conflict(window, PendingKeys(), other.proposal())


def test_what_is_no_job_cannot_be_cancelled(store: MemoryStore) -> None:
    store.add_table(table(32, "effects"))
    transaction = store.transaction()
    document = insert(transaction, "effects", name="x")
    with pytest.raises(RequestError, match="no id of a scheduled job"):
        transaction.cancel_job(document)
    missing = "7" + document[-31:]
    assert transaction.cancel_job(missing) is False


def test_jobs_that_ended_long_ago_are_forgotten_a_few_at_a_time(store: MemoryStore) -> None:
    names = [scheduled(store) for _ in range(5)]
    for number, job in enumerate(names[:4]):
        transaction = store.transaction(now_us=NOW_US + number)
        assert transaction.cancel_job(job)
        store.commit(transaction.proposal())
    transaction = store.transaction(now_us=NOW_US + 1_000_003)
    assert jobs.trim(transaction, 1_000_000, 2) == jobs.TrimmedJobs(2, done=False)
    store.commit(transaction.proposal())
    transaction = store.transaction(now_us=NOW_US + 1_000_003)
    assert jobs.trim(transaction, 1_000_000, 2) == jobs.TrimmedJobs(1, done=True)
    store.commit(transaction.proposal())
    left = [name for name in names if jobs.peek(store.snapshot(), name) is not None]
    assert left == names[3:], "one is not old enough, one has not ended"
    assert check_snapshot(store.snapshot()) == []


def test_a_call_schedules_so_much(store: MemoryStore) -> None:
    limits = CallLimits(jobs_max=2, job_arguments_bytes_max=len(ARGUMENTS), documents_written_max=2)
    transaction = store.transaction(limits=limits)
    with pytest.raises(RequestError, match="have 9 bytes, the limit is 8") as caught:
        transaction.schedule("work:do", "mutation", ARGUMENTS + b"\xc0", NOW_US)
    assert caught.value.code == "too_many_bytes"
    job = transaction.schedule("work:do", "mutation", ARGUMENTS, NOW_US)
    transaction.schedule("work:do", "mutation", ARGUMENTS, NOW_US)
    with pytest.raises(RequestError, match="more than 2 jobs"):
        transaction.schedule("work:do", "mutation", ARGUMENTS, NOW_US)
    found = jobs.read(transaction, job)
    assert found is not None
    jobs.finish(transaction, found, "success")  # what the system writes counts for nothing
