"""Rates with bursts: never more than the rate and one burst, whatever is taken when."""

from __future__ import annotations

import random

import pytest
from headwater_server.net.token_bucket import Rate, TokenBucket


def test_a_burst_is_there_at_once_and_the_rate_from_then_on() -> None:
    bucket = TokenBucket(Rate(4, 2))
    for _ in range(8):
        assert bucket.wait_s(100) == 0
        bucket.take(100)
    assert bucket.wait_s(100) == 0.25
    assert bucket.wait_s(100.25) == 0
    bucket.take(100.25)
    assert bucket.wait_s(100.25) == 0.25


def test_a_pause_gives_one_burst_and_no_more() -> None:
    bucket = TokenBucket(Rate(4, 2))
    bucket.take(0, 8)
    for _ in range(8):
        assert bucket.wait_s(1_000) == 0
        bucket.take(1_000)
    assert bucket.wait_s(1_000) > 0


def test_what_was_taken_ahead_is_owed() -> None:
    bucket = TokenBucket(Rate(4, 2))
    bucket.take(0, 20)
    assert bucket.owes_s(0) == 3
    assert bucket.wait_s(0) == 3.25
    assert bucket.owes_s(3) == 0
    assert bucket.owes_s(2.5) == 0.5


@pytest.mark.parametrize("seed", range(20))
def test_in_no_span_of_time_more_is_let_through_than_its_rate_and_a_burst(seed: int) -> None:
    chance = random.Random(seed)
    rate = Rate(chance.choice([1, 3.5, 100]), chance.choice([4, 5.5, 30]))
    bucket, now_s, let_in = TokenBucket(rate), 0.0, []
    for _ in range(2_000):
        now_s += chance.expovariate(rate.per_s * 2)
        if bucket.wait_s(now_s) == 0:
            bucket.take(now_s)
            let_in.append(now_s)
    for first in range(0, len(let_in), 7):
        for last in range(first, len(let_in), 11):
            span_s = let_in[last] - let_in[first]
            assert last - first + 1 <= rate.per_s * (span_s + rate.burst_s) + 1e-6
    refused = len(let_in) < 2_000
    assert refused, "the limit was met"
    assert len(let_in) >= rate.per_s * now_s * 0.9, "and what it allows was let through"
