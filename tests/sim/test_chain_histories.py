"""Histories of calls in chains and outside, of which each saw what it would have seen alone in commit order."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from headwater_server.functions.lane import Lane, LaneChain
from headwater_server.functions.mutations import Decision
from headwater_storage.chain import Chain, ChainSnapshot
from support.lane_world import LaneWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from headwater_server.functions.mutations import MutationCall
    from headwater_storage.proposal import Proposal
    from support.runs import LongRun

STEPS = 250
SEEDS = 25


def play(seed: int, steps: int = STEPS) -> LaneWorld:
    world = LaneWorld(seed)
    try:
        asyncio.run(world.play(steps))
    except BaseException as error:
        error.add_note(f"seed {seed}")
        raise
    return world


def play_all(seeds: Iterable[int]) -> list[LaneWorld]:
    return [play(seed) for seed in seeds]


def test_every_call_saw_what_it_would_have_seen_alone() -> None:
    worlds = play_all(range(SEEDS))
    assert sum(len(world.seen) for world in worlds) > SEEDS * STEPS / 10
    for name in ("chains", "members", "reruns"):
        total = sum(
            world.metrics.registry.get_sample_value(f"headwater_lane_{name}_total") or 0 for world in worlds
        )
        assert total > SEEDS, f"few {name}: the runs try nothing"
    assert sum(world.refused for world in worlds) > 0


@pytest.mark.slow
def test_every_call_saw_what_it_would_have_seen_alone_for_long(long_run: LongRun) -> None:
    for seed in long_run.seeds():
        world = play(seed, 2_000)
        long_run.record("calls in chains are serializable", seed, operations=len(world.seen))


def _shows_nothing(self: ChainSnapshot, writes: Any) -> None:
    """The overlay is not applied."""


def _always_stands(self: Chain, proposal: Proposal) -> bool:
    """What others wrote is not looked at."""
    return True


def _knows_no_lost_members(self: Chain, proposal: Proposal) -> None:
    """A member falls alone."""
    self.failed = True


def _answers_readers_early(self: Lane, call: MutationCall, proposal: Proposal, written_bytes: int) -> None:
    """A member without writes is answered as it comes back."""
    if proposal.writes:
        _ran(self, call, proposal, written_bytes)
        return
    self.left(call)
    call.decided(call, Decision(proposal.begin_ts, call.outcome, None))
    self.decided(call)


def _takes_back_what_ran(self: Lane, call: MutationCall) -> None:
    """One that ran over a member which went back commits all the same."""
    _sent_back(self, call)
    for chain in _chains:
        chain.torn = False


_ran, _sent_back = Lane.ran, Lane.sent_back
_chains: list[LaneChain] = []


def _noted(*arguments: Any) -> LaneChain:
    chain = LaneChain(*arguments)
    _chains.append(chain)
    return chain


@pytest.mark.parametrize(
    ("owner", "name", "broken"),
    [
        (ChainSnapshot, "lay_over", _shows_nothing),
        (Chain, "stands", _always_stands),
        (Chain, "fail", _knows_no_lost_members),
        (Lane, "ran", _answers_readers_early),
        (Lane, "sent_back", _takes_back_what_ran),
    ],
)
def test_the_histories_are_wrong_without_a_part_of_it(
    owner: type, name: str, broken: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(owner, name, broken)
    monkeypatch.setattr("headwater_server.functions.lane.LaneChain", _noted)
    with pytest.raises(AssertionError, match="saw"):
        play_all(range(200))
