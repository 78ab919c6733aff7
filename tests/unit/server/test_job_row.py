from __future__ import annotations

import msgspec
import pytest
from headwater_server.worker.job_row import JobMemory
from headwater_server.worker.messages import Failure
from headwater_storage import jobs
from headwater_storage.window import CommitWindow, PendingKeys, conflict
from support.memory_store import MemoryStore, insert, table

ARGUMENTS = msgspec.msgpack.encode({})


@pytest.fixture
def store() -> MemoryStore:
    found = MemoryStore()
    found.add_table(table(32, "effects"))
    return found


@pytest.fixture
def job(store: MemoryStore) -> str:
    transaction = store.transaction()
    name = transaction.schedule("work:do", "mutation", ARGUMENTS, 1)
    store.commit(transaction.proposal())
    return name


def test_a_job_that_is_pending_runs_and_its_end_is_in_the_commit_of_its_writes(
    store: MemoryStore, job: str
) -> None:
    transaction = store.transaction()
    memory = JobMemory(transaction, job)
    assert memory.answer is None
    insert(transaction, "effects", name="x")
    memory.keep(b"\xc0", None)
    store.commit(transaction.proposal())
    found = jobs.peek(store.snapshot(), job)
    assert found is not None
    assert (found.state, found.error, found.started_ms) == ("success", None, found.completed_ms)
    again = JobMemory(store.transaction(), job).answer
    assert again is not None
    assert again.failure is not None
    assert again.failure.code == "cancelled"


def test_a_failure_is_kept_without_what_was_written(store: MemoryStore, job: str) -> None:
    transaction = store.transaction()
    memory = JobMemory(transaction, job)
    insert(transaction, "effects", name="x")
    transaction.discard_writes()
    memory.keep(None, Failure("application_error", "no", msgspec.msgpack.encode({"why": 1}), "Traceback"))
    proposal = transaction.proposal()
    assert len(proposal.writes) == 1
    store.commit(proposal)
    found = jobs.peek(store.snapshot(), job)
    assert found is not None
    assert found.error is not None
    assert (found.state, found.error.code, msgspec.msgpack.decode(found.error.data)) == (
        "failed",
        "application_error",
        {"why": 1},
    )


def test_of_two_runs_one_conflicts(store: MemoryStore, job: str) -> None:
    runs = []
    for _ in range(2):
        transaction = store.transaction()
        memory = JobMemory(transaction, job)
        assert memory.answer is None
        insert(transaction, "effects", name="x")
        memory.keep(b"\xc0", None)
        runs.append(transaction.proposal())
    window = CommitWindow(store.state.ts)
    store.commit(runs[0])
    window.add(store.state.ts, runs[0].conflict_keys())
    assert conflict(window, PendingKeys(), runs[1])


def test_a_job_that_is_not_there_is_not_run(store: MemoryStore, job: str) -> None:
    transaction = store.transaction()
    transaction.delete(job)
    store.commit(transaction.proposal())
    assert JobMemory(store.transaction(), job).answer is not None
