from __future__ import annotations

from math import inf

import pytest
from headwater_protocol.messages import AddQuery, ErrorBody
from headwater_server.reactive.contents import Content
from headwater_server.reactive.rounds import RoundLimits
from support.plain_results import content_of
from support.reactive_steps import Steps

KILLED = ErrorBody("time_limit", "ended")


def test_a_subscription_is_run_in_a_round_and_shown_once():
    steps = Steps()
    steps.subscribe("a", "m:q")
    steps.open()
    steps.done([1])
    assert [(who, ts, changes[1][0]) for who, _, ts, changes in steps.take()] == [("a", 1, 0)]
    assert steps.closed
    assert steps.core.oldest_ts() is None


def test_two_sessions_share_one_run():
    steps = Steps()
    steps.subscribe("a", "m:q")
    steps.subscribe("b", "m:q")
    steps.open()
    assert len(steps.calls) == 1
    steps.done([1])
    assert {who for who, *_ in steps.take()} == {"a", "b"}


def test_what_becomes_of_sessions_that_hold_the_same_is_worked_out_once():
    steps = Steps()
    sessions = [steps.subscribe(handle, "m:q", "m:r") for handle in "abc"]
    late = steps.core.connect("d")
    steps.core.modify(late, [AddQuery(7, "m:q", b"\x80"), AddQuery(1, "m:r", b"\x80")], [])
    steps.open()
    steps.done([1])
    steps.done([1])
    assert {session.view for session in sessions} == {late.view}
    steps.take()
    for value in (2, 3):
        steps.moves.clear()
        steps.commit(b"docs1")
        steps.open()
        steps.done([value])
        steps.done([value])
        assert [handle for handle, *_ in steps.take()] == ["a", "b", "c", "d"]
        assert len({id(moved) for moved in steps.moves[:3]}) == 1
        assert {number for number, _ in steps.moves[0].changes} == {1, 2}
        assert {number for number, _ in steps.moves[3].changes} == {1, 7}, "the client's own numbers"
    assert len({session.holding for session in sessions}) == 1
    steps.core.modify(sessions[0], [], [2])
    assert sessions[0].holding is not sessions[1].holding
    steps.core.check()


def test_a_query_taken_away_and_added_again_under_its_number_is_shown_anew():
    steps = Steps()
    session = steps.subscribe("a", "m:q")
    steps.open()
    steps.done([1])
    steps.take()
    steps.core.modify(session, [AddQuery(1, "m:q", b"\x80")], [1])
    ((_, _, ts, changes),) = steps.take()
    assert (ts, changes[1][0]) == (1, 0)


def test_sessions_that_look_at_the_same_share_a_view_and_who_cannot_be_sent_to_has_none():
    steps = Steps()
    a, b = steps.subscribe("a", "m:q", "m:r"), steps.subscribe("b", "m:q", "m:r")
    other = [
        steps.subscribe("c", "m:q"),
        steps.subscribe("d", "m:r", "m:q"),
        steps.subscribe("e", "m:q", "m:r", identity=b"x"),
    ]
    assert a.view is b.view is not None
    assert len({session.view for session in [a, *other]}) == 4
    steps.core.block(a)
    assert a.view is None
    steps.core.unblock(a)
    assert a.view is b.view
    steps.core.modify(b, [], [2])
    steps.core.check()
    assert b.view is other[0].view


def test_a_session_that_modifies_takes_part_in_its_round_alone():
    steps = Steps()
    a = steps.subscribe("a", "m:slow")
    steps.open()
    b = steps.subscribe("b", "m:slow", "m:fast")
    steps.core.modify(a, [AddQuery(2, "m:fast", b"\x80")], [])
    assert a.view is b.view
    assert a.view.round is None, "who waits for another round was drawn into this one"
    c = steps.subscribe("c", "m:slow")
    steps.done([1])
    assert [handle for handle, *_ in steps.take()] == ["c"]
    steps.core.disconnect(c)
    steps.open()
    d_view = a.view
    steps.core.modify(a, [AddQuery(3, "m:third", b"\x80")], [])
    steps.core.check()
    assert a.view is not d_view
    assert a.view.round is d_view.round is not None
    steps.done([2])
    assert [handle for handle, *_ in steps.take()] == ["b"]
    steps.done([3])
    assert [handle for handle, *_ in steps.take()] == ["a"]


def counted_moves(steps):
    """Count how often the core looks whether a session moves."""
    moves, move = [], steps.core._move
    steps.core._move = lambda session, *rest, **words: (moves.append(session), move(session, *rest, **words))
    return moves


def test_adopting_journals_costs_what_there_is_to_move():
    steps = Steps()
    for number in range(200):
        steps.subscribe(number, "m:page")
    steps.open()
    moves = counted_moves(steps)
    steps.done([1], journal=b"end")
    assert 200 <= len(moves) <= 3 * 200
    moves.clear()
    steps.subscribe("late", "m:page")
    assert len(moves) <= 3


def test_a_session_of_many_pages_is_not_moved_for_each():
    steps = Steps()
    names = [f"m:{number}" for number in range(50)]
    steps.subscribe("a", *names)
    steps.open()
    for _ in names:
        steps.done([1], journal=b"end")
    moves = counted_moves(steps)
    steps.subscribe("b", *names)
    assert len(moves) <= 5


def test_a_round_forgets_views_that_are_gone():
    steps = Steps()
    session = steps.subscribe("a", "m:slow")
    number = steps.open()
    for query in range(2, 50):
        steps.core.modify(session, [AddQuery(query, f"m:{query}", b"\x80")], [])
        steps.core.modify(session, [], [])
    assert len(steps.core._rounds[number].views) == 1


def test_a_session_that_modifies_again_and_again_keeps_its_place():
    steps = Steps(workers=0)
    session = steps.subscribe("a", "m:0")
    steps.now = 5.0
    steps.subscribe("b", "m:1")
    for number in range(2, 5):
        steps.now += 1
        steps.core.modify(session, [AddQuery(number, f"m:{number}", b"\x80")], [])
    assert session.view.since_ms == 0.0
    steps.core.modify(session, [], [2, 3, 4])
    assert session.view.since_ms == 0.0


def most_work_at_a_worker_ms(limits):
    """Run eight queries of 2 ms in a round; return how long a mutation may have to wait behind them at its worker."""
    steps = Steps(rounds=limits, new_query_ms=2.0)
    steps.subscribe("a", *(f"m:{number}" for number in range(8)))
    steps.open()
    most = 0.0
    while steps.calls:
        most = max(most, 2.0 * len(steps.calls))
        steps.done([1], ms=2.0)
    assert len(steps.take()) == 1
    return most


def test_only_a_little_work_is_sent_ahead_to_the_worker_of_a_round():
    """What lies with a worker runs before a mutation that comes to it, and dies with it if the first call is ended."""
    assert most_work_at_a_worker_ms(RoundLimits(prefetch_ms=3.0)) == 4.0  # what runs, and one behind it
    assert most_work_at_a_worker_ms(RoundLimits(prefetch_ms=0.5)) == 2.0
    assert most_work_at_a_worker_ms(RoundLimits(prefetch_ms=inf)) == 16.0, "nothing else bounds it"
    assert most_work_at_a_worker_ms(RoundLimits(prefetch_ms=inf, prefetch_calls=3)) == 6.0


def test_equal_results_are_not_sent_but_their_new_reads_count():
    steps = Steps()
    steps.subscribe("a", "m:q")
    steps.open()
    steps.done([1], points=[b"docs1"])
    steps.take()
    steps.commit(b"docs1")
    steps.open()
    steps.done([1], points=[b"docs2"])
    assert steps.take() == []
    steps.commit(b"docs2")
    assert steps.rounds
    steps.open()
    steps.done([2])
    assert len(steps.take()) == 1


def test_a_commit_between_reading_and_registering_makes_the_result_stale():
    steps = Steps()
    steps.subscribe("a", "m:q")
    steps.open()
    steps.commit(b"docs1")
    steps.done([1])
    assert steps.take()[0][2] == 1  # shown at the ts it was read at
    steps.open()
    steps.done([2])
    assert steps.take()[0][2] == 2


def test_a_snapshot_newer_than_the_published_ts_is_held():
    steps = Steps()
    steps.subscribe("a", "m:q")
    steps.open(ts=2)
    assert steps.core.oldest_ts() == 1
    steps.done([1])  # it was sent along with the order to open the round
    assert steps.take() == []
    steps.commit(b"docs7")
    assert [(who, ts) for who, _, ts, _ in steps.take()] == [("a", 2)]
    assert steps.closed


def test_what_was_not_expected_to_be_needed_is_run_once_the_snapshot_is_known():
    steps = Steps()
    session = steps.subscribe("a", "m:q", "m:r")
    steps.open()
    steps.done([1], points=[b"docs1"])
    steps.done([1], points=[b"docs2"])
    steps.take()
    steps.commit(b"docs1")
    assert [name for _, _, name, *_ in steps.calls] == ["m:q"]
    steps.commit(b"docs2")
    steps.open()
    assert session.ts == 1
    steps.done([2], points=[b"docs1"])
    assert [name for _, _, name, *_ in steps.calls] == ["m:r"]
    steps.done([2], points=[b"docs2"])
    assert [(who, ts, sorted(changes)) for who, _, ts, changes in steps.take()] == [("a", 3, [1, 2])]


def test_what_was_sent_along_and_is_not_needed_any_more_ends_the_round_all_the_same():
    steps = Steps(workers=2)
    steps.subscribe("a", "m:q")
    number = steps.open()
    steps.commit(b"docs7")
    steps.core.disconnect(next(iter(steps.core._sessions)))
    steps.done([1])
    assert steps.closed == [number]


def test_answers_of_a_commit_come_with_or_before_the_transition_that_covers_them():
    steps = Steps()
    session = steps.subscribe("a", "m:q")
    steps.open()
    steps.done([1])
    steps.take()
    steps.commit(b"docs1", answers=[(session, "first", 2)])
    assert steps.take() == [("a", ["first"], None, {})]
    steps.open()
    steps.done([1])
    assert steps.take() == [("a", [], 2, {})]  # nothing changed, and yet it is covered


def test_an_answer_from_the_future_is_held_and_keeps_its_place():
    steps = Steps()
    session = steps.subscribe("a")
    steps.take()
    steps.core.answer(session, "first", 3)
    steps.core.answer(session, "second", 1)
    assert steps.take() == []
    steps.commit()
    assert steps.take() == []
    steps.commit()
    assert [answer for _, answers, *_ in steps.take() for answer in answers] == ["first", "second"]


def test_a_blocked_session_is_left_alone_and_then_goes_straight_to_the_newest():
    steps = Steps()
    session = steps.subscribe("a", "m:q")
    steps.open()
    steps.done([1])
    steps.take()
    steps.core.block(session)
    for _ in range(3):
        steps.commit(b"docs1", answers=[(session, "x", steps.ts + 1)])
    assert steps.rounds == []
    assert steps.take() == []
    steps.core.unblock(session)
    steps.open()
    steps.done([4])
    sent = steps.take()
    assert [answers for _, answers, *_ in sent if answers] == [["x", "x", "x"]]
    assert [ts for *_, ts, _ in sent if ts] == [4]


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
    assert len(steps.core.live.tracker) == 1


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
    assert steps.core.live.by_key == {}
    assert len(steps.core.live.tracker) == 0


def test_parked_results_are_bounded_in_bytes():
    steps = Steps(parked_bytes=10_000)
    for number in range(10):
        session = steps.subscribe("a", f"m:q{number}")
        steps.open()
        steps.done(["x" * 200])
        steps.core.disconnect(session)
        steps.core.check()
    assert 0 < len(steps.core.live.by_key) < 10


def test_what_parked_results_have_read_counts():
    steps = Steps(parked_bytes=100_000)
    for number in range(20):
        session = steps.subscribe("a", f"m:q{number}")
        steps.open()
        steps.done([1], points=[f"docs{number}-{i}".encode() for i in range(50)])
        steps.core.disconnect(session)
        steps.core.check()
    assert 0 < len(steps.core.live.by_key) < 8


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
    kept = [len(key.arguments) + len(key.journal or b"") for key in steps.core.live.by_key]
    assert 60_000 < sum(kept) <= 100_000


def test_a_failure_that_nobody_looks_at_is_dropped():
    steps = Steps()
    for number in range(3):
        session = steps.subscribe("a", f"m:q{number}")
        steps.open()
        steps.done(Content.failed(ErrorBody("unknown_function", "there is no such function")))
        steps.core.disconnect(session)
        steps.core.check()
    assert steps.core.live.by_key == {}
    assert len(steps.core.live.tracker) == 0


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


def test_an_application_failure_is_a_result_like_any_other():
    steps = Steps()
    steps.subscribe("a", "m:q")
    steps.open()
    steps.done(Content.failed(ErrorBody("application_error", "no", b"\xc0")))
    assert steps.take()[0][3][1] == [3, ["application_error", "no", b"\xc0"]]
    steps.commit(b"docs1")
    steps.open()
    steps.done([1])
    assert steps.take()[0][3][1][0] == 0


def test_reports_about_what_is_gone_are_ignored():
    steps = Steps()
    session = steps.subscribe("a", "m:q")
    number = steps.open()
    _, call, *_ = steps.calls[0]
    steps.core.remove_worker(1)
    steps.core.round_opened(number, 1, True)
    steps.core.query_killed(number, call, KILLED)
    steps.done([1])
    steps.core.disconnect(session)
    steps.core.disconnect(session)
    steps.core.answer(session, "late", 1)
    steps.core.modify(session, [], [])
    steps.core.identify(session, None)
    steps.core.unblock(session)
    steps.commit(answers=[(session, "late", 2)])
    assert steps.take() == []


def test_changes_that_many_need_are_encoded_once():
    steps = Steps()
    bodies = []
    deliver = steps.deliver
    steps.deliver = lambda session, answers, moved: (
        bodies.append(moved.changes[0][1]),
        deliver(session, answers, moved),
    )
    for handle in range(3):
        steps.subscribe(handle, "m:q")
    steps.open()
    steps.done([1])
    assert len(bodies) == 3
    assert len({id(body) for body in bodies}) == 1


def test_who_is_blocked_by_its_delivery_wakes_those_that_wait_for_the_journal_it_takes_over():
    steps = Steps()
    first = steps.core.connect("first")
    steps.core.modify(first, [AddQuery(1, "m:q", b"\x80"), AddQuery(2, "m:r", b"\x80")], [])
    steps.open()
    steps.done([1], journal=b"end")
    other = steps.core.connect("other")
    steps.core.modify(other, [AddQuery(1, "m:z", b"\x80")], [])
    waits = steps.core.connect("waits")
    steps.core.modify(waits, [AddQuery(1, "m:q", b"\x80", b"end")], [])
    steps.on_deliver = lambda session: session is first and steps.core.block(first)
    steps.done([2])
    assert [handle for handle, *_ in steps.take()] == ["first", "waits"]
