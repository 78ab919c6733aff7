"""Rate limits against an exact model in fractions: the same calls are let through, and the same times are told."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from headwater.rate_arithmetic import FixedWindowRule, Level, Rule, TokenBucketRule
from hypothesis import given
from hypothesis import strategies as st

RULES = st.builds(
    lambda kind, rate, period_us, more, shards: kind(rate, period_us, max(rate, shards) + more, shards),
    st.sampled_from([TokenBucketRule, FixedWindowRule]),
    st.integers(1, 50),
    st.integers(1, 10**7),
    st.integers(0, 50),
    st.integers(1, 4),
)
STEPS = st.lists(st.tuples(st.integers(0, 3 * 10**6), st.integers(0, 40), st.booleans()), max_size=40)


class Model:
    """One shard, in tokens and fractions."""

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.rate = Fraction(rule.rate, rule.shards)
        self.full = Fraction(rule.capacity, rule.shards)
        self.left = self.full
        self.at_us = 0

    def pass_until(self, now_us: int) -> None:
        if isinstance(self.rule, TokenBucketRule):
            gained = self.rate * Fraction(now_us - self.at_us, self.rule.period_us)
        else:
            gained = self.rate * (now_us // self.rule.period_us - self.at_us // self.rule.period_us)
        self.left = min(self.full, self.left + gained)
        self.at_us = now_us

    def has(self, tokens: Fraction, after_us: int) -> bool:
        later = Model(self.rule)
        later.left, later.at_us = self.left, self.at_us
        later.pass_until(self.at_us + after_us)
        return later.left >= tokens


@given(RULES, STEPS)
def test_what_is_let_through_is_what_the_model_lets_through(
    rule: Rule, steps: list[tuple[int, int, bool]]
) -> None:
    model, level, now_us = Model(rule), None, 0
    for pause_us, count, reserve in steps:
        now_us += pause_us
        model.pass_until(now_us)
        found = rule.now(level, now_us)
        assert Fraction(found.parts, rule.token) == model.left
        parts = count * rule.token
        if parts > rule.full:
            continue
        least = Fraction(count) - (model.full if reserve else 0)
        wanted = parts - rule.full if reserve else parts
        wait_us = rule.wait_us(found, wanted)
        assert model.has(least, wait_us), "after the wait it is there"
        assert wait_us == 0 or not model.has(least, wait_us - 1), "and not a microsecond before"
        if model.left >= least:
            assert wait_us == 0
            model.left -= count
            found = Level(found.parts - parts, found.at_us)
        level = found


@given(RULES, STEPS)
def test_never_more_than_capacity_and_rate_is_let_through(
    rule: Rule, steps: list[tuple[int, int, bool]]
) -> None:
    """Whatever is asked for when: between any two moments no more than what was full and what came in since."""
    level, now_us, taken = None, 0, 0
    for pause_us, count, _ in steps:
        now_us += pause_us
        found = rule.now(level, now_us)
        if count * rule.token <= found.parts:
            found = Level(found.parts - count * rule.token, found.at_us)
            taken += count
        level = found
        periods = Fraction(now_us, rule.period_us)
        if isinstance(rule, FixedWindowRule):
            periods = Fraction(floor(periods))
        assert taken * rule.shards <= rule.capacity + rule.rate * periods


@pytest.mark.parametrize("kind", [TokenBucketRule, FixedWindowRule])
def test_a_clock_that_goes_back_gives_nothing(kind: type[Rule]) -> None:
    rule = kind(10, 1_000_000, 10)
    used = Level(0, 5_000_000)
    assert rule.now(used, 4_000_000) == used
    assert rule.now(used, 6_000_000).parts == rule.full


@given(RULES, st.integers(0, 10**15), st.integers(0, 10**9))
def test_after_so_long_every_level_is_full(rule: Rule, at_us: int, depth: int) -> None:
    """Also the lowest there can be, from which as much as a shard holds was taken ahead of time."""
    least = Level(-rule.full, at_us)
    higher = Level(rule.full - depth % (2 * rule.full + 1), at_us)
    for level in (least, higher):
        assert rule.now(level, at_us + rule.full_after_us).parts == rule.full
    if isinstance(rule, TokenBucketRule):
        assert rule.now(least, at_us + rule.full_after_us - 1).parts < rule.full
