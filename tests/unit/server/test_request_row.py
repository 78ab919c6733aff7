from __future__ import annotations

import pytest
from headwater_server.worker.messages import Failure, Request
from headwater_server.worker.request_row import Answer, RequestMemory, decode_request_row, trim_requests
from headwater_storage.catalog import REQUESTS
from headwater_storage.keys import document_key
from headwater_storage.proposal import CommitTs, Proposal
from headwater_storage.readset import ReadSet
from headwater_storage.window import CommitWindow, PendingKeys, conflict
from support.memory_store import MemoryStore

SESSION = b"s" * 16
FAILURE = Failure("application_error", "no", b"\x01", "Traceback: not stored")


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def request(
    number: int, *, forget_below: int = 0, sent_ts: int | None = None, of: bytes = b"print"
) -> Request:
    return Request(SESSION, number, of, forget_below, sent_ts)


def proposed(store: MemoryStore, asked: Request, failure: Failure | None = None) -> Proposal:
    transaction = store.transaction()
    memory = RequestMemory(transaction, asked)
    assert memory.answer is None
    memory.keep(b"\xa6answer", failure)
    return transaction.proposal()


def answer(store: MemoryStore, asked: Request) -> Answer | None:
    return RequestMemory(store.transaction(), asked).answer


def code(found: Answer | None) -> str:
    return found.failure.code if found is not None and found.failure is not None else ""


def test_success_and_failure_are_kept(store: MemoryStore) -> None:
    store.commit(proposed(store, request(1)))
    store.commit(proposed(store, request(2), FAILURE))
    assert answer(store, request(1)) == Answer(b"\xa6answer", None)
    assert answer(store, request(2)) == Answer(None, Failure("application_error", "no", b"\x01"))
    assert answer(store, request(3)) is None


def test_a_number_that_another_client_has_used_is_told(store: MemoryStore) -> None:
    store.commit(proposed(store, request(1)))
    store.commit(proposed(store, request(2)))
    assert code(answer(store, request(1, of=b"other"))) == "session_in_use"
    assert code(answer(store, request(2, of=b"other"))) == "session_in_use"


def test_what_was_refused_is_not_run_behind_what_came_later(store: MemoryStore) -> None:
    store.commit(proposed(store, request(2)))
    assert code(answer(store, request(1))) == "unavailable"


def test_what_the_client_let_go_of_is_unknown_and_stays_so(store: MemoryStore) -> None:
    for number in (1, 2):
        store.commit(proposed(store, request(number)))
    store.commit(proposed(store, request(3, forget_below=2)))
    assert code(answer(store, request(1))) == "outcome_unknown"
    assert answer(store, request(2)) == Answer(b"\xa6answer", None)
    store.commit(proposed(store, request(4)))  # a client that takes it back
    assert code(answer(store, request(1))) == "outcome_unknown"


def test_an_answer_after_the_retention_is_unknown_and_what_is_new_runs(store: MemoryStore) -> None:
    sent_ts = store.state.ts
    store.commit(proposed(store, request(1)))
    now_us = store.transaction().now_us
    transaction = store.transaction(now_us=now_us + 11)
    assert trim_requests(transaction, None, 10, rows_max=9, bytes_max=99_999).dropped == 1
    store.commit(transaction.proposal())
    assert code(answer(store, request(1, sent_ts=sent_ts))) == "outcome_unknown"
    assert code(answer(store, request(2, sent_ts=sent_ts))) == "outcome_unknown"
    assert answer(store, request(2, sent_ts=sent_ts + 1)) is None
    assert answer(store, request(2)) is None


def both_commit(store: MemoryStore) -> bool:
    """Let a request run twice over the same snapshot, and tell whether both runs would commit."""
    first, second = proposed(store, request(1)), proposed(store, request(1))
    pending = PendingKeys()
    pending.add(first.conflict_keys())
    return not conflict(CommitWindow(CommitTs(0)), pending, second)


def test_of_two_runs_of_one_request_the_committer_takes_one(store: MemoryStore) -> None:
    assert not both_commit(store)
    store.commit(proposed(store, request(0)))
    assert not both_commit(store)


def test_the_committer_would_take_both_if_the_rows_were_not_read(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ReadSet, "ranges", lambda self: [])
    assert both_commit(store)


def test_a_row_says_when_and_over_what_the_call_was_decided(store: MemoryStore) -> None:
    store.commit(proposed(store, request(1)))
    transaction = store.transaction()
    memory = RequestMemory(transaction, request(2, forget_below=2))
    memory.keep(None, FAILURE)
    content = transaction.get_row(REQUESTS, request(2).row)
    assert content is not None
    row = decode_request_row(content)
    assert (row.outcome, row.begin_ts, row.decided_us) == (None, store.state.ts, transaction.now_us)
    assert row.forgotten_below == 2
    dropped = [write.key for write in transaction.proposal().writes if write.value is None]
    assert dropped == [document_key(REQUESTS, request(1).row)]
