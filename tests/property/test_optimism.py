"""Optimistic updates never flicker: every value that is shown has every pending change exactly once."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from headwater_protocol.client_session import ClientSession
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.flickering_sessions import BROKEN, Partial
from support.optimism_trial import STEPS, run

if TYPE_CHECKING:
    from support.runs import LongRun


@settings(max_examples=600, deadline=None)
# A resend is answered with a ts behind that of its commit: its change came twice until that ts was reached.
@example(["call", "hear", "lose", "hear", "tell", "write"])
@given(st.lists(st.sampled_from(STEPS), max_size=100))
def test_every_value_shows_every_pending_change_once(steps: list[str]) -> None:
    run(ClientSession(b"s" * 16, "test"), steps)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_optimism_at_length(long_run: LongRun) -> None:
    for seed in long_run.seeds():
        chance, values, calls, parts = random.Random(seed), 0, 0, 0
        for _ in range(500):
            weights = [chance.random() ** 2 for _ in STEPS]
            steps = chance.choices(STEPS, weights, k=chance.choice((30, 100, 300)))
            trial = run(ClientSession(b"s" * 16, "test"), steps)
            values, calls, parts = values + trial.values, calls + len(trial.called), parts + trial.parts
        long_run.record("optimism", seed, values=values, calls=calls, parts=parts)


@pytest.mark.parametrize("broken", [*BROKEN, Partial])
def test_a_session_that_flickers_is_found(broken: type[ClientSession]) -> None:
    def flickers(seed: int) -> bool:
        steps = random.Random(seed).choices(STEPS, k=60)
        run(ClientSession(b"s" * 16, "test"), steps)
        try:
            run(broken(b"s" * 16, "test"), steps)
        except AssertionError:
            return True
        return False

    assert sum(flickers(seed) for seed in range(30)) >= 3
