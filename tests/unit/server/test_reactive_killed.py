"""Queries that were ended by force: the error that is shown, the pause, whom a dead worker is put down to."""

from __future__ import annotations

from headwater_protocol.messages import ErrorBody
from support.plain_results import content_of
from support.reactive_steps import Steps

KILLED = ErrorBody("time_limit", "ended")


def kill(steps):
    number, call, *_ = steps.calls.pop(0)
    steps.core.query_killed(number, call, KILLED)
    steps.core.check()
    steps.core.remove_worker(1)
    steps.core.add_worker(1)
    steps.core.check()


def test_who_runs_when_a_worker_dies_is_not_who_has_finished_early():
    steps = Steps(strikes=1)
    steps.subscribe("a", "m:q", "m:r")
    steps.open(ts=2)
    steps.done([1])
    (_, _, name, *_), *_ = steps.calls
    steps.core.remove_worker(1)
    struck = [query.key.name for query in steps.core.live.by_key.values() if query.killed]
    assert struck == [name]


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
    assert steps.core.live.by_key == {}


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
