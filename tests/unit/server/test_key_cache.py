"""When keys are fetched: any order of tokens, time, answers and outages, against what must always hold."""

from __future__ import annotations

import pytest
from headwater_server.identity.key_cache import CacheOptions, KeyCache, Want
from headwater_server.identity.key_sets import KeySet, PublicKey
from headwater_server.identity.refusal import RefusedTokenError
from headwater_server.identity.tokens import SignedToken
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

OPTIONS = CacheOptions(pause_s=60, age_s=600, kept_s=3600)
FIRST_PAUSE_S = 5


def signed(key_id: str) -> SignedToken:
    return SignedToken("ES256", key_id, {}, b"", b"x")


def keys(*names: str) -> KeySet:
    return KeySet(tuple(PublicKey(name, frozenset({"ES256"}), None) for name in names))


def kept(cache: KeyCache, now_s: float) -> KeySet | None:
    try:
        return cache.keys(now_s)
    except RefusedTokenError as refusal:
        return None if refusal.may_pass_later else keys()


class Fetches(RuleBasedStateMachine):
    """A provider with keys `a` or `b`, tokens that name either, and time."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = KeyCache(OPTIONS)
        self.now_s = 1000.0
        self.fetching = False
        self.began: list[float] = []
        self.held: tuple[float, KeySet] | None = None

    @rule(seconds=st.sampled_from([0.5, 4.9, 5.0, 30.0, 60.0, 599.0, 601.0, 1300.0, 3700.0]))
    def time_goes_on(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(name=st.sampled_from("ab"))
    def a_token_comes(self, name: str) -> None:
        want = self.cache.want(signed(name), self.now_s)
        had = kept(self.cache, self.now_s)
        fits = had is not None and bool(had.fitting(signed(name)))
        if self.fetching:
            assert want is (Want.NOTHING if fits else Want.KEYS)
            return
        if want is not Want.NOTHING:
            pause_s = OPTIONS.pause_s if had is not None else FIRST_PAUSE_S
            assert not self.began or self.now_s - self.began[-1] >= pause_s
            self.began.append(self.now_s)
            self.fetching = True
            self.cache.begin(self.now_s)
        elif not self.began or self.now_s - self.began[-1] >= OPTIONS.pause_s:
            assert fits
            assert self.held is not None
            assert self.now_s - self.held[0] < OPTIONS.age_s
        if want is Want.REFRESH:
            assert fits

    @precondition(lambda self: self.fetching)
    @rule(names=st.sampled_from(["a", "b", "ab"]))
    def keys_come(self, names: str) -> None:
        found = keys(*names)
        self.fetching, self.held = False, (self.now_s, found)
        self.cache.succeed(found, self.now_s)

    @precondition(lambda self: self.fetching)
    @rule()
    def none_come(self) -> None:
        self.fetching = False
        self.cache.fail("nobody answers")

    @invariant()
    def the_last_good_ones_count_until_they_are_too_old(self) -> None:
        expected = None
        if self.held is not None and self.now_s - self.held[0] < OPTIONS.kept_s:
            expected = self.held[1]
        assert kept(self.cache, self.now_s) is expected


test_fetches = Fetches.TestCase


def test_a_rotation_is_seen_at_once_and_then_once_a_minute() -> None:
    cache = KeyCache(OPTIONS)
    assert cache.want(signed("a"), 0) is Want.KEYS
    cache.begin(0)
    cache.succeed(keys("a"), 0)
    assert cache.want(signed("a"), 59) is Want.NOTHING
    assert (
        cache.want(signed("b"), 59) is Want.NOTHING
    )  # a token that names nothing known, a moment after a fetch
    assert cache.want(signed("b"), 60) is Want.KEYS
    cache.begin(60)
    cache.succeed(keys("a", "b"), 61)
    assert [cache.want(signed("x"), at) for at in (61, 119, 120)] == [Want.NOTHING, Want.NOTHING, Want.KEYS]


def test_old_keys_are_fetched_again_meanwhile_and_very_old_ones_first() -> None:
    cache = KeyCache(OPTIONS)
    cache.begin(0)
    cache.succeed(keys("a"), 0)
    wants = [cache.want(signed("a"), at) for at in (599, 600, 1199, 1200)]
    assert wants == [Want.NOTHING, Want.REFRESH, Want.REFRESH, Want.KEYS]


def test_an_outage_is_told_with_its_reason() -> None:
    cache = KeyCache(OPTIONS)
    cache.begin(0)
    cache.fail("nobody answers")
    with pytest.raises(RefusedTokenError, match="the provider's keys cannot be had: nobody answers"):
        cache.keys(0)
    assert [cache.want(signed("a"), at) for at in (4.9, 5)] == [Want.NOTHING, Want.KEYS]
