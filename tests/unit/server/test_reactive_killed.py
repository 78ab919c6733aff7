"""Queries that were ended by force: the error that is shown, the pause, whom a dead worker is put down to."""

from __future__ import annotations

import pytest
from headwater_protocol.messages import AddQuery, ErrorBody
from headwater_server.reactive.contents import Content
from support.plain_results import content_of
from support.reactive_steps import Steps

KILLED = ErrorBody("time_limit", "ended")


@pytest.mark.parametrize("act", ["block", "disconnect"])
def test_delivery_may_block_or_end_its_session(act):
    steps = Steps()
    steps.on_deliver = lambda session: getattr(steps.core, act)(session)
    for handle in range(3):
        steps.subscribe(handle, "m:q", "m:r")
    steps.open()
    while steps.calls:
        steps.done([1])
    steps.commit(b"docs1")
    assert len(steps.take()) == 3
    assert steps.rounds == []


def test_resuming_with_the_right_value_costs_a_digest():
    steps = Steps()
    digest = content_of([1]).digest
    steps.subscribe("a", "m:q", digest=digest)
    steps.subscribe("b", "m:q", digest=b"x" * 16)
    steps.open()
    steps.done([1])
    assert {who: changes[1][0] for who, _, _, changes in steps.take()} == {"a": 2, "b": 0}


def test_a_delivered_journal_is_kept():
    steps = Steps()
    steps.subscribe("a", "m:page")
    steps.open()
    steps.done([[1]], journal=b"end")
    assert steps.take()[0][3][1][-1] == b"end"
    steps.commit(b"docs1")
    steps.open()
    assert steps.calls[0][-1] == b"end"


def test_a_journal_alone_is_news_too():
    steps = Steps()
    steps.subscribe("a", "m:page")
    steps.open()
    steps.done([[1]])
    steps.take()
    steps.commit(b"docs1")
    steps.open()
    steps.done([[1]], journal=b"end")
    assert steps.take()[0][3][1] == [2, content_of([[1]]).digest, b"end"]


def test_adopting_a_journal_wakes_others_that_wait_under_it():
    steps = Steps(workers=2)
    steps.subscribe("a", "m:page")
    steps.open()
    steps.subscribe("b", "m:page", journal=b"end")
    steps.done([[1]], journal=b"end")
    assert {who for who, *_ in steps.take()} == {"a", "b"}


def test_a_private_result_serves_its_identity_alone():
    steps = Steps(workers=0)
    steps.subscribe("a", "m:me", identity=b"ada")
    steps.subscribe("b", "m:me", identity=b"bob")
    steps.core.add_worker(1)
    steps.open()
    assert {identity for *_, identity, _ in steps.calls} == {b"ada", b"bob"}
    first = steps.calls[0][3]
    steps.done([1], private=True)
    assert [who for who, *_ in steps.take()] == ["a" if first == b"ada" else "b"]
    steps.done([2], private=True)
    assert len(steps.take()) == 1


def test_private_results_go_with_the_last_session_of_their_identity():
    steps = Steps(workers=0)
    session = steps.subscribe("a", "m:me", identity=b"ada")
    steps.subscribe("b", "m:me", identity=b"bob")
    steps.core.add_worker(1)
    steps.open()
    steps.done([1], private=True)
    steps.done([2], private=True)
    steps.core.disconnect(session)
    steps.core.check()
    assert len(steps.core._live.tracker) == 1


def test_switching_identity_runs_again_and_sends_the_difference():
    steps = Steps()
    session = steps.subscribe("a", "m:me", identity=b"ada")
    steps.open()
    steps.done([1], private=True)
    steps.take()
    steps.core.identify(session, b"bob")
    steps.open()
    assert steps.calls[0][3] == b"bob"
    steps.done([2], private=True)
    assert steps.take()[0][3][1][0] == 0


def test_what_nobody_looks_at_stays_while_it_is_right():
    steps = Steps()
    steps.core.disconnect(steps.subscribe("a", "m:q"))
    session = steps.subscribe("a", "m:q")
    left = steps.open()  # ordered for the one that left
    steps.done([1])
    assert left in steps.closed
    steps.open()
    steps.done([1])
    steps.core.disconnect(session)
    steps.core.check()
    steps.take()
    again = steps.subscribe("b", "m:q")
    assert len(steps.take()) == 1
    steps.core.disconnect(again)
    steps.commit(b"docs1")
    assert steps.core._live.by_key == {}
    assert len(steps.core._live.tracker) == 0


def test_parked_results_are_bounded_in_bytes():
    steps = Steps(parked_bytes=10_000)
    for number in range(10):
        session = steps.subscribe("a", f"m:q{number}")
        steps.open()
        steps.done(["x" * 200])
        steps.core.disconnect(session)
        steps.core.check()
    assert 0 < len(steps.core._live.by_key) < 10


def test_what_parked_results_have_read_counts():
    steps = Steps(parked_bytes=100_000)
    for number in range(20):
        session = steps.subscribe("a", f"m:q{number}")
        steps.open()
        steps.done([1], points=[f"docs{number}-{i}".encode() for i in range(50)])
        steps.core.disconnect(session)
        steps.core.check()
    assert 0 < len(steps.core._live.by_key) < 8


def test_the_keys_of_parked_results_count():
    steps = Steps(parked_bytes=100_000)
    for number in range(10):
        for key in ({"arguments": bytes([number]) * 30_000}, {"journal": bytes([number]) * 30_000}):
            session = steps.core.connect("a")
            query = AddQuery(1, "m:q", **({"arguments": b"\x80"} | key))
            steps.core.modify(session, [query], [])
            steps.open()
            steps.done([1])
            steps.core.disconnect(session)
            steps.core.check()
    kept = [len(key.arguments) + len(key.journal or b"") for key in steps.core._live.by_key]
    assert 60_000 < sum(kept) <= 100_000


def test_a_failure_that_nobody_looks_at_is_dropped():
    steps = Steps()
    for number in range(3):
        session = steps.subscribe("a", f"m:q{number}")
        steps.open()
        steps.done(Content.failed(ErrorBody("unknown_function", "there is no such function")))
        steps.core.disconnect(session)
        steps.core.check()
    assert steps.core._live.by_key == {}
    assert len(steps.core._live.tracker) == 0


def test_a_query_added_again_before_the_transition_is_not_reported_as_removed():
    steps = Steps()
    session = steps.subscribe("a", "m:q")
    steps.open()
    steps.done([1])
    steps.take()
    steps.core.modify(session, [], [1])
    assert steps.take()[0][3] == {1: [4]}
    steps.core.block(session)
    steps.core.modify(session, [AddQuery(2, "m:q", b"\x80")], [])
    steps.core.modify(session, [], [2])
    steps.core.modify(session, [AddQuery(2, "m:q", b"\x80")], [])
    steps.core.unblock(session)
    assert steps.take()[0][3][2][0] == 0
    with pytest.raises(ValueError, match="subscribed already"):
        steps.core.modify(session, [AddQuery(2, "m:q", b"\x80")], [])


def test_a_worker_of_another_bundle_gets_no_rounds_until_the_bundle_switches():
    steps = Steps(bundle_key=b"bundle")
    steps.subscribe("a", "m:q")
    steps.open(current=False)
    assert steps.rounds == []
    steps.commit(b"other")
    assert steps.rounds == []
    steps.commit(b"bundle")
    assert len(steps.rounds) == 1
    steps.open()
    steps.done([1])
    assert len(steps.take()) == 1


def test_a_worker_found_outdated_behind_the_switch_gets_another_chance():
    steps = Steps(bundle_key=b"bundle")
    steps.subscribe("a", "m:q")
    steps.commit(b"bundle")
    steps.open(ts=1, current=False)
    assert len(steps.rounds) == 1


def kill(steps):
    number, call, *_ = steps.calls.pop(0)
    steps.core.query_killed(number, call, KILLED)
    steps.core.check()
    steps.core.remove_worker(1)
    steps.core.add_worker(1)
    steps.core.check()


def test_a_killed_query_shows_its_error_and_is_retried_after_a_doubling_pause():
    steps = Steps(retry_first_ms=100.0)
    steps.subscribe("a", "m:good", "m:bad")
    steps.open()
    steps.done([1])
    kill(steps)
    assert steps.take()[-1][3] == {
        1: [0, b"\x91\x01", content_of([1]).digest, None],
        2: [3, ["time_limit", "ended", None]],
    }
    assert steps.core.tick() == 100.0
    steps.now = 100.0
    assert steps.core.tick() is None
    steps.open()
    kill(steps)
    assert steps.core.tick() == 300.0
    steps.now = 300.0
    steps.core.tick()
    steps.open()
    steps.done([2])
    assert steps.take()[-1][3][2][0] == 0
    assert steps.core.tick() is None


def test_a_session_goes_on_while_its_killed_query_is_retried():
    steps = Steps(workers=2, retry_first_ms=100.0)
    steps.subscribe("a", "m:bad", "m:good")
    steps.open()
    steps.done([1], points=[b"docs1"])
    number, call, *_ = steps.calls.pop(0)
    steps.core.query_killed(number, call, KILLED)
    steps.now = 100.0
    steps.core.tick()
    steps.core.add_worker(3)
    steps.core.add_worker(4)
    steps.open()
    steps.take()
    steps.commit(b"docs1")
    steps.open()
    steps.calls.reverse()
    steps.done([2])
    assert [ts for *_, ts, _ in steps.take()] == [2]


def test_leaving_and_coming_back_does_not_kill_the_next_worker_at_once():
    steps = Steps(retry_first_ms=100.0)
    session = steps.subscribe("a", "m:bad")
    steps.open()
    kill(steps)
    steps.take()
    steps.core.disconnect(session)
    session = steps.subscribe("a", "m:bad")
    assert steps.take()[0][3][1][0] == 3
    assert steps.rounds == []
    steps.core.disconnect(session)
    steps.now = 100.0
    assert steps.core.tick() is None
    assert steps.core._live.by_key == {}


def test_a_new_bundle_retries_killed_queries_at_once():
    steps = Steps(bundle_key=b"bundle", retry_first_ms=1e9)
    steps.subscribe("a", "m:bad")
    steps.open()
    kill(steps)
    steps.commit(b"bundle")
    steps.open()
    steps.done([1])
    assert steps.take()[-1][3][1][0] == 0


def test_deaths_of_workers_are_strikes_and_the_second_is_shown():
    steps = Steps()
    steps.subscribe("a", "m:crash")
    for worker in (1, 2):
        steps.open()
        assert steps.take() == []
        steps.calls.clear()
        steps.core.remove_worker(worker)
        steps.core.add_worker(worker + 1)
        steps.core.check()
    assert steps.take()[0][3][1][1][0] == "worker_died"


def test_a_retired_worker_is_no_strike():
    steps = Steps(strikes=1)
    steps.subscribe("a", "m:q")
    steps.open()
    steps.calls.clear()
    steps.core.remove_worker(1, retired=True)
    steps.core.add_worker(2)
    assert steps.take() == []
    assert len(steps.rounds) == 1


def test_who_runs_when_a_worker_dies_is_not_who_has_finished_early():
    steps = Steps(strikes=1)
    steps.subscribe("a", "m:q", "m:r")
    steps.open(ts=2)
    steps.done([1])
    (_, _, name, *_), *_ = steps.calls
    steps.core.remove_worker(1)
    struck = [query.key.name for query in steps.core._live.by_key.values() if query.killed]
    assert struck == [name]
