from __future__ import annotations

import random

from headwater_server.reactive.rounds import Need, RoundLimits, Waiting
from headwater_server.reactive.sessions import LiveQuery, QueryKey
from headwater_server.reactive.views import View
from support.plain_results import content_of
from support.reactive_steps import Steps

LIMITS = RoundLimits(slow_ms=10.0, fast_round_ms=10.0, slow_round_ms=100.0)


def waiting(*views: tuple[float, list[LiveQuery]]) -> Waiting:
    found = Waiting()
    for number, (since_ms, queries) in enumerate(views):
        view = View(None, tuple(queries), (number,))
        view.since_ms = since_ms
        found.add(view)
    return found


def query(name: str, cost_ms: float) -> LiveQuery:
    return LiveQuery(QueryKey(name, b"", None), cost_ms)


def group(found, *, workers=2, slow_rounds=0, now_ms=1000.0):
    chosen = found.next_group(LIMITS, published_ts=1, now_ms=now_ms, workers=workers, slow_rounds=slow_rounds)
    return chosen and ([view.key[0] for view in chosen.views], chosen.slow, chosen.retry)


SLOW, FAST = query("slow", 50.0), query("fast", 1.0)


def test_slow_sessions_have_rounds_of_their_own():
    found = waiting((1.0, [FAST]), (2.0, [SLOW, FAST]), (3.0, [FAST]))
    assert group(found) == ([1], True, None)
    assert group(found, slow_rounds=1) == ([0, 2], False, None)


def test_slow_rounds_leave_one_worker_free():
    found = waiting((1.0, [SLOW]))
    assert group(found, workers=4, slow_rounds=2) is not None
    assert group(found, workers=4, slow_rounds=3) is None
    assert group(found, workers=1, slow_rounds=0) is not None


def test_a_single_worker_gives_slow_sessions_half_its_time():
    found = waiting((100.0, [SLOW]), (140.0, [FAST]))
    assert group(found, workers=1, now_ms=149.0) == ([1], False, None)
    assert group(found, workers=1, now_ms=151.0) == ([0], True, None)


def test_a_session_found_slow_while_it_waits_is_a_slow_one():
    becomes_slow = query("unknown", 1.0)
    found = waiting((1.0, [becomes_slow]), (2.0, [FAST]), (3.0, [becomes_slow, FAST]), (4.0, [FAST]))
    assert group(found, slow_rounds=1) == ([0, 1, 2, 3], False, None)
    becomes_slow.cost_ms = 50.0
    assert group(found, slow_rounds=1) == ([1], False, None)
    assert group(found) == ([0], True, None)


def test_groups_are_filled_in_the_order_of_staleness_up_to_a_cost():
    queries = [query(str(number), 4.0) for number in range(5)]
    found = waiting(*[(float(-number), [queries[number]]) for number in range(5)])
    assert group(found) == ([4, 3], False, None)


def test_sharing_a_query_costs_nothing_and_one_session_always_fits():
    found = waiting(*[(float(number), [FAST]) for number in range(1000)])
    chosen = group(found)
    assert chosen is not None
    assert len(chosen[0]) == 1000
    assert group(waiting((1.0, [query(str(n), 9.0) for n in range(50)]))) == ([0], False, None)


def test_retries_take_a_slow_slot_in_their_turn():
    found = waiting((50.0, [SLOW]))
    need = Need(query("bad", 1000.0), None)
    found.retries[need] = 60.0
    assert group(found) == ([0], True, None)
    found.retries[need] = 40.0
    assert group(found) == ([], True, need)
    assert group(found, slow_rounds=1) is None


def test_what_thousands_wait_for_is_looked_up_a_few_times_for_each(monkeypatch):
    looked = []
    version_at = LiveQuery.version_at
    monkeypatch.setattr(LiveQuery, "version_at", lambda *args: looked.append(args) or version_at(*args))
    found = waiting(*[(float(number), [query(f"{number}", 4.0)]) for number in range(500)])
    order = []
    while (chosen := group(found)) is not None:
        order += chosen[0]
        for view in [view for view in found.views if view.key[0] in chosen[0]]:
            del found.views[view]
    assert order == list(range(500))
    assert len(looked) < 4 * 500


def test_a_commit_has_only_those_queries_asked_that_it_concerns(monkeypatch):
    steps = Steps()
    steps.subscribe("a", *[f"m:q{number}" for number in range(200)])
    steps.open()
    for number in range(200):
        steps.done([number], points=[b"docs%d" % number])
    looked = []
    version_at = LiveQuery.version_at
    check = steps.core.check
    steps.core.check = lambda: None  # it looks at everything
    monkeypatch.setattr(LiveQuery, "version_at", lambda *args: looked.append(args) or version_at(*args))
    for number in range(10):
        steps.commit(b"docs%d" % (7 * number))
        steps.open()
        steps.done(["another", number], points=[b"docs%d" % (7 * number)])
    assert len(looked) < 20 * 10
    check()
    assert [list(changes) for *_, changes in steps.take()[-10:]] == [[7 * number + 1] for number in range(10)]


def kept(view):
    return [version for version in view._versions if version is not None] + [view._showing] * bool(
        view._showing
    )


def test_a_view_keeps_nothing_that_has_ended_and_nothing_when_its_sessions_are_gone():
    steps = Steps()
    session = steps.subscribe("a", "m:q", "m:r")
    steps.open()
    steps.done([1], points=[b"docs1"])
    steps.done([2], points=[b"docs2"])
    view = session.view
    assert len(kept(view)) == 3
    steps.commit(b"docs1")
    assert [version.content.digest for version in kept(view)] == [content_of([2]).digest]
    steps.core.disconnect(session)
    assert kept(view) == []


def test_a_round_behind_what_others_have_found_asks_its_queries_a_few_times_each(monkeypatch):
    steps = Steps(workers=2)
    names = [f"m:q{number}" for number in range(300)]
    steps.subscribe("a", *names)
    steps.open(ts=1)
    steps.commit(b"other")
    steps.subscribe("b", names[-1])
    steps.open(ts=2)
    looked = []
    version_at = LiveQuery.version_at
    steps.core.check = lambda: None  # it looks at everything
    monkeypatch.setattr(LiveQuery, "version_at", lambda *args: looked.append(args) or version_at(*args))
    steps.calls.insert(0, steps.calls.pop())  # the other session's run ends first
    runs = 0
    while steps.calls:
        steps.done([runs], points=[b"docs%d" % runs])
        runs += 1
    assert runs >= 300
    assert len(looked) < 10 * 300


def test_views_that_come_go_and_become_staler_are_taken_in_their_order():
    """Against a plain sorted list; whatever was looked up before counts no more once a view was added again."""
    for seed in range(200):
        chance = random.Random(seed)
        found, plain = Waiting(), {}
        views = [
            View(None, (query(f"{number}", chance.choice([1.0, 4.0, 50.0])),), (number,))
            for number in range(20)
        ]
        for _ in range(200):
            view = chance.choice(views)
            if chance.random() < 0.3:
                found.views.pop(view, None)
                plain.pop(view, None)
            else:
                view.since_ms = chance.choice([view.since_ms or 0.0, chance.uniform(0, 100)])
                found.add(view)
                plain[view] = None
            if chance.random() < 0.3:
                slow = [v for v in plain if v.queries[0].cost_ms > LIMITS.slow_ms]
                first_slow = min((v.since_ms for v in slow), default=None)
                chosen = found.next_group(LIMITS, published_ts=1, now_ms=0.0, workers=2, slow_rounds=0)
                if not plain:
                    assert chosen is None
                    continue
                assert chosen is not None
                times = [v.since_ms for v in chosen.views]
                assert times == sorted(times)
                assert chosen.slow == bool(slow)
                assert times[0] == (first_slow if slow else min(v.since_ms for v in plain))
                for taken in chosen.views:
                    del found.views[taken]
                    del plain[taken]
