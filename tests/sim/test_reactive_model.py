"""The reactive core in a world of its own: hundreds of random histories, every shown value recomputed.

For each rule of the core there is a world in which the rule is broken, and the checker sees it.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
from headwater_server.reactive.core import ReactiveCore
from headwater_server.reactive.rounds import Need
from headwater_server.reactive.sessions import FOREVER, LiveQuery
from support.reactive_world import RuleBrokenError, Setup, World


def replayable(seed, setup, command="make sim SEED="):
    """Run one history and return it; a failure says which."""
    try:
        return World(seed, setup).run()
    except AssertionError as violation:
        violation.add_note(f"{command}{seed} repeats it ({setup})")
        raise


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_random_histories(workers, seeds):
    for seed in seeds(range(100)):
        replayable(seed, Setup(workers=workers))


@pytest.mark.parametrize("workers", [1, 3])
def test_random_histories_of_many_who_look_at_the_same(workers, seeds):
    looks = [[("page", 2), ("own", 1)], [("page", 2)], [("own", 1), ("rows", 3), ("slow", 2)], [("hot", 4)]]
    same = {number: looks[number % 10 % 4] for number in range(12)}
    shared = 0
    for seed in seeds(range(25)):
        setup = Setup(workers=workers, clients=12, end=60, client_gap=0.5, subscriptions=same)
        shared += replayable(seed, setup).shared_moves
    assert shared, "nobody moves with others"


@pytest.mark.slow
def test_random_histories_at_length(long_run):
    """Each seed is 90 long histories, a tenth of a second each; how many of them is said by `MINUTES` alone."""
    for seed in long_run.seeds():
        worlds = [
            replayable(
                number,
                Setup(workers=workers, write_gap=write_gap, end=600, deploys=2),
                "make torture ONLY=random_histories_at_length SEED=",
            )
            for number, workers, write_gap in product(range(seed, seed + 10), [1, 2, 4], [0.5, 3.0, 20.0])
        ]
        long_run.record(
            "live results",
            seed,
            histories=len(worlds),
            commits=sum(len(world.states) for world in worlds),
            runs_of_queries=sum(world.runs for world in worlds),
        )


def test_histories_meet_every_kind_of_change():
    worlds = [World(seed, Setup()).run() for seed in range(20)]
    for kind in range(5):
        assert sum(world.changes[kind] for world in worlds), (
            f"no change of kind {kind}: the world is too tame"
        )
    assert sum(world.early_results for world in worlds), "no result comes before its ts is published"


@pytest.mark.parametrize(
    ("workers", "slow_ms", "fast_ms"), [(1, 140.0, 70.0), (2, 90.0, 25.0), (4, 90.0, 25.0)]
)
def test_nobody_starves_under_sustained_writes(workers, slow_ms, fast_ms):
    # A session with a query of 40 ms and a hot one, three with two hot ones, while a hot key is written all the time.
    subscriptions = {0: [("slow", 2), ("hot", 3)], **{key: [("hot", 3), ("hot", 4)] for key in (1, 2, 3)}}
    setup = Setup(
        workers=workers, clients=4, end=600, write_gap=0.5, deploys=0, death=0, churn=False,
        subscriptions=subscriptions, check_every=0,
    )  # fmt: skip
    for seed in range(3):
        world = World(seed, setup).run()
        assert world.lags[0] < slow_ms
        assert max(world.lags[number] for number in (1, 2, 3)) < fast_ms


def violations(core, patience=150, **setup):
    """Run seeds until the checker objects; return what it said, None if it never did."""
    for seed in range(patience):
        try:
            World(seed, Setup(check_every=0, **setup), core).run()
        except RuleBrokenError as violation:
            return str(violation)
    return None


def test_the_checker_accepts_the_rules_as_they_are():
    assert violations(ReactiveCore, patience=20) is None


def test_registration_without_looking_at_the_window_is_seen():
    class Gap(ReactiveCore):
        def _register(self, round_, need, result):
            window, self._window = self._window, self
            super()._register(round_, need, result)
            self._window = window

        def first_touch(self, after_ts, points, ranges):
            return None

    assert violations(Gap) is not None


def test_dropping_an_equal_result_with_its_registration_is_seen():
    class EqualDrop(ReactiveCore):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.read = {}

        def _register(self, round_, need, result):
            known = set(need.query.versions())
            super()._register(round_, need, result)
            for new in set(need.query.versions()) - known:
                self.read[new] = result
                for old in known:
                    same = old.content is new.content and old.private == new.private
                    if (
                        same
                        and old.journal == new.journal
                        and old.until < FOREVER == new.until
                        and old in self.read
                    ):
                        old.until = FOREVER
                        self.live.tracker.remove(new)
                        self.live.tracker.add(old, self.read[old].points, self.read[old].ranges)
                        for home in new.homes.copy():
                            home.release(new)
                        break

        def _collect(self):
            self.live.ended = [version for version in self.live.ended if version.until < FOREVER]
            for round_ in self._rounds.values():
                round_.pinned = [version for version in round_.pinned if version.until < FOREVER]
            super()._collect()

    assert violations(EqualDrop) is not None


def test_sharing_across_identities_is_seen(monkeypatch):
    def anybodys(self, identity, ts):
        return next((version for version in self.versions() if version.since <= ts < version.until), None)

    monkeypatch.setattr(LiveQuery, "result_at", anybodys)
    assert violations(ReactiveCore) is not None


def test_dropping_versions_that_open_rounds_need_is_seen():
    class NoPins(ReactiveCore):
        def _pins(self, round_, version):
            return False

    assert violations(NoPins) is not None


def test_waking_only_the_rounds_own_sessions_is_seen():
    class LostWakeUp(ReactiveCore):
        def _wake(self, query, round_):
            for view in list(query.views):
                if view.round is round_:
                    self._advance_all(view)

    assert violations(LostWakeUp) is not None


def test_answers_behind_the_transition_are_seen():
    class LateAnswers(ReactiveCore):
        def publish(self, ts, conflict_keys, answers, *writers):
            super().publish(ts, conflict_keys, [], *writers)
            for session, answer, at in answers:
                self._effects.at(0.3, self.answer, session, answer, at)

    assert violations(LateAnswers) == "an answer after a transition at its ts"


def test_choosing_what_to_run_before_the_snapshot_is_known_is_seen():
    class ChosenTooEarly(ReactiveCore):
        def _needs(self, round_):
            if hasattr(self, "chosen") and self.chosen is round_:
                return []
            self.chosen = round_
            opened, round_.ts = round_.ts, round_.opened_at
            needs = round_.needs()
            round_.ts = opened
            return needs

    assert violations(ChosenTooEarly) == "a round ends and has not moved its session"


POISONED = Setup(
    clients=3, churn=False, deploys=0, death=0, poisoned=frozenset({9}), end=400, lag_limit=200, check_every=0,
    subscriptions={0: [("poison", 9), ("hot", 3)], 1: [("hot", 3)], 2: [("sum", 1)]},
)  # fmt: skip


@pytest.mark.parametrize("workers", [1, 2])
def test_a_query_that_is_always_killed_does_not_hold_its_session(workers):
    for seed in range(5):
        world = World(seed, replace(POISONED, workers=workers)).run()
        assert world.clients[0].moves > 20
        assert world.changes[3] >= 1


def test_killed_queries_that_bind_the_common_ts_are_seen():
    class NotExempt(ReactiveCore):
        def _kill(self, need, error):
            pass

    with pytest.raises(RuleBrokenError, match="a session stands still"):
        World(0, POISONED, NotExempt).run()


def test_a_snapshot_that_is_not_held_until_it_is_published_is_seen():
    class NotHeld(ReactiveCore):
        def _hold(self, ts, release):
            release()

    assert violations(NotHeld) is not None


def test_a_lost_round_of_a_dead_worker_is_seen():
    class LostRound(ReactiveCore):
        def remove_worker(self, worker, *, retired=False):
            self._workers.pop(worker, None)
            self._start_rounds()

    assert violations(LostRound) is not None


def test_an_answer_that_no_transition_covers_is_seen():
    class Uncovered(ReactiveCore):
        def _answer(self, session, answer, ts):
            if not session.closed:
                due, cover = session.due, session.cover
                session.take_answer(answer, ts)
                session.due, session.cover = due, cover
                self._advance(session)

    assert violations(Uncovered) is not None


def test_a_change_that_is_shared_without_regard_to_what_a_client_holds_is_seen():
    class OneBase(ReactiveCore):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            change, first = self._bodies.change, {}
            self._bodies.change = lambda shown, content, journal: first.setdefault(
                (content.digest, journal), change(shown, content, journal)
            )

    assert violations(OneBase) is not None


def test_a_session_that_is_put_back_and_starts_no_round_is_seen():
    class Sleepers(ReactiveCore):
        def unblock(self, session):
            if session.blocked and not session.closed:
                session.blocked = False
                self._views.join(session)
                self._advance(session)

    with pytest.raises(AssertionError, match="idle while views wait"):
        World(1, Setup(check_every=1), Sleepers).run()


def test_need_compares_query_and_identity():
    query = object()
    assert Need(query, b"a") == Need(query, b"a") != Need(query, None)
