"""How often live queries are run again, for what, and with which result."""

from __future__ import annotations

from headwater_server.reactive.sessions import QueryKey
from support.reactive_steps import Steps


def report(steps, name="m:q", identity=None, after=0):
    return steps.core.live.report([QueryKey(name, b"\x80", None)], identity, steps.core.published_ts, after)


def commit(steps, *keys, by="m:write"):
    steps.ts += 1
    steps.window.batches.append((steps.ts, list(keys)))
    steps.core.publish(steps.ts, list(keys), (), lambda asked: dict.fromkeys(asked, by))
    steps.core.check()


def rerun(steps, value, **words):
    steps.open()
    steps.done(value, **words)


def test_reruns_are_counted_with_those_that_changed_nothing():
    steps = Steps()
    steps.subscribe("a", "m:q")
    rerun(steps, [1])
    assert report(steps)[:5] == (1, 1, True, 0, 0), "the first run is no rerun"
    for value in ([2], [2], [3]):
        commit(steps, b"docs1")
        assert not report(steps).held
        rerun(steps, value)
    told = report(steps)
    assert told[:5] == (1, 1, True, 3, 1)
    assert [(cause.ts, cause.key, cause.function) for cause in told.causes] == [
        (ts, b"docs1", "m:write") for ts in (2, 3, 4)
    ]
    assert report(steps, after=told.causes[1].number).causes == told.causes[2:]


def test_a_commit_that_touches_nothing_asks_for_no_writers():
    steps = Steps()
    steps.subscribe("a", "m:q")
    rerun(steps, [1])
    asked = []
    steps.core.publish(2, [b"docs2"], (), lambda keys: asked.append(keys) or {})
    assert asked == []
    steps.core.publish(3, [b"docs1", b"docs2"], (), lambda keys: asked.append(keys) or {})
    assert asked == [{b"docs1"}]
    assert [cause.function for cause in report(steps).causes] == [""]


def run_for_users(steps, **values):
    """Open rounds until nothing waits; each user's run gives what is said."""
    while steps.rounds:
        steps.open()
        while steps.calls:
            steps.done(values[steps.calls[0][3].decode()], private=True)


def test_results_of_users_are_compared_with_their_own():
    steps = Steps()
    for who in (b"x", b"y"):
        steps.subscribe(who, "m:q", identity=who)
    run_for_users(steps, x=[1], y=[2])
    commit(steps, b"docs1")
    run_for_users(steps, x=[1], y=[3])
    assert report(steps)[3:5] == (2, 1)
    assert report(steps, identity=b"x").held
    assert not report(steps, identity=b"z").held


def test_what_is_remembered_for_a_user_goes_with_them():
    steps = Steps()
    steps.subscribe("a", "m:q", identity=b"x")
    goes = steps.subscribe("b", "m:q", identity=b"y")
    run_for_users(steps, x=[1], y=[1])
    commit(steps, b"docs1")
    steps.core.disconnect(goes)
    run_for_users(steps, x=[1], y=[1])
    (query,) = steps.core.live.by_key.values()
    assert query._replaced is None
    assert (query.reruns, query.unchanged) == (1, 1)


def test_causes_are_kept_within_their_bound_whatever_the_number_of_queries():
    steps = Steps(causes_kept=3)
    steps.subscribe("a", "m:q", "m:r")
    rerun(steps, [1])
    steps.done([1])
    for _ in range(4):
        commit(steps, b"docs1")
        rerun(steps, [1])
        steps.done([1])
    assert report(steps).reruns == report(steps, "m:r").reruns == 4
    assert len(report(steps).causes) + len(report(steps, "m:r").causes) == 3
